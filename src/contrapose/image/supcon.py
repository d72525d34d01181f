"""SupCon: all images of a label are positives of each other."""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.image._heads import mlp
from contrapose.image.views import ViewSettings, views_of
from contrapose.objectives import supervised
from contrapose.training.method import Card, Terms, View, ViewMethod


class SupCon(ViewMethod):
    r"""Learn from labelled images: views of all images with one label are pulled together, those of other labels pushed apart.

    Pick it where every image has a label and what is wanted are vectors (retrieval, few labels later on), not only a classifier. Without labels
    use `simclr`, of which this is the form with labels. A probe on the vectors gives the classifier.

    With the 2b views $z$ of a batch, $P(i)$ the views with label $y_i$ beside i itself, cosines $s$ and temperature $\tau$,

    $$L = \frac{1}{2b} \sum_{i} \frac{-1}{|P(i)|} \sum_{p \in P(i)} \log \frac{e^{s(z_i, z_p)/\tau}}{\sum_{k \neq i} e^{s(z_i, z_k)/\tau}}.$$

    At chance $L = \log(2b - 1)$. The other view of an image is always among its positives, so that a label with one image in the batch is no harm.

    Khosla et al., NeurIPS 2020, equation 2 ("out"); their equation 3 is not offered, being worse and a different loss.
    """

    card = Card(
        modality="image",
        title="SupCon: supervised contrastive learning",
        paper="Supervised Contrastive Learning",
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2004.11362",
        columns=(
            Column("image", "image", "An image."),
            Column("label", "label", "What it is: images with one label are positives of each other."),
        ),
    )

    class Settings(ViewSettings):
        # section 4: temperature 0.1, projection 128
        temperature: PositiveFloat = Field(0.1, description="Divides the cosines.")
        hidden: PositiveInt | None = Field(
            None, description="Width of the head's hidden layer; empty: that of the network's vectors."
        )
        projection: PositiveInt = Field(128, description="Dimensions of the head's output.")

    def build(self, facts: Facts) -> None:
        dim = self.encoder.dim
        self.head = mlp([dim, self.settings.hidden or dim, self.settings.projection], norm=False)

    def views(self, batch: Batch) -> dict[str, View]:
        first, second = views_of(self.encoder.pixels(batch["image"]), batch, self.settings)
        return {"first": View(first), "second": View(second)}

    def embed(self, view: View) -> Tensor:
        return self.head(self.encoder(view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        views = torch.cat([embeddings["first"], embeddings["second"]])
        return {"supcon": supervised(views, labels=batch["label"].repeat(2), temperature=self.settings.temperature)}

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"supcon": math.log(2 * len(batch) - 1)}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return 2 * batch_size - 2

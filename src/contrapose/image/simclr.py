"""SimCLR: two views of an image agree, all other images disagree."""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.image._heads import mlp
from contrapose.image.views import ViewSettings, views_of
from contrapose.objectives import nt_xent
from contrapose.training.method import Card, Terms, View, ViewMethod


class SimCLR(ViewMethod):
    r"""Learn from images without labels: two random views of an image are a positive pair, all other views of the batch are negatives.

    Pick it first for unlabelled images: it is the plainest method, and a large batch is all that it asks for. With small batches use `moco`,
    whose negatives are stored, or `byol` and `simsiam`, which have none; with labels use `supcon`.

    A network gives $h$, a head $z = W_2\,\mathrm{ReLU}(\mathrm{BN}(W_1 h))$ of the 2b views, and with cosines $s$ and temperature $\tau$

    $$L = -\frac{1}{2b} \sum_{i=1}^{2b} \log \frac{e^{s(z_i, z_{i'})/\tau}}{\sum_{k \neq i} e^{s(z_i, z_k)/\tau}},$$

    $i'$ being the other view of the same image. What is kept is $h$; the head is thrown away. At chance $L = \log(2b - 1)$.

    The head's BatchNorm sees the views of the whole batch, over all processes too; a BatchNorm of the network sees those of one view
    on its own process.

    Chen et al., ICML 2020, equation 1 and algorithm 1; views as in appendix A.
    """

    card = Card(
        modality="image",
        title="SimCLR: contrastive learning of visual representations",
        paper="A Simple Framework for Contrastive Learning of Visual Representations",
        venue="ICML",
        year=2020,
        url="https://arxiv.org/abs/2002.05709",
        columns=(Column("image", "image", "An image."),),
    )

    class Settings(ViewSettings):
        # appendix B.9: 0.5 for CIFAR-10; 0.1 for ImageNet
        temperature: PositiveFloat = Field(0.5, description="Divides the cosines.")
        hidden: PositiveInt | None = Field(
            None, description="Width of the head's hidden layer; empty: that of the network's vectors."
        )
        projection: PositiveInt = Field(128, description="Dimensions of the head's output.")

    def build(self, facts: Facts) -> None:
        dim = self.encoder.dim
        self.head = mlp([dim, self.settings.hidden or dim, self.settings.projection])

    def views(self, batch: Batch) -> dict[str, View]:
        first, second = views_of(self.encoder.pixels(batch["image"]), batch, self.settings)
        return {"first": View(first), "second": View(second)}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        first, second = self.head(torch.cat([embeddings["first"], embeddings["second"]])).chunk(2)
        return {"nt_xent": nt_xent(first, second, temperature=self.settings.temperature, group=batch.group)}

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"nt_xent": math.log(2 * len(batch) - 1)}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return 2 * batch_size - 2

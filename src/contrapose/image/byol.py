"""BYOL: one network foretells what a slow copy of it sees; no negatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, PositiveInt
from torch import Tensor

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.image._heads import deviation, mlp
from contrapose.image._schedule import rising, steps_of
from contrapose.image.views import ViewSettings, views_of
from contrapose.negatives import MomentumCopy
from contrapose.objectives import negative_cosine
from contrapose.training.method import Card, Terms, View, ViewMethod


class BYOL(ViewMethod):
    r"""Learn from images without labels and without negatives: foretell a slow copy's vector of another view of the same image.

    Pick it where two images of a batch often show the same thing, so that negatives would push apart what belongs together, and where
    batches are small. Nothing in the loss forbids one vector for all images; the prediction head and the slow copy keep from it, and
    "deviation", logged beside the loss, says whether they do: about 1/√d for spread vectors of d dimensions, near 0 for collapsed ones.

    With the online network and head $z$, the prediction head $q(z)$ and the copy's $z'$, both views either way,

    $$L = \frac{1}{b} \sum_i \Big(2 - 2\cos(q(z_i^1), z'^2_i)\Big) + \Big(2 - 2\cos(q(z_i^2), z'^1_i)\Big).$$

    The copy moves after the step, $\xi \leftarrow m \xi + (1 - m)\theta$, with m rising to 1 along half a cosine. It is in evaluation mode,
    with the running statistics of the online network's BatchNorm (EMAN: Cai et al., 2021), where the official code takes those of the batch.

    Grill et al., NeurIPS 2020, equations 1 to 3 and appendix A.
    """

    card = Card(
        modality="image",
        title="BYOL: bootstrap your own latent",
        paper="Bootstrap Your Own Latent: A New Approach to Self-Supervised Learning",
        venue="NeurIPS",
        year=2020,
        url="https://arxiv.org/abs/2006.07733",
        columns=(Column("image", "image", "An image."),),
    )

    class Settings(ViewSettings):
        # section 3.2: hidden 4096, output 256, momentum 0.996 for 1,000 epochs and 0.99 for 300
        momentum: float = Field(0.99, ge=0, le=1, description="Of the slow copy, at the start.")
        momentum_schedule: Literal["cosine", "constant"] = Field(
            "cosine", description="cosine: it rises to 1 by the end."
        )
        hidden: PositiveInt | None = Field(
            None, description="Width of the heads' hidden layers; empty: twice that of the network's vectors."
        )
        projection: PositiveInt = Field(128, description="Dimensions of what is foretold.")

    def build(self, facts: Facts) -> None:
        dim, settings = self.encoder.dim, self.settings
        hidden = settings.hidden or 2 * dim
        self.steps = steps_of(settings, facts)
        self.head = mlp([dim, hidden, settings.projection])
        self.predictor = mlp([settings.projection, hidden, settings.projection])
        self.target_encoder, self.target_head = MomentumCopy(self.encoder), MomentumCopy(self.head)

    def views(self, batch: Batch) -> dict[str, View]:
        first, second = views_of(self.encoder.pixels(batch["image"]), batch, self.settings)
        return {
            "online1": View(first),
            "online2": View(second),
            "target1": View(first, encoder="target", gradient=False),
            "target2": View(second, encoder="target", gradient=False),
        }

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs) if view.encoder == "online" else self.target_encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        seen = {name: self.head(embeddings[name]) for name in ("online1", "online2")}
        foretold = {name: self.predictor(vectors) for name, vectors in seen.items()}
        targets = {name: self.target_head(embeddings[name]) for name in ("target1", "target2")}
        self.watch("deviation", deviation(seen["online1"]))
        loss = (
            4
            + 2 * negative_cosine(foretold["online1"], targets["target2"])
            + 2 * negative_cosine(foretold["online2"], targets["target1"])
        )
        return {"byol": loss}

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        momentum = self.settings.momentum
        if self.settings.momentum_schedule == "cosine":
            momentum = rising(momentum, batch.step, self.steps)
        self.target_encoder.update(self.encoder, momentum)
        self.target_head.update(self.head, momentum)

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"byol": 4.0}

"""SimSiam: foretell the other view, with no negatives, no queue and no slow copy."""

from __future__ import annotations

from pydantic import Field, PositiveInt
from torch import Tensor

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.image._heads import deviation, mlp
from contrapose.image.views import ViewSettings, views_of
from contrapose.objectives import negative_cosine
from contrapose.training.method import Card, Terms, View, ViewMethod


class SimSiam(ViewMethod):
    r"""Learn from images without labels and without negatives, with one network alone.

    Pick it where `byol` is wanted at half its cost: there is no copy. What keeps all vectors from becoming one is the prediction head and that no
    gradient flows into what is foretold. Watch "deviation": about 1/√d for spread vectors of d dimensions, near 0 for collapsed ones.

    With heads $z$ and $p = h(z)$ of either view and $\mathrm{sg}$ a stopped gradient,

    $$L = -\frac{1}{2b} \sum_i \cos(p_i^1, \mathrm{sg}(z_i^2)) + \cos(p_i^2, \mathrm{sg}(z_i^1)).$$

    It lies between -1 and 1. The official code keeps the prediction head's learning rate where it is; here all rates follow `schedule`.

    Chen and He, CVPR 2021, equations 1 to 4 and algorithm 1.
    """

    card = Card(
        modality="image",
        title="SimSiam: simple siamese representation learning",
        paper="Exploring Simple Siamese Representation Learning",
        venue="CVPR",
        year=2021,
        url="https://arxiv.org/abs/2011.10566",
        columns=(Column("image", "image", "An image."),),
    )

    class Settings(ViewSettings):
        # section 3: projection 2048 in three layers, the predictor's hidden layer a quarter of it (512)
        projection: PositiveInt | None = Field(
            None,
            description="Dimensions of what is foretold, and width of the projection head; empty: those of the network's vectors.",
        )
        hidden: PositiveInt | None = Field(
            None, description="Width of the prediction head's hidden layer; empty: a quarter of the projection."
        )

    def build(self, facts: Facts) -> None:
        dim = self.encoder.dim
        projection = self.settings.projection or dim
        self.head = mlp([dim, projection, projection, projection], last_norm=True)
        self.predictor = mlp([projection, self.settings.hidden or max(1, projection // 4), projection])

    def views(self, batch: Batch) -> dict[str, View]:
        first, second = views_of(self.encoder.pixels(batch["image"]), batch, self.settings)
        return {"first": View(first), "second": View(second)}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        first, second = (self.head(embeddings[name]) for name in ("first", "second"))
        self.watch("deviation", deviation(first))
        ways = [negative_cosine(self.predictor(first), second), negative_cosine(self.predictor(second), first)]
        return {"negative_cosine": (ways[0] + ways[1]) / 2}

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"negative_cosine": 0.0}

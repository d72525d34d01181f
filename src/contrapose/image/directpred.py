"""DirectPred: no negatives, and a linear predictor that is computed from what the features are, not learned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.geometry import effective_rank
from contrapose.image._dynamics import Trajectory, linear_dynamics
from contrapose.image._heads import deviation, mlp
from contrapose.image._predictor import (
    Correlation,
    Form,
    byol_loss,
    eigenspace_alignment,
    predictor_weights,
)
from contrapose.image.views import ViewSettings, views_of
from contrapose.negatives import MomentumCopy
from contrapose.training.method import Card, Terms, Update, View, ViewMethod

__all__ = [
    "Correlation",
    "DirectPred",
    "Trajectory",
    "byol_loss",
    "deviation",
    "eigenspace_alignment",
    "linear_dynamics",
    "predictor_weights",
]


class DirectPred(ViewMethod):
    r"""Learn from images without labels and without negatives, with a linear predictor that is set from the features' correlation.

    Pick it for small batches, where SimCLR has too few negatives and the trained predictor of `byol` and `simsiam` is one more thing to tune.
    With large batches, `simclr`; with labels, `supcon`.

    The network and a head give $f_1, f_2$ of shape (b, d) for two views of an image, a slow copy of both $g_1, g_2$ without gradient, and with
    the predictor $W_p$

    $$L = \frac{1}{b} \sum_i D(W_p f_1, g_2) + D(W_p f_2, g_1), \qquad D(p, g) = -2 \cos(p, g).$$

    The correlation of features is averaged over steps, $\hat C \leftarrow \rho \hat C + (1 - \rho)\, \frac{1}{2b} \sum f f^\top$, and after every
    `freq` steps $W_p = U\,\mathrm{diag}(\sqrt{s_j / \max s} + \epsilon)\,U^\top$ with $\hat C = U\,\mathrm{diag}(s)\,U^\top$. This is where a
    trained linear predictor tends to: weight decay holds $W_p^2$ and the correlation in balance. The loss is 0 at chance, and -4 where all
    images have one vector, so it says nothing of a collapse: watch `deviation` (1 / √d on the whole sphere, 0 at a collapse) and
    `projection_rank`.

    Where paper and code differ: the paper's equations have $\sqrt{s_j} + \epsilon \max s$ (`form="paper"`), whose $\epsilon$ depends on the
    features' scale; the default is the code's. The code leaves the slow copy at random weights of its own; here it starts as a copy. The
    correlation is that of all processes, where the code takes each one's own. The gradient of `freq > 1` between two settings, the
    code's best row, moves $W_p$ by an optimiser of its own.

    Tian et al., ICML 2021; official code facebookresearch/luckmatters, folder ssl/real-dataset, at 625b5f7.

    **Pitfalls.** The weight decay is part of the method: without it predictor and network lose their balance, and a large one lets all directions
    die. `predictor` other than "direct" is there for comparison; "identity" and `stop_gradient=False` collapse.
    """

    card = Card(
        modality="image",
        title="DirectPred: a predictor from the correlation of features",
        paper="Understanding self-supervised Learning Dynamics without Contrastive Pairs",
        venue="ICML",
        year=2021,
        url="https://arxiv.org/abs/2102.06810",
        columns=(Column("image", "image", "An image."),),
    )

    class Settings(ViewSettings):
        # the official README and byol_config.yaml; eps as in the paper's main table
        batch_size: PositiveInt = Field(128, description="Images in a batch, over all processes.")
        optimiser: Literal["adamw", "adam", "sgd"] = Field("sgd", description="Optimiser of every update.")
        learning_rate: NonNegativeFloat = Field(0.03, description="Peak learning rate.")
        sgd_momentum: float = Field(0.9, ge=0, lt=1, description="Share of the last step that SGD keeps; of sgd alone.")
        weight_decay: NonNegativeFloat = Field(4e-4, description="Decay of weight matrices; part of the method.")
        schedule: Literal["linear", "cosine", "constant"] = Field(
            "constant", description="How the learning rate falls to 0 after the warm-up."
        )
        projection: PositiveInt = Field(128, description="Dimensions d of the head's output.")
        hidden: PositiveInt | None = Field(
            512, description="Width of the head's hidden layer; empty: a linear head, as the theory has it."
        )
        predictor: Literal["direct", "sgd", "symmetric", "mlp", "identity"] = Field(
            "direct",
            description="direct: set from the correlation; trained: sgd (linear), symmetric (linear, made symmetric after each step), mlp (BYOL's); identity: none.",
        )
        form: Form = Field("official", description="How the predictor follows from the correlation.")
        rho: float | None = Field(
            0.3, ge=0, lt=1, description="Weight of the past in the correlation; empty: all steps count alike."
        )
        eps: NonNegativeFloat = Field(0.1, description="What directions without variance get.")
        root: PositiveFloat = Field(2.0, description="Which root of the eigenvalues; the theory has 2.")
        centred: bool = Field(False, description="Take the running mean off the correlation.")
        freq: PositiveInt = Field(
            1,
            description="Steps between two settings of the predictor; between them it is trained. 5 is the paper's best.",
        )
        predictor_learning_rate: NonNegativeFloat | None = Field(
            None, description="Of a predictor that is trained; empty: the others'."
        )
        target_momentum: float = Field(
            0.996, ge=0, le=1, description="Of the slow copy; 0: the network as the last step left it."
        )
        stop_gradient: bool = Field(
            True, description="False: the targets are the features themselves, with gradient; it collapses."
        )

    def build(self, facts: Facts) -> None:
        settings, d = self.settings, self.settings.projection
        self.head = nn.Linear(self.encoder.dim, d)
        if settings.hidden:
            norm = nn.BatchNorm1d(settings.hidden, affine=False)
            self.head = nn.Sequential(
                nn.Linear(self.encoder.dim, settings.hidden), norm, nn.ReLU(), nn.Linear(settings.hidden, d)
            )
        self.predictor = nn.Identity() if settings.predictor == "identity" else nn.Linear(d, d, bias=False)
        if settings.predictor == "mlp":
            self.predictor = mlp([d, settings.hidden or d, d])
        if settings.predictor == "direct" and settings.freq == 1:
            self.predictor.requires_grad_(False)  # what a gradient step would do is written over
        self.correlation = Correlation(d, settings.rho)
        if settings.stop_gradient:
            self.target_encoder = MomentumCopy(self.encoder, batch_statistics=True)
            self.target_head = MomentumCopy(self.head, batch_statistics=True)

    def updates(self) -> list[Update]:
        """The network and head by one optimiser, a predictor that is trained by another; both by the gradients of one forward pass."""
        own = [parameter for parameter in self.predictor.parameters() if parameter.requires_grad]
        others = [p for p in self.parameters() if p.requires_grad and all(p is not mine for mine in own)]
        updates = [Update(self.training_step, others)]
        if own:
            rate = self.settings.predictor_learning_rate
            updates.append(Update(self.predictor_step, own, optimiser="predictor", lr=rate))
        return updates

    def views(self, batch: Batch) -> dict[str, View]:
        first, second = views_of(self.encoder.pixels(batch["image"]), batch, self.settings)
        views = {"first": View(first), "second": View(second)}
        if self.settings.stop_gradient:
            views["first_target"] = View(first, encoder="target", gradient=False)
            views["second_target"] = View(second, encoder="target", gradient=False)
        return views

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs) if view.encoder == "online" else self.target_encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        features = self.head(embeddings["first"]), self.head(embeddings["second"])
        targets = features
        if self.settings.stop_gradient:
            targets = self.target_head(embeddings["first_target"]), self.target_head(embeddings["second_target"])
        self.seen = tuple(rows.detach() for rows in features), tuple(rows.detach() for rows in targets)
        return self.term(features, targets)

    def predictor_step(self, batch: Batch) -> Terms:
        """The same term of the same features, for the predictor alone."""
        return self.term(*self.seen)

    def term(self, features: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor]) -> Terms:
        predictions = self.predictor(features[0]), self.predictor(features[1])
        return {"byol": byol_loss(predictions, targets, stop_gradient=self.settings.stop_gradient)}

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        settings, features = self.settings, self.seen[0]
        self.correlation.update(*features)
        correlation = self.correlation.matrix(centred=settings.centred)
        if settings.predictor == "direct" and batch.step % settings.freq == 0:
            weights = predictor_weights(correlation, form=settings.form, eps=settings.eps, root=settings.root)
            self.predictor.weight.copy_(weights)
        elif settings.predictor == "symmetric":
            self.predictor.weight.copy_((self.predictor.weight + self.predictor.weight.T) / 2)
        if settings.stop_gradient:
            self.target_encoder.update(self.encoder, settings.target_momentum)
            self.target_head.update(self.head, settings.target_momentum)
        self.watch("deviation", deviation(features[0]))
        if (batch.step + 1) % settings.log_every == 0 and len(features[0]) > 1:
            self.watch("projection_rank", effective_rank(features[0]))
            if isinstance(self.predictor, nn.Linear):
                self.watch("eigenspaces", eigenspace_alignment(self.predictor.weight, correlation))

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"byol": 0.0}

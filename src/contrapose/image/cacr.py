"""CACR: far positives pull more, near negatives push more, and the two are told apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.image._heads import mlp
from contrapose.image.views import ViewSettings, views_of
from contrapose.negatives import MomentumCopy, Queue
from contrapose.objectives import cacr_attraction, cacr_euclidean, cacr_queue, cacr_rbf, cacr_repulsion, nt_xent
from contrapose.training.method import Card, Terms, View, ViewMethod

MOMENTUM = ("rbf", "euclidean", "queue")  # the forms with a momentum encoder


class CACR(ViewMethod):
    r"""Learn from images without labels, each in several views: every positive pulls and every negative pushes by how far and how near it is.

    Pick it for images that nobody has balanced, where some kinds are rare, and where several views of an image are affordable: a step costs as many
    passes as there are views. Its claim finds it ahead of SimCLR's loss over the same views, and of `simclr` with two, on drawn characters, of which there
    are many kinds; on digits and on photos of two kinds of flowers it is not.

    With unit vectors $z_v$ of shape (b, d) for the views $v = 1 \dots V$ of each image and the cost $c(x, y) = |x - y|^2$, attraction is

    $$L_A = \frac{\alpha}{V b} \sum_{v, i} \sum_{u \neq v} w^+_{viu}\, c(z_{v,i}, z_{u,i}), \qquad w^+ = \mathrm{softmax}_{u}\; t^+ c(z_{v,i}, z_{u,i}),$$

    and repulsion, over the pairs of views $v < u$,

    $$L_R = -\frac{2 \beta}{V (V - 1) b} \sum_{v < u, i} \sum_{j \neq i} w^-_{ij}\, c(z_{v,i}, z_{u,j}), \qquad
      w^- = \mathrm{softmax}_{j}\; {-t^-} c(z_{v,i}, z_{u,j}).$$

    The loss is negative most of the time, and at least $-4\beta$: never stop early on its sign. At chance $L_A = 2\alpha$ and $L_R = -2\beta$. With one
    positive $L_A$ is plain alignment.

    `form` takes the official recipes for large data, which have a momentum encoder and weights without gradient. "rbf" (ImageNet): a query q, through
    a predictor, for each view and the keys k of the first two, $\sum_q p_q\, 2T\, \mathrm{CE}(q K^\top / T)$ with $p = \mathrm{softmax}_q |q - k|^2 / T$
    over the queries of other views. "euclidean": the same with costs 1 - cos in place of the cross-entropy, averaged over the batch where the code
    sums. "queue" (MoCo v2): keys of the other views as positives, stored keys and the other rows' queries as negatives. "nt_xent" is there for comparison: SimCLR's loss, mean of all pairs of views (CMC).

    Where sources differ: the small-scale code lets gradient through the weights, all large-scale recipes do not (`detach_weights`); repulsion anchors
    in the first view of a pair alone, `symmetric` in both; the code's debiased repulsion (`tau_plus`) subtracts the positive's cost from a push that
    is negative already, and that sign is kept.

    Zheng et al., TMLR 2023; official code JegZheng/CACR-SSL at fbc9d94.
    """

    card = Card(
        modality="image",
        title="CACR: contrastive attraction and contrastive repulsion",
        paper="Contrastive Attraction and Contrastive Repulsion for Representation Learning",
        venue="TMLR",
        year=2023,
        url="https://arxiv.org/abs/2105.03746",
        columns=(Column("image", "image", "An image."),),
    )

    class Settings(ViewSettings):
        # the official small-scale code, CIFAR-100 and STL-10; CIFAR-10 has t_neg 0.9
        batch_size: PositiveInt = Field(128, description="Images in a batch, over all processes.")
        epochs: PositiveFloat = Field(200.0, description="Passes over the images; fractions allowed.")
        optimiser: Literal["adamw", "adam", "sgd"] = Field("sgd", description="Optimiser of every update.")
        learning_rate: NonNegativeFloat = Field(
            0.06, description="Peak learning rate; 0.12 for each 256 images of a batch."
        )
        sgd_momentum: float = Field(0.9, ge=0, lt=1, description="Share of the last step that SGD keeps; of sgd alone.")
        projection: PositiveInt = Field(128, description="Dimensions of the head's output.")
        hidden: PositiveInt | None = Field(
            None, description="Width of the head's hidden layer; empty: that of the network's vectors."
        )
        positives: PositiveInt = Field(4, description="Positives K of an image: its views are one more.")
        form: Literal["views", "rbf", "euclidean", "queue", "nt_xent"] = Field(
            "views",
            description="views: no momentum encoder; rbf, euclidean, queue: the recipes for large data; nt_xent: SimCLR's loss of every pair of views, for comparison.",
        )
        t_pos: NonNegativeFloat = Field(
            1.0, description="Multiplies the costs of positives in their weights; views, queue."
        )
        t_neg: NonNegativeFloat = Field(2.0, description="The same for negatives.")
        alpha: NonNegativeFloat = Field(1.0, description="Weight of the attraction; views, queue.")
        beta: NonNegativeFloat = Field(1.0, description="Weight of the repulsion; views, queue.")
        variant: Literal["cacr", "uniform_pos", "uniform_neg", "uniform"] = Field(
            "cacr", description="Which weights are left out, for comparison; views, queue."
        )
        tau_plus: float = Field(
            0.0, ge=0, lt=1, description="Share of false negatives to take off the repulsion; views."
        )
        detach_weights: bool = Field(
            False, description="No gradient through the weights; views. The other forms never have one."
        )
        symmetric: bool = Field(False, description="Repulsion in both directions of each pair of views; views.")
        temperature: PositiveFloat = Field(
            1.0, description="T of rbf, euclidean and nt_xent; rbf: 1 for ResNet-50, 0.2 for ViT."
        )
        keys: Literal["two", "all"] = Field("two", description="Views whose keys are taken in rbf and euclidean.")
        momentum: float = Field(0.99, ge=0, le=1, description="Of the momentum encoder.")
        queue_size: NonNegativeInt = Field(4096, description="Stored keys of the form queue; 65536 for ImageNet.")

        @model_validator(mode="after")
        def of_one_form(self) -> CACR.Settings:
            if self.form != "views" and (self.tau_plus or self.symmetric):
                raise ValueError(f"tau_plus and symmetric are of form=views, and the form is {self.form}")
            if self.form in ("rbf", "euclidean", "nt_xent") and self.variant != "cacr":
                raise ValueError(f"variant={self.variant} is of the forms views and queue, and the form is {self.form}")
            return self

    def build(self, facts: Facts) -> None:
        settings, dim = self.settings, self.encoder.dim
        hidden, with_predictor = settings.hidden or dim, settings.form in ("rbf", "euclidean")
        self.head = mlp([dim, hidden, settings.projection], last_norm=with_predictor)
        self.predictor = mlp([settings.projection, hidden, settings.projection]) if with_predictor else nn.Identity()
        if settings.form in MOMENTUM:
            self.momentum_encoder = MomentumCopy(self.encoder, batch_statistics=True)
            self.momentum_head = MomentumCopy(self.head, batch_statistics=True)
        if settings.form == "queue":
            self.queue = Queue(settings.queue_size, settings.projection)

    @property
    def names(self) -> list[str]:
        """Of the views."""
        return [f"view_{number}" for number in range(1, self.settings.positives + 2)]

    @property
    def key_names(self) -> list[str]:
        """Of the views that the momentum encoder embeds too."""
        form, keys = self.settings.form, self.settings.keys
        return [] if form not in MOMENTUM else self.names[:2] if form != "queue" and keys == "two" else self.names

    def before_step(self, batch: Batch) -> None:
        if self.settings.form in MOMENTUM:
            self.momentum_encoder.update(self.encoder, self.settings.momentum)
            self.momentum_head.update(self.head, self.settings.momentum)

    def views(self, batch: Batch) -> dict[str, View]:
        made = views_of(self.encoder.pixels(batch["image"]), batch, self.settings, count=len(self.names))
        views = {name: View(images) for name, images in zip(self.names, made, strict=True)}
        keys = {f"{name}_key": View(views[name].inputs, encoder="momentum", gradient=False) for name in self.key_names}
        return views | keys

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs) if view.encoder == "online" else self.momentum_encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        settings = self.settings
        queries = [self.predictor(self.head(embeddings[name])) for name in self.names]
        if settings.form == "views":
            return self.attraction_and_repulsion(queries, batch)
        if settings.form == "nt_xent":
            pairs = combinations(queries, 2)
            losses = [nt_xent(*pair, temperature=settings.temperature, group=batch.group) for pair in pairs]
            return {"nt_xent": torch.stack(losses).mean()}
        keys = [self.momentum_head(embeddings[f"{name}_key"]) for name in self.key_names]
        if settings.form == "queue":
            return {"cacr": self.with_queue(queries, keys, batch)}
        loss = cacr_rbf if settings.form == "rbf" else cacr_euclidean
        losses = [
            loss(queries[:place] + queries[place + 1 :], key, temperature=settings.temperature, group=batch.group)
            for place, key in enumerate(keys)
        ]
        return {settings.form: torch.stack(losses).mean()}

    def attraction_and_repulsion(self, z: list[Tensor], batch: Batch) -> Terms:
        settings, (t_pos, t_neg) = self.settings, self.inverse_temperatures
        options = {"detach_weights": settings.detach_weights}
        return {
            "attraction": cacr_attraction(z, t_pos=t_pos, alpha=settings.alpha, **options),
            "repulsion": cacr_repulsion(
                z,
                t_neg=t_neg,
                beta=settings.beta,
                tau_plus=settings.tau_plus,
                symmetric=settings.symmetric,
                group=batch.group,
                **options,
            ),
        }

    def with_queue(self, queries: list[Tensor], keys: list[Tensor], batch: Batch) -> Tensor:
        stored, (t_pos, t_neg) = self.queue.stored(), self.inverse_temperatures
        self.watch("queue", len(stored.vectors))
        self.newest = keys[-1].detach()
        return cacr_queue(
            queries,
            keys,
            queue=stored.vectors,
            t_pos=t_pos,
            t_neg=t_neg,
            alpha=self.settings.alpha,
            beta=self.settings.beta,
            group=batch.group,
            queue_group=None if batch.group is None else stored.group,
        )

    @property
    def inverse_temperatures(self) -> tuple[float, float]:
        """t_pos and t_neg, 0 where the variant leaves the weights out."""
        settings = self.settings
        t_pos = 0.0 if settings.variant in ("uniform_pos", "uniform") else settings.t_pos
        return t_pos, 0.0 if settings.variant in ("uniform_neg", "uniform") else settings.t_neg

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        if self.settings.form == "queue":
            self.queue.enqueue(self.newest, batch.rows, batch.group)

    def chance(self, batch: Batch) -> dict[str, float]:
        """Not of the repulsion: its weights choose near negatives, so that a good one lies above what even weights would give."""
        settings = self.settings
        if settings.form == "views":
            return {"attraction": 2 * settings.alpha}
        if settings.form == "rbf":
            return {"rbf": 2 * settings.temperature * math.log(len(batch))}
        if settings.form == "nt_xent":
            return {"nt_xent": math.log(2 * len(batch) - 1)}
        return {}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1 + (self.settings.queue_size if self.settings.form == "queue" else 0)

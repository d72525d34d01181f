"""The losses between a triplet and a plain push: InfoNCE, simple, hard, hard simple and nearest, and what temperature does to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts
from contrapose.data.columns import Column
from contrapose.errors import SettingInvalid
from contrapose.hardness import effective_negatives, temperature_for_entropy
from contrapose.image._heads import mlp
from contrapose.image.views import ViewSettings, views_of
from contrapose.objectives import hard_contrastive, info_nce, nearest_negative, released, simple_contrastive
from contrapose.objectives._arguments import check_directions
from contrapose.training.method import Card, Terms, View, ViewMethod

WATCHED = 32  # anchors whose negatives are counted at each step
HIGHEST = 10.0  # where the search for a temperature ends, as in the released code


class ContrastiveLossBehaviour(ViewMethod):
    r"""Learn from images without labels by a choice of five losses, to see what temperature and hard negatives do.

    Pick it to choose a temperature, or to find out why a lower loss gave worse features: train with several and hold `contrapose diagnose RUN`
    beside them. At a low temperature the loss hears the hardest negatives alone, spreads features evenly (uniformity) and pushes apart
    images of one kind (tolerance falls); at a high one it hears all alike, as the simple loss does, and hardly spreads them. For a plain
    first training on images use `simclr`; to look at a run of any other method, `contrapose diagnose RUN`, which trains nothing.

    A network and a linear head give unit vectors $f_i$; $g_i$ is the other view's vector, or the image's row of a memory bank. With
    $s_{ik} = f_i \cdot g_k$, temperature $\tau$ and $n$ negatives, the loss of anchor $i$ is (section 3)

    $$L_i = -\log \frac{e^{s_{ii}/\tau}}{e^{s_{ii}/\tau} + \sum_{k \in N_i} e^{s_{ik}/\tau}}, \qquad
    L_i^{simple} = -s_{ii} + w \sum_{k \in N_i} s_{ik}, \qquad L_i^{nearest} = \max(0, \max_k s_{ik} - s_{ii}).$$

    `info_nce` and `simple` sum over all negatives, `hard` and `hard_simple` over the `hardest` of each anchor. Simple is the limit of InfoNCE
    for $\tau \to \infty$, nearest that for $\tau \to 0$. At chance $L = \log(1 + |N_i|)$ for InfoNCE and hard, 0 for the simple ones.

    `negatives="bank"` is instance discrimination, the setting of the paper's code: one view of each image, and as columns a stored vector of
    every image of the data, of which row i moves to $m\,g_i + (1 - m) f_i$, at length 1, after the step. `negatives="batch"` has two views,
    all 2b of them anchors, and as negatives the 2b - 2 views of other images. `entropy` gives each anchor of InfoNCE the temperature at
    which its relative penalties have so many nats, found anew at every step; no gradient goes through it.

    Where paper and released code differ (`variant`): the paper has the positive exactly once in the denominator; in the code it competes for one of
    the `hardest` places, counts among what the simple losses push, and 1e-7 is added inside the logarithm. The paper trains by SGD with
    momentum 0.9 at 0.03 for 200 epochs in batches of 128, with alpha 0.0819 on CIFAR; here AdamW, as in `simclr`.

    Wang and Liu, CVPR 2021; released losses: WangFeng18/UnsupervisedLearningCodes at 4f817da.
    """

    card = Card(
        modality="image",
        title="Behaviour of the contrastive loss: temperature, hard negatives, and the losses at both ends",
        paper="Understanding the Behaviour of Contrastive Loss",
        venue="CVPR",
        year=2021,
        url="https://arxiv.org/abs/2012.09740",
        columns=(Column("image", "image", "An image."),),
    )

    class Settings(ViewSettings):
        # batch, dimensions, alpha, momentum of the bank: the paper's; temperature 0.3: its best on CIFAR-10 and CIFAR-100
        batch_size: PositiveInt = Field(128, description="Images in a batch, over all processes.")
        loss: Literal["info_nce", "simple", "hard", "hard_simple", "nearest"] = Field(
            "info_nce", description="hard and hard_simple listen to the hardest negatives alone."
        )
        temperature: PositiveFloat = Field(0.3, description="Divides the cosines of info_nce and hard.")
        negatives: Literal["batch", "bank"] = Field(
            "batch", description="The other views of the batch, or a stored vector of every image."
        )
        hardest: int | float = Field(
            0.0819,
            description="Of hard and hard_simple: how many negatives are kept, or with a decimal point what share of them, up to 1.0.",
        )
        weight: PositiveFloat | None = Field(
            None, description="Of the push in the simple losses; empty: one over the number of negatives, their mean."
        )
        entropy: PositiveFloat | None = Field(
            None,
            description="Of info_nce: nats that each anchor's relative penalties have, its temperature searched; empty: the temperature as set.",
        )
        halvings: PositiveInt = Field(13, description="Steps of that search, on 0 to 10; 13 in the released code.")
        bank_momentum: float = Field(0.5, ge=0, lt=1, description="Share of a stored vector that stays.")
        projection: PositiveInt = Field(128, description="Dimensions of the head's output.")
        head_norm: bool = Field(
            False, description="BatchNorm on the head's output: features start spread, which a low temperature needs."
        )
        variant: Literal["paper", "official"] = Field(
            "paper", description="Whether the positive stands in the denominator once, or competes for a place."
        )

        @field_validator("hardest", mode="before")
        @classmethod
        def number_or_share(cls, said: Any) -> Any:
            """Of the text "1.0" pydantic makes the number 1; here it is the share."""
            return float(said) if isinstance(said, str) and "." in said else said

        @model_validator(mode="after")
        def together(self) -> ContrastiveLossBehaviour.Settings:
            share = isinstance(self.hardest, float)
            if self.hardest <= 0 or (share and self.hardest > 1) or not math.isfinite(self.hardest):
                raise ValueError(
                    f"hardest is a number of negatives from 1 or a share of them in (0, 1.0]; got {self.hardest}"
                )
            if self.entropy is not None and self.loss != "info_nce":
                raise ValueError(f"entropy sets the temperature of info_nce, and loss is {self.loss}; empty it")
            return self

    def build(self, facts: Facts) -> None:
        settings = self.settings
        self.head = mlp([self.encoder.dim, settings.projection], last_norm=settings.head_norm)
        self.projected: Tensor | None = None  # of this step, for the bank
        if settings.negatives == "bank":
            self.register_buffer("bank", functional.normalize(torch.randn(facts.rows, settings.projection), dim=1))

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        settings = self.settings
        available = self.negatives(min(settings.batch_size, len(data)), data.facts)
        hard = settings.loss in ("hard", "hard_simple")
        if hard and isinstance(settings.hardest, int) and settings.hardest > available:
            raise SettingInvalid(
                f"hardest={settings.hardest}, but an anchor has {available:,} negatives; give so many or fewer, or a share such as 0.1."
            )
        if settings.entropy is not None and settings.entropy >= math.log(available):
            raise SettingInvalid(
                f"entropy={settings.entropy:g}, but with {available:,} negatives no temperature reaches log({available}) = "
                f"{math.log(available):.4g} nats; give less, or a larger batch."
            )
        if settings.entropy is not None and settings.entropy > (sure := sure_entropy(available)):
            raise SettingInvalid(
                f"entropy={settings.entropy:g}, but of {available:,} negatives an anchor is sure to reach {math.floor(sure * 1e4) / 1e4:g} nats and no more at "
                f"temperatures up to {HIGHEST:g}, where the search ends; give so much or less, or a larger batch."
            )

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        """As always; where an entropy is asked for, without a last batch of fewer negatives, which might not reach it."""
        batches = super().batches(data, epoch, generator)
        short = self.settings.entropy is not None and len(batches) > 1 and len(batches[-1]) < len(batches[0])
        return batches[:-1] if short else batches

    def views(self, batch: Batch) -> dict[str, View]:
        pixels = self.encoder.pixels(batch["image"])
        if self.settings.negatives == "bank":
            return {"view": View(views_of(pixels, batch, self.settings, count=1)[0])}
        first, second = views_of(pixels, batch, self.settings)
        return {"first": View(first), "second": View(second)}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        features = self.project(torch.cat(list(embeddings.values())))
        check_directions("projected vectors", features)
        if self.settings.negatives == "bank":
            self.projected = features.detach()
            columns, own, others = self.bank.to(features), batch.rows.to(features.device), batch.data.group
        else:  # 2b anchors among themselves; the positive of a view is the other view of its image
            columns, own, others = (
                features,
                torch.arange(len(features), device=features.device).roll(len(batch)),
                batch.group,
            )
        apart = negatives_of(own, len(columns), batch.group, others, itself=self.settings.negatives == "batch")
        self.count(features, columns, own, apart)
        return {self.settings.loss: self.losses(features, columns, own, apart).mean()}

    def losses(self, features: Tensor, columns: Tensor, own: LongTensor, apart: Tensor | None) -> Tensor:
        """(n,), of anchors (n, d) among columns (m, d): `own` (n,) is each anchor's positive, `apart` (n, m) what is a negative; None: the rest."""
        settings, given = self.settings, {"index": own, "pair": apart, "reduction": "none"}
        official = settings.variant == "official"
        if settings.loss == "info_nce":
            anchors, temperature, similarity = features, settings.temperature, "cosine"
            if settings.entropy is not None:
                searched = temperature_for_entropy(
                    cosines(features, columns, own, apart),
                    settings.entropy,
                    highest=HIGHEST,
                    halvings=settings.halvings,
                )
                self.watch("temperature", searched.mean())
                anchors, temperature, similarity = features / searched[:, None], 1.0, "dot"
            found = info_nce(anchors, columns, temperature=temperature, similarity=similarity, **given)
            return released(found) if official else found
        hardest = settings.hardest
        if isinstance(hardest, int):  # the last batch of an epoch may have fewer
            hardest = min(hardest, len(columns) - 1)
        if settings.loss == "hard":
            found = hard_contrastive(
                features,
                columns,
                temperature=settings.temperature,
                hardest=hardest,
                positive_kept=not official,
                **given,
            )
            return released(found) if official else found
        if settings.loss == "nearest":
            return nearest_negative(features, columns, **given)
        some = hardest if settings.loss == "hard_simple" else None
        return simple_contrastive(
            features, columns, weight=settings.weight, hardest=some, positive_in_sum=official, **given
        )

    def count(self, features: Tensor, columns: Tensor, own: LongTensor, apart: Tensor | None) -> None:
        """Watch how many negatives some anchors are pushed from in effect, at the temperature that is set."""
        some = slice(None, WATCHED)
        similar = cosines(features[some].detach(), columns, own[some], None if apart is None else apart[some])
        similar = similar[(similar > -math.inf).any(dim=1)]
        if len(similar) and self.settings.entropy is None:
            self.watch(
                "effective_negatives", effective_negatives(similar, temperature=self.settings.temperature).mean()
            )

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        if self.settings.negatives == "bank":
            rows, kept = batch.rows.to(self.bank.device), self.settings.bank_momentum
            moved = kept * self.bank[rows] + (1 - kept) * self.projected.to(self.bank)
            self.bank[rows] = functional.normalize(moved, dim=1)

    def project(self, vectors: Tensor) -> Tensor:
        """(n, dim) vectors as the encoder's `forward` gives them to what the loss compares, (n, projection) at length 1, at least float32."""
        projected = self.head(vectors)
        return functional.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=1)

    def chance(self, batch: Batch) -> dict[str, float]:
        settings, available = self.settings, self.negatives(len(batch), batch.data.facts)
        hardest = settings.hardest
        kept = max(1, int(hardest * available)) if isinstance(hardest, float) else min(hardest, available)
        at_chance = {"info_nce": math.log1p(available), "hard": math.log1p(kept), "simple": 0.0, "hard_simple": 0.0}
        if settings.loss not in at_chance or settings.weight is not None or settings.variant == "official":
            return {}
        return {settings.loss: at_chance[settings.loss]}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return facts.rows - 1 if self.settings.negatives == "bank" else 2 * batch_size - 2


def sure_entropy(negatives: int) -> float:
    """The entropy that relative penalties have at the highest temperature of the search, whatever the cosines.

    Of logits in an interval the entropy is least with all of them at its ends; how many at the upper one is tried.
    """
    gap, upper = 2 / HIGHEST, torch.arange(negatives + 1, dtype=torch.float64)
    partition = upper + (negatives - upper) * math.exp(-gap)
    return float((partition.log() + gap * (1 - upper / partition)).min())


def negatives_of(
    own: LongTensor, columns: int, group: LongTensor | None, others: LongTensor | None, *, itself: bool
) -> Tensor | None:
    """(n, columns) booleans, which columns are negatives of an anchor beside its positive `own`; None: all others.

    group: of the rows whose views the anchors are; others: of the rows that the columns stand for, as many times over; below 0: none.
    itself: whether anchor i is also column i, which is no negative.
    """
    if not itself and group is None:
        return None
    apart = torch.ones(len(own), columns, dtype=torch.bool, device=own.device)
    if itself:
        apart.fill_diagonal_(False)
    if group is not None:
        mine, theirs = (
            each.to(own.device).repeat(n // len(each)) for each, n in ((group, len(own)), (others, columns))
        )
        apart &= (mine[:, None] != theirs) | (mine[:, None] < 0)
    return apart


@torch.no_grad()
def cosines(features: Tensor, columns: Tensor, own: LongTensor, apart: Tensor | None) -> Tensor:
    """(n, m) cosines of unit rows with their negatives; -inf at the positive and at what is no negative."""
    similar = (features @ columns.T).scatter(1, own[:, None], -math.inf)
    return similar if apart is None else similar.masked_fill(~apart, -math.inf)

"""MCLRec: next-item prediction with contrastive views that small augmenters learn to make."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import LongTensor, Tensor

from contrapose.data.batches import Batch, Data, Facts
from contrapose.distributed import gather_rows, shared_work
from contrapose.objectives import nt_xent
from contrapose.sequence._augmenter import Augmenter, contrast_regulariser
from contrapose.sequence._next_item import NextItemSettings, next_item_loss, next_item_stage, refuse_learned
from contrapose.sequence._table import COLUMNS
from contrapose.sequence.views import Sequences, numbers_for_two, two_views
from contrapose.training.method import Card, Stage, StageRecord, Terms, Update, View, ViewMethod

__all__ = ["Augmenter", "MCLRec", "contrast_regulariser"]


class MCLRec(ViewMethod):
    r"""Predict a user's next item, and contrast views of the sequence that are cropped, masked or reordered, and then augmented by small networks.

    Pick it for sparse logs, with five to ten interactions a user; for dense ones `sasrec`, the same without contrast, may do as well. It needs
    no larger batch and no more data, and the augmenters are dropped when training ends.

    $h$ is the encoder's vector of a beginning, $h_1, h_2$ those of two views by two different operators, $z_1 = w_1(h_1)$, $z_2 = w_2(h_2)$ unit
    vectors of the augmenters, all (b, d). With NT-Xent of dot products $C_\tau(a, b)$, over 2b - 2 negatives, and the regulariser $R$ of
    `contrast_regulariser`,

    $$L_{cl1} = C_\tau(h_1, h_2),\quad L_{cl2} = C_1(z_1, z_2) + C_1(h_1, z_2) + C_1(h_2, z_1),$$
    $$L_0 = L_{rec} + \lambda L_{cl1} + \beta (L_{cl2} + \gamma R),\qquad L_1 = L_{cl2} + \gamma R.$$

    A step has three updates: the encoder by $L_0$; the augmenters by $L_1$, with sequences encoded anew; the encoder again by $L_0$ with the new
    augmenters and the same Adam. No gradient goes through an update. At chance $C = \log(2b - 1)$ and $L_{rec} = \log(n + 1)$.

    Where paper and official code differ, the default is the code: the directions of C are averaged, not added; R has extremes of each row and
    is taken of three pairs (`regulariser_scope="batch", regulariser_pairs="z"` is equations 12 and 13); β multiplies R too
    (`beta_on_regulariser=False` is equation 14); the encoder moves twice a step (`schedule_of_updates="paper"`: once; "joint" is MCLRec-J, one
    optimiser over everything with $L_0$). Masked items are the padding, which is also one of the classes. The term $\lambda L_{cl1}$ that
    the code adds to $L_1$ has no gradient there and is left out, as are its two other augmenters (attention over the batch, convolutions).

    **When not.** Long sequences of few items: there hand-made views are noise (the paper sets λ to 0 on MovieLens) and the margin is small. A step
    costs about five times one of `sasrec`, since three updates encode each sequence and its views again.

    **Pitfalls.** Dot products of vectors that are not normalised: with large norms the contrast of drawn views saturates; lower λ, or take
    `similarity="cosine"` with a smaller temperature. Dropout makes the two encoder updates of a step differ even at learning rate 0. The encoder
    moves twice a step: a fair baseline has as many updates.

    Qin et al., SIGIR 2023; official code QinHsiu/MCLRec at bc8d622.
    """

    card = Card(
        modality="sequence",
        title="MCLRec: contrastive views that augmenters learn to make",
        paper="Meta-optimized Contrastive Learning for Sequential Recommendation",
        venue="SIGIR",
        year=2023,
        url="https://arxiv.org/abs/2304.07763",
        columns=COLUMNS,
    )

    class Settings(NextItemSettings):
        # weights: the paper's for Yelp, between those for its other data; widths and ratios: the official code
        stochastic_weight: NonNegativeFloat = Field(
            0.03, description="λ, of the contrast of the drawn views; 0 for long sequences."
        )
        learned_weight: NonNegativeFloat = Field(0.1, description="β, of the contrasts with augmented views.")
        regulariser_weight: NonNegativeFloat = Field(0.1, description="γ, of the regulariser.")
        temperature: PositiveFloat = Field(
            1.0, description="τ, of the contrast of the drawn views; it is 1 in the others."
        )
        similarity: Literal["dot", "cosine"] = Field(
            "dot", description="Of the contrast of the drawn views; dot products in the others."
        )
        regulariser_scope: Literal["row", "batch"] = Field(
            "row", description="Extremes of each view (code) or of the whole batch (paper)."
        )
        regulariser_pairs: Literal["all", "z"] = Field(
            "all", description="Three pairs (code) or z1 with z2 alone (paper)."
        )
        beta_on_regulariser: bool = Field(True, description="β multiplies the regulariser too, as in the code.")
        schedule_of_updates: Literal["code", "paper", "joint"] = Field(
            "code", description="code: encoder, augmenters, encoder; paper: encoder, augmenters; joint: both at once."
        )
        shared_augmenter: bool = Field(False, description="One augmenter for both views, the paper's ablation.")
        augmenter_first: PositiveInt = Field(32, description="Width of the augmenters' first hidden layer.")
        augmenter_second: PositiveInt = Field(16, description="Width of their second.")
        crop_ratio: float = Field(0.5, ge=0, lt=1, description="Share of a sequence that cropping cuts off.")
        mask_ratio: float = Field(0.5, ge=0, lt=1, description="Share of a sequence that is masked.")
        reorder_ratio: float = Field(0.8, ge=0, lt=1, description="Share of a sequence that is put in another order.")

    def build(self, facts: Facts) -> None:
        widths = (self.settings.augmenter_first, self.settings.augmenter_second)
        self.first_augmenter = Augmenter(self.encoder.dim, widths)
        self.second_augmenter = (
            self.first_augmenter if self.settings.shared_augmenter else Augmenter(self.encoder.dim, widths)
        )

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        refuse_learned(self.settings, data, protocols, self.encoder)

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        return next_item_stage(self.settings, finished)

    def updates(self) -> list[Update]:
        encoder = Update(self.training_step, self.encoder.parameters(), "encoder")
        augmenters = Update(
            self.augmenter_step, [*self.first_augmenter.parameters(), *self.second_augmenter.parameters()], "augmenters"
        )
        updates = {
            "code": [encoder, augmenters, encoder],
            "paper": [encoder, augmenters],
            "joint": [Update(self.training_step)],
        }[self.settings.schedule_of_updates]
        return updates if self.settings.learned_weight else [each for each in updates if each is not augmenters]

    def before_step(self, batch: Batch) -> None:
        """The two views of each sequence are drawn once and serve all updates of the step."""
        sequence = Sequences(**batch["sequence"])
        settings = self.settings
        drawn = two_views(
            sequence,
            batch.uniform(numbers_for_two(sequence.items.shape[1])),
            crop_ratio=settings.crop_ratio,
            mask_ratio=settings.mask_ratio,
            reorder_ratio=settings.reorder_ratio,
        )
        batch.columns |= {name: view.inputs() for name, view in zip(("first", "second"), drawn, strict=True)}

    def views(self, batch: Batch) -> dict[str, View]:
        contrasted = ("first", "second") if self.settings.stochastic_weight or self.settings.learned_weight else ()
        return {name: View(batch[name]) for name in ("sequence", *contrasted)}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        """The encoder's turn: L0."""
        settings, h1, h2 = self.settings, embeddings.get("first"), embeddings.get("second")
        terms = {
            "next_item": next_item_loss(
                embeddings["sequence"], self.encoder, batch["next"], padding_class=settings.padding_class
            )
        }
        if settings.stochastic_weight:
            contrast = nt_xent(
                h1, h2, temperature=settings.temperature, similarity=settings.similarity, group=batch.group
            )
            terms["stochastic"] = settings.stochastic_weight * contrast
        if settings.learned_weight:
            contrast, regulariser = self.contrast(h1, h2, batch.group)
            scale = settings.learned_weight if settings.beta_on_regulariser else 1.0
            terms["learned"] = settings.learned_weight * contrast
            if settings.regulariser_weight:
                terms["regulariser"] = scale * settings.regulariser_weight * regulariser
        return terms

    def augmenter_step(self, batch: Batch) -> Terms:
        """The augmenters' turn: L1, of vectors from the encoder as it is now."""
        views = {name: replace(view, gradient=False) for name, view in self.views(batch).items() if name != "sequence"}
        h1, h2 = (gather_rows(rows) for rows in self.embed_views(views).values())
        with shared_work():
            contrast, regulariser = self.contrast(h1, h2, batch.whole.group)
            terms = {"augmenters": contrast}
            if self.settings.regulariser_weight:
                terms["augmenters_regulariser"] = self.settings.regulariser_weight * regulariser
            return terms

    def contrast(self, h1: Tensor, h2: Tensor, group: LongTensor | None) -> tuple[Tensor, Tensor]:
        """L_cl2 and R."""
        z1, z2 = self.first_augmenter(h1), self.second_augmenter(h2)
        pairs = [(z1, z2), (h1, z2), (h2, z1)]
        contrast = sum(nt_xent(a, b, temperature=1.0, similarity="dot", group=group) for a, b in pairs)
        if not self.settings.regulariser_weight:
            return contrast, contrast.new_zeros(())
        regularised = pairs if self.settings.regulariser_pairs == "all" else pairs[:1]
        scope = self.settings.regulariser_scope
        return contrast, sum(contrast_regulariser(a, b, scope=scope, group=group) for a, b in regularised)

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """(n, d) and (m, d) to (n, m): dot products, as in training."""
        return queries @ candidates.T

    def chance(self, batch: Batch) -> dict[str, float]:
        settings, contrast = self.settings, math.log(2 * len(batch) - 1)
        return {
            "next_item": math.log(len(self.encoder.items) + settings.padding_class),
            "stochastic": settings.stochastic_weight * contrast,
            "learned": 3 * settings.learned_weight * contrast,
            "augmenters": 3 * contrast,
        }

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return 2 * batch_size - 2

"""SASRec with the whole softmax: the baseline that contrastive recommenders are measured against."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from contrapose.data.batches import Batch, Data, Facts
from contrapose.sequence._next_item import NextItemSettings, next_item_loss, next_item_stage, refuse_learned
from contrapose.sequence._table import COLUMNS
from contrapose.training.method import Card, Stage, StageRecord, Terms, View, ViewMethod


class SASRec(ViewMethod):
    r"""Predict a user's next item among all items from the sequence so far, without contrast.

    Pick it first: it is the baseline of `mclrec`, and with the same loss often close to it. A user's interactions are one sequence; every
    beginning of it is a training example whose label is the item that follows. With the encoder's vector $h_i$ of a beginning, (b, d), and
    the items' own vectors $e_j$, which the encoder reads too,

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{h_i \cdot e_{y_i}}}{\sum_j e^{h_i \cdot e_j}}.$$

    At chance $L = \log(n + 1)$ for n items and the padding. The sum runs over all items, in tiles; no negative is sampled. Published figures of
    SASRec often come from a sampled binary loss and are lower: a comparison must use this loss for both sides.

    Kang and McAuley, ICDM 2018; loss, architecture and examples as in MCLRec's official code, so that the two differ in the contrast alone.
    """

    card = Card(
        modality="sequence",
        title="SASRec: next-item prediction over all items",
        paper="Self-Attentive Sequential Recommendation",
        venue="ICDM",
        year=2018,
        url="https://arxiv.org/abs/1808.09781",
        columns=COLUMNS,
    )

    class Settings(NextItemSettings):
        pass

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        refuse_learned(self.settings, data, protocols, self.encoder)

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        return next_item_stage(self.settings, finished)

    def views(self, batch: Batch) -> dict[str, View]:
        return {"sequence": View(batch["sequence"])}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        loss = next_item_loss(
            embeddings["sequence"], self.encoder, batch["next"], padding_class=self.settings.padding_class
        )
        return {"next_item": loss}

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """(n, d) and (m, d) to (n, m): dot products, as in training."""
        return queries @ candidates.T

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"next_item": math.log(len(self.encoder.items) + self.settings.padding_class)}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return len(self.encoder.items) - 1 + self.settings.padding_class

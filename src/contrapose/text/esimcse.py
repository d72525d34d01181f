"""ESimCSE: SimCSE that does not read sentence length as meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import Tensor

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.negatives import MomentumCopy, Queue
from contrapose.objectives import info_nce
from contrapose.text.encoder import Head
from contrapose.text.views import repeat_tokens
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings


class ESimCSE(ViewMethod):
    r"""Learn sentence embeddings from raw sentences, with positives that differ in length and negatives from a momentum queue.

    Pick it for sentences without labels. In SimCSE both views of a sentence have one length, and the encoder learns to tell sentences
    apart by it; here one view has some of its tokens repeated, and vectors of earlier batches join the negatives. With pairs or triplets,
    use `pairs` or `simcse`.

    $z_i$ is the sentence, $z'_i$ the sentence with repeated tokens, both (b, d) with dropout; $q_m$ of shape (q, d) are stored vectors:

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{\cos(z_i, z'_i)/\tau}}{\sum_j e^{\cos(z_i, z'_j)/\tau} + \sum_m e^{\cos(z_i, q_m)/\tau}}.$$

    One direction alone. The queue is filled after the loss with the un-repeated sentences, through a momentum copy of the encoder
    (evaluation mode) and the online head. At chance $L = \log(b + q)$. With `repetition=0, queue_size=0` it is SimCSE.

    Where paper and official code differ: the number of repeats follows the paper (`repetition_rule`), repeats are redrawn in every
    epoch, special tokens are never repeated, and a text may grow beyond `max_tokens` by its repeats; the head of the
    queue's encoder is the live one, as in the code (`momentum_head="copy"` averages it too); the average moves before this step's update.

    Wu et al., COLING 2022; official code caskcsg/sentemb, folder ESimCSE, at 5eeec55. Its word mode and its dead stop-word mode are left out.
    """

    card = Card(
        modality="text",
        title="ESimCSE: word repetition and a momentum queue",
        paper="ESimCSE: Enhanced Sample Building Method for Contrastive Learning of Unsupervised Sentence Embedding",
        venue="COLING",
        year=2022,
        url="https://arxiv.org/abs/2109.04380",
        columns=(Column("text", "text", "A sentence."),),
    )

    class Settings(MethodSettings):
        # the official run.sh, BERT-base
        learning_rate: PositiveFloat = Field(3e-5, description="Peak learning rate.")
        temperature: PositiveFloat = Field(0.05, description="Divides the cosines.")
        repetition: float = Field(
            0.32, ge=0, le=1, description="Largest share of a sentence's tokens to repeat; 0: none."
        )
        repetition_rule: Literal["paper", "official"] = Field(
            "paper", description="How the largest number of repeats is counted."
        )
        most_repeats: NonNegativeInt | None = Field(
            None, description="A cap on the repeats of a sentence; the official code has 10."
        )
        queue_size: NonNegativeInt = Field(160, description="Stored negatives; about 2.5 batches. 0: none.")
        momentum: float = Field(0.995, ge=0, lt=1, description="Of the encoder that fills the queue.")
        momentum_head: Literal["online", "copy"] = Field(
            "online", description="Head on the momentum encoder: the live one, or averaged too."
        )

    def build(self, facts: Facts) -> None:
        self.head = Head(self.encoder.dim)
        self.queue = Queue(self.settings.queue_size, self.encoder.dim)
        if self.settings.queue_size:
            self.momentum_encoder = MomentumCopy(self.encoder)
            self.momentum_head = MomentumCopy(self.head) if self.settings.momentum_head == "copy" else None

    def before_step(self, batch: Batch) -> None:
        if self.settings.queue_size:
            self.momentum_encoder.update(self.encoder, self.settings.momentum)
            if self.momentum_head is not None:
                self.momentum_head.update(self.head, self.settings.momentum)

    def views(self, batch: Batch) -> dict[str, View]:
        sentence, settings = batch["text"], self.settings
        repeated = repeat_tokens(
            sentence,
            batch.uniform(1 + self.encoder.max_tokens),
            rate=settings.repetition,
            special=self.encoder.special_ids,
            rule=settings.repetition_rule,
            most=settings.most_repeats,
        )
        views = {"sentence": View(sentence), "repeated": View(repeated)}
        if settings.queue_size:
            views["queued"] = View(sentence, encoder="momentum", gradient=False)
        return views

    def embed(self, view: View) -> Tensor:
        if view.encoder == "online":
            return self.head(self.encoder(view.inputs))
        head = self.momentum_head or self.head
        return head(self.momentum_encoder(view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        stored = self.queue.stored()
        self.watch("queue", len(stored.vectors))
        loss = info_nce(
            embeddings["sentence"],
            embeddings["repeated"],
            queue=stored.vectors,
            temperature=self.settings.temperature,
            group=batch.group,
            queue_group=None if batch.group is None or not len(stored.vectors) else stored.group,
        )
        return {"info_nce": loss}

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        if self.settings.queue_size:
            self.queue.enqueue(embeddings["queued"], batch.rows, batch.group)

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"info_nce": math.log(len(batch) + self.watched.get("queue", 0))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1 + self.settings.queue_size

"""SimCSE: dropout as the only augmentation, or entailment pairs with contradictions as hard negatives."""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveFloat
from torch import Tensor, nn

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.objectives import info_nce
from contrapose.text.encoder import Head
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings


class SimCSE(ViewMethod):
    r"""Learn sentence embeddings from raw sentences, by dropout alone, or from pairs with hard negatives.

    Pick it for sentences without labels (column `text`), as the plain baseline of every unsupervised sentence method; `esimcse` is the
    same with less attention to length. With a column `positive` (and optionally `negative`) it is the supervised form: premise,
    entailment, contradiction.

    Unsupervised: a sentence goes through the encoder twice, and its two dropout masks are the two views. With $z_i, z'_i$ of shape (b, d),

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{\cos(z_i, z'_i)/\tau}}{\sum_j e^{\cos(z_i, z'_j)/\tau}}.$$

    One direction alone: the negatives of a sentence are the others' second views. Supervised: $z'$ is the positive, and hard
    negatives $n_j$ join the denominator of every anchor, $e^{\cos(z_i, n_j)/\tau + w[i=j]}$. At chance $L = \log b$ (with hard negatives
    $\log 2b$).

    A head, Linear and tanh, stands on the pooled state in training. Unsupervised, it is left out afterwards; supervised, it is part
    of the encoder (the official code's `mlp_only_train`).

    Gao, Yao and Chen, EMNLP 2021; official code princeton-nlp/SimCSE at 49fa580. Left out: its optional masked-language-model term, which is off there.
    """

    card = Card(
        modality="text",
        title="SimCSE: simple contrastive learning of sentence embeddings",
        paper="SimCSE: Simple Contrastive Learning of Sentence Embeddings",
        venue="EMNLP",
        year=2021,
        url="https://arxiv.org/abs/2104.08821",
        columns=(
            Column("text", "text", "A sentence."),
            Column("positive", "text", "A text that follows from the sentence: the supervised form.", required=False),
            Column("negative", "text", "A text that contradicts the sentence.", required=False),
        ),
    )

    class Settings(MethodSettings):
        # the paper's table of hyper-parameters, unsupervised BERT-base
        learning_rate: PositiveFloat = Field(3e-5, description="Peak learning rate.")
        temperature: PositiveFloat = Field(0.05, description="Divides the cosines.")
        negative_log_weight: float = Field(0.0, description="Added to the logit of an anchor's own hard negative.")
        dropout_alone: bool = Field(
            False, description="The unsupervised form of the column text, also where there are positives."
        )

    def build(self, facts: Facts) -> None:
        self.supervised = "positive" in facts.columns and not self.settings.dropout_alone
        self.hard_negatives = self.supervised and "negative" in facts.columns
        head = Head(self.encoder.dim)
        if self.supervised:
            self.encoder.head = head  # part of what the user keeps
        else:
            self.head = head

    def views(self, batch: Batch) -> dict[str, View]:
        views = {"anchor": View(batch["text"]), "positive": View(batch["positive" if self.supervised else "text"])}
        if self.hard_negatives:
            views["negative"] = View(batch["negative"])
        return views

    def embed(self, view: View) -> Tensor:
        vectors = self.encoder(view.inputs)
        return vectors if self.supervised else self.head(vectors)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        loss = info_nce(
            embeddings["anchor"],
            embeddings["positive"],
            negatives=embeddings.get("negative"),
            negative_log_weight=self.settings.negative_log_weight,
            temperature=self.settings.temperature,
            group=batch.group,
        )
        return {"info_nce": loss}

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"info_nce": math.log(len(batch) * (2 if self.hard_negatives else 1))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        hard = {"positive", "negative"} <= set(facts.columns) and not self.settings.dropout_alone
        return 2 * batch_size - 1 if hard else batch_size - 1


def logits(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float,
    negatives: Tensor | None = None,
    negative_log_weight: float = 0.0,
) -> Tensor:
    """What the objective takes the cross-entropy of, with target i in row i: (b, b), or (b, 2b) with hard negatives. All are (b, d)."""
    columns = positives if negatives is None else torch.cat([positives, negatives])
    cosines = nn.functional.normalize(anchors, dim=-1) @ nn.functional.normalize(columns, dim=-1).T
    own = torch.eye(len(anchors), len(columns), dtype=cosines.dtype, device=cosines.device).roll(len(anchors), 1)
    weight = 0.0 if negatives is None else negative_log_weight
    return cosines / temperature + weight * own

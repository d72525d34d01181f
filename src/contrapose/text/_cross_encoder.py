"""The slow scorer: a transformer that reads both texts of a pair at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import LongTensor, Tensor, nn

from contrapose.data.batches import Batch, Data, Facts
from contrapose.text._loading import most_tokens
from contrapose.text._pair_task import Task, classes_of, outputs_of, targets, task_loss, task_of, weights
from contrapose.text.data import Tokens
from contrapose.text.encoder import TextEncoder
from contrapose.training.encoder import Encoder
from contrapose.training.method import Terms, View, ViewMethod
from contrapose.training.precision import Precision
from contrapose.training.settings import MethodSettings

SCORED = 256  # pairs that are read together


class CrossEncoder(ViewMethod):
    """Learn the score or the class of pairs that the encoder reads as one text: first, separator, second.

    The pooled state, dropout and a linear layer give c logits. Both texts are in the first segment, so that every encoder can be taken.
    A stage of `dse`, whose teacher it is.
    """

    class Settings(MethodSettings):
        max_pair_tokens: PositiveInt = Field(128, description="A pair is cut to so many tokens, the longer text first.")
        dropout: float = Field(0.1, ge=0, lt=1, description="On the pooled state.")
        task: Literal["regression", "classification"] | None = Field(None, description="As in dse.")

    def build(self, facts: Facts) -> None:
        self.task: Task = task_of(facts, self.settings.task)
        self.classes = classes_of(facts, self.task)
        self.classifier = nn.Linear(self.encoder.dim, outputs_of(facts, self.task))
        self.dropout = nn.Dropout(self.settings.dropout)

    def views(self, batch: Batch) -> dict[str, View]:
        return {"pair": View(self.joined(batch["sentence1"], batch["sentence2"]))}

    def embed(self, view: View) -> Tensor:
        return self.classifier(self.dropout(self.encoder(view.inputs)))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        return {"task": task_loss(embeddings["pair"], targets(batch, self.task), self.task, weights(batch))}

    def encoders(self) -> dict[str, Encoder]:
        return {"encoder": CrossScorer(self)}

    def joined(self, first: Tokens, second: Tokens) -> Tokens:
        """Each pair as one text; of the special tokens that open the second text none is kept."""
        limit = min(self.settings.max_pair_tokens, most_tokens(self.encoder.transformer, self.encoder.tokenizer))
        special = set(self.encoder.special_ids.tolist())
        pairs = []
        for a, b in zip(first.split(), second.split(), strict=True):
            if len(b) > 1 and int(b[0]) in special:
                b = b[1:]
            most_a = max(limit // 2, limit - len(b))
            a = cut(a, most_a)
            pairs.append(torch.cat([a, cut(b, limit - len(a))]))
        lengths = torch.tensor([len(pair) for pair in pairs], dtype=torch.long, device=first.lengths.device)
        return Tokens(torch.cat(pairs), lengths)

    def logits(self, data: Data, rows: LongTensor) -> Tensor:
        """(b, c) of some pairs, float32 on the processor, without gradient; the model must be in evaluation mode."""
        first, second = (data.columns[name][rows].to(self.encoder.device) for name in ("sentence1", "sentence2"))
        with torch.no_grad():
            return self.embed(View(self.joined(first, second))).float().cpu()


class CrossScorer(Encoder):
    """A cross-encoder as an encoder: `score_pairs` is what it is for; its vectors are those of single texts."""

    def __init__(self, method: CrossEncoder) -> None:
        super().__init__()
        self.method = method
        self.text: TextEncoder = method.encoder
        self.dim = self.text.dim

    def forward(self, tokens: Tokens) -> Tensor:
        return self.text(tokens)

    def encode(
        self,
        values: Sequence[str],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        return self.text.encode(values, batch_size=batch_size, progress=progress, precision=precision)

    def score_pairs(self, first: Sequence[str], second: Sequence[str]) -> np.ndarray:
        """(n,), or (n, c) for several classes."""
        sides = {name: self.text.open_column(side) for name, side in (("sentence1", first), ("sentence2", second))}
        data, method = Data(sides, len(first)), self.method.eval()
        scores = torch.cat([method.logits(data, rows) for rows in torch.arange(len(data)).split(SCORED)]).numpy()
        return scores[:, 0] if self.ranks_pairs else scores

    @property
    def ranks_pairs(self) -> bool:
        """Whether a pair has one score."""
        return self.method.classifier.out_features == 1

    def record(self) -> dict[str, Any]:
        return self.text.record()


def cut(ids: LongTensor, most: int) -> LongTensor:
    """At most so many ids; the last one, which closes the text, stays."""
    return ids if len(ids) <= most else torch.cat([ids[: most - 1], ids[-1:]])

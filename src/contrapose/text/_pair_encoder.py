"""A sentence encoder with a head that scores pairs: one vector a text, computed once, and a cheap score for every two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from contrapose.data.batches import in_chunks
from contrapose.errors import SettingInvalid, ShapesDiffer
from contrapose.text._heads import load_part
from contrapose.text._pooling import at_least_float32
from contrapose.text.data import Tokens
from contrapose.text.encoder import TextEncoder
from contrapose.training.encoder import Encoder
from contrapose.training.precision import Precision

FILE = "pair_head.safetensors"
AT_ONCE = 2**24  # numbers in the features of the pairs that are scored together: 64 MiB
ROWS = 4096  # pairs, or candidates, that are scored together at most


def pair_features(first: Tensor, second: Tensor) -> Tensor:
    """[u, v, u∘v, |u − v|], (…, 4d), of u and v, both (…, d): DSE's section 3.2, in the order of its code."""
    return torch.cat([first, second, first * second, (first - second).abs()], dim=-1)


class PairHead(nn.Module):
    """Scores of pairs, (b, c), from the vectors of their sides, both (b, dim).

    "concat": layers on `pair_features`. "dot": layers on the dot product, one feature; with `hidden` 0 the dot product itself, c = 1.
    `hidden`: the width of the one hidden layer, with ReLU; 0: none. `symmetric`: the mean of both orders, so that they score alike.
    Raises SettingInvalid for a plain dot product that is to give several outputs.
    """

    def __init__(
        self,
        dim: int,
        outputs: int = 1,
        *,
        kind: Literal["concat", "dot"] = "concat",
        hidden: int = 512,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        if kind == "dot" and not hidden and outputs > 1:
            raise SettingInvalid(
                f"head=dot without hidden layer gives one score and {outputs} classes need as many; set hidden=512."
            )
        self.dim, self.outputs, self.kind, self.hidden, self.symmetric = dim, outputs, kind, hidden, symmetric
        sizes = [4 * dim if kind == "concat" else 1, *([hidden] if hidden else []), outputs]
        plain = kind == "dot" and not hidden
        layers = [] if plain else [part for size in pairwise(sizes) for part in (nn.Linear(*size), nn.ReLU())][:-1]
        self.layers = nn.Sequential(*layers)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        scores = self._ordered(first, second)
        return (scores + self._ordered(second, first)) / 2 if self.symmetric and self.kind == "concat" else scores

    def matrix(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """(n, m, c): the score of every query (n, dim) with every candidate (m, dim), in chunks.

        The first layer acts on u and on v once for each text, and for each pair on u∘v and |u − v| alone.
        """
        scores = self._matrix(queries, candidates)
        if self.symmetric and self.kind == "concat":
            scores = (scores + self._matrix(candidates, queries).transpose(0, 1)) / 2
        return scores

    def record(self) -> dict[str, Any]:
        """What makes it again, as JSON."""
        names = ("dim", "outputs", "kind", "hidden", "symmetric")
        return {name: getattr(self, name) for name in names}

    def _ordered(self, first: Tensor, second: Tensor) -> Tensor:
        if first.shape != second.shape or first.shape[-1] != self.dim:
            raise ShapesDiffer(
                f"A pair head of {self.dim} dimensions needs a vector for each side; got {tuple(first.shape)} and {tuple(second.shape)}."
            )
        if self.kind == "dot":
            return at_least_float32(self.layers((first * second).sum(dim=-1, keepdim=True)))
        return at_least_float32(self.layers(pair_features(first, second)))

    def _matrix(self, queries: Tensor, candidates: Tensor) -> Tensor:
        if self.kind == "dot":
            return self.layers((queries @ candidates.T).unsqueeze(-1))
        entry, rest = self.layers[0], self.layers[1:]
        of_first, of_second, of_both = entry.weight.split([self.dim, self.dim, 2 * self.dim], dim=1)
        first, second = queries @ of_first.T + entry.bias, candidates @ of_second.T
        scores = queries.new_empty(len(queries), len(candidates), self.outputs)
        for right in in_chunks(len(candidates), ROWS):
            v = candidates[right]
            for left in in_chunks(len(queries), max(1, AT_ONCE // (2 * self.dim * len(v)))):
                u = queries[left, None]
                both = torch.cat([u * v, (u - v).abs()], dim=-1) @ of_both.T
                scores[left, right] = rest(both + first[left, None] + second[right])
        return scores


class PairEncoder(Encoder):
    """A text encoder and the head that scores pairs of its vectors.

    `encode` gives the vectors, float32 (n, dim), not normalised, as the head takes them. `score_pairs` scores texts pair by pair,
    `score_matrix` every query with every candidate: n + m passes of the encoder in the place of n · m.
    `classes`: the names of the classes in the order of the outputs; two of them have one output, the log-odds of the second; none: regression.
    """

    def __init__(self, text: TextEncoder, head: PairHead, classes: Sequence[str] = ()) -> None:
        super().__init__()
        self.text, self.head, self.classes = text, head, tuple(classes)
        self.dim = text.dim

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

    def score_pairs(self, first: Sequence[str] | np.ndarray, second: Sequence[str] | np.ndarray) -> np.ndarray:
        """The scores of n pairs: the predicted value or the log-odds, (n,), or the logits of c classes, (n, c).

        Texts, or on both sides the vectors that `encode` gave for them.
        """
        if isinstance(first, np.ndarray):
            vectors = self._tensor(np.concatenate([first, second]))
            sides = list(torch.arange(len(vectors)).split([len(first), len(second)]))
        else:
            texts = list(dict.fromkeys([*first, *second]))
            place = {text: row for row, text in enumerate(texts)}
            vectors = self._tensor(self.encode(texts))
            sides = [torch.tensor([place[text] for text in side], dtype=torch.long) for side in (first, second)]
        with torch.inference_mode():
            parts = [self.head(*(vectors[side[rows]] for side in sides)) for rows in in_chunks(len(first), ROWS)]
        scores = torch.cat(parts) if parts else vectors.new_empty(0, self.head.outputs)
        return self._said(scores)

    def score_matrix(self, queries: Sequence[str] | np.ndarray, candidates: Sequence[str] | np.ndarray) -> np.ndarray:
        """The scores of every query with every candidate, (n, m) or (n, m, c); texts, or the vectors that `encode` gave for them."""
        vectors = [
            self._tensor(side if isinstance(side, np.ndarray) else self.encode(side)) for side in (queries, candidates)
        ]
        with torch.inference_mode():
            return self._said(self.head.matrix(*vectors))

    def predict(self, first: Sequence[str], second: Sequence[str]) -> list[str] | list[float]:
        """The class of each pair (of two: the second where its probability is at least one half), or the predicted value."""
        scores = self.score_pairs(first, second)
        if not self.classes:
            return scores.tolist()
        chosen = scores.argmax(axis=1) if scores.ndim == 2 else (scores >= 0).astype(int)
        return [self.classes[number] for number in chosen]

    @property
    def ranks_pairs(self) -> bool:
        """Whether a pair has one score."""
        return self.head.outputs == 1

    @property
    def pooling(self) -> str:
        return self.text.pooling

    @property
    def max_tokens(self) -> int:
        return self.text.max_tokens

    @property
    def exports_to_sentence_transformers(self) -> bool:
        """The vectors alone: sentence-transformers has no head of this kind."""
        return self.text.exports_to_sentence_transformers

    def record(self) -> dict[str, Any]:
        return {**self.text.record(), "pair_head": self.head.record(), "classes": list(self.classes)}

    def save(self, folder: Path | str) -> None:
        self.text.save(folder)
        save_file({name: weight.contiguous() for name, weight in self.head.state_dict().items()}, Path(folder) / FILE)

    def __repr__(self) -> str:
        return f"PairEncoder({self.text}, {self.head.kind})"

    def _tensor(self, vectors: np.ndarray) -> Tensor:
        like = next(self.text.parameters())
        return torch.from_numpy(np.asarray(vectors)).to(like.device, like.dtype)

    def _said(self, scores: Tensor) -> np.ndarray:
        found = scores.float().cpu().numpy()
        return found[..., 0] if self.ranks_pairs else found


def load_pair_encoder(text: TextEncoder, folder: Path, record: Mapping[str, Any]) -> PairEncoder:
    """The head that `save` wrote, on its encoder. Raises WeightsBroken."""
    facts = dict(record["pair_head"])
    head = PairHead(facts.pop("dim"), **facts)
    return PairEncoder(text, load_part(head, folder / FILE), record["classes"]).eval()

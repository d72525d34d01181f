"""For each sentence of a corpus, those that are near it in meaning and those that are near it in form."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.data.batches import in_chunks
from contrapose.data.cache import cache_folder, written_whole
from contrapose.distributed import broadcast_object, rank
from contrapose.errors import NoNegatives, NonFinite, ShapesDiffer
from contrapose.text._surface import SIMILARITIES, Measure, nearest_by_words, numbered_words
from contrapose.text.data import Tokens
from contrapose.text.encoder import TextEncoder
from contrapose.training.bar import Bar

NONE = -1  # stands where a sentence has fewer candidates
FORMAT = 1  # of the cached files; a new number leaves the old ones unread
PRODUCTS = 2**24  # cosines that stand in memory at once
COMPARED = 2**18  # pairs whose words are compared between two updates of the progress bar


@dataclass(frozen=True)
class Candidates:
    """The candidates of n distinct sentences of a corpus.

    `kept` (n,) int64: the rows of the corpus, of equal sentences the first. `rows` (n, k) int32: for each of them its candidates, as numbers
    among the n; -1 for no more. `semantic` and `surface` (n, k) float32 in [0, 1]: how near they are in meaning, (1 + cosine) / 2, and in
    form; 0 where there is no candidate. `vectors` (n, d) float32: the unit vectors of the reference encoder, where they were asked for.
    """

    kept: LongTensor
    rows: Tensor
    semantic: Tensor
    surface: Tensor
    vectors: Tensor | None = None

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def there(self) -> Tensor:
        """(n, k) bool: where there is a candidate."""
        return self.rows != NONE


def prepared_candidates(
    texts: Sequence[str], reference: TextEncoder, *, count: int, surface: Measure, keep_vectors: bool = False
) -> Candidates:
    """`find_candidates` of a corpus by a frozen encoder, or what the cache holds of it, found by texts, weights and options.

    Of several processes the first one works, and the others are handed what it found.
    Raises NoNegatives when fewer than two sentences differ.
    """
    found = None
    if rank() == 0:
        key = cache_key(texts, reference, count, surface, keep_vectors)
        path = cache_folder() / "candidates" / f"{key}.safetensors"
        found = read_candidates(path)
        if found is None:
            kept = distinct(texts)
            sentences = [texts[row] for row in kept.tolist()]
            vectors = torch.from_numpy(reference.encode(sentences))
            spoken = numbered_words(
                sentences, most=reference.max_tokens
            )  # what the encoder does not see is not compared
            found = find_candidates(vectors, spoken, kept, count=count, surface=surface, keep_vectors=keep_vectors)
            write_candidates(path, found)
    return broadcast_object(found)


def distinct(texts: Sequence[str]) -> LongTensor:
    """The rows of a corpus whose words, in their order, no earlier row has. Raises NoNegatives for fewer than two."""
    whole = numbered_words(texts)
    first: dict[bytes, int] = {}
    for row, numbers in enumerate(whole.split()):
        first.setdefault(numbers.numpy().tobytes(), row)
    if len(first) < 2:
        raise NoNegatives(
            f"All {len(texts):,} sentences have the same words, so none has a candidate; give a corpus of sentences that differ."
        )
    return torch.tensor(list(first.values()))


def find_candidates(
    vectors: Tensor,
    spoken: Tokens,
    kept: LongTensor | None = None,
    *,
    count: int,
    surface: Measure = "levenshtein",
    keep_vectors: bool = False,
) -> Candidates:
    """The `count` / 2 sentences nearest to each in meaning, and as many that share most words with it; itself left out.

    vectors: (n, d) of the reference encoder; searched exactly, in tiles. spoken: the words of the n sentences as numbers. kept: their rows in
    a corpus; None: 0 to n - 1. A corpus of no more than `count` sentences has fewer candidates. What is near in both ways stands once.

    Raises ShapesDiffer for vectors and words of other numbers of sentences, NonFinite for vectors that hold NaN or infinity.
    """
    n = len(spoken)
    if vectors.ndim != 2 or len(vectors) != n:
        raise ShapesDiffer(
            f"The reference encoder's vectors must be (n, d) for the corpus of {n:,} sentences; got {tuple(vectors.shape)}."
        )
    if not bool(torch.isfinite(vectors).all()):
        first = int((~torch.isfinite(vectors)).any(dim=1).nonzero()[0])
        raise NonFinite(f"The reference encoder's vector of sentence {first} holds NaN or infinity.")
    half = max(1, min(count, n - 1) // 2)
    unit = functional.normalize(vectors.float(), dim=1)
    rows = torch.full((n, 2 * half), NONE, dtype=torch.int32)
    with Bar("Finding candidates", 2 * n) as bar:
        for start, nearest in nearest_by_meaning(unit, half):
            rows[start : start + len(nearest), :half] = nearest.int()
            bar.advance(len(nearest))
        for start, nearest in nearest_by_words(spoken, half):
            rows[start : start + len(nearest), half:] = torch.from_numpy(nearest).int()
            bar.advance(len(nearest))
    near_in_both_ways = (rows[:, half:, None] == rows[:, None, :half]).any(dim=2)
    rows[:, half:].masked_fill_(near_in_both_ways, NONE)
    return Candidates(
        torch.arange(n) if kept is None else kept,
        rows,
        semantic_of(unit, rows),
        surface_of(spoken, rows, surface),
        unit if keep_vectors else None,
    )


def nearest_by_meaning(unit: Tensor, k: int) -> Iterator[tuple[int, LongTensor]]:
    """The k rows of largest cosine with each, itself left out, in parts: the first row and (c, k)."""
    for part in in_chunks(len(unit), max(1, PRODUCTS // len(unit))):
        cosines = unit[part] @ unit.T
        own = torch.arange(len(cosines))
        cosines[own, own + part.start] = -torch.inf
        yield part.start, cosines.topk(k, dim=1).indices


def semantic_of(unit: Tensor, rows: Tensor) -> Tensor:
    """(1 + cosine) / 2 of each sentence with its candidates, (n, k); 0 where there is none."""
    found = torch.zeros(rows.shape)
    for part in in_chunks(len(rows), max(1, PRODUCTS // (rows.shape[1] * unit.shape[1]))):
        cosines = torch.einsum("nd,nkd->nk", unit[part], unit[rows[part].clamp_min(0).long()])
        found[part] = (1 + cosines.clamp(-1, 1)) / 2
    return found.masked_fill_(rows == NONE, 0)


def surface_of(spoken: Tokens, rows: Tensor, measure: Measure) -> Tensor:
    """How alike each sentence and its candidates are in form, (n, k); 0 where there is none."""
    found = torch.zeros(rows.shape)
    anchors, slots = (rows != NONE).nonzero(as_tuple=True)
    others = rows[anchors, slots].long()
    with Bar("Comparing words", len(anchors)) as bar:
        for part in in_chunks(len(anchors), COMPARED):
            alike = SIMILARITIES[measure](spoken[anchors[part]], spoken[others[part]])
            found[anchors[part], slots[part]] = torch.from_numpy(alike).float()
            bar.advance(len(alike))
    return found


def cache_key(texts: Sequence[str], reference: TextEncoder, *options: int | str | bool) -> str:
    """SHA-256 of everything that candidates follow from: texts, the encoder with its weights, options."""
    digest = hashlib.sha256(json.dumps([FORMAT, *options, reference.record()], sort_keys=True).encode())
    for name, tensor in reference.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    for text in texts:
        digest.update(json.dumps(text).encode())
    return digest.hexdigest()


def read_candidates(path: Path) -> Candidates | None:
    """What `write_candidates` wrote; None when there is none, or none that can be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return Candidates(**{name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (no mapping)
    except (OSError, SafetensorError, TypeError):
        return None


def write_candidates(path: Path, found: Candidates) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in vars(found).items() if tensor is not None}
    with written_whole(path) as part:
        save_file(tensors, part)

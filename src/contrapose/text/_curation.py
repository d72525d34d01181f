"""Which triplets of a sentence, what follows from it and what contradicts it are worth training on, by their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import LongTensor, Tensor

from contrapose.data.batches import Data
from contrapose.distributed import broadcast_object, rank
from contrapose.errors import ArgumentInvalid, ColumnMissing, CurationEmpty, ShapesDiffer, TargetsInvalid
from contrapose.text._generation import SCORES, generated
from contrapose.text.data import texts_of

LARGEST = 5.0  # of a score; the least is 0


@dataclass(frozen=True)
class Curation:
    """`swapped` and `kept`, both (n,) bool; `dropped`: why others are left out, with their number."""

    swapped: Tensor
    kept: Tensor
    dropped: dict[str, int]


def curate(
    scores: Tensor,
    *,
    positive_line: float = 3.0,
    negative_line: float = 3.0,
    require_gap: bool = True,
    swap_equal: bool = True,
    negative_limit: float | None = None,
) -> Curation:
    """Put the better of two candidates first, and keep the triplets whose positive is alike and whose negative is not.

    Args:
        scores: (n, 2), how alike each sentence and its positive are, and it and its negative, from 0 to 5.
        positive_line: kept are rows whose positive has at least this, after swapping.
        negative_line: kept are rows whose negative has at most this, after swapping.
        require_gap: leave out rows with two equal scores.
        swap_equal: swap where the scores are equal, too, as the official filter does; its script of generation does not.
        negative_limit: leave out rows whose negative has more, before swapping; 4 in the official script of generation. None: no limit.

    Raises:
        ShapesDiffer: scores are not (n, 2).
        TargetsInvalid: a score is NaN or outside 0 to 5; names its row.
    """
    check_scores(scores)
    positive, negative = scores.unbind(1)
    swapped = positive <= negative if swap_equal else positive < negative
    best, worst = scores.amax(dim=1), scores.amin(dim=1)
    faults = {
        f"positive below {positive_line:g}": best < positive_line,
        f"negative above {negative_line:g}": worst > negative_line,
        "equal scores": (positive == negative) & require_gap,
    }
    if negative_limit is not None:
        faults = {f"negative above {negative_limit:g} before swapping": negative > negative_limit, **faults}
    kept, dropped = torch.ones_like(swapped), {}
    for why, wrong in faults.items():
        if count := int((kept & wrong).sum()):
            dropped[why] = count
        kept &= ~wrong
    return Curation(swapped, kept, dropped)


def check_scores(scores: Tensor, source: str = "scores") -> None:
    if scores.ndim != 2 or scores.shape[1] != 2:
        raise ShapesDiffer(f"scores must be (n, 2), of positive and negative; got {tuple(scores.shape)}.")
    wrong = ~((scores >= 0) & (scores <= LARGEST))  # NaN is neither
    if bool(wrong.any()):
        row, side = wrong.nonzero()[0].tolist()
        raise TargetsInvalid(
            f"{source}: {SCORES[side]} is {float(scores[row, side]):g} in row {row} ({int(wrong.any(dim=1).sum()):,} such rows); "
            f"a score lies from 0 to {LARGEST:g}. Scale them."
        )


@dataclass(frozen=True)
class Triplets:
    """n triplets that are trained on: `rows` (n,) of the data, and texts. `remarks`: what people should know before step 1."""

    rows: LongTensor
    anchors: list[str]
    positives: list[str]
    negatives: list[str]
    remarks: list[str]

    def __len__(self) -> int:
        return len(self.rows)


def curated(data: Data, settings: Any) -> Triplets:
    """The triplets of the data's columns, and where these lack something of a generator; curated by their scores, where there are any.

    `settings`: those of `MultiCSR`. Raises ColumnMissing, TargetsInvalid, CurationEmpty, and what `generated` raises.
    """
    columns = texts_in(data)
    lacking = [name for name in ("positive", "negative") if columns[name] is None]
    scores = scores_in(data)
    remarks: list[str] = []
    rows = torch.arange(len(data))
    if settings.generator is not None and (lacking or (scores is None and settings.curate)):
        found = broadcast_object(generated(columns, settings) if rank() == 0 else None)
        rows = torch.tensor(found.rows, dtype=torch.long)
        columns = {"positive": found.positives, "negative": found.negatives}
        columns["text"] = [texts_of(data.columns["text"])[row] for row in found.rows]
        scores = None if found.scores is None else torch.tensor(found.scores)
        remarks += [f"{count:,} rows have {why}" for why, count in found.lost.items()]
    elif lacking:
        raise ColumnMissing(
            f"{data.source} has no column '{lacking[0]}'; a triplet is text, positive and negative. Say which is meant: "
            f"--map {lacking[0]}=COLUMN; or name a generator that writes it: --set generator=FOLDER."
        )
    swapped, kept = torch.zeros(len(rows), dtype=torch.bool), torch.ones(len(rows), dtype=torch.bool)
    if scores is None or not settings.curate:
        remarks.append("no curation" if scores is not None else "no scores, so no curation")
    elif len(rows):
        check_scores(scores, data.source)
        lines = ("positive_line", "negative_line", "require_gap", "swap_equal", "negative_limit")
        found = curate(scores, **{name: getattr(settings, name) for name in lines})
        swapped, kept = found.swapped, found.kept
        why = f" ({', '.join(f'{count:,} {reason}' for reason, count in found.dropped.items())})"
        remarks.append(
            f"curation keeps {int(kept.sum()):,} of {len(kept):,} triplets{why if found.dropped else ''} "
            f"and swaps positive and negative of {int((swapped & kept).sum()):,}"
        )
    if not bool(kept.any()):
        raise CurationEmpty(f"{data.source}: no triplet is left to train on: {'; '.join(remarks)}.")
    sides = [
        [
            columns["negative" if swap == (name == "positive") else "positive"][row]
            for row, swap in chosen(kept, swapped)
        ]
        for name in ("positive", "negative")
    ]
    return Triplets(rows[kept], [columns["text"][row] for row, _ in chosen(kept, swapped)], *sides, remarks)


def chosen(kept: Tensor, swapped: Tensor) -> list[tuple[int, bool]]:
    """The kept places, and whether each is swapped."""
    places = kept.nonzero().flatten()
    return list(zip(places.tolist(), swapped[places].tolist(), strict=True))


def texts_in(data: Data) -> dict[str, list[str] | None]:
    return {
        name: texts_of(data.columns[name]) if name in data.columns else None
        for name in ("text", "positive", "negative")
    }


def scores_in(data: Data) -> Tensor | None:
    """(n, 2) where both columns are there, None where neither is. Raises ColumnMissing for one alone."""
    there = [name for name in SCORES if name in data.columns]
    if len(there) == 1:
        other = next(name for name in SCORES if name not in there)
        raise ColumnMissing(
            f"{data.source} has '{there[0]}' and no '{other}'; curation compares both. Give it, or set curate=false."
        )
    every = torch.arange(len(data))
    return torch.stack([data.columns[name][every] for name in SCORES], dim=1) if there else None


def check_phi(phi: float) -> None:
    if not -1 < phi <= 1:
        raise ArgumentInvalid(f"phi is a cosine above -1 and at most 1 (1: nothing is masked); got {phi}.")

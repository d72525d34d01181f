"""Retrieval: each query ranks all candidates, and the relevant ones should come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationSettingInvalid, EvaluationShapesDiffer, RelevantInvalid, ValuesNotFinite

SCORES = 2**23  # scores that stand in memory at once, where `chunk` is not given: 64 MiB of float64


@dataclass(frozen=True)
class Retrieval:
    """Figures of each query, by metric: "accuracy@1", "recall@1", "ndcg@1", …, "mrr"; arrays (n,) of float64 in [0, 1].

    Per query, because an interval and a paired comparison need the values and not their mean (`evaluation.intervals`).
    """

    values: dict[str, np.ndarray]
    candidates: int

    def __getitem__(self, metric: str) -> np.ndarray:
        return self.values[metric]

    @property
    def means(self) -> dict[str, float]:
        return {metric: float(values.mean()) for metric, values in self.values.items()}


def retrieval(
    queries: ArrayLike,
    candidates: ArrayLike,
    relevant: Sequence[Sequence[int]] | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int | None = None,
) -> Retrieval:
    """Rank candidates by cosine: exact, streamed, never (n, m) scores at once.

    The other direction is the same call with `queries` and `candidates` exchanged.

    Args:
        queries: (n, d), numbers or a tensor, any float dtype; not normalised. A zero row has cosine 0 with everything.
        candidates: (m, d).
        relevant: for each query the numbers of its relevant candidates, in any order; None: candidate i alone (n = m).
        ks: cut-offs of accuracy, recall and nDCG.
        chunk: queries scored at once; None: as many as give eight million scores.

    Metrics, with r_1 < r_2 < … the ranks of a query's R relevant candidates: accuracy@k (or hit@k) = [r_1 <= k];
    recall@k = share of relevant candidates with r <= k; mrr = 1 / r_1; ndcg@k = sum over r <= k of 1 / log2(1 + r),
    divided by its value for the ranks 1 … R. With one relevant candidate a query, recall@k equals accuracy@k.

    Ties are pessimistic: a candidate that is not relevant and scores the same stands before a relevant one. One line of
    reason: an encoder that gives every text the same vector must score 0, not 1. Cosines are summed in float64 and
    compared as float32, so equal vectors tie whatever the order in which a processor adds.

    Raises EvaluationShapesDiffer, ValuesNotFinite, RelevantInvalid and EvaluationSettingInvalid.
    """
    queries, candidates = _array("queries", queries), _array("candidates", candidates)
    if queries.shape[1] != candidates.shape[1]:
        raise EvaluationShapesDiffer(
            f"queries have {queries.shape[1]} dimensions and candidates {candidates.shape[1]}; embed both with one encoder."
        )
    columns = _unit(candidates).T

    def cosine(rows: slice) -> np.ndarray:
        return (_unit(queries[rows]) @ columns).astype(np.float32)

    return retrieval_by_score(cosine, len(queries), len(candidates), relevant, ks=ks, chunk=chunk)


def retrieval_by_score(
    score: Callable[[slice], np.ndarray],
    queries: int,
    candidates: int,
    relevant: Sequence[Sequence[int]] | None = None,
    *,
    ks: Sequence[int] = (1, 5, 10),
    chunk: int | None = None,
) -> Retrieval:
    """Rank candidates by any score, for controls such as TF-IDF: metrics, ties and errors as in `retrieval`.

    `score(rows)` gives the scores of the queries in the slice, (rows, candidates), larger is closer; they are compared
    as they are. For sparse matrices: `lambda rows: (q[rows] @ c.T).toarray()`.
    """
    if queries < 1 or candidates < 1:
        raise EvaluationShapesDiffer(f"{queries} queries and {candidates} candidates: both need at least one row.")
    if not ks or any(k < 1 for k in ks) or (chunk is not None and chunk < 1):
        raise EvaluationSettingInvalid(
            f"ks must name at least one k, and ks and chunk be 1 or more; got {ks} and {chunk}."
        )
    right = _relevant(relevant, queries, candidates)
    chunk = chunk or max(1, SCORES // candidates)
    figures = [_figures(ranks, ks) for ranks in _ranks(score, queries, candidates, right, chunk)]
    return Retrieval({metric: np.array([each[metric] for each in figures]) for metric in figures[0]}, candidates)


def _ranks(
    score: Callable[[slice], np.ndarray], queries: int, candidates: int, right: Sequence[np.ndarray], chunk: int
) -> Iterator[np.ndarray]:
    """The ranks of each query's relevant candidates, ascending, from 1."""
    for start in range(0, queries, chunk):
        rows = slice(start, min(start + chunk, queries))
        scores = np.asarray(score(rows))
        if scores.shape != (rows.stop - start, candidates):
            raise EvaluationShapesDiffer(
                f"score({rows}) must give shape {(rows.stop - start, candidates)}, all candidates for each query of the "
                f"slice; got {scores.shape}."
            )
        _check_finite("scores", scores, start)
        for row, own in zip(scores, right[rows], strict=True):
            hits = np.sort(row[own])[::-1]
            others = np.sort(np.delete(row, own))
            before = len(others) - np.searchsorted(others, hits, side="left")  # others that score the same or more
            yield 1 + np.arange(len(hits)) + before


def _figures(ranks: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    gains = 1 / np.log2(1 + ranks)
    ideal = 1 / np.log2(2 + np.arange(len(ranks)))
    figures = {f"accuracy@{k}": float(ranks[0] <= k) for k in ks}
    figures |= {f"recall@{k}": float(np.mean(ranks <= k)) for k in ks}
    figures["mrr"] = float(1 / ranks[0])
    figures |= {f"ndcg@{k}": float(gains[ranks <= k].sum() / ideal[:k].sum()) for k in ks}
    return figures


def _relevant(relevant: Sequence[Sequence[int]] | None, queries: int, candidates: int) -> list[np.ndarray]:
    """The distinct relevant candidates of each query, checked."""
    if relevant is None:
        if queries != candidates:
            raise EvaluationShapesDiffer(
                f"without `relevant`, query i belongs to candidate i; there are {queries} queries and {candidates} candidates."
            )
        return [np.array([row]) for row in range(queries)]
    if len(relevant) != queries:
        raise EvaluationShapesDiffer(f"`relevant` has {len(relevant)} entries for {queries} queries; give one a query.")
    numbers = [np.unique(np.asarray(each)) for each in relevant]
    empty = [query for query, each in enumerate(numbers) if each.size == 0]
    if empty:
        raise RelevantInvalid(
            f"{len(empty)} queries have no relevant candidate (first: query {empty[0]}); leave them out of the evaluation."
        )
    for query, each in enumerate(numbers):
        if each.dtype.kind not in "iu" or each[0] < 0 or each[-1] >= candidates:
            raise RelevantInvalid(
                f"query {query} names the relevant candidates {each.tolist()}; they are whole numbers from 0 to {candidates - 1}."
            )
    return numbers


def _array(name: str, rows: ArrayLike) -> np.ndarray:
    if hasattr(rows, "detach"):  # a tensor, perhaps in bf16, which NumPy does not know
        rows = rows.detach().cpu().double().numpy()
    array = np.asarray(rows)
    if array.ndim != 2:
        raise EvaluationShapesDiffer(f"{name} must have shape (rows, dimensions); got {array.shape}.")
    _check_finite(name, array, 0)
    return array


def _check_finite(name: str, rows: np.ndarray, start: int) -> None:
    broken = ~np.isfinite(rows).all(axis=1)
    if broken.any():
        first = start + int(broken.argmax())
        raise ValuesNotFinite(f"{name} hold NaN or infinity (first in row {first}); nothing can be ranked by them.")


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = rows.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)

"""Full ranking: which of all the items comes next? Every item is scored; none is sampled away."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import EvaluationShapesDiffer, RelevantInvalid
from contrapose.evaluation.retrieval import retrieval_by_score

CUTS = (5, 10, 20)
LEAST = np.finfo(np.float64).min


def full_ranking(
    score: Callable[[slice], np.ndarray],
    targets: ArrayLike,
    items: int,
    *,
    seen: Sequence[Sequence[int]] | None = None,
    ks: Sequence[int] = CUTS,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """ "HR@k", "NDCG@k" and "MRR" (n,) of n users, each with one held-out item among all; streamed, never (n, items) scores at once.

    Args:
        score: `score(users)` gives the scores of the users in a slice, (users, items), larger is likelier; finite.
        targets: (n,) integers, the number of each user's held-out item.
        items: how many there are. Numbers that stand for no item, such as padding, are among `seen` for every user.
        seen: for each user the items that are taken out of the ranking; its target stays. None: none. The sequential literature keeps
            what a user has seen (people buy twice), the one on matrix factorisation takes it out: say which.
        ks: cut-offs.
        chunk: users scored at once; None: as many as give eight million scores.

    With r the target's rank from 1: HR@k = [r <= k], which is recall@k; NDCG@k = [r <= k] / log2(1 + r); MRR = 1 / r. Ties count against
    the target. Sampled rankings, against a hundred items, order methods otherwise (Krichene & Rendle, KDD 2020). Give the values to
    `scores` for means and intervals. Raises RelevantInvalid for a target that is no item, and what `retrieval_by_score` raises.
    """
    targets = np.asarray(targets)
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise RelevantInvalid(f"targets are n item numbers; got {targets.dtype} of shape {targets.shape}.")
    if seen is not None and len(seen) != len(targets):
        raise EvaluationShapesDiffer(f"{len(targets)} targets need as many lists of seen items; got {len(seen)}.")

    def ranked(users: slice) -> np.ndarray:
        scores = np.asarray(score(users))
        if seen is None or scores.shape != (users.stop - users.start, items):
            return scores  # of another shape: refused by the one who asked
        scores = scores.astype(np.float64)  # a copy
        for user, row in zip(range(users.start, users.stop), scores, strict=True):
            kept = row[targets[user]]
            row[_seen_by(user, seen[user], items)] = LEAST
            row[targets[user]] = kept
        return scores

    found = retrieval_by_score(ranked, len(targets), items, targets[:, None], ks=ks, chunk=chunk)
    return (
        {f"HR@{k}": found[f"accuracy@{k}"] for k in ks}
        | {f"NDCG@{k}": found[f"ndcg@{k}"] for k in ks}
        | {"MRR": found["mrr"]}
    )


def _seen_by(user: int, numbers: Sequence[int], items: int) -> np.ndarray:
    found = np.asarray(numbers, dtype=np.int64)
    if found.size and (found.min() < 0 or found.max() >= items):
        raise RelevantInvalid(
            f"user {user} has seen items from {found.min()} to {found.max()}; they are numbered 0 to {items - 1}."
        )
    return found

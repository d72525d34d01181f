"""Hard negatives: for each query the candidates that are nearest and yet wrong."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NonFinite, PackageMissing, ShapesDiffer

NONE = -1  # stands where a query has fewer negatives than asked for


@torch.no_grad()
def mine_negatives(
    queries: Tensor,
    candidates: Tensor,
    positives: LongTensor,
    *,
    k: int = 1,
    skip: int = 0,
    margin: float | None = None,
    share_of_positive: float | None = None,
    group: LongTensor | None = None,
    candidate_group: LongTensor | None = None,
) -> LongTensor:
    """The k candidates nearest to each query by cosine that are not its positive, nearest first: (n, k) row numbers, -1 where there are fewer.

    The nearest wrong candidates are often right ones that nobody labelled. Three filters leave these out; they may be combined.

    Args:
        queries: (n, d). candidates: (m, d). Any floating dtype; searched in float32, exactly (faiss).
        positives: (n,) or (n, p), the candidates that are right for each query; -1 for no more.
        k: how many a query, at least 1.
        skip: pass over the first so many that remain.
        margin: keep those at least so far below the query's nearest positive: cos <= cos_positive - margin.
        share_of_positive: keep those of at most this share of the nearest positive's cosine (de Souza Pereira Moreira et al., 2024,
            "NV-Retriever", where 0.95 was best): cos <= share * cos_positive.
        group: (n,) integers; a candidate of the query's group is left out. Below 0: no group.
        candidate_group: (m,) integers, needed with group.

    Raises PackageMissing without faiss, ShapesDiffer, NonFinite, ArgumentInvalid.
    """
    right = positives[:, None] if positives.ndim == 1 else positives
    _check(queries, candidates, right, k, skip, group, candidate_group)
    unit, known = (functional.normalize(rows.float(), dim=1) for rows in (queries, candidates))
    index = _index(known)
    ceiling = _ceilings(unit, known, right, margin, share_of_positive)

    found = torch.full((len(queries), k), NONE)
    waiting, depth = torch.arange(len(queries)), min(len(known), 2 * (k + skip + right.shape[1]))
    while len(waiting):
        similar, rows = (torch.from_numpy(each) for each in index.search(unit[waiting].cpu().numpy(), depth))
        wrong = (rows[:, :, None] != right.cpu()[waiting, None, :]).all(2) & (similar <= ceiling[waiting, None])
        if group is not None:
            mine, theirs = group.cpu()[waiting, None], candidate_group.cpu()[rows]
            wrong &= (mine != theirs) | (mine < 0)
        place = wrong.cumsum(1) - 1 - skip  # of each remaining candidate among the chosen
        chosen = wrong & (place >= 0) & (place < k)
        query, column = chosen.nonzero(as_tuple=True)
        found[waiting[query], place[query, column]] = rows[query, column]
        short = wrong.sum(1) < k + skip
        waiting, depth = (waiting[short], min(len(known), 4 * depth)) if depth < len(known) else (waiting[:0], depth)
    return found.to(queries.device)


def _index(known: Tensor):
    try:
        import faiss
    except ImportError:
        raise PackageMissing("mining negatives needs faiss: pip install 'contrapose[search]'.") from None
    index = faiss.IndexFlatIP(known.shape[1])
    index.add(known.cpu().numpy())
    return index


def _ceilings(
    unit: Tensor, known: Tensor, right: LongTensor, margin: float | None, share_of_positive: float | None
) -> Tensor:
    """(n,): the largest cosine that a negative may have."""
    ceiling = torch.full((len(unit),), torch.inf)
    if margin is None and share_of_positive is None:
        return ceiling
    cosines = torch.stack(
        [(unit * known[column.clamp_min(0)]).sum(1).masked_fill(column < 0, -torch.inf) for column in right.T]
    )
    nearest = cosines.amax(0).cpu()
    nearest = torch.where(torch.isfinite(nearest), nearest, torch.inf)  # without a positive nothing bounds
    if margin is not None:
        ceiling = torch.minimum(ceiling, nearest - margin)
    if share_of_positive is not None:
        ceiling = torch.minimum(ceiling, torch.where(nearest > 0, share_of_positive * nearest, nearest))
    return ceiling


def _check(
    queries: Tensor,
    candidates: Tensor,
    right: LongTensor,
    k: int,
    skip: int,
    group: LongTensor | None,
    candidate_group: LongTensor | None,
) -> None:
    if queries.ndim != 2 or candidates.ndim != 2 or queries.shape[1] != candidates.shape[1]:
        raise ShapesDiffer(
            f"queries (n, d) and candidates (m, d) are needed; got {tuple(queries.shape)} and {tuple(candidates.shape)}."
        )
    if right.ndim != 2 or len(right) != len(queries):
        raise ShapesDiffer(
            f"positives must name candidates for each of {len(queries)} queries; got {tuple(right.shape)}."
        )
    if right.numel() and int(right.max()) >= len(candidates):
        raise ArgumentInvalid(f"positives name candidate {int(right.max())}, and there are {len(candidates)}.")
    if k < 1 or skip < 0:
        raise ArgumentInvalid(f"k must be at least 1 and skip at least 0; got {k} and {skip}.")
    if (group is None) != (candidate_group is None):
        raise ArgumentInvalid("group and candidate_group belong together; give both or neither.")
    for name, numbers, rows in (("group", group, queries), ("candidate_group", candidate_group, candidates)):
        if numbers is not None and numbers.shape != rows.shape[:1]:
            raise ShapesDiffer(f"{name} must have shape ({len(rows)},); got {tuple(numbers.shape)}.")
    for name, rows in (("queries", queries), ("candidates", candidates)):
        if not bool(torch.isfinite(rows).all()):
            raise NonFinite(f"{name} hold NaN or infinity, by which nothing can be ranked.")

"""Symile: any number of modalities, told together by the product of all of them (Saporta et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from itertools import combinations, product
from math import prod
from operator import mul
from typing import Literal

import torch
from torch import LongTensor, Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer
from contrapose.objectives._arguments import (
    check_choice,
    check_integers,
    check_rows,
    check_temperature,
    divided,
    groups_apart,
    operands,
    row_products,
)
from contrapose.objectives._tiles import PairWeight, log_sum_exp
from contrapose.objectives.info_nce import info_nce

MOST_CANDIDATES = 2**22  # an anchor's, for "n_squared"


def symile(
    embeddings: Sequence[Tensor],
    *,
    temperature: float | Tensor,
    candidates: Literal["n", "n_squared"] = "n",
    permutations: Sequence[Sequence[LongTensor]] | None = None,
    group: LongTensor | None = None,
    generator: torch.Generator | None = None,
    most_candidates: int = MOST_CANDIDATES,
    normalise: bool = True,
) -> Tensor:
    r"""The mean over anchor modalities a of -log  exp(m_i / t)  /  sum over candidates c of exp(<x^a_i, c> / t).

    m_i = sum_d x^1_id x^2_id … x^M_id is the multilinear inner product of row i, and a candidate is a product of rows of the other modalities:
    it scores all modalities together, so that what only two of them tell jointly of a third (XOR) can be learned, which pairwise losses cannot.

    Args:
        embeddings: M >= 2 tensors (b, d), row i with row i.
        temperature: a positive number, or a tensor holding one, which then receives a gradient. Products of M unit vectors are of the
            order of d^(1 - M/2), so a learned one must be able to fall: no lower bound (CLIP's clamp holds it up).
        candidates: "n": for every anchor each other modality is permuted over the batch, and row j's candidate is the product of the
            permuted rows j; the anchor's own place holds its positive: b candidates. "n_squared": every combination of rows, b^(M-1) candidates;
            better for small data.
        permutations: for "n", one for each anchor and each other modality in increasing order, (b,), instead of drawn ones.
        group: (b,) integers. A candidate all of whose rows are of the anchor's group is none of its negatives; below 0 stands for "no group".
        generator: what draws the permutations otherwise; on the CPU.
        most_candidates: more, for "n_squared", are refused.
        normalise: make unit rows first (the official code leaves that to its caller).

    Returns:
        A scalar, at least 0; at chance log(b), or (M - 1) log(b) for "n_squared". Precision as for `info_nce`; in tiles, and for
        "n_squared" a block of b candidates at a time.

    Equals CLIP's `info_nce(…, symmetric=True)` for two modalities with "n_squared" (and with "n" whatever is drawn).

    Raises TemperatureInvalid, NonFinite, DoubleBackward; ShapesDiffer for fewer than two modalities or other shapes; NoNegatives for fewer
    than two rows; ArgumentInvalid for too many candidates, with their number, and for permutations that are none.
    """
    check_temperature(temperature)
    check_choice("candidates", candidates, ("n", "n_squared"))
    reps, products = _modalities(embeddings, normalise)
    if group is not None:
        check_integers("group", group, len(reps[0]), "the batch")
    b, others = len(reps[0]), len(reps) - 1
    if candidates == "n_squared" and b**others > most_candidates:
        raise ArgumentInvalid(
            f"{b} rows of {len(reps)} modalities make {b**others:,} candidates an anchor, more than {most_candidates:,}; take a smaller batch, "
            'candidates="n", or raise most_candidates.'
        )
    if permutations is not None:
        _check_permutations(permutations, candidates, others, b)
    losses = []
    for number, anchor in enumerate(reps):
        rest = [rep for place, rep in enumerate(reps) if place != number]
        scaled = divided(anchor, temperature)
        positive = row_products(scaled, reduce(mul, rest))
        with torch.autocast(anchor.device.type, enabled=False):
            if candidates == "n":
                drawn = permutations[number] if permutations is not None else _permutations(others, b, generator)
                negative = _permuted(scaled, rest, drawn, group, products)
            else:
                negative = _all_combinations(scaled, rest, group, products)
        losses.append(functional.softplus(negative - positive, threshold=40).mean())
    return torch.stack(losses).mean()


def symile_scores(queries: Sequence[Tensor], candidates: Tensor, *, normalise: bool = True) -> Tensor:
    """(n, m): the product of all query modalities, each (n, d), with each of (m, d) candidates of the missing one.

    Unit rows first with `normalise`. Ranks the candidates of one modality given all others; dividing by the temperature and a softmax make it
    a probability. Raises NonFinite, ShapesDiffer.
    """
    if not queries:
        raise ShapesDiffer("at least one query modality is needed; got none.")
    check_rows("candidates", candidates, ("m", queries[0].shape[-1]))
    for number, rows in enumerate(queries):
        check_rows(f"query {number}", rows, tuple(queries[0].shape))
    similarity = "cosine" if normalise else "dot"
    rows = operands({**{str(n): each for n, each in enumerate(queries)}, "candidates": candidates}, similarity).rows
    known = rows.pop("candidates")
    return reduce(mul, rows.values()) @ known.T


def pairwise_clip(
    embeddings: Sequence[Tensor],
    *,
    temperature: float | Tensor,
    group: LongTensor | None = None,
    normalise: bool = True,
) -> Tensor:
    """The baseline: CLIP's symmetric InfoNCE of each pair of modalities, summed over the pairs (as the official code does, where its docstring
    says averaged). Arguments and errors as for `symile`; its retrieval score is the sum of the cosines with all queries."""
    reps, _ = _modalities(embeddings, normalise=False)
    similarity = "cosine" if normalise else "dot"
    return sum(
        info_nce(x, y, temperature=temperature, group=group, symmetric=True, similarity=similarity)
        for x, y in combinations(reps, 2)
    )


def _modalities(embeddings: Sequence[Tensor], normalise: bool) -> tuple[list[Tensor], torch.dtype]:
    if len(embeddings) < 2:
        raise ShapesDiffer(f"at least two modalities are needed; got {len(embeddings)}.")
    check_rows("modality 0", embeddings[0], ("b", "d"))
    for number, rows in enumerate(embeddings[1:], 1):
        check_rows(f"modality {number}", rows, tuple(embeddings[0].shape))
    if len(embeddings[0]) < 2:
        raise NoNegatives(
            f"{len(embeddings[0])} row(s): an anchor is told from other rows, so at least two are needed."
        )
    rows, products = operands({str(n): each for n, each in enumerate(embeddings)}, "cosine" if normalise else "dot")
    return list(rows.values()), products


def _permutations(count: int, b: int, generator: torch.Generator | None) -> list[LongTensor]:
    return [torch.randperm(b, generator=generator) for _ in range(count)]


def _check_permutations(permutations: Sequence[Sequence[LongTensor]], candidates: str, others: int, b: int) -> None:
    if candidates != "n":
        raise ArgumentInvalid(
            f'permutations are of candidates="n"; with {candidates!r} all combinations are candidates.'
        )
    counts = [len(each) for each in permutations]
    if counts != [others] * (others + 1):
        raise ShapesDiffer(
            f"permutations hold {others} for each of the {others + 1} modalities, one for each of the others; got {counts}."
        )
    for permutation in (each for of_anchor in permutations for each in of_anchor):
        check_integers("a permutation", permutation, b, "the batch")
        if sorted(permutation.tolist()) != list(range(b)):
            raise ArgumentInvalid(
                f"a permutation must hold each of the numbers 0 to {b - 1} once; got {permutation.tolist()}."
            )


def _permuted(
    anchor: Tensor,
    rest: Sequence[Tensor],
    drawn: Sequence[LongTensor],
    group: LongTensor | None,
    products: torch.dtype,
) -> Tensor:
    """The logs of sums over b - 1 permuted candidates; the anchor's own place is left to its positive."""
    b = len(anchor)
    rows = [permutation.to(anchor.device) for permutation in drawn]
    columns = reduce(mul, (rep[row] for rep, row in zip(rest, rows, strict=True)))
    own = torch.arange(b, device=anchor.device)[:, None]
    return log_sum_exp(anchor, columns, skip=own, weight=_apart(group, rows), products=products)[0]


def _all_combinations(
    anchor: Tensor, rest: Sequence[Tensor], group: LongTensor | None, products: torch.dtype
) -> Tensor:
    """The logs of sums over all combinations of rows but the anchor's own: b at a time, which all modalities but the first are rolled for."""
    b = len(anchor)
    every = torch.arange(b, device=anchor.device)

    def block(*shifts: int) -> Tensor:
        rows = [every.roll(-shift) for shift in (0, *shifts)]
        columns = reduce(mul, (rep[row] for rep, row in zip(rest, rows, strict=True)))
        own = None if any(shifts) else every[:, None]
        return log_sum_exp(anchor, columns, skip=own, weight=_apart(group, rows), products=products)[0]

    if prod([b] * (len(rest) - 1)) == 1:
        return block()
    shifted = product(range(b), repeat=len(rest) - 1)
    return torch.stack([checkpoint(block, *shifts, use_reentrant=False) for shifts in shifted]).logsumexp(0)


def _apart(group: LongTensor | None, rows: Sequence[LongTensor]) -> PairWeight | None:
    """Keeps candidates not all of whose rows, one (b,) for each modality, are of the anchor's group."""
    if group is None:
        return None
    groups = torch.stack([group[row] for row in rows])
    return groups_apart(group, torch.where((groups == groups[0]).all(dim=0), groups[0], -1))

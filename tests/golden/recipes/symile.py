"""Symile with both sets of candidates, its scores, and the pairwise baseline with its own."""

from __future__ import annotations

import torch

from contrapose.objectives import pairwise_clip, symile, symile_scores
from tests.golden.pieces import Arrays, Made, each_case, gradients, leaf

INPUTS = ("?_reps", "?_logit_scale", "?_perms", "?_candidates")
WAITS: dict[str, str] = {}
CALLS = {
    "?_*_n_squared": '`symile(reps, temperature=1 / s, candidates="n_squared", normalise=False)`',
    "?_*_n": "`symile(reps, temperature=1 / s, permutations=…, normalise=False)`",
    "?_mip_scores": "`symile_scores(reps[1:], candidates, normalise=False)`",
    "?_*_pairwise_clip_sum": "`pairwise_clip(reps, temperature=1 / s, normalise=False)`",
    "?_pairwise_retrieval_logits": "`symile_scores([query], candidates, normalise=False)`, summed over the queries",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return each_case(one_case, given, due)


def one_case(given: Arrays, due: list[str]) -> Made:
    stacked, scale = leaf(given["reps"]), leaf(given["logit_scale"])
    reps, candidates = stacked.unbind(), torch.tensor(given["candidates"])
    options = {"temperature": 1 / scale, "normalise": False}
    losses = {
        "n_squared": symile(reps, candidates="n_squared", **options),
        "n": symile(reps, permutations=[list(each) for each in torch.tensor(given["perms"])], **options),
        "pairwise_clip_sum": pairwise_clip(reps, **options),
    }
    made: Made = {"mip_scores": symile_scores(reps[1:], candidates, normalise=False)}
    for name, loss in losses.items():
        made[f"loss_{name}"] = loss
        made |= gradients(loss, **{f"grad_{name}": stacked, f"grad_logit_scale_{name}": scale})
    between = sum(symile_scores([query], candidates, normalise=False) for query in reps[1:])
    among = pairs_of_queries(reps[1:])[:, None].float().double()  # which the reference keeps in float32
    return made | {"pairwise_retrieval_logits": scale * (between + among)}


def pairs_of_queries(queries: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """(b,): what all candidates of a row have in common in the baseline's score, the cosines among its queries."""
    pairs = torch.combinations(torch.arange(len(queries)))
    products = ((queries[int(first)] * queries[int(second)]).sum(1) for first, second in pairs)
    return sum(products, torch.zeros(len(queries[0])))

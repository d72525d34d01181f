from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer
from contrapose.objectives import info_nce, pairwise_clip, symile, symile_scores
from tests.objectives.numbers import EXACT, normal


def modalities(count: int, b: int = 4, d: int = 5) -> list[torch.Tensor]:
    return [normal(b, d, seed=seed) for seed in range(count)]


def all_combinations(reps, temperature):
    """The docstring's sum for "n_squared", one candidate at a time."""
    unit = [functional.normalize(rep, dim=1) for rep in reps]
    b, losses = len(unit[0]), []
    for number, anchor in enumerate(unit):
        rest = [rep for place, rep in enumerate(unit) if place != number]
        for i in range(b):
            logits = [
                (anchor[i] * math.prod(rep[j] for rep, j in zip(rest, rows, strict=True))).sum() / temperature
                for rows in product(range(b), repeat=len(rest))
            ]
            own = (anchor[i] * math.prod(rep[i] for rep in rest)).sum() / temperature
            losses.append(torch.stack(logits).logsumexp(0) - own)
    return torch.stack(losses).mean()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_every_combination_is_a_candidate(count):
    reps = modalities(count)
    found = symile(reps, temperature=0.2, candidates="n_squared")
    torch.testing.assert_close(found, all_combinations(reps, 0.2), **EXACT)


@pytest.mark.parametrize("candidates", ["n", "n_squared"])
def test_two_modalities_are_clip(candidates):
    reps = modalities(2)
    expected = info_nce(*reps, temperature=0.2, symmetric=True)
    if (
        candidates == "n"
    ):  # one permutation for each anchor: every other row once, and the anchor's own place its positive
        still = [[torch.arange(4)], [torch.arange(4)]]
        found = symile(reps, temperature=0.2, permutations=still)
    else:
        found = symile(reps, temperature=0.2, candidates=candidates)
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("candidates", ["n", "n_squared"])
def test_gradients(candidates):
    inputs = [*modalities(3), torch.tensor(0.4).double()]
    drawn = [[torch.tensor([1, 3, 0, 2]), torch.tensor([2, 0, 1, 3])]] * 3 if candidates == "n" else None
    assert torch.autograd.gradcheck(
        lambda *given: symile(given[:3], temperature=given[3], candidates=candidates, permutations=drawn),
        [each.requires_grad_() for each in inputs],
    )


def test_a_generator_draws_the_same_candidates_again():
    once, again, other = (
        symile(modalities(3, b=50), temperature=0.2, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_value_at_chance():
    same = [torch.ones(5, 4, dtype=torch.float64)] * 3
    assert float(symile(same, temperature=0.2)) == pytest.approx(math.log(5), abs=1e-12)
    assert float(symile(same, temperature=0.2, candidates="n_squared")) == pytest.approx(2 * math.log(5), abs=1e-12)


def test_scores_are_products_of_all_queries_with_each_candidate():
    first, second, candidates = normal(3, 4), normal(3, 4, seed=1), normal(6, 4, seed=2)
    unit = [functional.normalize(rows, dim=1) for rows in (first, second, candidates)]
    expected = torch.einsum("nd,nd,md->nm", *unit)
    torch.testing.assert_close(symile_scores([first, second], candidates), expected, **EXACT)


def test_pairwise_clip_sums_over_pairs():
    x, y, z = modalities(3)
    expected = sum(info_nce(*pair, temperature=0.2, symmetric=True) for pair in ((x, y), (x, z), (y, z)))
    torch.testing.assert_close(pairwise_clip([x, y, z], temperature=0.2), expected, **EXACT)


def test_pairwise_clip_takes_rows_as_they_stand_for_dot_products():
    x, y = modalities(2)
    expected = info_nce(x, y, temperature=0.2, symmetric=True, similarity="dot")
    torch.testing.assert_close(pairwise_clip([x, y], temperature=0.2, normalise=False), expected, **EXACT)


def test_too_many_candidates_are_refused_with_their_number():
    with pytest.raises(ArgumentInvalid, match="4 rows of 4 modalities make 64 candidates"):
        symile(modalities(4), temperature=0.2, candidates="n_squared", most_candidates=63)


@pytest.mark.parametrize(
    ("reps", "error"),
    [
        (modalities(1), ShapesDiffer),
        ([normal(4, 3), normal(3, 3)], ShapesDiffer),
        (modalities(3, b=1), NoNegatives),
    ],
)
def test_what_makes_no_sense_is_refused(reps, error):
    with pytest.raises(error):
        symile(reps, temperature=0.2)


@pytest.mark.parametrize(
    ("permutations", "candidates", "error", "said"),
    [
        ([[torch.arange(4)] * 2] * 2, "n", ShapesDiffer, r"2 for each of the 3 modalities.*got \[2, 2\]"),
        ([[torch.arange(4)]] * 3, "n", ShapesDiffer, r"got \[1, 1, 1\]"),
        ([[torch.tensor([0, 1, 2, 4])] * 2] * 3, "n", ArgumentInvalid, "each of the numbers 0 to 3 once"),
        ([[torch.tensor([0, 1, 1, 3])] * 2] * 3, "n", ArgumentInvalid, "once"),
        ([[torch.arange(4)] * 2] * 3, "n_squared", ArgumentInvalid, "all combinations"),
    ],
)
def test_permutations_that_are_none_are_refused(permutations, candidates, error, said):
    with pytest.raises(error, match=said):
        symile(modalities(3, b=4), temperature=0.2, permutations=permutations, candidates=candidates)


def test_a_candidate_wholly_of_the_anchors_group_is_left_out():
    reps, group = modalities(3), torch.tensor([0, 0, 1, -1])
    drawn = [[torch.tensor([1, 0, 3, 2]), torch.tensor([1, 2, 3, 0])]] * 3
    unit = [functional.normalize(rep, dim=1) for rep in reps]
    losses = []
    for number, anchor in enumerate(unit):
        first, second = (rep for place, rep in enumerate(unit) if place != number)
        columns = first[drawn[0][0]] * second[drawn[0][1]]
        logits = anchor @ columns.T / 0.3
        own = (anchor * first * second).sum(1) / 0.3
        logits = logits.diagonal_scatter(own)
        logits[
            1, 0
        ] = -math.inf  # rows 1 and 1, of row 1's group; the rows of all other candidates are of two groups, or of none
        losses.append(logits.logsumexp(1) - own)
    found = symile(reps, temperature=0.3, permutations=drawn, group=group)
    torch.testing.assert_close(found, torch.stack(losses).mean(), **EXACT)


def test_every_combination_but_those_of_the_anchors_group():
    reps, group = modalities(3, b=3), torch.tensor([4, 4, 2])
    unit, losses = [functional.normalize(rep, dim=1) for rep in reps], []
    for number, anchor in enumerate(unit):
        first, second = (rep for place, rep in enumerate(unit) if place != number)
        for i in range(3):
            kept = [
                (j, k)
                for j, k in product(range(3), repeat=2)
                if (j, k) == (i, i) or not int(group[j]) == int(group[k]) == int(group[i])
            ]
            logits = torch.stack([(anchor[i] * first[j] * second[k]).sum() for j, k in kept])
            losses.append(logits.logsumexp(0) - (anchor[i] * first[i] * second[i]).sum())
    found = symile(reps, temperature=1.0, candidates="n_squared", group=group)
    torch.testing.assert_close(found, torch.stack(losses).mean(), **EXACT)


def test_an_anchor_whose_group_is_the_whole_batch_has_no_part():
    reps = [rep.requires_grad_() for rep in modalities(3)]
    for candidates in ("n", "n_squared"):
        loss = symile(reps, temperature=0.5, candidates=candidates, group=torch.zeros(4, dtype=torch.long))
        assert float(loss.detach()) == 0
        assert all(bool(each.isfinite().all()) for each in torch.autograd.grad(loss, reps))

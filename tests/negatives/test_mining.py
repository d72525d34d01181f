from __future__ import annotations

import sys

import pytest
import torch
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NonFinite, PackageMissing, ShapesDiffer
from contrapose.negatives import mine_negatives


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_hand(queries, candidates, right, k, skip=0, ceiling=None, group=None, candidate_group=None):
    """Every candidate looked at, query by query."""
    cosines = functional.normalize(queries, dim=1) @ functional.normalize(candidates, dim=1).T
    found = []
    for i, row in enumerate(cosines):
        kept = [
            j for j in row.argsort(descending=True).tolist()
            if j not in right[i] and (ceiling is None or row[j] <= ceiling(row[[r for r in right[i] if r >= 0]].max()))
            and (group is None or group[i] < 0 or group[i] != candidate_group[j])
        ]  # fmt: skip
        kept = kept[skip : skip + k]
        found.append(kept + [-1] * (k - len(kept)))
    return found


QUERIES, CANDIDATES = normal(7, 5), normal(40, 5, seed=1)
POSITIVES = torch.arange(7) * 3


@pytest.mark.parametrize("k", [1, 3, 39])
@pytest.mark.parametrize("skip", [0, 2])
def test_the_nearest_that_are_wrong_come_first(k, skip):
    found = mine_negatives(QUERIES, CANDIDATES, POSITIVES, k=k, skip=skip)
    assert found.tolist() == by_hand(QUERIES, CANDIDATES, [[int(p)] for p in POSITIVES], k, skip)


@pytest.mark.parametrize(
    ("options", "ceiling"),
    [
        ({"margin": 0.2}, lambda positive: positive - 0.2),
        ({"share_of_positive": 0.5}, lambda positive: 0.5 * positive if positive > 0 else positive),
    ],
)
def test_what_is_too_near_the_positive_is_left_out(options, ceiling):
    positives = (functional.normalize(QUERIES, dim=1) @ functional.normalize(CANDIDATES, dim=1).T).topk(3).indices[:, 2]
    found = mine_negatives(QUERIES, CANDIDATES, positives, k=5, **options)
    assert found.tolist() == by_hand(QUERIES, CANDIDATES, [[int(p)] for p in positives], 5, ceiling=ceiling)


def test_every_positive_of_a_query_is_left_out():
    positives = torch.stack([POSITIVES, POSITIVES + 1, torch.full((7,), -1)], 1)
    assert mine_negatives(QUERIES, CANDIDATES, positives, k=4).tolist() == by_hand(
        QUERIES, CANDIDATES, positives.tolist(), 4
    )


def test_candidates_of_the_querys_group_are_left_out():
    group, theirs = torch.tensor([0, 1, 2, 0, 1, 2, -1]), torch.arange(40) % 3
    found = mine_negatives(QUERIES, CANDIDATES, POSITIVES, k=4, group=group, candidate_group=theirs)
    assert found.tolist() == by_hand(
        QUERIES, CANDIDATES, [[int(p)] for p in POSITIVES], 4, group=group, candidate_group=theirs
    )


def test_without_faiss_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(PackageMissing, match=r"pip install 'contrapose\[search\]'"):
        mine_negatives(QUERIES, CANDIDATES, POSITIVES)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"candidates": normal(40, 4)}, ShapesDiffer),
        ({"positives": torch.arange(6)}, ShapesDiffer),
        ({"positives": torch.full((7,), 40)}, ArgumentInvalid),
        ({"k": 0}, ArgumentInvalid),
        ({"group": torch.arange(7)}, ArgumentInvalid),
        ({"queries": QUERIES / 0}, NonFinite),
    ],
)
def test_what_makes_no_sense_is_refused(given, error):
    with pytest.raises(error):
        mine_negatives(**{"queries": QUERIES, "candidates": CANDIDATES, "positives": POSITIVES, **given})

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from contrapose.errors import NoNegatives, ShapesDiffer
from contrapose.objectives import nt_xent
from contrapose.objectives._tiles import pairs
from tests.objectives.numbers import EXACT, normal


def by_hand(first, second, temperature, group=None, similarity="cosine"):
    """SimCLR's equation 1, one view at a time."""
    z = torch.cat([first, second])
    z = functional.normalize(z, dim=1) if similarity == "cosine" else z
    b, losses = len(first), []
    row = [*range(b), *range(b)]
    for i in range(2 * b):
        partner = (i + b) % (2 * b)
        others = [
            k for k in range(2 * b)
            if k == partner or (k != i and row[k] != row[i] and (group is None or group[row[k]] != group[row[i]]))
        ]  # fmt: skip
        losses.append(-torch.log_softmax(z[i] @ z[others].T / temperature, 0)[others.index(partner)])
    return torch.stack(losses)


@pytest.mark.parametrize("tile", [512, 3])
@pytest.mark.parametrize("group", [None, [0, 1, 0, 2, 1]])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_follows_the_formula(tile, group, similarity, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS", tile)
    first, second = normal(5, 4), normal(5, 4, seed=1)
    losses = nt_xent(
        first,
        second,
        temperature=0.3,
        group=None if group is None else torch.tensor(group),
        similarity=similarity,
        reduction="none",
    )
    torch.testing.assert_close(losses, by_hand(first, second, 0.3, group, similarity), **EXACT)


@pytest.mark.parametrize("tile", [512, 3])
def test_gradients_of_views_and_temperature(tile, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS", tile)
    inputs = [normal(4, 3), normal(4, 3, seed=1), torch.tensor(0.4, dtype=torch.float64)]
    assert torch.autograd.gradcheck(
        lambda a, b, t: nt_xent(a, b, temperature=t), [each.requires_grad_() for each in inputs]
    )


def test_value_at_chance():
    same = torch.ones(6, 4, dtype=torch.float64)
    assert float(nt_xent(same, same, temperature=0.1)) == pytest.approx(math.log(11), abs=1e-12)


def test_upper_bound_is_reached_by_opposite_positives():
    e = torch.eye(1, 4, dtype=torch.float64)
    first, second = torch.cat([e, e]), torch.cat([-e, -e])
    # views of one side are equal, and opposite to their partners and to the other side
    expected = math.log(1 + math.exp(2 / 0.5) + 1)
    assert float(nt_xent(first, second, temperature=0.5)) == pytest.approx(expected, abs=1e-12)


def test_one_row_is_refused():
    with pytest.raises(NoNegatives, match="at least two rows"):
        nt_xent(normal(1, 4), normal(1, 4), temperature=0.1)


def test_views_must_fit():
    with pytest.raises(ShapesDiffer, match="second"):
        nt_xent(normal(3, 4), normal(2, 4), temperature=0.1)

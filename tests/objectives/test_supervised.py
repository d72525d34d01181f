from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, NoPositives
from contrapose.objectives import supervised
from contrapose.objectives._tiles import pairs
from tests.objectives.numbers import EXACT, normal

LABELS = torch.tensor([0, 1, 0, 2, 1, 0, 3])


def by_hand(a, c, labels, theirs, temperature, denominator, ignored=None, not_itself=False):
    """The formula in the docstring, one pair at a time: sums over positives, and their number."""
    a, c = functional.normalize(a, dim=1), functional.normalize(c, dim=1)
    sums, numbers = [], []
    for i in range(len(a)):
        others = [j for j in range(len(c)) if not (not_itself and i == j)]
        positive = [j for j in others if theirs[j] == labels[i]]
        negative = [j for j in others if theirs[j] != labels[i] and (ignored is None or theirs[j] != ignored[i])]
        total = torch.zeros((), dtype=a.dtype)
        for p in positive:
            columns = {"all": positive + negative, "negatives": negative, "own": [p, *negative]}[denominator]
            total = total + (a[i] @ c[columns].T / temperature).logsumexp(0) - a[i] @ c[p] / temperature
        sums.append(total)
        numbers.append(len(positive))
    return torch.stack(sums), torch.tensor(numbers)


@pytest.mark.parametrize("tile", [2048, 3])
@pytest.mark.parametrize("denominator", ["all", "negatives", "own"])
@pytest.mark.parametrize("ignoring", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_follows_the_formula(tile, denominator, ignoring, same, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS", tile)
    monkeypatch.setattr(pairs, "COLUMNS", tile)
    a, c, theirs = normal(7, 4), normal(6, 4, seed=1), torch.tensor([1, 0, 2, 0, 1, 1])
    ignored = torch.tensor([1, 0, 0, 0, 2, 2, 1]) if ignoring else None
    given = {} if same else {"candidates": c, "candidate_labels": theirs}
    expected, number = by_hand(a, a if same else c, LABELS, LABELS if same else theirs, 0.3, denominator, ignored, same)
    options = {"labels": LABELS, "ignored_labels": ignored, "temperature": 0.3, "denominator": denominator}
    each = expected / number.clamp_min(1)
    torch.testing.assert_close(supervised(a, **given, **options, reduction="none"), each, **EXACT)
    mean = each.sum() / (number > 0).sum()
    torch.testing.assert_close(supervised(a, **given, **options), mean, **EXACT)
    paired = expected.sum() / number.sum()
    torch.testing.assert_close(supervised(a, **given, **options, reduction="pairs"), paired, **EXACT)


@pytest.mark.parametrize("denominator", ["all", "negatives", "own"])
@pytest.mark.parametrize("same", [False, True])
def test_gradients(denominator, same):
    a, c, t = normal(7, 3).requires_grad_(), normal(7, 3, seed=1).requires_grad_(), torch.tensor(0.4).double()

    def loss(a, c, t):
        given = {} if same else {"candidates": c, "candidate_labels": LABELS.roll(1)}
        value = supervised(a, labels=LABELS, temperature=t, denominator=denominator, **given)
        return value + 0 * c.sum()

    assert torch.autograd.gradcheck(loss, (a, c, t.requires_grad_()))


def test_value_at_chance_is_the_log_of_the_columns():
    same = torch.ones(7, 4, dtype=torch.float64)
    assert float(supervised(same, labels=LABELS, temperature=0.1)) == pytest.approx(math.log(6), abs=1e-12)


def test_anchors_without_positives_are_left_out_of_the_mean():
    a = normal(7, 4)
    each = supervised(a, labels=LABELS, temperature=0.3, reduction="none")
    assert each[[3, 6]].tolist() == [0, 0]
    torch.testing.assert_close(supervised(a, labels=LABELS, temperature=0.3), each[[0, 1, 2, 4, 5]].mean(), **EXACT)


def test_no_positive_at_all_is_refused():
    with pytest.raises(NoPositives):
        supervised(normal(4, 3), labels=torch.arange(4), temperature=0.1)


def test_one_label_leaves_nothing_to_tell_positives_from():
    with pytest.raises(NoNegatives, match="at least two labels"):
        supervised(normal(4, 3), labels=torch.zeros(4, dtype=torch.int64), temperature=0.1, denominator="negatives")


def test_candidates_need_labels():
    with pytest.raises(ArgumentInvalid, match="belong together"):
        supervised(normal(4, 3), normal(4, 3), labels=torch.arange(4), temperature=0.1)

from __future__ import annotations

import pytest
import torch

from contrapose.training.dropout import Dropout, dropout


@pytest.mark.parametrize("shape", [(3,), (7, 5), (2, 3, 4)])
def test_dropout_keeps_the_shape_of_any_number_of_elements(shape):
    assert dropout(torch.ones(shape), 0.5).shape == shape


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_keeps_the_mean(p):
    torch.manual_seed(0)
    dropped = dropout(torch.ones(400_000, dtype=torch.float64), p)
    assert abs((dropped == 0).double().mean().item() - p) < 0.004  # five standard deviations
    assert abs(dropped.mean().item() - 1) < 0.025 * (p / (1 - p)) ** 0.5
    assert len(dropped.unique()) == 2


def test_dropout_of_neighbours_is_independent():
    """Four elements share a draw; each has to have bits of its own."""
    torch.manual_seed(0)
    dropped = (dropout(torch.ones(400_000), 0.5) == 0).double().view(-1, 4)
    assert (torch.corrcoef(dropped.T) - torch.eye(4)).abs().max() < 0.016  # five standard deviations


@pytest.mark.parametrize(("p", "expected"), [(0.0, [1.0, 1.0]), (1.0, [0.0, 0.0])])
def test_dropout_of_nothing_and_of_everything(p, expected):
    assert dropout(torch.ones(2), p).tolist() == expected


def test_dropout_rests_in_evaluation_mode():
    assert Dropout(0.5).eval()(torch.ones(4)).tolist() == [1.0] * 4

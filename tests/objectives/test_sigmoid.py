from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from contrapose.errors import NoNegatives
from contrapose.objectives import sigmoid
from tests.objectives.numbers import EXACT, normal


@pytest.mark.parametrize("group", [None, torch.tensor([0, 1, 0, -1, -1])])
def test_follows_the_formula(group):
    a, p = normal(5, 4), normal(5, 4, seed=1)
    z = functional.normalize(a, dim=1) @ functional.normalize(p, dim=1).T / 0.1 - 3.0
    sign = 2 * torch.eye(5, dtype=torch.float64) - 1
    each = -functional.logsigmoid(sign * z)
    if group is not None:
        apart = (group[:, None] != group) | (group < 0)
        each = each * (apart | torch.eye(5, dtype=torch.bool))
    found = sigmoid(a, p, temperature=0.1, bias=-3.0, group=group, reduction="none")
    torch.testing.assert_close(found, each.sum(1), **EXACT)


def test_gradients_of_embeddings_temperature_and_bias():
    inputs = [normal(4, 3), normal(4, 3, seed=1), torch.tensor(0.4).double(), torch.tensor(-2.0).double()]
    assert torch.autograd.gradcheck(
        lambda a, p, t, bias: sigmoid(a, p, temperature=t, bias=bias), [each.requires_grad_() for each in inputs]
    )


def test_value_where_all_logits_are_0():
    a, p = torch.eye(2, 4, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[2:]
    assert float(sigmoid(a, p, temperature=0.1)) == pytest.approx(2 * math.log(2), abs=1e-12)


def test_one_row_is_refused():
    with pytest.raises(NoNegatives):
        sigmoid(normal(1, 3), normal(1, 3), temperature=0.1)

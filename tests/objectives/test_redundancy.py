from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer
from contrapose.objectives import barlow_twins, negative_cosine, vicreg
from tests.objectives.numbers import EXACT, normal


@pytest.mark.parametrize("standardise", [False, True])
def test_barlow_twins_follows_the_formula(standardise):
    a, b = normal(9, 3), normal(9, 3, seed=1)
    x, y = (functional.batch_norm(z, None, None, training=True, eps=1e-5) if standardise else z for z in (a, b))
    expected = sum(
        ((x[:, i] * y[:, j]).mean() - float(i == j)) ** 2 * (1 if i == j else 0.1) for i in range(3) for j in range(3)
    )
    found = barlow_twins(a, b, off_diagonal=0.1, standardise=standardise)
    torch.testing.assert_close(found, expected, **EXACT)


def test_vicreg_follows_the_formula():
    a, b = normal(9, 3), normal(9, 3, seed=1)

    def variance(z):
        return (1 - (z.var(0) + 1e-4).sqrt()).clamp_min(0).mean()

    def covariance(z):
        square = torch.cov(z.T).square()
        return (square.sum() - square.diagonal().sum()) / 3

    expected = 7 * (a - b).square().mean() + 5 * (variance(a) + variance(b)) / 2 + 3 * (covariance(a) + covariance(b))
    torch.testing.assert_close(vicreg(a, b, invariance=7, variance=5, covariance=3), expected, **EXACT)


def test_a_collapse_costs_vicreg_its_variance():
    point = torch.ones(4, 3, dtype=torch.float64)
    assert float(vicreg(point, point)) == pytest.approx(25 * (1 - 1e-4**0.5), abs=1e-12)


def test_negative_cosine_has_no_gradient_through_targets():
    p, z = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    loss = negative_cosine(p, z)
    torch.testing.assert_close(loss, -functional.cosine_similarity(p, z).mean(), **EXACT)
    loss.backward()
    assert p.grad is not None
    assert z.grad is None


@pytest.mark.parametrize("objective", [barlow_twins, vicreg])
def test_gradients(objective):
    a, b = normal(5, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(objective, (a, b))


@pytest.mark.parametrize("objective", [barlow_twins, vicreg])
def test_what_makes_no_sense_is_refused(objective):
    with pytest.raises(NoNegatives):
        objective(normal(1, 3), normal(1, 3))
    with pytest.raises(ShapesDiffer, match="second"):
        objective(normal(4, 3), normal(4, 2))
    with pytest.raises(ArgumentInvalid):
        objective(normal(4, 3), normal(4, 3), **{("off_diagonal" if objective is barlow_twins else "variance"): -1.0})

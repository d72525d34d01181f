from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from contrapose import geometry
from contrapose.errors import NoNegatives
from contrapose.objectives import alignment, uniformity
from contrapose.objectives._tiles import pairs
from tests.objectives.numbers import EXACT, normal


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_alignment_follows_the_formula(power):
    a, p = normal(5, 4), normal(5, 4, seed=1)
    expected = (functional.normalize(a, dim=1) - functional.normalize(p, dim=1)).norm(dim=1).pow(power).mean()
    torch.testing.assert_close(alignment(a, p, power=power), expected, **EXACT)


@pytest.mark.parametrize("tile", [512, 3])
@pytest.mark.parametrize("t", [0.5, 2.0, 50.0])
def test_uniformity_follows_the_formula(tile, t, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS", tile)
    z = normal(7, 4)
    expected = torch.pdist(functional.normalize(z, dim=1)).square().mul(-t).exp().mean().log()
    torch.testing.assert_close(uniformity(z, t=t), expected, **EXACT)


def test_they_are_the_figures_of_geometry():
    a, p = normal(5, 4), normal(5, 4, seed=1)
    assert float(alignment(a, p)) == pytest.approx(geometry.alignment(a, p), abs=1e-12)
    assert float(uniformity(a)) == pytest.approx(geometry.uniformity(a), abs=1e-12)


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_gradients(power):
    a, p = normal(5, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, p: alignment(a, p, power=power) + uniformity(a), (a, p))


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_equal_rows_have_finite_gradients(power):
    a = normal(3, 4).requires_grad_()
    assert torch.isfinite(torch.autograd.grad(alignment(a, a.detach().clone(), power=power), a)[0]).all()


def test_one_row_has_no_uniformity():
    with pytest.raises(NoNegatives):
        uniformity(normal(1, 3))

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from contrapose import geometry
from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer

FIGURES = [geometry.uniformity, geometry.effective_rank, geometry.mean_cosine, geometry.spread]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def axes(d: int, k: int) -> Tensor:
    """Both directions of the first k axes: 2 k rows with equal variance along k dimensions."""
    return torch.cat([torch.eye(d, dtype=torch.float64)[:k], -torch.eye(d, dtype=torch.float64)[:k]])


def test_alignment_of_equal_orthogonal_and_opposite_directions():
    x = axes(6, 2)
    assert geometry.alignment(x, 3 * x) == pytest.approx(0, abs=1e-12)
    assert geometry.alignment(x, x.roll(1, dims=1)) == pytest.approx(2)
    assert geometry.alignment(x, -x) == pytest.approx(4)


def test_alignment_is_two_minus_twice_the_mean_cosine():
    x, y = normal(9, 5), normal(9, 5, seed=1)
    cosine = float(functional.cosine_similarity(x, y).mean())
    assert geometry.alignment(x, y) == pytest.approx(2 - 2 * cosine, abs=1e-12)


@pytest.mark.parametrize("tile", [1, 4, 100])
@pytest.mark.parametrize("t", [2.0, 500.0])
def test_uniformity_follows_the_formula_in_tiles_of_any_size(monkeypatch, tile, t):
    monkeypatch.setattr(geometry, "TILE", tile)
    x = normal(11, 5)
    expected = (-t * functional.pdist(functional.normalize(x, dim=1)).square()).logsumexp(0) - math.log(55)
    assert geometry.uniformity(x, t) == pytest.approx(float(expected), rel=1e-10)


def test_uniformity_of_equal_rows_is_zero():
    assert geometry.uniformity(torch.ones(7, 3)) == pytest.approx(0, abs=1e-6)


def test_uniformity_keeps_its_precision_under_autocast():
    x = normal(64, 32).float()
    plain = geometry.uniformity(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert geometry.uniformity(x) == plain


@pytest.mark.parametrize("k", [1, 3, 6])
def test_effective_rank_counts_dimensions_of_equal_variance(k):
    assert geometry.effective_rank(axes(6, k)) == pytest.approx(k)


def test_effective_rank_is_the_entropy_of_variances():
    x = torch.cat([axes(4, 2), axes(4, 1)])  # 4 rows along the first axis, 2 along the second
    shares = torch.tensor([4 / 6, 2 / 6])
    assert geometry.effective_rank(x) == pytest.approx(math.exp(-float((shares * shares.log()).sum())))


def test_effective_rank_ignores_a_common_direction():
    mean = functional.one_hot(torch.tensor(5), 6).double()
    assert geometry.effective_rank(axes(6, 4) + 100 * mean) == pytest.approx(4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_effective_rank_of_equal_rows_is_one(dtype):
    row = normal(1, 384).to(dtype)
    assert geometry.effective_rank(row * torch.linspace(1, 3, 1000, dtype=dtype)[:, None]) == 1


def test_mean_cosine_is_the_mean_over_pairs():
    x = normal(8, 5)
    cosine = functional.cosine_similarity(x[:, None], x[None], dim=2)
    expected = cosine[~torch.eye(8, dtype=torch.bool)].mean()
    assert geometry.mean_cosine(x) == pytest.approx(float(expected), abs=1e-12)


def test_spread_is_one_for_even_directions_and_zero_for_a_dead_dimension():
    torch.testing.assert_close(geometry.spread(axes(6, 6)), torch.ones(6, dtype=torch.float64))
    assert geometry.spread(axes(6, 4)).tolist()[4:] == [0, 0]


@pytest.mark.parametrize("figure", FIGURES)
def test_lengths_do_not_matter(figure):
    x = normal(10, 4)
    scaled = x * torch.linspace(0.1, 50, 10, dtype=torch.float64)[:, None]
    torch.testing.assert_close(torch.as_tensor(figure(x)), torch.as_tensor(figure(scaled)))


@pytest.mark.parametrize("figure", FIGURES)
def test_half_precision_is_computed_in_float32(figure):
    x = normal(10, 4).bfloat16()
    torch.testing.assert_close(torch.as_tensor(figure(x)), torch.as_tensor(figure(x.float())), rtol=0, atol=0)


@pytest.mark.parametrize("figure", FIGURES)
def test_one_row_is_refused(figure):
    with pytest.raises(ArgumentInvalid, match="at least two rows"):
        figure(torch.ones(1, 4))


@pytest.mark.parametrize("figure", FIGURES)
def test_nan_is_refused(figure):
    with pytest.raises(NonFinite):
        figure(torch.full((3, 4), math.nan))


def test_alignment_needs_pairs():
    with pytest.raises(ShapesDiffer):
        geometry.alignment(normal(3, 4), normal(4, 4))

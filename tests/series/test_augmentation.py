"""The learned view and what its network minimises, where the golden values do not reach."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from contrapose.errors import ArgumentInvalid, ContraposeError, ShapesDiffer
from contrapose.series._augmentation import (
    AugmentationNetwork,
    augmented,
    concrete_mask,
    expected_mask,
    kept_share,
    mean_discrepancy,
    official_smoothness,
    total_variation,
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("bias", [0.0, 0.5, -0.1, 0.7])
def test_a_bias_at_its_ends_is_refused(bias: float) -> None:
    with pytest.raises(ArgumentInvalid, match=f"between 0 and 0.5.*{bias}"):
        concrete_mask(numbers(2, 3, 1), numbers(2, 3, 1), bias=bias, stretch=0.05)


def test_a_probability_for_a_logit_keeps_more_than_half() -> None:
    """The quirk of the official code: whatever h is, a value is kept with a chance between 0.50 and 0.73."""
    noise = numbers(400, 50, 1)
    for h, chance in ((0.0, 0.5), (1.0, 0.731)):
        mask = concrete_mask(torch.full_like(noise, h), noise, bias=1e-6, stretch=0.0)
        assert float(mask.mean()) == pytest.approx(chance, abs=0.01)
    assert (expected_mask(numbers(5, 5), stretch=0.0) >= 0.5).all()


def test_a_logit_can_keep_nothing_and_all() -> None:
    noise = numbers(400, 50, 1)
    shares = [float(concrete_mask(torch.full_like(noise, x), noise, bias=1e-6, stretch=0.0).mean()) for x in (-4, 4)]
    assert shares == pytest.approx([0.018, 0.982], abs=0.01)


def test_missing_values_stay_missing_without_spoiling_gradients() -> None:
    x, mask = numbers(1, 4, 1), numbers(1, 4, 1, seed=1).requires_grad_()
    x[0, 2] = torch.nan
    view = augmented(x, mask, torch.ones_like(mask))
    assert view.isnan().flatten().tolist() == [False, False, True, False]
    view.nan_to_num().sum().backward()
    assert mask.grad.flatten().tolist() == pytest.approx([*x[0, :2, 0].tolist(), 0, float(x[0, 3, 0])])


def test_discrepancy_is_zero_for_one_sample_and_grows_with_the_distance() -> None:
    x = numbers(8, 3)
    assert float(mean_discrepancy(x, x)) == pytest.approx(0, abs=1e-12)
    assert float(mean_discrepancy(torch.ones(4, 2), torch.ones(4, 2))) == 0
    near, far = (float(mean_discrepancy(x, x + shift)) for shift in (0.1, 1.0))
    assert 0 < near < far


def test_means_over_time_leave_padding_out() -> None:
    h, inside = numbers(2, 9, 3), torch.ones(2, 9, dtype=torch.bool)
    inside[1, 5:] = False
    for rule in (kept_share, total_variation):
        torch.testing.assert_close(rule(h, inside)[1], rule(h[1:, :5])[0])
        torch.testing.assert_close(rule(h, torch.ones_like(inside)), rule(h))


def test_the_network_gives_a_logit_and_a_scale_for_every_value() -> None:
    logits, scale = AugmentationNetwork(3, dim=5, hidden=4, depth=1)(torch.randn(2, 11, 3))
    assert logits.shape == scale.shape == (2, 11, 3)
    assert ((scale > 0) & (scale < 1)).all()


def smooth(first: list[int], second: list[int]) -> torch.Tensor:
    return official_smoothness(numbers(2, 5, 1), torch.tensor(first), torch.tensor(second))


BAD = {
    "noise of another shape": (lambda: concrete_mask(numbers(2, 3, 1), numbers(3, 1), bias=0.1, stretch=0.0), ShapesDiffer),
    "a stretch below 0": (lambda: concrete_mask(numbers(2, 3, 1), numbers(2, 3, 1), bias=0.1, stretch=-1.0), ArgumentInvalid),
    "samples of two sizes": (lambda: mean_discrepancy(numbers(3, 2), numbers(2, 2)), ShapesDiffer),
    "no sample": (lambda: mean_discrepancy(numbers(0, 2), numbers(0, 2)), ShapesDiffer),
    "a single step": (lambda: total_variation(numbers(2, 1, 3)), ShapesDiffer),
    "a first step at the end": (lambda: smooth([4], [2]), ArgumentInvalid),
    "a second step outside": (lambda: smooth([1], [5]), ArgumentInvalid),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error"), BAD.values(), ids=BAD)
def test_what_does_not_fit(call: Callable[[], torch.Tensor], error: type[ContraposeError]) -> None:
    with pytest.raises(error):
        call()

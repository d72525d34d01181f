"""The network: what padding, missing values and hidden steps do, and that its one convolution is the mean of eight."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from contrapose.series._network import Block, DilatedConvolutions, MeanOfCausal, causal, inside_of


def series(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("steps", [1, 5, 15, 16, 17, 40, 150])
def test_one_convolution_is_the_mean_of_the_causal_ones(steps: int) -> None:
    mean, x = MeanOfCausal(3, (1, 4, 32)).double(), series(2, 3, steps)
    each = [conv(functional.pad(x, (conv.kernel_size[0] - 1, 0))) for conv in mean.convolutions]
    torch.testing.assert_close(mean(x), torch.stack(each).mean(dim=0), rtol=0, atol=1e-12)


def test_its_last_step_alone_is_the_last_of_all() -> None:
    mean, x = MeanOfCausal(3, (1, 4, 32)).double(), series(2, 3, 50)
    torch.testing.assert_close(mean.last(x), mean(x)[..., -1], rtol=0, atol=1e-12)
    torch.testing.assert_close(mean.last(x[..., :5]), mean(x[..., :5])[..., -1], rtol=0, atol=1e-12)


def test_gradients_of_the_transform_are_those_of_the_sum() -> None:
    x, weights = series(2, 3, 40).requires_grad_(), series(4, 3, 20, seed=1).requires_grad_()
    plain = functional.conv1d(functional.pad(x, (19, 0)), weights)
    direction = series(*plain.shape, seed=2)
    expected = torch.autograd.grad((plain * direction).sum(), (x, weights))
    found = torch.autograd.grad((causal(x, weights) * direction).sum(), (x, weights))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_block_whose_outer_taps_fall_beside_the_series_is_its_middle_tap() -> None:
    block, x = Block(2, 2, dilation=8, last=True).double(), series(1, 2, 8)
    conv = block.first(functional.gelu(x))
    torch.testing.assert_close(
        block(x, None), block.second(functional.gelu(conv)) + block.shortcut(x), rtol=0, atol=1e-12
    )


def test_padding_behind_a_series_changes_nothing() -> None:
    torch.manual_seed(0)
    network, x = DilatedConvolutions(2, hidden=5, dim=4, depth=3, kernels=(1, 2, 4)).double(), series(1, 20, 2)
    far = torch.cat([x, torch.full((1, 33, 2), torch.nan)], dim=1)
    torch.testing.assert_close(network(far)[:, :20], network(x), rtol=0, atol=1e-12)


def test_a_step_with_a_missing_value_is_as_if_hidden() -> None:
    torch.manual_seed(0)
    network, x = DilatedConvolutions(2, hidden=5, dim=4, depth=2, kernels=(1, 2)).double(), series(1, 12, 2)
    missing, keep = x.clone(), torch.ones(1, 12, dtype=torch.bool)
    missing[0, 5, 1], keep[0, 5] = torch.nan, False
    torch.testing.assert_close(network(missing), network(x, keep), rtol=0, atol=0)
    assert not torch.allclose(network(missing), network(x))


def test_missing_values_have_no_part_in_gradients() -> None:
    network, x = DilatedConvolutions(1, hidden=4, dim=3, depth=1, kernels=(1, 2)), torch.randn(2, 10, 1)
    x[0, 3] = torch.nan
    network(x).sum().backward()
    assert all(torch.isfinite(each.grad).all() for each in network.parameters() if each.grad is not None)


def test_inside_is_up_to_the_last_value() -> None:
    x = torch.tensor([[torch.nan, 1, torch.nan, 2, torch.nan], [1, 1, 1, 1, 1]]).unsqueeze(-1)
    assert inside_of(x).tolist() == [[True, True, True, True, False], [True] * 5]


def test_every_parameter_moves() -> None:
    network = DilatedConvolutions(1, hidden=4, dim=3, depth=1, kernels=(1, 2, 32))
    network(torch.randn(2, 40, 1)).square().sum().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in network.parameters())

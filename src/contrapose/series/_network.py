"""The network of the paper: residual dilated convolutions over time, then the mean of causal convolutions of doubling width."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from scipy.fft import next_fast_len
from torch import Tensor, nn
from torch.nn import functional

KERNELS = (1, 2, 4, 8, 16, 32, 64, 128)
DIRECT = 16  # taps up to which a convolution is summed as it stands; longer ones go through the Fourier transform


class DilatedConvolutions(nn.Module):
    """(b, t, c) to (b, t, dim): a linear layer, `depth` residual blocks and one more that leads to `dim`, then the trend convolutions.

    CoST's trend branch (Woo et al., 2022), as the official code has it: block i has two convolutions of three taps with dilation 2^i, padded on
    both sides, so that a step sees its future; the trend convolutions are causal. NaN marks what is missing. A step with a missing value
    enters the blocks as zeros, and so does one that `keep` leaves out. What follows a series' last value does not exist: a series has the same
    representations however far it is padded.
    """

    def __init__(
        self, channels: int, *, hidden: int = 64, dim: int = 320, depth: int = 10, kernels: Sequence[int] = KERNELS
    ) -> None:
        super().__init__()
        self.inlet = nn.Linear(channels, hidden)
        widths = [hidden] * (depth + 1) + [dim]
        self.blocks = nn.ModuleList(
            Block(before, after, dilation=2**number, last=number == depth)
            for number, (before, after) in enumerate(pairwise(widths))
        )
        self.trends = MeanOfCausal(dim, kernels)

    def forward(self, x: Tensor, keep: Tensor | None = None, *, last: bool = False) -> Tensor:
        """`keep`: bool (b, t), False on steps to hide. `last`: the representation of the last step alone, (b, dim)."""
        x = x.to(self.inlet.weight.dtype)
        present = ~x.isnan().any(dim=-1)
        shown = present if keep is None else present & keep
        inside = inside_of(x)
        states = self.inlet(x.masked_fill(~present.unsqueeze(-1), 0)) * shown.unsqueeze(-1)
        states = states.transpose(1, 2)  # (b, hidden, t)
        within = None if bool(inside.all()) else inside.unsqueeze(1).to(states)
        for block in self.blocks:
            states = block(states, within)
        return self.trends.last(states) if last else self.trends(states).transpose(1, 2)


class Block(nn.Module):
    """x + conv(gelu(conv(gelu(x)))), with a projection of x where the width changes and in the last block."""

    def __init__(self, before: int, after: int, *, dilation: int, last: bool) -> None:
        super().__init__()
        self.first = nn.Conv1d(before, after, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv1d(after, after, 3, padding=dilation, dilation=dilation)
        self.shortcut = nn.Conv1d(before, after, 1) if before != after or last else nn.Identity()

    def forward(self, x: Tensor, within: Tensor | None) -> Tensor:
        """`within` (b, 1, t): 0 behind the end of a series, where nothing may flow back from; None: no series ends early."""
        states = x
        for conv in (self.first, self.second):
            states = functional.gelu(states)
            states = convolved(conv, states if within is None else states * within)
        return states + self.shortcut(x)


def convolved(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of three taps; where the outer two fall beside every step of the series, the middle one alone."""
    if conv.dilation[0] < x.shape[-1]:
        return conv(x)
    return functional.conv1d(x, conv.weight[..., 1:2], conv.bias)


class MeanOfCausal(nn.Module):
    """The mean of causal convolutions with these numbers of taps, (b, d, t) to (b, d, t).

    Convolutions are linear, so their mean is one convolution with the mean of their taps; one of 128 taps is 50 times as cheap through the
    Fourier transform. Equal to eight convolutions to rounding.
    """

    def __init__(self, dim: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv1d(dim, dim, taps) for taps in kernels)

    def taps(self) -> tuple[Tensor, Tensor]:
        """(d, d, k), the last tap that of a step itself and tap k - 1 - l that of the step l before; and the bias (d,)."""
        first, *others = sorted(self.convolutions, key=lambda conv: conv.kernel_size[0])
        weights = first.weight
        for conv in others:  # from the shortest on, so that little is padded
            weights = functional.pad(weights, (conv.kernel_size[0] - weights.shape[-1], 0)) + conv.weight
        count = len(self.convolutions)
        return weights / count, torch.stack([conv.bias for conv in self.convolutions]).mean(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        weights, bias = self.taps()
        return causal(x, weights) + bias[:, None]

    def last(self, x: Tensor) -> Tensor:
        """What `forward` gives for the last step, (b, d)."""
        weights, bias = self.taps()
        taps = min(weights.shape[-1], x.shape[-1])
        return torch.einsum("bit,oit->bo", x[..., -taps:], weights[..., -taps:]) + bias


def causal(x: Tensor, weights: Tensor) -> Tensor:
    """y[t] = sum over j of weights[..., j] x[t - k + 1 + j]: (b, i, t) and (o, i, k) to (b, o, t); in float32 at least."""
    t = x.shape[-1]
    taps = min(weights.shape[-1], t)  # those further back fall before the start
    weights = weights[..., -taps:]
    if taps <= DIRECT:
        return functional.conv1d(functional.pad(x, (taps - 1, 0)), weights)
    with torch.autocast(x.device.type, enabled=False):
        kind = torch.promote_types(weights.dtype, torch.float32)
        size = next_fast_len(t + taps - 1, real=True)
        spectrum = torch.fft.rfft(x.to(kind), size).permute(2, 0, 1)  # (f, b, i)
        response = torch.fft.rfft(weights.to(kind), size).conj().permute(2, 1, 0)  # (f, i, o)
        ahead = torch.fft.irfft(
            (spectrum @ response).permute(1, 2, 0), size
        )  # at s: the sum that ends k - 1 steps later
        return torch.cat([ahead[..., size - taps + 1 :], ahead[..., : t - taps + 1]], dim=-1)


def inside_of(x: Tensor) -> Tensor:
    """(b, t, c) to bool (b, t): True up to the last step that has any value; what follows is padding."""
    some = ~x.isnan().all(dim=-1)
    return some.flip(1).cummax(dim=1).values.flip(1) if not bool(some.all()) else some


def at_least_float32(vectors: Tensor) -> Tensor:
    return vectors if vectors.dtype == torch.float64 else vectors.float()

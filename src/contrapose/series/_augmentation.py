"""A learned augmentation of time series: which values a view keeps, and how it scales them."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor, nn

from contrapose.errors import ArgumentInvalid, ShapesDiffer
from contrapose.objectives._arguments import check_number
from contrapose.series._network import DilatedConvolutions, at_least_float32

KERNELS = 5  # radial basis functions, each twice as wide as the one before
FACTOR = 2.0


class AugmentationNetwork(nn.Module):
    """x (b, t, c) to the logits of h and to g, both (b, t, c): a(x) is a small dilated network without pooling, h and g are linear in it.

    h = sigmoid(first) says which values a view keeps; g, in (0, 1), how it scales them (paper, section 3.3: the factors of x).
    """

    def __init__(self, channels: int, *, dim: int = 16, hidden: int = 64, depth: int = 1) -> None:
        super().__init__()
        self.network = DilatedConvolutions(channels, hidden=hidden, dim=dim, depth=depth)
        self.keep = nn.Linear(dim, channels)
        self.scale = nn.Linear(dim, channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        steps = self.network(x)
        return at_least_float32(self.keep(steps)), at_least_float32(self.scale(steps)).sigmoid()


def concrete_mask(logits: Tensor, noise: Tensor, *, bias: float, stretch: float, hard: bool = True) -> Tensor:
    r"""A mask between 0 and 1 that is random and has a gradient, of the shape of `logits`.

    With noise u in [0, 1) and e = (2 bias - 1) u + 1 - bias, s = sigmoid(log e - log(1 - e) + logits), widened to s (1 + stretch) - stretch
    and cut to [0, 1]: a binary concrete variable at temperature 1, as Louizos et al. (2018) make it. `hard`: 1 where it is above 1/2 and 0
    elsewhere, with the gradient of the soft one. The official code hands in the probability h itself for logits (`mask_logits`).
    Raises ArgumentInvalid for a bias outside (0, 1/2): at 0 the logarithm has no end, at 1/2 nothing is random; and for a stretch below 0.
    ShapesDiffer for noise of another shape.
    """
    if logits.shape != noise.shape:
        raise ShapesDiffer(f"a mask needs a number for each logit, {tuple(logits.shape)}; got {tuple(noise.shape)}.")
    check_number("stretch", stretch, least=0)
    if not 0 < bias < 0.5:
        raise ArgumentInvalid(f"gumbel_bias must lie between 0 and 0.5, both left out; got {bias}.")
    e = (2 * bias - 1) * noise + (1 - bias)
    soft = stretched((e.log() - torch.log1p(-e) + logits).sigmoid(), stretch)
    return (soft > 0.5).to(soft) + soft - soft.detach() if hard else soft


def expected_mask(logits: Tensor, *, stretch: float) -> Tensor:
    """The mask without noise: sigmoid(logits), widened and cut as in `concrete_mask`. With probabilities for logits no value is below 1/2."""
    return stretched(logits.sigmoid(), stretch)


def stretched(mask: Tensor, stretch: float) -> Tensor:
    return (mask * (1 + stretch) - stretch).clamp(0, 1)


def augmented(x: Tensor, mask: Tensor, scale: Tensor) -> Tensor:
    """The view g * mask * x; missing values (NaN) stay missing and have no gradient. All (b, t, c)."""
    missing = x.isnan()
    return torch.where(missing, x, scale * mask * x.masked_fill(missing, 0))


def mean_discrepancy(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples (b, d): mean of K_xx + K_yy - K_xy - K_yx, diagonals included.

    K is a sum of five Gaussian kernels exp(-|x - y|² / w); w is the mean squared distance over all ordered pairs of the 2b rows, a quarter of
    it for the first kernel, and doubles. It has no gradient. 0 where all rows are one. Raises ShapesDiffer unless both are (b, d), b above 0.
    """
    if x.ndim != 2 or x.shape != y.shape or not len(x):
        raise ShapesDiffer(
            f"both samples must have one shape (b, d), of one row at least; got {tuple(x.shape)} and {tuple(y.shape)}."
        )
    rows = torch.cat([x, y])
    n = len(rows)
    squares = (rows.unsqueeze(0) - rows.unsqueeze(1)).square().sum(dim=-1)
    width = squares.detach().sum() / (n * n - n) / FACTOR ** (KERNELS // 2)
    width = width.clamp_min(torch.finfo(width.dtype).tiny)
    kernel = sum(torch.exp(-squares / (width * FACTOR**power)) for power in range(KERNELS))
    b = len(x)
    xx, xy, yx, yy = kernel[:b, :b], kernel[:b, b:], kernel[b:, :b], kernel[b:, b:]
    return (xx + yy - xy - yx).mean()


def over_budget(kept: Tensor, budget: float = 0.4) -> Tensor:
    """relu(mean of h summed over channels - budget) for the means of each series, (b,): how much more the mask keeps than it may."""
    return nn.functional.relu(kept.mean() - budget)


def kept_share(h: Tensor, inside: Tensor | None = None) -> Tensor:
    """The mean over time of h summed over channels, for each series: (b, t, c) to (b,)."""
    return mean_over_time(h.sum(dim=-1), inside)


def total_variation(h: Tensor, inside: Tensor | None = None) -> Tensor:
    """Mean |h_t - h_(t+1)| over time and channels, for each series: (b, t, c) to (b,). Raises ShapesDiffer for fewer than two steps."""
    if h.ndim != 3 or h.shape[1] < 2:
        raise ShapesDiffer(f"a variation over time needs (b, t, c) with two steps at least; got {tuple(h.shape)}.")
    steps = (h[:, :-1] - h[:, 1:]).abs().mean(dim=-1)
    return mean_over_time(steps, None if inside is None else inside[:, :-1] & inside[:, 1:])


def official_smoothness(h: Tensor, first: LongTensor, second: LongTensor) -> Tensor:
    """The official code's smoothness, for each series: (b, t, c) and (n,), (n,) steps to (b,).

    |h_s0 - h_(s0-1)| + |h_s0 - h_(s0+1)|, plus |h_s0 - h_s1| where s1 - s0 > 1 and 1 - |h_s0 - h_s1| elsewhere. The n steps are drawn one for
    each series and then read in all of them. Its third part draws far steps together and pushes near ones apart, against what the paper says.
    Before step 0 stands the last one, as in the official code's indexing.
    Raises ArgumentInvalid for a first step that none follows, or a second one outside the series.
    """
    t = h.shape[1]
    if len(first) and not (int(first.min()) >= 0 and int(first.max()) <= t - 2):
        raise ArgumentInvalid(
            f"first steps have one behind them, 0 to {t - 2}; got {int(first.min())} to {int(first.max())}."
        )
    if len(second) and not (int(second.min()) >= 0 and int(second.max()) < t):
        raise ArgumentInvalid(f"second steps are 0 to {t - 1}; got {int(second.min())} to {int(second.max())}.")
    here, there = h[:, first], h[:, second]
    apart = (here - there).abs()
    far = ((second - first) > 1).to(h)[None, :, None]
    near = (here - h[:, first - 1]).abs() + (here - h[:, first + 1]).abs()
    return (far * apart + (1 - far) * (1 - apart) + near).mean(dim=(1, 2))


def mean_over_time(values: Tensor, inside: Tensor | None) -> Tensor:
    if inside is None:
        return values.mean(dim=1)
    return (values * inside).sum(dim=1) / inside.sum(dim=1).clamp_min(1)

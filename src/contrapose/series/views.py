"""Views of time series that nothing learns: steps hidden from an encoder, and the fixed augmentations of the paper's baselines.

Random numbers are handed in, uniform in [0, 1), so that a series gets the same view in any batch and on any number of processes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import LongTensor, Tensor

from contrapose.data.batches import Batch

TimestampMask = Literal["binomial", "continuous", "mask_last", "none"]
FixedView = Literal["none", "jitter", "scaling", "jitter_scaling", "cutout", "subsequence"]
SPANS, SPAN = 5, 0.1  # of a continuous mask: how many, and what share of the steps each hides


def timestamp_mask(kind: TimestampMask, batch: Batch, steps: int, lengths: LongTensor) -> Tensor:
    """Which of t steps an encoder sees, bool (b, t): TS2Vec's timestamp masking (Yue et al., 2022).

    "binomial": each step with probability 1/2. "continuous": all but five spans of a tenth of the steps. "mask_last": all but the last step
    of each series. "none": all.
    """
    if kind == "binomial":
        return batch.uniform(steps) < 0.5
    if kind == "continuous":
        return without_spans(batch.uniform(max(1, min(SPANS, steps // 2))), steps)
    place = torch.arange(steps, device=lengths.device)
    if kind == "mask_last":
        return place != lengths[:, None] - 1
    return (place >= 0).expand(len(lengths), steps)


def without_spans(uniform: Tensor, steps: int) -> Tensor:
    """(b, n) numbers to bool (b, steps): False on n spans, which may overlap."""
    span = max(1, int(SPAN * steps))
    first = (uniform * (steps - span + 1)).floor().long()  # (b, n)
    place = torch.arange(steps, device=uniform.device)
    hidden = (place >= first.unsqueeze(-1)) & (place < first.unsqueeze(-1) + span)
    return ~hidden.any(dim=1)


def fixed_view(kind: FixedView, x: Tensor, batch: Batch, lengths: LongTensor) -> Tensor:
    """A view of series (b, t, c), of the same shape; missing values stay missing.

    "jitter": plus N(0, 0.3²) at every value. "scaling": times N(1, 0.5²) for each series and channel. "jitter_scaling": both. "cutout": a tenth
    of the steps becomes 0. "subsequence": all but a random stretch of two or more steps becomes 0, the crop that keeps its place.
    Strengths as in the official code's baselines.
    """
    if kind in ("scaling", "jitter_scaling"):
        x = x * (1 + 0.5 * normal(batch.uniform(x.shape[2]))).to(x).unsqueeze(1)
    if kind in ("jitter", "jitter_scaling"):
        x = x + 0.3 * normal(batch.uniform(*x.shape[1:])).to(x)
    if kind == "cutout":
        size = (0.1 * lengths).long().clamp_min(1)
        first = below(batch.uniform()[:, None].squeeze(1), lengths - size + 1)
        x = zero_where(x, within(first, size, x.shape[1]))
    if kind == "subsequence":
        drawn = batch.uniform(2)
        size = 2 + below(drawn[:, 0], lengths - 1)
        first = below(drawn[:, 1], lengths - size + 1)
        x = zero_where(x, ~within(first, size, x.shape[1]))
    return x


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers from uniform ones."""
    return math.sqrt(2) * torch.erfinv((2 * uniform - 1).clamp(-1 + 1e-12, 1 - 1e-12))


def below(uniform: Tensor, bounds: LongTensor) -> LongTensor:
    """Integers 0 … bound - 1 from uniform numbers, both (b,)."""
    return (uniform * bounds).floor().long()


def within(first: LongTensor, size: LongTensor, steps: int) -> Tensor:
    """bool (b, steps): True on `size` steps from `first` on."""
    place = torch.arange(steps, device=first.device)
    return (place >= first[:, None]) & (place < (first + size)[:, None])


def zero_where(x: Tensor, steps: Tensor) -> Tensor:
    """Values of these steps, bool (b, t), become 0 where there are any."""
    return torch.where(steps.unsqueeze(-1) & ~x.isnan(), torch.zeros_like(x), x)

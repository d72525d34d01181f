"""Projection and prediction heads. They see the vectors of the whole batch, so that their BatchNorm is the same on any number of processes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


def mlp(
    widths: Sequence[int], *, norm: bool = True, last_norm: bool = False, last_affine: bool = False
) -> nn.Sequential:
    """Linear layers from `widths[0]` to `widths[-1]`, with BatchNorm (where `norm`) and ReLU between them, and BatchNorm last (where `last_norm`).

    Layers before a BatchNorm have no bias. `last_affine`: whether the last BatchNorm scales and shifts.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths[:-1]):
        layers.append(nn.Linear(before, after, bias=not norm))
        layers += [nn.BatchNorm1d(after), nn.ReLU()] if norm else [nn.ReLU()]
    layers.append(nn.Linear(widths[-2], widths[-1], bias=not last_norm))
    if last_norm:
        layers.append(nn.BatchNorm1d(widths[-1], affine=last_affine))
    return nn.Sequential(*layers)


@torch.no_grad()
def deviation(rows: Tensor) -> float:
    """The mean over dimensions of the standard deviation of (n, d) rows at length 1: 0 at a collapse, 1 / sqrt(d) on the whole sphere."""
    return float(nn.functional.normalize(rows.float(), dim=-1).std(dim=0, correction=0).mean())

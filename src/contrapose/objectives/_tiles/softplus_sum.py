"""Sums of softplus over all pairs: the sigmoid loss, and positives that stand alone against an anchor's negatives."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from contrapose.objectives._tiles.gradient import Gradient, refuse_second_derivative
from contrapose.objectives._tiles.pairs import Pairs, PairWeight


@torch.compiler.disable
def softplus_sum(
    x: Tensor, y: Tensor, offset: Tensor, *, weight: PairWeight | None = None, products: torch.dtype | None = None
) -> Tensor:
    """sum_j log(1 + exp(x_i · y_j + offset_i)), (n,), over the pairs that a boolean `weight` keeps; `offset` is (n,)."""
    pairs = Pairs(len(x), len(y), False, None, weight).shared()
    return _SoftplusSum.apply(x, y, offset, pairs, products or x.dtype)


class _SoftplusSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, offset: Tensor, pairs: Pairs, products: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, y, offset)
        ctx.pairs, ctx.products = pairs, products
        sums = torch.zeros_like(offset)
        with torch.autocast(x.device.type, enabled=False):
            left, right = x.to(products), y.to(products)
            for tile in pairs.tiles():
                logits = (left[tile.rows] @ right[tile.columns].T).to(x.dtype).add_(offset[tile.rows, None])
                each = functional.softplus(logits, threshold=40)  # beyond it log(1 + e^z) is z, in float64 too
                if pairs.weight is not None:
                    each.masked_fill_(~pairs.weight(*tile), 0)
                sums[tile.rows] += each.sum(1)
        pairs.add_up(sums)
        return sums

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, y, offset = ctx.saved_tensors
        pairs, products = ctx.pairs, ctx.products
        offset_gradient = torch.zeros_like(offset)
        with torch.autocast(x.device.type, enabled=False):
            left, right = x.to(products), y.to(products)
            gradient = Gradient(left, right, x.dtype, [])
            for tile in pairs.tiles():
                logits = (left[tile.rows] @ right[tile.columns].T).to(x.dtype).add_(offset[tile.rows, None])
                each = logits.sigmoid_() * up[tile.rows, None]
                if pairs.weight is not None:
                    each.masked_fill_(~pairs.weight(*tile), 0)
                offset_gradient[tile.rows] += each.sum(1)
                gradient.add(tile, each.to(products))
        pairs.add_up(*gradient.all(), offset_gradient)
        return gradient.x, gradient.y, offset_gradient, None, None

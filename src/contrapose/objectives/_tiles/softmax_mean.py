"""Means of logits under their own softmax: what repulsion by the nearest costs."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import LongTensor, Tensor

from contrapose.objectives._tiles.gradient import Gradient, refuse_second_derivative
from contrapose.objectives._tiles.pairs import Pairs, PairWeight, Tile


@torch.compiler.disable
def softmax_mean(
    x: Tensor,
    y: Tensor,
    *,
    skip: LongTensor | None = None,
    keep: PairWeight | None = None,
    detach_weights: bool = False,
    products: torch.dtype | None = None,
) -> Tensor:
    """sum_j p_ij S_ij with S_ij = x_i · y_j and p_i the softmax of S_i over the columns that row i keeps: (n,).

    `skip` (n, k) names columns that row i leaves out, `keep` says in booleans which pairs stay. `detach_weights`: no gradient through p. A row without any column gives 0.
    Processes do not share this one: every one does all of it.
    """
    pairs = Pairs(len(x), len(y), False, skip, keep)
    return _SoftmaxMean.apply(x, y, pairs, detach_weights, products or x.dtype)


class _SoftmaxMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, pairs: Pairs, detach_weights: bool, products: torch.dtype) -> Tensor:
        top, total, weighted = x.new_full((pairs.n,), -math.inf), x.new_zeros(pairs.n), x.new_zeros(pairs.n)
        with torch.autocast(x.device.type, enabled=False):
            left, right = x.to(products), y.to(products)
            for tile in pairs.tiles():
                logits = (left[tile.rows] @ right[tile.columns].T).to(x.dtype)
                leave_out(pairs, tile, logits, -math.inf)
                higher = torch.maximum(top[tile.rows], logits.amax(1))
                known = torch.where(torch.isfinite(higher), higher, 0)  # a row that has kept nothing yet
                exps = (logits - known[:, None]).exp_()
                shrunk = (top[tile.rows] - known).exp()
                total[tile.rows] = total[tile.rows] * shrunk + exps.sum(1)
                leave_out(pairs, tile, logits, 0)
                weighted[tile.rows] = weighted[tile.rows] * shrunk + exps.mul_(logits).sum(1)
                top[tile.rows] = higher
        mean = torch.where(total > 0, weighted / total, 0)
        partition = torch.where(total > 0, top + total.log(), math.inf)
        ctx.save_for_backward(x, y, mean, partition)
        ctx.pairs, ctx.detach_weights, ctx.products = pairs, detach_weights, products
        return mean

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, y, mean, partition = ctx.saved_tensors
        pairs, products = ctx.pairs, ctx.products
        with torch.autocast(x.device.type, enabled=False):
            left, right = x.to(products), y.to(products)
            gradient = Gradient(left, right, x.dtype, [])
            for tile in pairs.tiles():
                logits = (left[tile.rows] @ right[tile.columns].T).to(x.dtype)
                each = (logits - partition[tile.rows, None]).exp_() * up[tile.rows, None]
                if not ctx.detach_weights:
                    each.mul_(logits.sub_(mean[tile.rows, None]).add_(1))
                leave_out(pairs, tile, each, 0)
                gradient.add(tile, each.to(products))
        return gradient.x, gradient.y, None, None, None


def leave_out(pairs: Pairs, tile: Tile, values: Tensor, value: float) -> None:
    """Write `value` over the pairs of a tile that do not count."""
    pairs.leave_out(tile, values, value)
    if pairs.weight is not None:
        values.masked_fill_(~pairs.weight(*tile), value)

"""The tile engine: sums over all pairs of rows, without ever holding all pairs.

An objective is written as: the positives' logits, row by row, and the log of a sum of exponentials over everything else. The sum is what
costs n m d, and what stands here: `log_sum_exp` of rows of x against rows of y, by row and by column from one pass, and its two
relatives `softmax_mean` and `softplus_sum`. All three see logits that are plain products x_i · y_j, so that a temperature is divided into x by
whoever calls, and its gradient is autograd's affair.

**One exponential a pair.** With |x_i · y_j| <= bound, known from the norms, one shift for all pairs keeps every exp(S - shift) and every
sum within the range of the type; so rows and columns share one exponential, no maximum is looked for, and partial sums add over tiles and
processes. exp2 with log2(e) multiplied into x is three times as fast as exp on a processor. Where the bound is beyond the range (a
temperature under about 0.013 with cosines, raw products of long vectors, weights between pairs), sums that came out as 0 or infinity are
looked for afterwards, and then everything is done again with running maxima.

**Backward.** dL/dS_ij = E_ij (g_i / R_i + h_j / C_j), with R, C the sums and g, h their gradients: one multiplication a pair between the
products with y and with x. E is kept from the forward pass while it is small (KEPT_BYTES), and computed again otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import LongTensor, Tensor

from contrapose.objectives._tiles.gradient import Gradient, refuse_second_derivative
from contrapose.objectives._tiles.pairs import COLUMNS, ROWS, Pairs, PairWeight, Tile

LOG2E = math.log2(math.e)
KEPT_BYTES = 2**26  # of exponentials kept for the backward pass
RANGE = {
    torch.float32: 100.0,
    torch.float64: 1000.0,
}  # |log2| that an exponential may have: sums of 2^26 of them stay finite


def plain_logits(x: Tensor, y: Tensor, skip: LongTensor | None = None, weight: PairWeight | None = None) -> Tensor:
    """(n, m): the logits of all pairs at once, -inf where a pair is left out. What the engine never makes; tests compare with it."""
    logits = x @ y.T
    if weight is not None:
        between = weight(slice(0, len(x)), slice(0, len(y)))
        kept = logits.masked_fill(~between, -math.inf) if between.dtype == torch.bool else logits + between
        logits = kept.to(logits.dtype)
    return logits if skip is None else logits.scatter(1, skip, -math.inf)


def plain_log_sum_exp(
    x: Tensor, y: Tensor, skip: LongTensor | None = None, weight: PairWeight | None = None
) -> tuple[Tensor, Tensor]:
    """`log_sum_exp` by rows and by columns, with all pairs in memory."""
    logits = plain_logits(x, y, skip, weight)
    return logits.logsumexp(1), logits.logsumexp(0)


@torch.compiler.disable
def log_sum_exp(
    x: Tensor,
    y: Tensor | None = None,
    *,
    skip: LongTensor | None = None,
    weight: PairWeight | None = None,
    by_column: bool = False,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """log sum_j exp(x_i · y_j + w_ij) by row, (n,), and by column, (m,), or None unless `by_column`.

    `x` (n, d) and `y` (m, d), float32 or float64; without `y` the rows against themselves, for which `skip` and `weight` must be
    symmetric. `skip` (n, k) names columns that row i leaves out. `products`: bfloat16 multiplies in it and sums in float32.
    A row or column without any pair gives -inf, and no gradient.
    """
    pairs = Pairs(len(x), len(x if y is None else y), y is None, skip, weight).shared()
    tensors = () if weight is None else weight.tensors
    rows, columns = _LogSumExp.apply(
        x, x.new_empty(0) if y is None else y, pairs, by_column, products or x.dtype, *tensors
    )
    return rows, columns if by_column else None


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, pairs: Pairs, by_column: bool, products: torch.dtype, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        other = x if pairs.same else y
        with torch.autocast(x.device.type, enabled=False):
            bound = float(x.norm(dim=1).amax() * other.norm(dim=1).amax()) * LOG2E if pairs.n and pairs.m else 0.0
            shift = max(0.0, bound - RANGE[x.dtype])
            operands = ((x * LOG2E).to(products), other.to(products))
            keep = _size(pairs) * torch.empty((), dtype=products).itemsize <= KEPT_BYTES
            row_sums, column_sums, kept = _sums(operands, pairs, by_column, shift, keep, x.dtype)
            ctx.safe = bool(shift or _unbounded(pairs)) and out_of_range(row_sums, column_sums if by_column else None)
            if ctx.safe:
                pairs = pairs.whole()  # rare: not worth a maximum over processes
                rows, columns, kept = *running(x, other, pairs, by_column), None
            else:
                rows, columns = (sums.log() + shift / LOG2E for sums in (row_sums, column_sums))
        ctx.save_for_backward(x, y, rows, columns, row_sums, column_sums, *tensors)
        ctx.pairs, ctx.by_column, ctx.products, ctx.shift, ctx.kept = pairs, by_column, products, shift, kept
        return rows, columns

    @staticmethod
    def backward(ctx: Any, row_gradient: Tensor, column_gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, y, rows, columns, row_sums, column_sums, *tensors = ctx.saved_tensors
        pairs, products, other = ctx.pairs, ctx.products, x if ctx.pairs.same else y
        weight = pairs.weight
        gradient = Gradient(x, None if pairs.same else y, products, tensors)
        row_factor, column_factor = (
            torch.where(sums > 0, up / sums, 0)
            for sums, up in ((row_sums, row_gradient), (column_sums, column_gradient))
        )
        with torch.autocast(x.device.type, enabled=False):
            operands = None if ctx.safe else ((x * LOG2E).to(products), other.to(products))
            for number, tile in enumerate(pairs.tiles()):
                r, c = tile
                if ctx.safe:
                    logits = logits_of(x, other, tile, pairs)
                    each = weighed(logits, rows[r], row_gradient[r], 1)
                    if pairs.same and not tile.on_diagonal:
                        each = each + weighed(logits, rows[c], row_gradient[c], 0)
                    elif pairs.same:
                        each = each + each.T
                    elif ctx.by_column:
                        each = each + weighed(logits, columns[c], column_gradient[c], 0)
                else:
                    exps = ctx.kept[number] if ctx.kept is not None else exponentials(operands, tile, pairs, ctx.shift)
                    factor = row_factor[r, None]
                    if pairs.same:
                        factor = factor + row_factor[c]
                    elif ctx.by_column:
                        factor = factor + column_factor[c]
                    each = exps * factor.to(exps.dtype)
                gradient.add(tile, each, weight)
        pairs.add_up(*gradient.all())
        return (gradient.x, gradient.y, None, None, None, *gradient.tensors)


def _sums(
    operands: tuple[Tensor, Tensor], pairs: Pairs, by_column: bool, shift: float, keep: bool, dtype: torch.dtype
) -> tuple[Tensor, Tensor, list[Tensor] | None]:
    """Sums of 2^(logit - shift) by row and by column, and the tiles of these where they are to be kept."""
    device = operands[0].device
    row_sums, column_sums = (torch.zeros(size, dtype=dtype, device=device) for size in (pairs.n, pairs.m))
    kept: list[Tensor] = []
    for tile in pairs.tiles():
        exps = exponentials(operands, tile, pairs, shift)
        row_sums[tile.rows] += exps.sum(1, dtype=dtype)
        if pairs.same and not tile.on_diagonal:
            row_sums[tile.columns] += exps.sum(0, dtype=dtype)
        elif by_column:
            column_sums[tile.columns] += exps.sum(0, dtype=dtype)
        if keep:
            kept.append(exps)
    pairs.add_up(row_sums, column_sums)
    return row_sums, column_sums, kept if keep else None


def exponentials(operands: tuple[Tensor, Tensor], tile: Tile, pairs: Pairs, shift: float) -> Tensor:
    """2^(logit - shift) of a tile in the dtype of the products, 0 where a pair is left out."""
    exps = operands[0][tile.rows] @ operands[1][tile.columns].T
    between = None if pairs.weight is None else pairs.weight(*tile).detach()
    if between is not None and between.dtype != torch.bool:
        exps = exps + between * LOG2E  # log-weights may be wider than the products' dtype
    if shift:
        exps -= shift
    exps = exps.exp2_().to(operands[0].dtype)
    if between is not None and between.dtype == torch.bool:
        exps.masked_fill_(~between, 0)
    pairs.leave_out(tile, exps, 0)
    return exps


def tile_bytes(n: int, m: int | None = None) -> int:
    """About how much the tiles of n rows against m columns (default n) take in float32: what is kept, and three tiles at work."""
    pairs = n * (m or n) * 4
    return (pairs if pairs <= KEPT_BYTES else 0) + 3 * min(pairs, ROWS * COLUMNS * 4)


def _size(pairs: Pairs) -> int:
    return pairs.n * pairs.m // (2 if pairs.same else 1)


def _unbounded(pairs: Pairs) -> bool:
    """Whether log-weights take part, whose size the norms do not bound."""
    if pairs.weight is None or not pairs.n or not pairs.m:
        return False
    return pairs.weight(slice(0, 1), slice(0, 1)).dtype != torch.bool


def out_of_range(row_sums: Tensor, column_sums: Tensor | None) -> bool:
    """Whether a sum overflowed, or came out as 0, which may be a row without pairs or one that is too small for the shift."""
    each = [row_sums] if column_sums is None else [row_sums, column_sums]
    return any(bool((~torch.isfinite(sums) | (sums < torch.finfo(sums.dtype).tiny)).any()) for sums in each)


def logits_of(x: Tensor, other: Tensor, tile: Tile, pairs: Pairs) -> Tensor:
    """A tile of logits, -inf where a pair is left out."""
    logits = x[tile.rows] @ other[tile.columns].T
    if pairs.weight is not None:
        between = pairs.weight(*tile).detach()
        if between.dtype == torch.bool:
            logits.masked_fill_(~between, -math.inf)
        else:
            logits += between
    pairs.leave_out(tile, logits, -math.inf)
    return logits


def running(x: Tensor, other: Tensor, pairs: Pairs, by_column: bool) -> tuple[Tensor, Tensor]:
    rows, columns = (x.new_full((size,), -math.inf) for size in (pairs.n, pairs.m))
    for tile in pairs.tiles():
        logits = logits_of(x, other, tile, pairs)
        rows[tile.rows] = torch.logaddexp(rows[tile.rows], logits.logsumexp(1))
        if pairs.same and not tile.on_diagonal:
            rows[tile.columns] = torch.logaddexp(rows[tile.columns], logits.logsumexp(0))
        elif by_column:
            columns[tile.columns] = torch.logaddexp(columns[tile.columns], logits.logsumexp(0))
    return rows, columns


def weighed(logits: Tensor, total: Tensor, gradient: Tensor, dim: int) -> Tensor:
    """gradient * exp(logits - total), total and gradient along rows (1) or columns (0); 0 where the total is -inf."""
    total = torch.where(torch.isfinite(total), total, math.inf).unsqueeze(dim)
    return (logits - total).exp() * gradient.unsqueeze(dim)

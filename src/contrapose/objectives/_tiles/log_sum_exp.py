"""The tile engine: sums over all pairs of rows, without ever holding all pairs.

An objective is written as: the positives' logits, row by row, and the log of a sum of exponentials over everything else. The sum is what
costs n m d, and what stands here: `log_sum_exp` of rows of x against rows of y, by row and by column from one pass, and its two
relatives `softmax_mean` and `softplus_sum`. Logits are products x_i · y_j; `log_sum_exp` takes a scale for them, 1 / temperature, which is
multiplied within the product of matrices and costs nothing, and `own_and_log_sum_exp` gives the positives' logits as well, whose gradient
goes through the same products as that of the sums. The two relatives leave temperatures to whoever calls.

**One exponential a pair.** With |x_i · y_j| <= bound, known from the norms, one shift for all pairs keeps every exp(S - shift) and every
sum within the range of the type; so rows and columns share one exponential, no maximum is looked for, and partial sums add over tiles and
processes. exp2 with log2(e) in the scale is three times as fast as exp on a processor. Where the bound is beyond the range (a
temperature under about 0.013 with cosines, raw products of long vectors, weights between pairs), sums that came out as 0 or infinity are
looked for afterwards, and then everything is done again with running maxima.

**Backward.** dL/dS_ij = E_ij (g_i / R_i + h_j / C_j), with R, C the sums and g, h their gradients: one multiplication a pair between the
products with y and with x. E is kept from the forward pass while it is small (KEPT_BYTES), and computed again otherwise. Tiles take the same
memory one after the other: asking for fresh pages costs as much as an exponential. With bfloat16 products only the operands of products are
rounded to it; exponentials, factors and sums are float32.

**On a GPU** the sums, and dL/dS of a tile, each come from one Triton kernel (`triton_kernels`). Float64, places by number, weights but for
labels, running maxima and mapped backward passes stay with torch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from functools import cache, cached_property
from types import ModuleType
from typing import Any

import torch
from torch import LongTensor, Tensor

from contrapose.objectives._tiles.gradient import Gradient, is_batched, refuse_second_derivative
from contrapose.objectives._tiles.pairs import COLUMNS, ROWS, Pairs, PairWeight, Places, Space, Tile, as_diagonals

LOG2E = math.log2(math.e)
# Of exponentials kept for the backward pass: a fifth faster, at the price of the memory. More where rows are told from themselves (True): what is kept
# is then half of a matrix, of which plain torch holds several whole ones.
KEPT_BYTES = {False: 2**22, True: 2**25}
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
    scale: float | Tensor = 1.0,
    skip: Places | None = None,
    weight: PairWeight | None = None,
    by_column: bool = False,
    bound: float | None = None,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """log sum_j exp(scale x_i · y_j + w_ij) by row, (n,), and by column, (m,), or None unless `by_column`.

    `x` (n, d) and `y` (m, d), float32 or float64; without `y` the rows against themselves, for which `skip` and `weight` must be
    symmetric. `scale`: positive, one number, or a tensor of it, which then receives a gradient. `skip` (n, k) names columns that row i
    leaves out; a tuple names diagonals, column less row. `bound`: what no |x_i · y_j| exceeds, where it is known without looking.
    `products`: bfloat16 multiplies in it and sums in float32.
    A row or column without any pair gives -inf, and no gradient.
    """
    return _told_apart(x, y, scale, skip, None, weight, by_column, bound, products)[1:]


@torch.compiler.disable
def own_and_log_sum_exp(
    x: Tensor,
    y: Tensor | None = None,
    *,
    own: Places,
    scale: float | Tensor = 1.0,
    skip: Places | None = None,
    weight: PairWeight | None = None,
    by_column: bool = False,
    bound: float | None = None,
    products: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The logit scale x_i · y_own(i) of each row, (n,), and `log_sum_exp` over all other pairs, from one pass over the gradients.

    `own`: one column for each row, (n,), or diagonals that are one column for each row. Its logit is exact whatever `products` are.
    """
    own = own if isinstance(own, tuple) else own[:, None]
    return _told_apart(x, y, scale, skip, own, weight, by_column, bound, products)


def _told_apart(
    x: Tensor,
    y: Tensor | None,
    scale: float | Tensor,
    skip: Places | None,
    own: Places | None,
    weight: PairWeight | None,
    by_column: bool,
    bound: float | None,
    products: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    m = len(x if y is None else y)
    skip, own = (as_diagonals(places, m) if isinstance(places, Tensor) else places for places in (skip, own))
    pairs = Pairs(len(x), m, y is None, skip, weight, own).shared().on(x.device)
    tensors = () if weight is None else weight.tensors
    right = x.new_empty(0) if y is None else y
    owned, rows, columns = _LogSumExp.apply(x, right, scale, pairs, by_column, bound, products or x.dtype, *tensors)
    return owned, rows, columns if by_column else None


class _LogSumExp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        scale: float | Tensor,
        pairs: Pairs,
        by_column: bool,
        bound: float | None,
        products: torch.dtype,
        *tensors: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        other = x if pairs.same else y
        scale = float(scale.detach() if isinstance(scale, Tensor) else scale)
        with torch.autocast(x.device.type, enabled=False):
            if bound is None:
                bound = float(x.norm(dim=1).amax() * other.norm(dim=1).amax()) if pairs.n and pairs.m else 0.0
            shift = max(0.0, bound * scale * LOG2E - RANGE[x.dtype])
            left = x.to(products)
            exps = Exponentials(left, left if pairs.same else y.to(products), scale, shift, pairs, x.dtype)
            ctx.kernels = kernels_for(exps)
            if ctx.kernels is not None:
                row_sums, column_sums = ctx.kernels.sums(exps, by_column)
                kept = {}
            else:
                row_sums, column_sums, kept = _sums(exps, by_column)
            ctx.safe = bool(shift or _unbounded(pairs)) and out_of_range(row_sums, column_sums if by_column else None)
            if ctx.safe:
                kept = {}
                pairs = pairs.whole()  # rare: not worth a maximum over processes
                rows, columns = running(x, other, scale, pairs, by_column)
            else:
                rows, columns = (sums.log().add_(shift / LOG2E) for sums in (row_sums, column_sums))
            own = x.new_empty(0) if pairs.own is None else pairs.own_products(x, other).mul_(scale)
        saved = (x, other) if ctx.safe else exps.operands
        ctx.save_for_backward(*saved, rows, columns, row_sums, column_sums, *tensors)
        ctx.pairs, ctx.by_column, ctx.scale, ctx.shift, ctx.kept = pairs, by_column, scale, shift, kept
        return own, rows, columns

    @staticmethod
    def backward(ctx: Any, own: Tensor, row_gradient: Tensor, column_gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        left, right, rows, columns, row_sums, column_sums, *tensors = ctx.saved_tensors
        pairs, scale = ctx.pairs, ctx.scale
        x_wanted, y_wanted, scale_wanted, *_ = ctx.needs_input_grad
        with torch.autocast(left.device.type, enabled=False):
            if ctx.safe:
                totals, ups = (rows, columns), (row_gradient, column_gradient)
                slopes = _slopes_of_running(left, right, scale, pairs, ctx.by_column, totals, ups)
            else:
                factors = [torch.where(row_sums > 0, row_gradient / row_sums, 0)]
                if pairs.same:
                    factors *= 2
                elif ctx.by_column:
                    factors.append(torch.where(column_sums > 0, column_gradient / column_sums, 0))
                exps = Exponentials(left, right, scale, ctx.shift, pairs, rows.dtype, ctx.kept)
                slopes_by = _slopes if ctx.kernels is None or is_batched(factors[0]) else ctx.kernels.slopes
                slopes = slopes_by(exps, *factors)
            wanted = x_wanted or scale_wanted, y_wanted
            gradient = Gradient(left, None if pairs.same else right, rows.dtype, tensors, scale, wanted)
            for tile, each in slopes:
                gradient.add_weights(tile, each, pairs.weight)
                if pairs.own is not None:
                    pairs.add_own(tile, each, own)
                gradient.add(tile, each if ctx.safe else exps.rounded(tile, each))
            pairs.add_up(*gradient.all())
            # logits are scale x · y, so that scale dL/dscale = x · dL/dx, or half of it where y is x
            slope = (left * gradient.x).sum() / (2 * scale if pairs.same else scale) if scale_wanted else None
        return (gradient.x if x_wanted else None, gradient.y, slope, None, None, None, None, *gradient.tensors)


class Exponentials:
    """2^(logit - shift) tile by tile in `dtype`, 0 where a pair is left out; each in the memory of the last.

    `kept`: tiles that are known already. Each is given away once, so that it may be written over; then it is computed again.
    """

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        scale: float,
        shift: float,
        pairs: Pairs,
        dtype: torch.dtype,
        kept: dict[tuple[int, int], Tensor] | None = None,
    ) -> None:
        self.operands, self.scale, self.shift, self.pairs, self.dtype = (left, right), scale, shift, pairs, dtype
        self.kept = kept or {}

    @cached_property
    def space(self) -> Space:
        return self.pairs.space(self.operands[0], self.dtype)

    @cached_property
    def narrow(self) -> Space:
        return self.pairs.space(self.operands[0], self.operands[0].dtype)

    def of(self, tile: Tile, apart: bool = False) -> Tensor:
        """`apart`: in memory of its own."""
        if tile.corner in self.kept:
            return self.kept.pop(tile.corner)
        left, right = self.operands[0][tile.rows], self.operands[1][tile.columns]
        exps = left.new_empty(len(left), len(right), dtype=self.dtype) if apart else self.space.of(tile)
        logits = exps if left.dtype == self.dtype else self.narrow.of(tile)
        logits.addmm_(left, right.T, beta=0, alpha=self.scale * LOG2E)
        if logits is not exps:
            exps.copy_(logits)
        between = None if self.pairs.weight is None else self.pairs.weight(*tile).detach()
        if between is not None and between.dtype != torch.bool:
            exps.add_(between, alpha=LOG2E)
        if self.shift:
            exps.sub_(self.shift)
        exps.exp2_()
        if between is not None and between.dtype == torch.bool:
            exps.masked_fill_(~between, 0)
        self.pairs.leave_out(tile, exps, 0)
        return exps

    def rounded(self, tile: Tile, values: Tensor) -> Tensor:
        """`values` in the dtype of the products, in the memory that the products of a tile are taken in."""
        dtype = self.operands[0].dtype
        if values.dtype == dtype or is_batched(values):
            return values.to(dtype)
        return self.narrow.of(tile).copy_(values)


def _sums(exps: Exponentials, by_column: bool) -> tuple[Tensor, Tensor, dict[tuple[int, int], Tensor]]:
    """Sums of exponentials by row and by column, and the exponentials, by the corner of their tile, where they are few."""
    pairs, operand, kept = exps.pairs, exps.operands[0], {}
    few = pairs.n * pairs.m // (2 if pairs.same else 1) * exps.dtype.itemsize <= KEPT_BYTES[pairs.same]
    row_sums, column_sums = (operand.new_zeros(size, dtype=exps.dtype) for size in (pairs.n, pairs.m))
    for tile in pairs.tiles():
        each = exps.of(tile, apart=few)
        row_sums[tile.rows].add_(each.sum(1))
        if pairs.same and not tile.on_diagonal:
            row_sums[tile.columns].add_(each.sum(0))
        elif by_column:
            column_sums[tile.columns].add_(each.sum(0))
        if few:
            kept[tile.corner] = each
    pairs.add_up(row_sums, column_sums)
    return row_sums, column_sums, kept


def _slopes(
    exps: Exponentials, row_factor: Tensor, column_factor: Tensor | None = None
) -> Iterator[tuple[Tile, Tensor]]:
    """dL/dS tile by tile, in place of the exponentials."""
    factors = None if column_factor is None else exps.pairs.space(exps.operands[0], exps.dtype, halves=2)
    for tile in exps.pairs.tiles():
        each = exps.of(tile)
        if is_batched(row_factor):
            each = each * (row_factor[tile.rows, None] + (0 if column_factor is None else column_factor[tile.columns]))
        elif column_factor is None:
            each.mul_(row_factor[tile.rows, None])
        else:
            for half, inside in tile.halves():  # the factors of half a tile at a time, which take less memory
                factor = torch.add(row_factor[half.rows, None], column_factor[half.columns], out=factors.of(half))
                each[inside].mul_(factor)
        yield tile, each


def _slopes_of_running(
    x: Tensor,
    other: Tensor,
    scale: float,
    pairs: Pairs,
    by_column: bool,
    totals: tuple[Tensor, Tensor],
    ups: tuple[Tensor, Tensor],
) -> Iterator[tuple[Tile, Tensor]]:
    """dL/dS tile by tile, from logits less their totals."""
    (rows, columns), (row_gradient, column_gradient) = totals, ups
    for tile in pairs.tiles():
        r, c = tile
        logits = logits_of(x, other, scale, tile, pairs)
        each = weighed(logits, rows[r], row_gradient[r], 1)
        if pairs.same and tile.on_diagonal:
            each = each + each.T
        elif pairs.same:
            each = each + weighed(logits, rows[c], row_gradient[c], 0)
        elif by_column:
            each = each + weighed(logits, columns[c], column_gradient[c], 0)
        yield tile, each


def kernels_for(exps: Exponentials) -> ModuleType | None:
    """The Triton kernels, where these exponentials are theirs: on a GPU, in float32, and what is left out told by diagonals and labels."""
    pairs, left = exps.pairs, exps.operands[0]
    precise = exps.dtype == torch.float32 and left.dtype in (torch.float32, torch.bfloat16)
    told = (pairs.weight is None or pairs.weight.labels is not None) and not any(
        isinstance(places, Tensor) for places in (pairs.skip, pairs.own)
    )
    if not (precise and told and pairs.n and pairs.m and has_kernels(left.device)):
        return None
    from contrapose.objectives._tiles import triton_kernels

    return triton_kernels


@cache
def has_kernels(device: torch.device) -> bool:
    """Whether the Triton kernels run there: on a GPU of compute capability 8.0 or later, where Triton finds all that it builds them with."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    try:
        from contrapose.objectives._tiles import triton_kernels

        triton_kernels.try_out(device)
    except Exception as fault:  # no Triton, no C compiler, an old driver: torch does the same
        cause = f"{type(fault).__name__}: {fault}".splitlines()[0]
        said = f"The Triton kernels do not run on {device} ({cause}); the objectives compute the same in torch, slower."
        warnings.warn(said, stacklevel=2)
        return False
    return True


def tile_bytes(n: int, m: int | None = None) -> int:
    """About how much the tiles of n rows against m columns (default n) take in float32: what is kept, a tile, and half a tile of factors."""
    pairs = n * (m or n) * 4
    return (pairs if pairs <= KEPT_BYTES[False] else 0) + min(pairs, ROWS * COLUMNS * 4) * 3 // 2


def _unbounded(pairs: Pairs) -> bool:
    """Whether log-weights take part, whose size the norms do not bound."""
    if pairs.weight is None or not pairs.n or not pairs.m:
        return False
    return pairs.weight(slice(0, 1), slice(0, 1)).dtype != torch.bool


def out_of_range(row_sums: Tensor, column_sums: Tensor | None) -> bool:
    """Whether a sum overflowed, or came out as 0, which may be a row without pairs or one that is too small for the shift."""
    each = [row_sums] if column_sums is None else [row_sums, column_sums]
    return any(bool((~torch.isfinite(sums) | (sums < torch.finfo(sums.dtype).tiny)).any()) for sums in each)


def logits_of(x: Tensor, other: Tensor, scale: float, tile: Tile, pairs: Pairs) -> Tensor:
    """A tile of logits, -inf where a pair is left out."""
    logits = (x[tile.rows] @ other[tile.columns].T).mul_(scale)
    if pairs.weight is not None:
        between = pairs.weight(*tile).detach()
        if between.dtype == torch.bool:
            logits.masked_fill_(~between, -math.inf)
        else:
            logits += between
    pairs.leave_out(tile, logits, -math.inf)
    return logits


def running(x: Tensor, other: Tensor, scale: float, pairs: Pairs, by_column: bool) -> tuple[Tensor, Tensor]:
    rows, columns = (x.new_full((size,), -math.inf) for size in (pairs.n, pairs.m))
    for tile in pairs.tiles():
        logits = logits_of(x, other, scale, tile, pairs)
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

"""InfoNCE over the rows of all processes, for a training loop of one's own: each process keeps its anchors, and one side alone travels."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.distributed import any_process, gather_rows, rank, scatter_sum, sizes_of, sum_over_processes, world_size
from contrapose.errors import NoNegatives
from contrapose.objectives._arguments import (
    Similarity,
    check_choice,
    check_integers,
    check_rows,
    check_temperature,
    divided,
    groups_apart,
    operands,
    row_products,
)
from contrapose.objectives._tiles import PairWeight
from contrapose.objectives._tiles.gradient import Gradient, refuse_second_derivative
from contrapose.objectives._tiles.log_sum_exp import (
    LOG2E,
    RANGE,
    Exponentials,
    logits_of,
    out_of_range,
    running,
    weighed,
)
from contrapose.objectives._tiles.pairs import Pairs


def info_nce_across(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    group: LongTensor | None = None,
    symmetric: bool = False,
    similarity: Similarity = "cosine",
) -> Tensor:
    r"""`info_nce` of the batch of all processes, from each process's own rows.

    For a loop of one's own under DistributedDataParallel or FSDP. (Methods of this library need no call: the training loop gathers both sides,
    and the objectives share their work.) Each process sums over its own anchors and everybody's positives; the sums by column are added
    up, and the gradient of the positives is summed and scattered to their owners. So one side travels there and back, 2 n d numbers a step for
    n rows of all processes, where gathering both sides and adding up both gradients takes twice that.

    Args:
        anchors: (b_r, d), this process's rows; b_r may differ between processes, and may be 0.
        positives: (b_r, d), row i with row i of the anchors.
        temperature: as for `info_nce`.
        group: (b_r,) integers, compared across processes.
        symmetric: as for `info_nce`.
        similarity: as for `info_nce`.

    Returns:
        The mean over all rows, the same on every process. Its gradient is made for averaging over processes, as DistributedDataParallel
        does: the average is the gradient of one process on the whole batch, for encoders and for the temperature alike. In one process it
        is `info_nce`.

    Raises TemperatureInvalid, NonFinite, ShapesDiffer, ArgumentInvalid, DoubleBackward; NoNegatives for fewer than two rows in all.
    """
    check_choice("similarity", similarity, ("cosine", "dot"))
    check_temperature(temperature)
    check_rows("anchors", anchors, ("b", "d"))
    check_rows("positives", positives, tuple(anchors.shape))
    sizes = sizes_of(len(anchors), anchors.device)
    if sum(sizes) < 2:
        raise NoNegatives(f"{sum(sizes)} row(s) over all processes: at least two are needed.")
    weight = None
    if group is not None:
        check_integers("group", group, len(anchors), "anchors")
        weight = groups_apart(group, gather_rows(group))
    rows, products = operands({"anchors": anchors, "positives": positives}, similarity)
    with torch.autocast(anchors.device.type, enabled=False):
        a, p = divided(rows["anchors"], temperature), rows["positives"]
        positive = row_products(a, p)
        negative, back = _OneSided.apply(a, p, sizes, weight, symmetric, products)
        losses = functional.softplus(negative - positive, threshold=40)
        if symmetric:
            losses = (losses + functional.softplus(back - positive, threshold=40)) / 2
        mine = losses.sum() / sum(sizes)
    total = mine.detach().clone()
    sum_over_processes([total])
    return total + world_size() * (
        mine - mine.detach()
    )  # the value of all, the gradient of one's own part times the processes


class _OneSided(torch.autograd.Function):
    """Logs of sums by own row and by own column; own row i's own column is left out."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        y: Tensor,
        sizes: list[int],
        weight: PairWeight | None,
        by_column: bool,
        products: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        everyone = gather_rows(y)
        first = sum(sizes[: rank()])
        own = torch.arange(first, first + len(x), device=x.device)
        pairs = Pairs(len(x), len(everyone), False, (first,), weight)
        norms = [float(each.norm(dim=1).amax()) if len(each) else 0.0 for each in (x, everyone)]
        bound = torch.tensor(norms[0] * norms[1] * LOG2E, dtype=torch.float64, device=x.device)
        if world_size() > 1:
            dist.all_reduce(bound, op=dist.ReduceOp.MAX)  # one shift for everyone, or sums by column would not add up
        shift = max(0.0, float(bound) - RANGE[x.dtype])
        rows, columns = (x.new_zeros(size) for size in (pairs.n, pairs.m))
        exps = Exponentials(x.to(products), everyone.to(products), 1.0, shift, pairs, x.dtype)
        for tile in pairs.tiles():
            each = exps.of(tile)
            rows[tile.rows] += each.sum(1)
            columns[tile.columns] += each.sum(0)
        if by_column:
            sum_over_processes([columns])
        safe = any_process(bool(shift) and out_of_range(rows, columns if by_column else None))
        if safe:
            rows, columns = running(x, everyone, 1.0, pairs, by_column)
            columns = _log_sum_over_processes(columns)
        else:
            rows, columns = (sums.log() + shift / LOG2E for sums in (rows, columns))
        ctx.save_for_backward(x, everyone, rows, columns)
        ctx.pairs, ctx.sizes, ctx.own, ctx.by_column, ctx.products = pairs, sizes, own, by_column, products
        return rows, columns[own]

    @staticmethod
    def backward(ctx: Any, row_gradient: Tensor, column_gradient: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_derivative()
        x, everyone, rows, columns = ctx.saved_tensors
        column_gradient = gather_rows(column_gradient.contiguous())
        gradient = Gradient(x.to(ctx.products), everyone.to(ctx.products), x.dtype, [])
        with torch.autocast(x.device.type, enabled=False):
            for tile in ctx.pairs.tiles():
                logits = logits_of(x, everyone, 1.0, tile, ctx.pairs)
                each = weighed(logits, rows[tile.rows], row_gradient[tile.rows], 1)
                if ctx.by_column:
                    each += weighed(logits, columns[tile.columns], column_gradient[tile.columns], 0)
                gradient.add(tile, each.to(ctx.products))
        return gradient.x, scatter_sum(gradient.y, ctx.sizes), None, None, None, None


def _log_sum_over_processes(logs: Tensor) -> Tensor:
    """log sum exp over processes, elementwise."""
    if world_size() == 1:
        return logs
    top = logs.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX)
    known = torch.where(torch.isfinite(top), top, 0)
    sums = (logs - known).exp()
    sum_over_processes([sums])
    return sums.log() + known

"""Triton kernels for the log-sum-exp engine: on a GPU, what torch does to a tile in a dozen passes over memory, in one.

Both kernels make 2^(scale x_i · y_j - shift) of a block of pairs while it is in registers, where it came from the product of matrices.

`sums` keeps nothing of it but its sums by row and by column. Each block writes its own into a place of its own, and torch adds these up in
a fixed order: no atomic addition, so that runs are equal bit for bit. In a symmetric sum the blocks below the diagonal have nothing to do.

`slopes` multiplies it by (g_i / R_i + h_j / C_j) and writes dL/dS of one tile in the dtype of the products. Their products with y and with
x are torch's, tile by tile, in the same order each time: n m d four times in all, and none of it twice. A tile has at most SIDE rows and
columns: never all pairs, 128 MiB in bfloat16, small enough for the operands of the next product to come from the cache of the GPU, and
large enough for a product to fill it.

What is left out is told by diagonals (`skip`, `own`) and by labels. Any other weight is a function of Python, and `log_sum_exp` leaves it to
torch. Through Triton's interpreter (TRITON_INTERPRET=1 before Triton is imported) the same code runs on a processor, slowly: for tests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import LongTensor, Tensor

from contrapose.objectives._tiles.log_sum_exp import LOG2E, Exponentials
from contrapose.objectives._tiles.pairs import Pairs, Tile

SIDE = 8192  # of a tile


class Block(NamedTuple):
    """Rows and columns that a program makes, what it takes of d at a time, and how many warps and stages of loads it has.

    Square, so that the blocks on the diagonal of a symmetric sum are symmetric themselves.
    """

    side: int
    depth: int
    warps: int
    stages: int


# By registers and shared memory, not by measurement: two programs fit a multiprocessor of an A100 or H100 at once, so that one can multiply
# while the other takes exponentials. With 8 warps only one of bfloat16 would.
BLOCKS = {torch.bfloat16: Block(128, 64, 4, 3), torch.float32: Block(64, 32, 4, 3)}

# The interpreter holds bfloat16 as integers and multiplies these; float32 holds the same numbers and products.
WIDENED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")


@triton.jit
def _exponentials(
    x, y, row_labels, column_labels, row, column, n, m, d, scale, shift,
    SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """2^(scale x_i · y_j - shift) of a block, 0 beyond the edges and where labels are equal. x (n, d) and y (m, d) are contiguous."""
    logits = tl.zeros((SIDE, SIDE), tl.float32)
    for first in range(0, d, DEPTH):
        place = first + tl.arange(0, DEPTH)
        within = place < d
        left = tl.load(x + row[:, None] * d + place[None, :], (row[:, None] < n) & within[None, :], 0.0)
        right = tl.load(y + column[None, :] * d + place[:, None], (column[None, :] < m) & within[:, None], 0.0)
        if WIDENED:
            left, right = left.to(tl.float32), right.to(tl.float32)
        logits = tl.dot(left, right, logits, input_precision=PRECISION)
    kept = (row[:, None] < n) & (column[None, :] < m)
    if row_labels is not None:
        mine = tl.load(row_labels + row, row < n, -1)
        theirs = tl.load(column_labels + column, column < m, -1)
        kept = kept & ((mine[:, None] != theirs[None, :]) | (mine[:, None] < 0))
    return tl.where(kept, tl.exp2(logits * scale - shift), 0.0)


@triton.jit(do_not_specialize=["corner"])
def _sum_kernel(
    x, y, row_labels, column_labels, diagonals, row_parts, column_parts, n, m, d, scale, shift, corner,
    DIAGONALS: tl.constexpr, BY_COLUMN: tl.constexpr, TRIANGLE: tl.constexpr,
    SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Sums of a block by row, into row_parts[column block], and by column, into column_parts[row block].

    `diagonals`, DIAGONALS of them: left out, by column less row; `corner`: the tile's first column less its first row.
    TRIANGLE: the tile is a square on the diagonal of a symmetric sum, and a block beyond the diagonal stands for its mirror image too.
    """
    row_block, column_block = tl.program_id(1), tl.program_id(0)
    if TRIANGLE:  # noqa: SIM102 (known when it is compiled; the other is not)
        if column_block < row_block:
            return
    row = row_block * SIDE + tl.arange(0, SIDE)
    column = column_block * SIDE + tl.arange(0, SIDE)
    exps = _exponentials(
        x, y, row_labels, column_labels, row, column, n, m, d, scale, shift, SIDE, DEPTH, PRECISION
    )  # fmt: skip
    for which in tl.static_range(DIAGONALS):
        left_out = tl.load(diagonals + which) - corner
        exps = tl.where(column[None, :] - row[:, None] == left_out, 0.0, exps)
    tl.store(row_parts + column_block * n + row, tl.sum(exps, 1), row < n)
    if BY_COLUMN:
        by_column = tl.sum(exps, 0)
        if TRIANGLE:
            by_column = tl.where(column_block == row_block, 0.0, by_column)
        tl.store(column_parts + row_block * m + column, by_column, column < m)


@triton.jit
def _slope_kernel(
    x, y, row_labels, column_labels, row_factor, column_factor, slopes, n, m, d, scale, shift,
    SIDE: tl.constexpr, DEPTH: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Exponentials of a block times (row_factor_i + column_factor_j), into slopes (n, m)."""
    row = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    column = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    exps = _exponentials(
        x, y, row_labels, column_labels, row, column, n, m, d, scale, shift, SIDE, DEPTH, PRECISION
    )  # fmt: skip
    factor = tl.load(row_factor + row, row < n, 0.0)[:, None]
    if column_factor is not None:
        factor = factor + tl.load(column_factor + column, column < m, 0.0)[None, :]
    inside = (row[:, None] < n) & (column[None, :] < m)
    tl.store(slopes + row[:, None] * m + column[None, :], (exps * factor).to(slopes.dtype.element_ty), inside)


def sums(exps: Exponentials, by_column: bool) -> tuple[Tensor, Tensor]:
    """Sums of exponentials by row, (n,), and by column, (m,), 0 unless `by_column`; of all processes."""
    pairs, left = _in_large_tiles(exps.pairs), exps.operands[0]
    row_sums, column_sums = (left.new_zeros(size, dtype=exps.dtype) for size in (pairs.n, pairs.m))
    left_out = sorted({*(pairs.skip or ()), *(pairs.own or ())})
    diagonals = torch.tensor(left_out, dtype=torch.int32, device=left.device)
    for tile in pairs.tiles():
        rows, columns = _sums_of(tile, exps, diagonals, by_column or pairs.same)
        row_sums[tile.rows] += rows
        if pairs.same:
            row_sums[tile.columns] += columns
        elif by_column:
            column_sums[tile.columns] += columns
    pairs.add_up(row_sums, column_sums)
    return row_sums, column_sums


def _sums_of(tile: Tile, exps: Exponentials, diagonals: Tensor, by_column: bool) -> tuple[Tensor, Tensor]:
    n, m = (each.stop - each.start for each in tile)
    block = BLOCKS[exps.operands[0].dtype]
    high, wide = triton.cdiv(n, block.side), triton.cdiv(m, block.side)
    triangle = exps.pairs.same and tile.on_diagonal
    made = torch.zeros if triangle else torch.empty  # the blocks below the diagonal write nothing
    row_parts, column_parts = (
        made(shape, dtype=exps.dtype, device=diagonals.device) for shape in ((wide, n), (high if by_column else 0, m))
    )
    x, y = _operands(exps, tile)
    with torch.cuda.device_of(x):
        _sum_kernel[(wide, high)](
            x, y, *_labels(exps.pairs, tile), diagonals, row_parts, column_parts, n, m, x.shape[1], exps.scale * LOG2E,
            exps.shift, tile.columns.start - tile.rows.start, len(diagonals), by_column, triangle, **_settings(block),
        )  # fmt: skip
    return row_parts.sum(0), column_parts.sum(0)


def slopes(
    exps: Exponentials, row_factor: Tensor, column_factor: Tensor | None = None
) -> Iterator[tuple[Tile, Tensor]]:
    """dL/dS tile by tile, in the dtype of the products, each in the memory of the last; 0 where a pair is left out."""
    pairs, left = _in_large_tiles(exps.pairs), exps.operands[0]
    block = BLOCKS[left.dtype]
    space = pairs.space(left, left.dtype)
    for tile in pairs.tiles():
        each = space.of(tile)
        n, m = each.shape
        x, y = _operands(exps, tile)
        factors = row_factor[tile.rows], None if column_factor is None else column_factor[tile.columns]
        with torch.cuda.device_of(x):
            _slope_kernel[(triton.cdiv(m, block.side), triton.cdiv(n, block.side))](
                x, y, *_labels(pairs, tile), *factors, each, n, m, x.shape[1], exps.scale * LOG2E, exps.shift,
                **_settings(block),
            )  # fmt: skip
        pairs.leave_out(tile, each, 0)
        yield tile, each


def try_out(device: torch.device) -> None:
    """Build a kernel and run it. Raises whatever stands against that."""
    row = torch.zeros(1, 16, device=device)
    exps = Exponentials(row, row, 1.0, 0.0, Pairs(1, 1, False, None, None), torch.float32)
    found = float(sums(exps, by_column=False)[0])
    if found != 1:
        raise ArithmeticError(f"2^0 came out as {found}")


def _in_large_tiles(pairs: Pairs) -> Pairs:
    return pairs._replace(largest=(SIDE, SIDE))


def _operands(exps: Exponentials, tile: Tile) -> tuple[Tensor, Tensor]:
    left, right = exps.operands
    return left[tile.rows].contiguous(), right[tile.columns].contiguous()


def _labels(pairs: Pairs, tile: Tile) -> tuple[LongTensor | None, LongTensor | None]:
    if pairs.weight is None:
        return None, None
    rows, columns = pairs.weight.labels
    return rows[tile.rows].contiguous(), columns[tile.columns].contiguous()


def _settings(block: Block) -> dict[str, int | str]:
    """float32 products are as exact as torch's own are set to be."""
    precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
    return {
        "SIDE": block.side,
        "DEPTH": block.depth,
        "PRECISION": precision,
        "num_warps": block.warps,
        "num_stages": block.stages,
    }

"""Which pairs of rows a sum runs over, and in which tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from torch import LongTensor, Tensor

ROWS, COLUMNS = 512, 2048  # of a tile: 4 MiB of float32, which a core's caches nearly hold


@dataclass(frozen=True)
class PairWeight:
    """What stands between row i and column j: `function(rows, columns, *tensors)` gives a tile of it for two slices.

    The tile has shape (r, c). Floating point: log-weights, added to the logits; -inf leaves a pair out. Boolean: True keeps a pair.
    `tensors` are handed to the function and receive gradients through log-weights (learned weights); tensors that the function holds
    otherwise receive none. With `symmetric=True` the function promises the same for (i, j) as for (j, i), where rows and columns are one set.
    """

    function: Callable[..., Tensor]
    tensors: tuple[Tensor, ...] = ()
    symmetric: bool = False

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        return self.function(rows, columns, *self.tensors)


class Tile(NamedTuple):
    """Where a tile lies."""

    rows: slice
    columns: slice

    @property
    def on_diagonal(self) -> bool:
        return self.rows.start == self.columns.start


class Pairs(NamedTuple):
    """Which pairs a sum runs over: n rows against m columns, or against themselves, less what is left out."""

    n: int
    m: int
    same: bool  # columns are the rows: a symmetric sum, whose upper triangle is enough
    skip: LongTensor | None  # (n, k): columns that row i leaves out
    weight: PairWeight | None

    def tiles(self) -> Iterator[Tile]:
        for top in range(0, self.n, ROWS):
            rows = slice(top, min(top + ROWS, self.n))
            if self.same:  # square tiles from the diagonal on
                for left in range(top, self.m, ROWS):
                    yield Tile(rows, slice(left, min(left + ROWS, self.m)))
            else:
                for left in range(0, self.m, COLUMNS):
                    yield Tile(rows, slice(left, min(left + COLUMNS, self.m)))

    def leave_out(self, tile: Tile, values: Tensor, value: float) -> None:
        """Write `value` over the pairs of a tile that `skip` names."""
        if self.skip is None:
            return
        columns = self.skip[tile.rows] - tile.columns.start
        inside = (columns >= 0) & (columns < values.shape[1])
        rows, which = inside.nonzero(as_tuple=True)
        values[rows, columns[rows, which]] = value

"""Which pairs of rows a sum runs over, and in which tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from torch import LongTensor, Tensor

from contrapose.distributed import sum_over_processes, work_share

ROWS, COLUMNS = 512, 2048  # of a tile: 4 MiB of float32, which a core's caches nearly hold
SHARED_FROM = 2**20  # pairs: fewer are done by every process, which is faster than telling the others


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
    part: int = 0  # which of the parts that processes share the tiles by
    parts: int = 1

    def shared(self) -> Pairs:
        """The tiles of this process, where processes hold the same rows and there are enough pairs to share."""
        part, parts = work_share()
        return self._replace(part=part, parts=parts) if self.n * self.m >= SHARED_FROM else self

    def whole(self) -> Pairs:
        """All tiles, on every process."""
        return self._replace(part=0, parts=1)

    def tiles(self) -> Iterator[Tile]:
        """The tiles of this part: every parts-th one of all."""
        return islice(self._all_tiles(), self.part, None, self.parts)

    def _all_tiles(self) -> Iterator[Tile]:
        height = max(1, min(ROWS, -(-self.n // self.parts)))
        for top in range(0, self.n, height):
            rows = slice(top, min(top + height, self.n))
            if self.same:  # square tiles from the diagonal on
                for left in range(top, self.m, height):
                    yield Tile(rows, slice(left, min(left + height, self.m)))
            else:
                for left in range(0, self.m, COLUMNS):
                    yield Tile(rows, slice(left, min(left + COLUMNS, self.m)))

    def add_up(self, *parts: Tensor) -> None:
        """Replace what this process has summed over its tiles by the sum over all processes, in place."""
        if self.parts > 1:
            sum_over_processes(parts)

    def leave_out(self, tile: Tile, values: Tensor, value: float) -> None:
        """Write `value` over the pairs of a tile that `skip` names."""
        if self.skip is None:
            return
        columns = self.skip[tile.rows] - tile.columns.start
        inside = (columns >= 0) & (columns < values.shape[1])
        rows, which = inside.nonzero(as_tuple=True)
        values[rows, columns[rows, which]] = value

"""Which pairs of rows a sum runs over, and in which tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from contrapose.distributed import sum_over_processes, work_share

ROWS, COLUMNS = 512, 1024  # of a tile: 2 MiB of float32, which the caches hold from one pass over it to the next
ON_DEVICE = 4096, 8192  # 128 MiB: a small tile is done before the next one has been asked for
SHARED_FROM = 2**20  # pairs: fewer are done by every process, which is faster than telling the others


@dataclass(frozen=True)
class PairWeight:
    """What stands between row i and column j: `function(rows, columns, *tensors)` gives a tile of it for two slices.

    The tile has shape (r, c). Floating point: log-weights, added to the logits; -inf leaves a pair out. Boolean: True keeps a pair.
    `tensors` are handed to the function and receive gradients through log-weights (learned weights); tensors that the function holds
    otherwise receive none. With `symmetric=True` the function promises the same for (i, j) as for (j, i), where rows and columns are one set.
    `labels`, of rows and of columns: they promise that the function keeps (i, j) where i's label is not j's, or is below 0, and nothing else;
    kernels then read them, and call no function.
    """

    function: Callable[..., Tensor]
    tensors: tuple[Tensor, ...] = ()
    symmetric: bool = False
    labels: tuple[LongTensor, LongTensor] | None = None

    def __call__(self, rows: slice, columns: slice) -> Tensor:
        return self.function(rows, columns, *self.tensors)


class Tile(NamedTuple):
    """Where a tile lies."""

    rows: slice
    columns: slice

    @property
    def corner(self) -> tuple[int, int]:
        return self.rows.start, self.columns.start

    @property
    def on_diagonal(self) -> bool:
        return self.rows.start == self.columns.start

    def halves(self) -> Iterator[tuple[Tile, slice]]:
        """The upper half and the lower one, each with its rows within the tile."""
        first, stop = self.rows.start, self.rows.stop
        middle = first + -(-(stop - first) // 2)
        for rows in (slice(first, middle), slice(middle, stop)):
            yield Tile(rows, self.columns), slice(rows.start - first, rows.stop - first)


# Columns by row, (n, k), or whole diagonals, by column less row: (0,) is row i against column i.
Places = LongTensor | tuple[int, ...]


class Space(NamedTuple):
    """Memory that tiles take in turn, so that it is asked for once."""

    memory: Tensor

    def of(self, tile: Tile) -> Tensor:
        r, c = (each.stop - each.start for each in tile)
        return self.memory[: r * c].view(r, c)


class Pairs(NamedTuple):
    """Which pairs a sum runs over: n rows against m columns, or against themselves, less what is left out."""

    n: int
    m: int
    same: bool  # columns are the rows: a symmetric sum, whose upper triangle is enough
    skip: Places | None  # left out
    weight: PairWeight | None
    own: Places | None = None  # one for each row: left out of the sums, and a logit of its own
    part: int = 0  # which of the parts that processes share the tiles by
    parts: int = 1
    largest: tuple[int, int] | None = None  # rows and columns that a tile may have; None: ROWS and COLUMNS

    def shared(self) -> Pairs:
        """The tiles of this process, where processes hold the same rows and there are enough pairs to share."""
        part, parts = work_share()
        return self._replace(part=part, parts=parts) if self.n * self.m >= SHARED_FROM else self

    def on(self, device: torch.device) -> Pairs:
        """In tiles of the size that suits a device."""
        return self if device.type == "cpu" else self._replace(largest=ON_DEVICE)

    def whole(self) -> Pairs:
        """All tiles, on every process."""
        return self._replace(part=0, parts=1)

    def tiles(self) -> Iterator[Tile]:
        """The tiles of this part: every parts-th one of all."""
        return islice(self._all_tiles(), self.part, None, self.parts)

    def _all_tiles(self) -> Iterator[Tile]:
        most, width = self.largest or (ROWS, COLUMNS)
        height = max(1, min(most, -(-self.n // self.parts)))
        for top in range(0, self.n, height):
            rows = slice(top, min(top + height, self.n))
            if self.same:  # a square on the diagonal, then what is to its right
                yield Tile(rows, rows)
            for left in range(rows.stop if self.same else 0, self.m, width):
                yield Tile(rows, slice(left, min(left + width, self.m)))

    def add_up(self, *parts: Tensor) -> None:
        """Replace what this process has summed over its tiles by the sum over all processes, in place."""
        if self.parts > 1:
            sum_over_processes(parts)

    def space(self, like: Tensor, dtype: torch.dtype, halves: int = 1) -> Space:
        """Memory for one tile after the other, or half a tile, where `like` is."""
        height, width = self.largest or (ROWS, COLUMNS)
        rows, columns = -(-min(height, self.n) // halves), min(max(height, width), self.m)
        return Space(like.new_empty(rows * columns, dtype=dtype))

    def leave_out(self, tile: Tile, values: Tensor, value: float) -> None:
        """Write `value` over the pairs of a tile that `skip` and `own` name."""
        for places in (self.skip, self.own):
            if isinstance(places, tuple):
                for _, diagonal in _diagonals(places, tile, values):
                    diagonal.fill_(value)
            elif places is not None:
                rows, columns = _cells(places, tile)
                values[rows, columns] = value

    def add_own(self, tile: Tile, values: Tensor, each: Tensor) -> None:
        """Add `each` (n,) to the pairs that `own` names; where rows and columns are one set, also to (own, i)."""
        ways = [(tile, values), (Tile(tile.columns, tile.rows), values.T)]
        for turned, there in ways if self.same else ways[:1]:
            if isinstance(self.own, tuple):
                for rows, diagonal in _diagonals(self.own, turned, there):
                    diagonal += each[rows]
            else:
                rows, columns = _cells(self.own, turned)
                there.index_put_((rows, columns), each[turned.rows][rows].to(there.dtype), accumulate=True)

    def own_products(self, x: Tensor, y: Tensor) -> Tensor:
        """x_i · y_own(i), (n,)."""
        if not isinstance(self.own, tuple):
            return torch.linalg.vecdot(x, y[self.own[:, 0]])
        found = x.new_empty(self.n)
        for offset in self.own:
            first, stop = max(0, -offset), min(self.n, self.m - offset)
            found[first:stop] = torch.linalg.vecdot(x[first:stop], y[first + offset : stop + offset])
        return found


def _diagonals(offsets: tuple[int, ...], tile: Tile, values: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """The parts of diagonals in a tile: which rows they are of, and their values, to be written to."""
    r, c = values.shape
    for offset in offsets:
        shift = offset + tile.rows.start - tile.columns.start
        if -r < shift < c:
            first = tile.rows.start + max(0, -shift)
            diagonal = values.diagonal(shift)
            yield slice(first, first + len(diagonal)), diagonal


def _cells(places: LongTensor, tile: Tile) -> tuple[Tensor, Tensor]:
    """Rows and columns within a tile of the places that lie in it."""
    columns = places[tile.rows] - tile.columns.start
    rows, which = ((columns >= 0) & (columns < tile.columns.stop - tile.columns.start)).nonzero(as_tuple=True)
    return rows, columns[rows, which]


def as_diagonals(skip: LongTensor, m: int) -> LongTensor | tuple[int, ...]:
    """`skip` as diagonals of the (n, m) pairs where it is nothing else: a row itself, a row and its other view. Else as it is."""
    n, k = skip.shape
    offsets = (skip - torch.arange(n, device=skip.device)[:, None]).unique().tolist()
    if len(offsets) > 2 * k or (k > 1 and bool((skip.sort(dim=1).values.diff(dim=1) == 0).any())):
        return skip
    cells = sum(max(0, min(n, m - offset) - max(0, -offset)) for offset in offsets)
    return tuple(offsets) if cells == n * k else skip

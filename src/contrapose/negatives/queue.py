"""A queue of earlier embeddings: more negatives than a batch holds."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor, nn

from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer

NONE = -1  # the row or group of a vector that was stored without one


class Stored(NamedTuple):
    """What a queue holds, oldest first: vectors (q, d), row numbers (q,) and groups (q,), -1 where none was given."""

    vectors: Tensor
    rows: LongTensor
    group: LongTensor


class Queue(nn.Module):
    """The newest `size` embeddings of earlier steps, first in, first out (MoCo: He et al., 2020).

    The order of a step: `stored()` → loss → backward → optimiser → `enqueue()` (in a method: in `after_step`). The
    current batch is then never in its own queue, where an anchor would meet its own positive as a negative.

        stored = queue.stored()
        info_nce(a, p, temperature=0.05, queue=stored.vectors, group=batch.group, queue_group=stored.group)

    A queue longer than an epoch also holds older vectors of the anchors' own rows. Where the data have no groups, pass
    row numbers as groups to leave these out: `group=batch.rows, queue_group=stored.rows`.

    Everything is a persistent buffer: a checkpoint restores content, position and fill. With several processes enqueue
    the embeddings of all of them, in the order of the ranks: the queues then stay equal. A queue of size 0 stays empty.

    Attributes: vectors (size, d); rows and group (size,) int64; pointer, the slot written next; fill, how many slots
    hold something. Slots are in the order of writing; `stored()` puts them in the order of age.
    """

    def __init__(self, size: int, dim: int, dtype: torch.dtype = torch.float32) -> None:
        """Raises ArgumentInvalid for a size below 0 or a dim below 1."""
        super().__init__()
        if size < 0 or dim < 1:
            raise ArgumentInvalid(f"a queue needs a size of at least 0 and a dim of at least 1; got {size} and {dim}.")
        self.register_buffer("vectors", torch.zeros(size, dim, dtype=dtype))
        self.register_buffer("rows", torch.full((size,), NONE))
        self.register_buffer("group", torch.full((size,), NONE))
        self.register_buffer("pointer", torch.tensor(0))
        self.register_buffer("fill", torch.tensor(0))

    @property
    def size(self) -> int:
        return len(self.vectors)

    def __len__(self) -> int:
        """How many vectors are stored, from 0 to `size`."""
        return int(self.fill)

    @torch.no_grad()
    def enqueue(self, vectors: Tensor, rows: LongTensor | None = None, group: LongTensor | None = None) -> None:
        """Append (b, d) vectors in their order, each over the oldest one; of more than `size` the newest are kept.

        They are copied without their graph, in the queue's dtype, as they are: not normalised.
        `rows` and `group` are (b,) integers. Raises ShapesDiffer and NonFinite.
        """
        self._check(vectors, rows, group)
        b = len(vectors)
        kept = min(b, self.size)
        if kept == 0:
            return
        slots = (self.pointer + torch.arange(b - kept, b, device=self.vectors.device)) % self.size
        self.vectors[slots] = vectors[b - kept :].to(self.vectors)
        self.rows[slots] = NONE if rows is None else rows[b - kept :].to(self.rows)
        self.group[slots] = NONE if group is None else group[b - kept :].to(self.group)
        self.pointer.add_(b).remainder_(self.size)
        self.fill.add_(b).clamp_(max=self.size)

    def stored(self) -> Stored:
        """Copies of what is stored, oldest first; a later `enqueue` does not touch them, so a graph may keep them."""
        q = len(self)
        newest = self.pointer + torch.arange(-q, 0, device=self.vectors.device)
        slots = newest % max(self.size, 1)
        return Stored(self.vectors[slots], self.rows[slots], self.group[slots])

    def _check(self, vectors: Tensor, rows: LongTensor | None, group: LongTensor | None) -> None:
        dim = self.vectors.shape[1]
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise ShapesDiffer(f"the queue holds vectors of {dim} dimensions; got shape {tuple(vectors.shape)}.")
        for name, numbers in (("rows", rows), ("group", group)):
            if numbers is not None and numbers.shape != vectors.shape[:1]:
                raise ShapesDiffer(
                    f"{name} must have shape ({len(vectors)},), one a vector; got {tuple(numbers.shape)}."
                )
        if not bool(torch.isfinite(vectors).all()):
            raise NonFinite(
                "vectors with NaN or infinity were about to enter the queue, where they would last for many steps."
            )

    def extra_repr(self) -> str:
        return f"size={self.size}, dim={self.vectors.shape[1]}, stored={len(self)}"

"""The embedding cache: a batch that memory does not hold, embedded twice in chunks (Gao et al., 2021, "Scaling deep contrastive learning batch size").

The first pass embeds chunk by chunk without a graph, and keeps vectors alone. The objective sees the vectors of the whole batch. In the backward
pass each chunk is embedded again, with the random numbers and the autocast of its first time, and its part of the gradient goes through it at once.
So memory holds the graph of one chunk, whatever the batch is, for a second forward pass of time; the gradient is that of the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from contrapose.data.batches import count, take


def chunks_of(inputs: Any, budget: int | None) -> list[slice]:
    """Neighbouring rows of at most `budget` in all (tokens, where rows have lengths; else rows); a larger row stands alone. None: one chunk."""
    rows = count(inputs)
    if budget is None:
        return [slice(0, rows)]
    chunks, start, held = [], 0, 0
    for row, size in enumerate(row_sizes(inputs)):
        if row > start and held + size > budget:
            chunks.append(slice(start, row))
            start, held = row, 0
        held += size
    return [*chunks, slice(start, rows)] if rows else []


def row_sizes(inputs: Any) -> list[int]:
    """What each row takes: its tokens, where collated inputs have `lengths`, over all columns of a mapping; else 1."""
    if isinstance(inputs, Mapping):
        return [sum(sizes) for sizes in zip(*(row_sizes(column) for column in inputs.values()), strict=True)]
    lengths = getattr(inputs, "lengths", None)
    return [1] * count(inputs) if lengths is None else lengths.tolist()


def cached(embed: Callable[[Any], Tensor], inputs: Any, chunks: Sequence[slice]) -> Tensor:
    """`embed(inputs)`, (b, d) or (b, k, d), chunk by chunk; with gradients, for which each chunk is embedded a second time.

    `embed` must treat rows alone and draw random numbers from torch's own generators alone.
    """
    parts = [take(inputs, chunk) for chunk in chunks]
    if not torch.is_grad_enabled():
        return torch.cat([embed(part) for part in parts])
    alive = torch.zeros((), requires_grad=True)  # nothing else tells autograd that parameters stand behind the vectors
    return _Cached.apply(alive, embed, parts)


class _Cached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, alive: Tensor, embed: Callable[[Any], Tensor], parts: list[Any]) -> Tensor:
        ctx.embed, ctx.parts, ctx.states, vectors = embed, parts, [], []
        for part in parts:
            ctx.states.append(Drawn.now())
            vectors.append(embed(part))
        return torch.cat(vectors)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        start = 0
        for part, state in zip(ctx.parts, ctx.states, strict=True):
            with state.again(), torch.enable_grad():
                vectors = ctx.embed(part)
            if vectors.requires_grad:
                torch.autograd.backward(vectors, gradient[start : start + len(vectors)])
            start += len(vectors)
        return None, None, None


@dataclass(frozen=True)
class Drawn:
    """The random state and the autocast under which a chunk was embedded."""

    processor: Tensor
    devices: list[Tensor]
    autocast: dict[str, tuple[bool, torch.dtype]]

    @classmethod
    def now(cls) -> Drawn:
        kinds = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
        return cls(
            torch.get_rng_state(),
            torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
            {kind: (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in kinds},
        )

    @contextmanager
    def again(self) -> Iterator[None]:
        """Within it everything random and every precision is as it was; afterwards as before."""
        with torch.random.fork_rng(devices=range(len(self.devices))), ExitStack() as casts:
            torch.set_rng_state(self.processor)
            if self.devices:
                torch.cuda.set_rng_state_all(self.devices)
            for kind, (enabled, dtype) in self.autocast.items():
                casts.enter_context(torch.autocast(kind, dtype, enabled=enabled))
            yield

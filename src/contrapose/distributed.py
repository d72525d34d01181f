"""The few collectives of the library, on `torch.distributed` alone (gloo or NCCL): each is the identity in one process.

The rule that the whole library follows: every process embeds its own rows, gathers the embeddings of all, and computes
the SAME objective on the global batch. So a loss has one value, printed by any process, and its gradient is that of one
process on the whole batch. All processes must call these functions in the same order.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

Value = TypeVar("Value")

BUCKET = 2**23  # elements in one flat bucket of gradients: 32 MiB of fp32, large enough that latency no longer counts


def leave_at_exit() -> None:
    """Take this process out of its group when the interpreter ends: gloo's threads, still running then, may abort it."""
    atexit.register(_leave)


def _leave() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """The number of processes; 1 where no process group was started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes by rank: from (b_r, ...) on rank r to (sum of b_r, ...) on each of them.

    Any dtype; b_r may differ between processes, and may be 0. In one process the tensor itself is given back.

    Differentiable, once. The backward pass needs no traffic: it takes this process's slice of the gradient TIMES the
    number of processes W. Why times W: each process computes the objective of the global batch, so its slice is already
    the whole derivative by its rows, and the gradient of an encoder is the SUM over processes of what flows through
    their rows. `average_gradients` afterwards takes the MEAN over processes. That is right as it stands for a parameter
    that the objective uses directly (a learned temperature: each process holds all of its gradient already). The factor
    W turns the mean into the sum for encoders; both are then exact, with no case to tell apart.
    """
    return rows if world_size() == 1 else _GatherRows.apply(rows)


def gather_objects(value: Value) -> list[Value]:
    """The values of all processes by rank; any Python object. For figures and names, not for tensors."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def broadcast_object(value: Value, source: int = 0) -> Value:
    """The value that the process `source` holds, on all of them."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=source)
    return values[0]


def any_process(value: int) -> int:
    """The largest value over all processes: true when a flag is true on any, or the number of a signal that one got."""
    return _reduce(value, dist.ReduceOp.MAX) if world_size() > 1 else int(value)


def all_processes(value: int) -> int:
    """The smallest value over all processes: true when a flag is true on every one."""
    return _reduce(value, dist.ReduceOp.MIN) if world_size() > 1 else int(value)


@torch.no_grad()
def sizes_of(rows: int, device: torch.device) -> list[int]:
    """How many rows each process has, by rank."""
    if world_size() == 1:
        return [rows]
    sizes = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([rows], dtype=torch.int64, device=device))
    return torch.cat(sizes).tolist()


@torch.no_grad()
def scatter_sum(rows: Tensor, sizes: Sequence[int]) -> Tensor:
    """The reverse of a gather: (sum of sizes, ...) on every process to the sum over processes of this process's own rows.

    Half the traffic of a sum that everyone gets. Shares of different sizes are padded with zeros on the way.
    """
    if world_size() == 1:
        return rows
    most = max(sizes)
    padded = rows.new_zeros(len(sizes), most, *rows.shape[1:])
    for place, share in enumerate(rows.split(list(sizes))):
        padded[place, : len(share)] = share
    own = padded.new_empty(most, *rows.shape[1:])
    dist.reduce_scatter(own, list(padded))
    return own[: sizes[rank()]]


_shared: ContextVar[bool] = ContextVar("shared", default=False)


@contextmanager
def shared_work() -> Iterator[None]:
    """Within it all processes hold the same tensors and call the same objectives in the same order, so that these may share their work.

    What an objective computes then is the same on every process, value and gradients, and each does a part of it: the tiles of all pairs
    go round, sums over rows and columns are added up (n + m numbers), and so are gradients in the backward pass (n + m vectors).
    The training loop opens it around every objective. Never around a loss of one's own rows alone: it would wait for the others for ever.
    """
    token = _shared.set(True)
    try:
        yield
    finally:
        _shared.reset(token)


def work_share() -> tuple[int, int]:
    """This process's part of shared work, and the number of parts: (0, 1) outside `shared_work`."""
    return (rank(), world_size()) if _shared.get() else (0, 1)


@torch.no_grad()
def sum_over_processes(tensors: Iterable[Tensor]) -> None:
    """Replace each tensor by its sum over all processes, in place: one message. All of one device, the dtypes as they are on every process."""
    tensors = [tensor for tensor in tensors if tensor.numel()]
    if world_size() == 1 or not tensors:
        return
    for bucket in _buckets(tensors):
        flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
        dist.all_reduce(flat)
        for tensor, part in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(part.view_as(tensor))


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes, in place; after `gather_rows`, that of the global batch.

    A gradient that is None counts as zeros where any other process has one (a process whose rows did not use a module),
    and stays None where none has. Dense gradients of any dtype, in the same order on all processes; they travel in flat
    buckets, one dtype and device a bucket.
    """
    world = world_size()
    if world == 1:
        return
    parameters = list(parameters)
    used = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.int32, device=_device())
    if parameters:
        dist.all_reduce(used, op=dist.ReduceOp.MAX)
    gradients = []
    for parameter, anywhere in zip(parameters, used.tolist(), strict=True):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        # Divided before the sum, so that half-precision gradients near the largest number do not overflow.
        flat = torch.cat([gradient.reshape(-1) for gradient in bucket]).div_(world)
        dist.all_reduce(flat)
        parts = flat.split([gradient.numel() for gradient in bucket])
        for gradient, part in zip(bucket, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, rows: Tensor) -> Tensor:
        sizes = sizes_of(len(rows), rows.device)
        ctx.mine = slice(sum(sizes[: rank()]), sum(sizes[: rank() + 1]))

        sent = rows.to(torch.uint8) if rows.dtype == torch.bool else rows  # gloo knows no booleans
        padded = sent.new_zeros(max(sizes), *rows.shape[1:])  # all_gather wants equal shapes
        padded[: len(rows)] = sent
        received = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(received, padded)
        return torch.cat([part[:size] for part, size in zip(received, sizes, strict=True)]).to(rows.dtype)

    @staticmethod
    @once_differentiable  # a second derivative would need the other processes' slices as well
    def backward(ctx: FunctionCtx, gradient: Tensor) -> Tensor:
        return gradient[ctx.mine] * world_size()


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """The gradients by dtype and device, in runs of about BUCKET elements."""
    alike: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
    for gradient in gradients:
        alike.setdefault((gradient.dtype, gradient.device), []).append(gradient)
    for group in alike.values():
        bucket, elements = [], 0
        for gradient in group:
            bucket.append(gradient)
            elements += gradient.numel()
            if elements >= BUCKET:
                yield bucket
                bucket, elements = [], 0
        if bucket:
            yield bucket


def _reduce(value: int, how: dist.ReduceOp) -> int:
    tensor = torch.tensor([int(value)], dtype=torch.int64, device=_device())
    dist.all_reduce(tensor, op=how)
    return int(tensor)


def _device() -> torch.device:
    """Where small tensors of our own must lie: NCCL moves nothing but device memory."""
    return torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else torch.device("cpu")

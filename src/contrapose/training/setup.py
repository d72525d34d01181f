"""Processes, precision and seeds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers import Logger
from torch import LongTensor

from contrapose.data.batches import Batch, Data, seed_of
from contrapose.distributed import leave_at_exit
from contrapose.training.precision import has_bf16


def make_fabric(precision: str = "auto", loggers: Sequence[Logger] = ()) -> Fabric:
    """One process on the best device here, or those that torchrun started. `precision` as in `MethodSettings`."""
    chosen = {"bf16": "bf16-mixed", "fp32": "32-true", "fp64": "64-true"}.get(precision) or (
        "bf16-mixed" if has_bf16("cuda" if torch.cuda.is_available() else "cpu") else "32-true"
    )
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", 1)), int(os.environ.get("WORLD_SIZE", 1))
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # the run says its precision itself, once
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=world // local,
        strategy="ddp" if world > 1 else "auto",
        precision=chosen,
        loggers=list(loggers),
    )
    fabric.launch()
    if world > 1:
        leave_at_exit()
    return fabric


@contextmanager
def closed(loggers: Sequence[Logger]) -> Iterator[None]:
    """Closes loggers at the end, whatever happens: what they still hold is written, and their threads end."""
    status = "failed"
    try:
        yield
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)


def precision_said(fabric: Fabric) -> str:
    """The precision in words."""
    said = {"bf16-mixed": "bf16 matrix products with fp32 weights", "32-true": "fp32", "64-true": "fp64"}
    return said[fabric.strategy.precision.precision]


def seed_everything(*key: int) -> None:
    """Seed what cannot be handed a generator (dropout) from the key; the loop gives the user's own random state back at its end."""
    torch.manual_seed(seed_of(*key))


def share_of(rows: LongTensor, data: Data, step: int, generator: torch.Generator, fabric: Fabric) -> Batch:
    """This process's rows of a step's batch: neighbours in the batch's order, as evenly as it goes."""
    if fabric.world_size == 1:
        return Batch(data, rows, step, generator, fabric.device)
    shares = rows.tensor_split(fabric.world_size)
    first = sum(len(share) for share in shares[: fabric.global_rank])
    return Batch(data, shares[fabric.global_rank], step, generator, fabric.device, first, rows)

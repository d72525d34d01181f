"""What a run is about to do, said before step 1; and what it refuses to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from contrapose.data.batches import Data
from contrapose.distributed import world_size
from contrapose.errors import NoNegatives, SettingInvalid
from contrapose.training.memory import MemoryPlan
from contrapose.training.method import Method


def masked_share(data: Data) -> float:
    """The share of pairs of two different rows that are in one group, and so are not negatives of each other."""
    if data.group is None or len(data) < 2:
        return 0.0
    sizes = torch.bincount(data.group).double()
    return float((sizes * (sizes - 1)).sum() / (len(data) * (len(data) - 1)))


def refuse_misfits(method: Method, data: Data, protocols: Sequence[Any] = ()) -> None:
    """What can be known before anything is written: anchors without negatives, settings that do not fit the encoder, and `Method.refuse`.

    `method`: with an encoder of its own, not yet built; of no use afterwards. The caller's random state is left alone.
    """
    refuse_without_negatives(method, data)
    with torch.random.fork_rng():
        method.build(data.facts)
        refuse_statistics_of_one(method, data)
        method.refuse(data, protocols)


def refuse_without_negatives(method: Method, data: Data) -> None:
    """Raises NoNegatives when the method needs negatives and a full batch, or the groups, leave none."""
    size = min(method.settings.batch_size, len(data))
    if method.negatives(size, data.facts) == 0:
        reason = f"batch_size is {size}" if size == method.settings.batch_size else f"{data.source} has {size} row(s)"
        raise NoNegatives(
            f"{reason}, so no anchor has a negative and there is nothing to learn; 2 is the least, 64 a usual choice."
        )
    if method.negatives(size, data.facts) is not None and masked_share(data) == 1.0:
        raise NoNegatives(
            f"every row of {data.source} has the same group_id, so no anchor has a negative; give rows that differ different groups."
        )


def refuse_statistics_of_one(method: Method, data: Data) -> None:
    """Raises SettingInvalid for batches of one row where the method or its encoder normalises over the batch, which one row has no deviation in."""
    if min(method.settings.batch_size, len(data)) > 1:
        return
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in method.modules()):
        reason = "batch_size is 1" if method.settings.batch_size == 1 else f"{data.source} has 1 row"
        raise SettingInvalid(
            f"{reason}, and the method or its encoder normalises over the batch (BatchNorm), where one row deviates from nothing; 2 is the "
            "least, 64 a usual choice."
        )


def plan(method: Method, data: Data, steps: int, precision: str, memory: MemoryPlan | None = None) -> str:
    """One paragraph: steps, precision, negatives per anchor and how many are masked, the embedding cache and memory, the method's remarks."""
    settings, processes = method.settings, world_size()
    size = min(settings.batch_size, len(data))
    said = [f"{steps:,} steps of {size:,} rows from {len(data):,}, {precision}"]
    negatives = method.negatives(size, data.facts)
    if negatives is not None:
        across = f" ({processes} processes x {size // processes:,} rows)" if processes > 1 else ""
        said.append(f"{negatives:,} negatives per anchor{across}")
        if data.group is not None:
            said.append(f"{masked_share(data):.2%} of in-batch pairs share a group and are masked")
    if not method.row_wise:
        said.append("the encoder looks across rows, so no embedding cache")
    if memory is not None:
        said.append(str(memory))
    said += method.remarks
    return "; ".join(said) + "."

"""What the methods on a graph share: every node stands in a step, or as many as a batch holds, in one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import LongTensor, Tensor, nn
from torch.nn.functional import normalize

from contrapose.data.batches import Data, shuffled_batches
from contrapose.distributed import world_size
from contrapose.errors import ProcessesTooMany
from contrapose.training.settings import MethodSettings

ALL = 2**30


class GraphSettings(MethodSettings):
    """Settings of a method that encodes the graph as a whole: full batches, a constant rate, no clipping, as in the official codes."""

    batch_size: PositiveInt = Field(
        ALL,
        description="Nodes that are contrasted in a step, drawn anew; the default is all. The graph is encoded whole either way.",
    )
    epochs: PositiveFloat = Field(60.0, description="Passes over all nodes; a step each, unless batch_size is smaller.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "constant", description="How the learning rate falls to 0."
    )
    optimiser: Literal["adamw", "adam", "sgd"] = Field("adam", description="Optimiser of every update.")
    clip_norm: PositiveFloat | None = Field(None, description="Largest norm of the gradient; empty for no clipping.")
    weight_decay: NonNegativeFloat = Field(0.0, description="Decay of weight matrices; biases and slopes have none.")
    precision: Literal["auto", "bf16", "fp32", "fp64"] = Field(
        "fp32", description="Of dense products; sparse ones are fp32 at least."
    )


def whole_batches(data: Data, batch_size: int, generator: torch.Generator) -> Sequence[LongTensor]:
    """All nodes in their own order, or random ones of them in batches."""
    if batch_size >= len(data):
        return [torch.arange(len(data))]
    return shuffled_batches(len(data), batch_size, generator)


def refuse_processes(method: str) -> None:
    """Raises ProcessesTooMany in a run of several processes."""
    if world_size() > 1:
        raise ProcessesTooMany(
            f"{method} encodes the graph as a whole, so {world_size()} processes would all do the same work; start one, which uses every core "
            "or the GPU."
        )


def projected(vectors: Tensor, projection: nn.Module) -> Tensor:
    """Unit rows of tanh(W z + b), (n, d)."""
    return normalize(projection(vectors).tanh(), dim=1)

"""What the toy methods share: tiny encoders and data, and a run of the real loop, whole or killed."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from contrapose.data.batches import Data
from contrapose.training.encoder import Encoder
from contrapose.training.loop import Select, fit
from contrapose.training.method import Method
from contrapose.training.progress import Reporter, Silent
from contrapose.training.run_folder import RunFolder
from contrapose.training.settings import MethodSettings

ROWS = 26  # in batches of 4: six whole ones and a tail of two an epoch
WIDTH = 6
PLAIN = {"optimiser": "sgd", "schedule": "constant", "clip_norm": None, "precision": "fp64"}  # for figures by hand


class ToySettings(MethodSettings):
    batch_size: PositiveInt = 4
    steps: PositiveInt | None = 11  # into the second epoch, past three checkpoints
    learning_rate: NonNegativeFloat = 0.02
    log_every: PositiveInt = 1
    checkpoint_every: PositiveInt = 3
    precision: Literal["auto", "bf16", "fp32", "fp64"] = "fp32"


class Tower(Encoder):
    """Two layers with dropout: (b, …, WIDTH) to (b, …, dim). Stands for BERT, a ResNet, a ViT."""

    def __init__(self, dim: int = 5, width: int = WIDTH, dropout: float = 0.2) -> None:
        super().__init__()
        self.dim = dim
        self.layers = nn.Sequential(nn.Linear(width, dim), nn.Tanh(), nn.Dropout(dropout), nn.Linear(dim, dim))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


def tower() -> Tower:
    return Tower()


def no_encoder() -> None:
    """For methods whose encoder follows from the facts of the data."""


def numbers(*shape: int, seed: int = 0) -> Tensor:
    """Gaussian numbers, the same each time."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def table(columns: Mapping[str, Any], **more: Any) -> Data:
    return Data(columns, len(next(iter(columns.values()))), **more)


@dataclass(frozen=True)
class Toy:
    """A method with its data, its pretrained encoder and its settings; may travel to another process."""

    name: str
    method: type[Method]
    data: Callable[[], Data]
    encoder: Callable[[], nn.Module | None] = tower
    settings: Mapping[str, Any] = field(default_factory=dict)

    def fit(
        self,
        folder: RunFolder,
        *,
        method: type[Method] | None = None,
        reporter: Reporter | None = None,
        select: Select | None = None,
        **settings: Any,
    ) -> Method:
        """Run the real loop in `folder`, from the start or on from what lies there."""
        chosen = method or self.method
        with torch.random.fork_rng():
            torch.manual_seed(0)
            pristine = self.encoder()

        def create(kind: type[Method], with_settings: MethodSettings) -> Method:
            return kind(with_settings, copy.deepcopy(pristine))

        with_settings = chosen.Settings(**{**self.settings, **settings})
        return fit(create, chosen, with_settings, self.data(), folder, select=select, reporter=reporter)


class Calls(Silent):
    """A reporter that does something after each step; told how many steps this process has taken over all stages."""

    def __init__(self, work: Callable[[int], None]) -> None:
        self.work, self.taken = work, 0

    def step(self, step: int, line: str | None) -> None:
        if line is None:  # the line of figures comes beside the step itself
            self.taken += 1
            self.work(self.taken)


def signals(number: signal.Signals, after: int) -> Calls:
    """Sends its own process a signal, for real, after so many steps."""
    return Calls(lambda taken: os.kill(os.getpid(), number) if taken == after else None)

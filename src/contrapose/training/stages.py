"""What the parts of a run share, and the models of its stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric

from contrapose.data.batches import Data
from contrapose.training.checkpoint import load_weights, read_checkpoint
from contrapose.training.interrupts import Interrupts
from contrapose.training.method import Method, Stage
from contrapose.training.position import Position
from contrapose.training.progress import Reporter
from contrapose.training.run_folder import RunFolder
from contrapose.training.settings import MethodSettings
from contrapose.training.setup import seed_everything

Create = Callable[[type[Method], MethodSettings], Method]  # a method with a fresh (pretrained) encoder, not yet built
Select = Callable[[Method], float]  # a score on development data, larger is better


@dataclass
class RunContext:
    """What every part of the loop shares."""

    create: Create
    root: Method  # holds the run's own settings; never built or trained
    data: Data
    folder: RunFolder
    fabric: Fabric
    select: Select | None
    reporter: Reporter
    position: Position
    asked: Interrupts

    @property
    def writes(self) -> bool:
        return self.fabric.is_global_zero


def build_model(run: RunContext, stage: Stage) -> Method:
    """A stage's method, built; the same weights each time."""
    settings = stage.settings or run.root.settings
    seed_everything(settings.seed, 0, 0)
    model = run.create(stage.method or type(run.root), settings)
    model.build(run.data.facts)
    return model.to(run.fabric.device, torch.float64 if settings.precision == "fp64" else None)


def finished_model(run: RunContext, name: str) -> Method:
    """The model of a finished stage, from its plan and its file."""
    done = [record.name for record in run.position.finished].index(name)
    stage = run.root.next_stage(run.position.finished[:done])
    model = build_model(run, stage)
    load_weights(model, read_checkpoint(run.folder.stage_file(name))[0], run.folder.stage_file(name))
    return model.eval()

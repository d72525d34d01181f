"""The trainings behind a claim: each in a folder of its own, through the one loop, so that none is done twice."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from contrapose.catalogue import find_method
from contrapose.claims.claim import Arm, Experiment, Figures, Split, Task
from contrapose.claims.progress import TrialBar
from contrapose.training.loop import fit
from contrapose.training.method import Method
from contrapose.training.run_folder import RunFolder, write_text
from contrapose.training.settings import MethodSettings, parse_settings
from contrapose.training.setup import seed_everything

FIGURES = "figures.json"


class Trials:
    """The trials of one experiment: an arm, a point of the grid, a seed.

    A trial's folder is named by everything that its figures depend on: another setting, other data or another release never meet an
    old one. A stopped training goes on where it was; a finished one is read.
    """

    def __init__(self, experiment: Experiment, task: Task, folder: Path, bar: TrialBar) -> None:
        self.experiment = experiment
        self.task = task
        self.folder = folder / slug(experiment.name)
        self.bar = bar
        self.facts = task.facts()

    def figures(self, arm: Arm, point: Mapping[str, Any], seed: int, split: Split) -> Figures:
        """What the task measures of the trained model on a split."""
        kind = find_method(arm.method)
        settings = self.settings(kind, arm, point, seed)
        path = self.path(arm, settings)
        kept = read_figures(path)
        if split in kept:
            return kept[split]
        run = opened(path, self.config(arm, settings))
        wall, processor = time.monotonic(), time.process_time()
        try:
            model = fit(self.task.create, kind, settings, self.task.data(kind), run, reporter=self.bar)
            kept[split] = self.task.measure(model, split)
        finally:  # also of a training that was stopped
            kept["seconds"] = kept.get("seconds", 0.0) + time.monotonic() - wall
            kept["processor_seconds"] = kept.get("processor_seconds", 0.0) + time.process_time() - processor
            write_text(path / FIGURES, json.dumps(kept, allow_nan=False))
        return kept[split]

    def untrained(self, arm: Arm, seed: int, split: Split) -> Figures:
        """The same of the encoder that a training of this arm and seed starts from."""
        kind = find_method(arm.method)
        settings = self.settings(kind, arm, self.experiment.points[0], seed)
        with torch.random.fork_rng():
            seed_everything(seed, 0, 0)  # as the loop does before it makes the first stage's model
            model = self.task.create(kind, settings)
            model.build(self.task.data(kind).facts)
            return self.task.measure(model.eval(), split)

    def spent(self, arm: Arm, point: Mapping[str, Any], seed: int) -> tuple[float, float]:
        """Seconds, and seconds of the processor, that a trial took, over all calls that had a part in it."""
        kept = read_figures(self.path(arm, self.settings(find_method(arm.method), arm, point, seed)))
        return kept["seconds"], kept["processor_seconds"]

    def memory(self, arm: Arm, point: Mapping[str, Any], seed: int) -> int | None:
        """Bytes that a step of a trial was expected to take; None where that cannot be known."""
        path = self.path(arm, self.settings(find_method(arm.method), arm, point, seed))
        return max((line.get("memory") or 0 for line in RunFolder(path).metrics()), default=0) or None

    def forget_weights(self, arm: Arm, point: Mapping[str, Any], seed: int) -> None:
        """Delete a trial's checkpoints; its figures stay."""
        path = self.path(arm, self.settings(find_method(arm.method), arm, point, seed))
        for file in RunFolder(path).checkpoints.glob("*"):
            file.unlink()

    def settings(self, kind: type[Method], arm: Arm, point: Mapping[str, Any], seed: int) -> MethodSettings:
        values = {**self.experiment.settings, **arm.settings, **point, "seed": seed}
        return parse_settings(kind.Settings, values, owner=f"arm '{arm.name}'")

    def config(self, arm: Arm, settings: MethodSettings) -> dict[str, Any]:
        return {
            "contrapose": version("contrapose"),
            "torch": str(torch.__version__),
            "method": arm.method,
            "task": self.facts,
            "settings": settings.model_dump(mode="json"),
        }

    def path(self, arm: Arm, settings: MethodSettings) -> Path:
        said = json.dumps(self.config(arm, settings), sort_keys=True)
        return self.folder / f"{slug(arm.name)}-seed-{settings.seed}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"


def opened(path: Path, config: Mapping[str, Any]) -> RunFolder:
    """The run in a trial's folder: the one that is there, or a new one."""
    if RunFolder(path).config_file.is_file():
        return RunFolder.open(path)
    shutil.rmtree(path, ignore_errors=True)  # killed before its first file was written
    return RunFolder.create(path, config)


def read_figures(path: Path) -> dict[str, Any]:
    file = path / FIGURES
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def slug(name: str) -> str:
    """A name as part of a path: "words and length" to "words-and-length"."""
    return re.sub(r"\W+", "-", name.lower()).strip("-")

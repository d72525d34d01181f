"""A run on disk: config.yaml, metrics.jsonl, checkpoints/, results, model/, report.html. Nothing is overwritten in silence."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from contrapose.errors import ResumeChanged, RunExists, RunMissing, WriteFailed
from contrapose.training.checkpoint import read_checkpoint, write_checkpoint

KEPT = 2  # checkpoints on disk beside the best one: the newest, and the one before it should the newest be damaged
MANY = 12  # entries of a list that people still read


class RunFolder:
    """The files of one run below `path`."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.metrics_file = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.results_file = self.path / "results.json"
        self.model = self.path / "model"
        self.report = self.path / "report.html"

    @classmethod
    def create(cls, path: Path | str, config: Mapping[str, Any]) -> RunFolder:
        """A new run with its configuration. Raises RunExists when there is anything at `path`."""
        folder = cls(path)
        folder.refuse_existing()
        try:
            folder.checkpoints.mkdir(parents=True, exist_ok=True)
            write_text(folder.config_file, yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))
        except OSError as error:
            raise WriteFailed(
                f"{folder.path} could not be made ({error.strerror}); give a folder that can be written by --out."
            ) from None
        return folder

    def refuse_existing(self) -> None:
        """Raises RunExists when there is anything at the path."""
        if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
            hint = "go on with it by --resume, or give" if self.config_file.exists() else "give"
            raise RunExists(f"{self.path} exists already; {hint} another folder by --out.")

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """An existing run. Raises RunMissing when `path` holds none."""
        folder = cls(path)
        if not folder.config_file.is_file():
            raise RunMissing(f"{folder.path} is not a run: it has no config.yaml. Give the folder that --out named.")
        return folder

    @property
    def config(self) -> dict[str, Any]:
        try:
            return yaml.safe_load(self.config_file.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise RunMissing(f"{self.config_file} is not YAML any more ({' '.join(str(error).split())}).") from None

    def refuse_changes(self, config: Mapping[str, Any]) -> None:
        """Raises ResumeChanged, naming what differs, when `config` is not the one that the run was started with."""
        before, now = flattened(self.config), flattened(config)
        # another release may resume, and a run may have been moved: neither changes what is trained
        changed = [
            name
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name) and name not in ("contrapose", "command")
        ]
        if changed:
            differences = "; ".join(f"{name} was {before.get(name)!r} and is {now.get(name)!r}" for name in changed)
            raise ResumeChanged(
                f"{self.path} was started otherwise: {differences}. Resume it unchanged (contrapose train --resume --out {self.path}) or give another --out."
            )

    # ------------------------------------------------------------------------------------------------ metrics

    def append_metrics(self, line: Mapping[str, Any]) -> None:
        """Raises WriteFailed when the disk says no."""
        try:
            with open(self.metrics_file, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise WriteFailed(
                f"{self.metrics_file} could not be written ({error.strerror}); checkpoints are untouched. Make room, then go on with --resume."
            ) from None

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics; a last line cut short by a kill is left out."""
        if not self.metrics_file.exists():
            return []
        lines = self.metrics_file.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines[:-1]]

    def forget_metrics(self, after: int) -> None:
        """Drop the lines that a killed run wrote after the checkpoint that it resumes from; `after` counts steps over all stages."""
        kept = [line for line in self.metrics() if line["total_step"] <= after]
        if self.metrics_file.exists():
            write_text(self.metrics_file, "".join(json.dumps(line) + "\n" for line in kept))

    # ------------------------------------------------------------------------------------------------ results

    def write_results(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """One entry a protocol and data: the result, examples to read and a map to look at."""
        write_text(self.results_file, json.dumps(list(entries), ensure_ascii=False))

    def results(self) -> list[dict[str, Any]]:
        return json.loads(self.results_file.read_text(encoding="utf-8")) if self.results_file.exists() else []

    # -------------------------------------------------------------------------------------------- checkpoints

    def write_checkpoint(self, total_step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        write_checkpoint(self.checkpoints / f"step-{total_step:09d}.safetensors", tensors, facts)
        left_by_a_kill = [*self.checkpoints.glob("*.writing"), *self.checkpoints.glob(".tmp*")]  # ours, safetensors'
        for old in [*self.checkpoint_files()[:-KEPT], *left_by_a_kill]:
            old.unlink()

    def checkpoint_files(self) -> list[Path]:
        return sorted(self.checkpoints.glob("step-*.safetensors"))

    def saved_step(self) -> int:
        """The steps over all stages that the newest checkpoint stands for; 0 without one."""
        files = self.checkpoint_files()
        return int(files[-1].stem.removeprefix("step-")) if files else 0

    def last_checkpoint(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the newest checkpoint, or None when the run was stopped before its first."""
        files = self.checkpoint_files()
        return read_checkpoint(files[-1]) if files else None

    def stage_file(self, name: str) -> Path:
        """The weights of a finished stage."""
        return self.checkpoints / f"stage-{name}.safetensors"

    @property
    def best_file(self) -> Path:
        """The weights that scored best on the development data in the present stage."""
        return self.checkpoints / "best.safetensors"


def write_text(path: Path, text: str) -> None:
    """Write whole or not at all."""
    temporary = path.with_name(path.name + ".writing")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WriteFailed(
            f"{path} could not be written ({error.strerror}). Make room and repeat the command; training goes on with --resume."
        ) from None


def counted(value: Any) -> Any:
    """A setting to read: of a list of more than a dozen (the items that an encoder knows) how many there are, anything else as it is."""
    return f"{len(value):,} of them" if isinstance(value, list) and len(value) > MANY else value


def flattened(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested names joined by dots: {"settings": {"seed": 0}} to {"settings.seed": 0}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        nested = isinstance(value, Mapping)
        flat.update(flattened(value, f"{prefix}{name}.") if nested else {prefix + name: value})
    return flat

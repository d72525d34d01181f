"""Runs in processes of their own: to be killed there, and to resume in a fresh one."""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contrapose.training.run_folder import RunFolder
from tests.processes import Forked
from tests.training.toys import Toy, signals


def in_child(work: Callable[..., None], *arguments: Any) -> int:
    """Do the work in a new process; its exit code, the negative number of the signal where one killed it."""
    process = Forked(work, *arguments)
    _, errors = process.communicate()
    print(errors, end="")  # beside the assertion, where it fails
    return process.returncode


def fit(toy: Toy, path: Path) -> None:
    toy.fit(RunFolder(path))


def fit_and_die(toy: Toy, path: Path, after: int) -> None:
    toy.fit(RunFolder(path), reporter=signals(signal.SIGKILL, after))


def killed(toy: Toy, path: Path, after: int) -> None:
    """Run on from what is at `path` and be killed after so many steps."""
    assert in_child(fit_and_die, toy, path, after) == -signal.SIGKILL


def resumed(toy: Toy, path: Path) -> None:
    """Run on from what is at `path` to the end."""
    assert in_child(fit, toy, path) == 0


def chance() -> random.Random:
    """Random moments from a seed that is printed, and can be given again."""
    seed = int(os.environ.get("CONTRAPOSE_KILL_SEED") or secrets.randbelow(2**31))
    print(f"to kill at the same moments again: CONTRAPOSE_KILL_SEED={seed}")
    return random.Random(seed)


def started(path: Path) -> RunFolder:
    return RunFolder.create(path, {})


def weights(folder: RunFolder) -> dict[str, bytes]:
    """What each finished stage left, bit for bit."""
    return {file.name: file.read_bytes() for file in sorted(folder.checkpoints.glob("stage-*.safetensors"))}


def figures(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what a clock measured."""
    return [{name: value for name, value in line.items() if name != "clock"} for line in folder.metrics()]

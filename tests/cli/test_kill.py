"""A real run, killed at random moments, ends as one that was never touched."""

from __future__ import annotations

import os
import random
import resource
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contrapose.training.run_folder import RunFolder
from tests.cli.conftest import Done

STEPS, KILLS = 60, 4


@pytest.fixture(scope="module")
def words(tiny_bert: Path, pairs: Path) -> list[str]:
    """Dropout on, several epochs, checkpoints often, weights chosen on development data."""
    settings = {
        "batch_size": 8,
        "steps": STEPS,
        "checkpoint_every": 7,
        "select_every": 10,
        "log_every": 1,
        "learn_temperature": True,
    }
    options = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    return [
        "train",
        "pairs",
        "--data",
        str(pairs),
        "--encoder",
        str(tiny_bert),
        "--select",
        f"retrieval={pairs}",
        *options,
    ]


@pytest.fixture(scope="module")
def unbroken(contrapose: Callable[..., Done], words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "unbroken"
    done = contrapose(*words, "--out", out)
    assert done.code == 0, done.errors
    return out


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def metrics(run: Path) -> list[dict]:
    return [{name: value for name, value in line.items() if name != "clock"} for line in RunFolder(run).metrics()]


def start(*words: object) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "contrapose", *map(str, words)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_metrics(run: Path, lines: int, process: subprocess.Popen) -> None:
    file = run / "metrics.jsonl"
    while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < lines):
        time.sleep(0.01)


def test_killed_at_random_moments_and_resumed(words: list[str], unbroken: Path, tmp_path: Path) -> None:
    seed = int(os.environ.get("CONTRAPOSE_KILL_SEED") or secrets.randbelow(2**31))
    print(f"to kill at the same moments again: CONTRAPOSE_KILL_SEED={seed}")
    drawn, out = random.Random(seed), tmp_path / "run"
    command: list[object] = [*words, "--out", out]
    for moment in sorted(drawn.sample(range(2, STEPS), KILLS)):
        process = start(*command)
        wait_for_metrics(out, moment, process)
        if drawn.random() < 0.5:  # in the middle of writing a checkpoint, if one comes along
            for _ in range(200):
                if any(out.glob("checkpoints/*.writing")):
                    break
                time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        command = ["train", "--resume", "--out", out]
    process = start(*command)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert weights(out) == weights(unbroken)
    assert metrics(out) == metrics(unbroken)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_saves_and_says_how_to_go_on(
    words: list[str], unbroken: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(*words, "--out", out)
    wait_for_metrics(out, 9, process)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 128 + sent
    said = f"contrapose train --resume --out {out}"
    assert errors.rstrip().endswith(said)
    process = start(*said.split()[1:])
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert weights(out) == weights(unbroken)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_good_one(words: list[str], tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*words, "--out", out)
    while process.poll() is None and not list(out.glob("checkpoints/step-*.safetensors")):
        time.sleep(0.01)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (30_000, 30_000))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2
    assert "could not be written" in errors.splitlines()[-1]
    assert "CL-RUN-005" in errors.splitlines()[-1]
    assert RunFolder(out).last_checkpoint() is not None
    assert not list(out.glob("checkpoints/*.writing"))

"""A real run, killed at random moments, ends as one that was never touched."""

from __future__ import annotations

import os
import random
import resource
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from contrapose.training.run_folder import RunFolder
from tests.cli.conftest import Done
from tests.processes import Forked, anew, command

STEPS, EVERY = 60, 7  # steps in all, between two checkpoints


@pytest.fixture(scope="module")
def words(tiny_bert: Path, pairs: Path) -> list[str]:
    """Dropout on, several epochs, checkpoints often, weights chosen on development data."""
    chosen = ["--select", f"retrieval={pairs}", *sets(batch_size=8, select_every=10, learn_temperature=True)]
    return ["train", "pairs", "--data", str(pairs), "--encoder", str(tiny_bert), *OFTEN, *chosen]


@pytest.fixture(scope="module")
def remembering(tiny_bert: Path, pairs: Path) -> list[str]:
    """A momentum copy, a queue that wraps around, and the embedding cache."""
    chosen = ["--map", "text=anchor", "--memory", "1.5MB", *sets(batch_size=30, queue_size=50)]
    return ["train", "esimcse", "--data", str(pairs), "--encoder", str(tiny_bert), *OFTEN, *chosen]


def sets(**settings: object) -> list[str]:
    return [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


OFTEN = sets(steps=STEPS, checkpoint_every=EVERY, log_every=1)


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


def start(*words: object) -> Forked:
    return Forked(command, *map(str, words))


def steps_taken(run: Path) -> int:
    """By the lines of metrics, one a step."""
    return max((line["total_step"] for line in RunFolder(run).metrics()), default=0)


def wait_for_step(run: Path, step: int, process: Forked) -> None:
    while process.poll() is None and steps_taken(run) < step:
        time.sleep(0.01)


def kill_after_step(run: Path, step: int, process: Forked) -> None:
    """SIGKILL as soon as the step's line of metrics is there."""
    wait_for_step(run, step, process)
    process.kill()


def kill_while_writing(run: Path, process: Forked) -> bool:
    """SIGKILL while the next checkpoint is being written; whether that came off, as what it left says."""
    before = unfinished(run)
    while process.poll() is None and not unfinished(run) - before:
        pass  # a file is there for a millisecond or two
    process.kill()
    process.wait()
    return bool(unfinished(run) - before)


def unfinished(run: Path) -> set[str]:
    """Checkpoints that are being written, or were when a process died: first under safetensors' temporary name, then under ours."""
    return {name for name in os.listdir(run / "checkpoints") if name.startswith(".tmp") or name.endswith(".writing")}


def test_killed_at_random_moments_and_resumed(words: list[str], unbroken: Path, tmp_path: Path) -> None:
    kill_and_resume(words, tmp_path / "run", epoch=8)
    assert weights(tmp_path / "run") == weights(unbroken)
    assert metrics(tmp_path / "run") == metrics(unbroken)
    assert not unfinished(tmp_path / "run")


def test_queue_momentum_copy_and_cache_go_on_as_if_nobody_had_killed_them(
    contrapose: Callable[..., Done], remembering: list[str], tmp_path: Path
) -> None:
    unbroken = tmp_path / "unbroken"
    done = contrapose(*remembering, "--out", unbroken)
    assert any("embedding cache on" in line for line in done.errors), done.errors
    kill_and_resume(remembering, tmp_path / "run", epoch=2)
    stage = "checkpoints/stage-train.safetensors"  # the queue and the momentum copy are in there
    assert (tmp_path / "run" / stage).read_bytes() == (unbroken / stage).read_bytes()
    assert metrics(tmp_path / "run") == metrics(unbroken)


def kill_and_resume(words: list[str], out: Path, epoch: int) -> None:
    """Five times, then to its end in a new interpreter, where sets have another order. `epoch`: steps of one."""
    seed = int(os.environ.get("CONTRAPOSE_KILL_SEED") or secrets.randbelow(2**31))
    print(f"to kill at the same moments again: CONTRAPOSE_KILL_SEED={seed}")
    drawn = random.Random(seed)
    process = start(*words, "--out", out)
    kill_after_step(out, drawn.randrange(9, 16), process)  # in the second epoch
    moments = drawn.sample(["mid-epoch", "between epochs", "writing", "writing"], 4)
    while moments:
        process.communicate()
        done = RunFolder(out).saved_step()
        RunFolder(out).forget_metrics(after=done)  # as a resumed run does first: from here on, lines are its own
        process = start("train", "--resume", "--out", out)
        if moments[-1] == "writing":
            if not kill_while_writing(out, process):
                continue  # it was written before the signal came: once more, with the next one
        elif moments[-1] == "between epochs":
            kill_after_step(out, done - done % epoch + epoch, process)
        else:
            kill_after_step(out, done + drawn.randrange(1, 8), process)
        moments.pop()
    process.communicate()
    process = anew("train", "--resume", "--out", str(out))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_saves_and_says_how_to_go_on(
    words: list[str], unbroken: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(*words, "--out", out)
    wait_for_step(out, 9, process)
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


@pytest.mark.parametrize("most", [1_000, 50_000, 200_000], ids=["results.json", "model", "report.html"])
def test_a_result_that_cannot_be_written_is_made_on_resume(
    words: list[str], pairs: Path, tmp_path: Path, most: int, request: pytest.FixtureRequest
) -> None:
    out = tmp_path / "run"
    process = start(*words, "--on", f"retrieval={pairs}", "--set", "steps=8", "--out", out)
    while process.poll() is None and not (out / "checkpoints" / "stage-train.safetensors").exists():
        time.sleep(0.01)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 2, errors
    last = errors.splitlines()[-1]
    assert request.node.callspec.id in last
    assert "CL-RUN-005" in last
    assert not list(out.glob("*.writing"))
    process = start("train", "--resume", "--out", out)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert {"model", "results.json", "report.html"} <= {path.name for path in out.iterdir()}


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_it_is_evaluated_says_how_to_go_on(
    words: list[str], pairs: Path, tmp_path: Path, sent: signal.Signals
) -> None:
    out = tmp_path / "run"
    process = start(*words, "--on", f"retrieval={pairs}", "--set", "steps=8", "--out", out)
    while process.poll() is None and not (out / "checkpoints" / "stage-train.safetensors").exists():
        time.sleep(0.01)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 128 + sent
    assert errors.rstrip().endswith(f"contrapose train --resume --out {out}")
    assert not (out / "report.html").exists()

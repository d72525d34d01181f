"""A run that is stopped, killed, or has no room left goes on to the same bits."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest
import torch

from contrapose.data.batches import Data
from contrapose.errors import CheckpointBroken, WriteFailed
from contrapose.training.checkpoint import read_checkpoint, write_checkpoint
from contrapose.training.interrupts import Stopped
from contrapose.training.run_folder import RunFolder
from tests.training.children import chance, figures, in_child, killed, resumed, started, weights
from tests.training.toys import Calls, Tower, Toy, signals
from tests.training.toys_momentum import Esimcse, sentences
from tests.training.toys_updates import Autotcl, series

TOY = Toy("esimcse", Esimcse, sentences, lambda: Tower(dropout=0.5))  # dropout, a queue, a momentum copy, Adam
EPOCH = 7  # steps


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_in_hand_and_loses_nothing(number: signal.Signals, tmp_path: Path) -> None:
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    TOY.fit(unbroken)
    with pytest.raises(Stopped, match=rf"{number.name} after step 5"):
        TOY.fit(broken, reporter=signals(number, after=5))
    _, facts = broken.last_checkpoint()
    assert facts["total_step"] == 5
    TOY.fit(broken)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)


def test_a_signal_after_the_last_step_is_not_lost(tmp_path: Path) -> None:
    class Late(Esimcse):
        def finish(self, data: Data) -> dict[str, float]:
            os.kill(os.getpid(), signal.SIGINT)
            return {}

    folder = started(tmp_path / "run")
    with pytest.raises(Stopped):
        Toy("esimcse", Late, sentences).fit(folder)
    assert folder.last_checkpoint()[1]["stage"] is None  # the stage is closed: a resumed run has no step left to take


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")

    def twice(taken: int) -> None:
        if taken == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        TOY.fit(folder, reporter=Calls(twice))
    _, facts = folder.last_checkpoint()
    assert facts["total_step"] == 3


def test_handlers_of_the_caller_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        TOY.fit(started(tmp_path / "run"), reporter=signals(signal.SIGINT, after=1))
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.parametrize(
    ("after", "every"),
    [(2, 3), (EPOCH, EPOCH), (EPOCH + 1, EPOCH), (10, 5)],
    ids=["before the first checkpoint", "between epochs", "just into an epoch", "at a checkpoint, not yet written"],
)
def test_killed_at_an_awkward_step_and_resumed_equals_unbroken(after: int, every: int, tmp_path: Path) -> None:
    toy = Toy(TOY.name, Esimcse, sentences, settings={"checkpoint_every": every})
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    killed(toy, broken.path, after)
    resumed(toy, broken.path)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)


def fit_and_die_writing(path: Path) -> None:
    """From step 4 on the kernel kills the process as soon as a file grows beyond 1,000 bytes: in the midst of a checkpoint."""

    def limit(taken: int) -> None:
        if taken == 4:
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    TOY.fit(RunFolder(path), reporter=Calls(limit), log_every=100)


def test_killed_while_a_checkpoint_is_written_goes_on_from_the_one_before(tmp_path: Path) -> None:
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    TOY.fit(unbroken, log_every=100)
    assert in_child(fit_and_die_writing, broken.path) == -signal.SIGXFSZ
    _, facts = broken.last_checkpoint()
    assert facts["total_step"] == 3
    TOY.fit(broken, log_every=100)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)


def test_figures_since_the_last_line_survive_a_stop(tmp_path: Path) -> None:
    toy = Toy("autotcl", Autotcl, series, settings={"log_every": 2})  # its second update rests at steps 2, 4, …
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    with pytest.raises(Stopped):
        toy.fit(broken, reporter=signals(signal.SIGTERM, after=3))
    toy.fit(broken)
    assert figures(broken) == figures(unbroken)


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    TOY.fit(folder)
    before = weights(folder), folder.metrics()
    again = Calls(lambda taken: None)
    TOY.fit(folder, reporter=again)
    assert again.taken == 0
    assert (weights(folder), folder.metrics()) == before


# ------------------------------------------------------------------------------------- disks that fill, files that break


def fit_with_small_files(path: Path, most: int, log_every: int) -> None:
    """From step 4 on no file may be larger than `most` bytes; exit code 7 says that WriteFailed was raised."""

    def limit(taken: int) -> None:
        if taken == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    try:
        Toy("esimcse", Esimcse, sentences).fit(RunFolder(path), reporter=Calls(limit), log_every=log_every)
    except WriteFailed:
        os._exit(7)


@pytest.mark.parametrize("log_every", [100, 1], ids=["a checkpoint", "a line of metrics"])
def test_a_write_that_fails_stops_the_run_and_keeps_the_last_checkpoint(log_every: int, tmp_path: Path) -> None:
    toy = Toy("esimcse", Esimcse, sentences, settings={"log_every": log_every})
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    assert in_child(fit_with_small_files, broken.path, 1000, log_every) == 7
    _, facts = broken.last_checkpoint()
    assert facts["total_step"] == 3
    assert [file.name for file in broken.checkpoints.iterdir()] == ["step-000000003.safetensors"]
    resumed(toy, broken.path)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)


def write_with_small_files(path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    try:
        write_checkpoint(path, {"weight": torch.zeros(1000)}, {})
    except WriteFailed:
        os._exit(7)


def test_a_checkpoint_that_cannot_be_written_leaves_the_older_one_of_its_name(tmp_path: Path) -> None:
    path = tmp_path / "best.safetensors"
    write_checkpoint(path, {"weight": torch.ones(3)}, {"score": 0.5})
    assert in_child(write_with_small_files, path) == 7
    tensors, facts = read_checkpoint(path)
    assert tensors["weight"].tolist() == [1, 1, 1]
    assert facts["score"] == 0.5


def test_a_truncated_checkpoint_is_named_and_the_one_before_takes_over(tmp_path: Path) -> None:
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    TOY.fit(unbroken)
    with pytest.raises(Stopped):
        TOY.fit(broken, reporter=signals(signal.SIGTERM, after=8))
    newest = broken.checkpoint_files()[-1]
    os.truncate(newest, chance().randrange(newest.stat().st_size))
    with pytest.raises(CheckpointBroken, match=newest.name):
        TOY.fit(broken)
    newest.unlink()
    TOY.fit(broken)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)

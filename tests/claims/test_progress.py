"""How far, and how long yet."""

from __future__ import annotations

import io

from rich.console import Console

from contrapose.claims.progress import TrialBar


def test_a_line_says_which_trial_of_how_many() -> None:
    console = Console(file=io.StringIO(), width=80)
    with TrialBar(3, 3.0, console=console) as bar:
        bar.trial("words · SimCSE · seed 0", 1.0)
    assert "1/3" in console.file.getvalue()
    assert "words · SimCSE · seed 0" in console.file.getvalue()


def test_nothing_is_said_where_nobody_watches() -> None:
    console = Console(file=io.StringIO())
    with TrialBar(1, 1.0, shown=False, console=console) as bar:
        bar.trial("words", 1.0)
        bar.begin("train", 0, 2)
        bar.step(1, None)
    assert console.file.getvalue() == ""


def test_the_time_left_goes_by_what_was_trained_and_not_by_what_was_read() -> None:
    """Two small trials were read; of a large one half is trained after 10 seconds: half of it and 4 more weights are to come."""
    bar = TrialBar(5, 10.0, shown=False)
    bar.trial("read", 1.0)
    bar.trial("read", 1.0)
    bar.trial("trained", 4.0)
    assert bar.left() == ""
    bar.begin("train", 0, 10)
    bar.step(5, None)
    bar.began -= 10
    assert bar.left() == "left 00:30"


def test_a_resumed_training_is_no_faster_than_it_is() -> None:
    """It stood at 8 of 10 steps; one more took 10 seconds, so one more will."""
    bar = TrialBar(1, 1.0, shown=False)
    bar.trial("resumed", 1.0)
    bar.begin("train", 8, 10)
    bar.step(9, None)
    bar.began -= 10
    assert bar.left() == "left 00:10"

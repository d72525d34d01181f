"""How far a claim is: one bar over all trials, with the time left."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from contrapose.training.progress import PLAIN_SECONDS


class TrialBar:
    """Told of every trial by `trial` and, as the loop's reporter, of every step; a line a trial where output is no terminal.

    A trial weighs what its experiment says that it takes, so that the estimate holds across experiments of other sizes.
    """

    def __init__(self, trials: int, weight: float, *, shown: bool = True, console: Console | None = None) -> None:
        """`trials` and `weight`: of all of them together."""
        self.console = console or Console(stderr=True)
        self.shown = shown
        self.trials, self.number, self.name = trials, 0, ""
        self.weight, self.done, self.present = weight, 0.0, 0.0
        self.share, self.first = 0.0, 0.0  # of the present trial: done, and done when it was resumed
        self.trained = 0.0  # the weight of what was trained, not read
        self.began, self.spoken, self.steps = time.monotonic(), -PLAIN_SECONDS, 0
        live = shown and (self.console.is_terminal or self.console.is_jupyter)
        line = TextColumn("{task.fields[line]}", table_column=Column(no_wrap=True, min_width=19))
        name = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))  # cut to fit
        self.progress = Progress(BarColumn(10), line, name, console=self.console, expand=True) if live else None
        self.task = self.progress.add_task("", total=weight, line="") if self.progress else None

    def __enter__(self) -> TrialBar:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress:
            self.progress.stop()

    def trial(self, name: str, weight: float) -> None:
        """The next trial begins."""
        self.close()
        self.number, self.name, self.present = self.number + 1, name, weight
        self._tell()

    def close(self) -> None:
        """The present trial has ended, trained or read."""
        self.trained += self.present * (self.share - self.first)
        self.done, self.present, self.share, self.first = self.done + self.present, 0.0, 0.0, 0.0

    def left(self) -> str:
        """The time left, by what the trials trained so far took; empty before the first."""
        trained = self.trained + self.present * (self.share - self.first)
        if not trained:
            return ""
        seconds = (time.monotonic() - self.began) / trained * (self.weight - self.done - self.share * self.present)
        return f"left {int(seconds) // 60:02d}:{int(seconds) % 60:02d}"

    def say(self, text: str) -> None:
        """What the loop says of a single training is in its folder; forty of them would hide the claim."""

    def begin(self, stage: str, step: int, steps: int) -> None:
        self.steps = steps
        self.first = self.share = step / steps

    def step(self, step: int, line: str | None) -> None:
        self.share = step / self.steps
        if self.progress:
            self._tell()

    def end(self) -> None:
        """What follows a training, measuring and saving, still belongs to its trial."""

    def _tell(self) -> None:
        if not self.shown:
            return
        line = f"{self.number}/{self.trials}  {self.left()}"
        if self.progress:
            self.progress.update(
                self.task, description=self.name, completed=self.done + self.share * self.present, line=line
            )
        elif time.monotonic() - self.spoken > PLAIN_SECONDS:
            self.spoken = time.monotonic()
            self.console.print(f"{line}  {self.name}", markup=False, highlight=False, soft_wrap=True)

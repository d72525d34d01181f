"""One live line in a terminal or a notebook, plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import time
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0  # between two lines where nothing can be redrawn


class Reporter(Protocol):
    """What the loop tells whoever watches."""

    def say(self, text: str) -> None: ...
    def begin(self, stage: str, step: int, steps: int) -> None: ...
    def step(self, step: int, line: str | None) -> None: ...
    def end(self) -> None: ...


def redraws(console: Console) -> bool:
    """Whether a bar can be drawn over and over: in a terminal, and in a notebook that has ipywidgets."""
    return console.is_terminal or (console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None)


class Silent:
    """Tells nobody: for tests, and for all processes but the first."""

    def say(self, text: str) -> None: ...
    def begin(self, stage: str, step: int, steps: int) -> None: ...
    def step(self, step: int, line: str | None) -> None: ...
    def end(self) -> None: ...


class Terminal:
    """A bar with the time left and the last line of figures; where nothing can be redrawn, the line alone every ten seconds."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.steps = 0
        self.spoken = 0.0

    def say(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, stage: str, step: int, steps: int) -> None:
        self.steps, self.spoken, self.began, self.first = steps, 0.0, time.monotonic(), step
        if not redraws(self.console):
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(20),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
        )
        self.progress = Progress(*columns, TextColumn("{task.fields[line]}"), console=self.console)
        self.progress.start()
        self.task = self.progress.add_task(stage, total=steps, completed=step, line="")

    def step(self, step: int, line: str | None) -> None:
        if self.progress is not None:
            fields: dict[str, Any] = {} if line is None else {"line": line}
            self.progress.update(self.task, completed=step, **fields)
        elif line is not None and (time.monotonic() - self.spoken > PLAIN_SECONDS or step == self.steps):
            self.spoken = time.monotonic()
            left = (self.spoken - self.began) / max(1, step - self.first) * (self.steps - step)
            self.say(f"step {step:,}/{self.steps:,}  {line}  left {int(left) // 60:02d}:{int(left) % 60:02d}")

    def end(self) -> None:
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def figures_line(metrics: dict[str, Any]) -> str:
    """The figures of a line of metrics.jsonl as people read them, after the verdicts that stand."""
    parts = list(metrics["verdicts"])
    for name, value in metrics["terms"].items():
        chance = metrics["chance"].get(name)
        parts.append(f"{name} {value:.3f}" + (f" (chance {chance:.2f})" if chance is not None else ""))
    geometry = metrics["geometry"]
    if "alignment" in geometry:
        parts.append(f"alignment {geometry['alignment']:.2f}")
    if geometry:
        parts.append(f"uniformity {geometry['uniformity']:.2f}")
        parts.append(f"cosine {geometry['mean_cosine']:.2f}")
        parts.append(f"rank {geometry['effective_rank']:.0f}/{geometry['most_rank']:.0f}")
    parts += [f"{name} {value:.3g}" for name, value in metrics["watched"].items()]
    clock = metrics["clock"]
    parts.append(f"{clock['rows_per_second']:,.0f} rows/s")
    shares = "  ".join(f"{part} {share:.0%}" for part, share in clock["share"].items())
    return "  ".join([*parts, shares])

"""A bar with the time left, for what takes over two seconds."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from contrapose.training.progress import redraws

PATIENCE = 2.0  # seconds before anything is shown


class Bar:
    """`with Bar("Encoding", 10_000) as bar: bar.advance(64)`: nothing for two seconds, then a bar on stderr where one can be drawn."""

    def __init__(self, what: str, total: int, *, shown: bool = True, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn())
        self.progress = Progress(*columns, console=self.console, transient=True)
        self.task = self.progress.add_task(what, total=total)
        self.shown = shown and redraws(self.console)
        self.began = time.monotonic()

    def advance(self, count: int) -> None:
        self.progress.advance(self.task, count)
        if self.shown and not self.progress.live.is_started and time.monotonic() - self.began > PATIENCE:
            self.progress.start()

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.progress.live.is_started:
            self.progress.stop()

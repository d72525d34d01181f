"""Where a step's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Lap(NamedTuple):
    """The time between two lines of metrics: seconds, rows that were trained on, and the share of each part in the seconds."""

    seconds: float
    rows: int
    share: dict[str, float]


class Clock:
    """Seconds by part of a step ("data", "encode", "loss", "backward", "update"), as the processor that launches the work sees them."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.rows = 0
        self.started = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.parts[part] = self.parts.get(part, 0.0) + time.perf_counter() - start

    def lap(self) -> Lap:
        """What the clock has seen since the last lap; starts the next one."""
        now = time.perf_counter()
        seconds = max(now - self.started, 1e-9)
        done = Lap(seconds, self.rows, {part: spent / seconds for part, spent in self.parts.items()})
        self.started, self.rows, self.parts = now, 0, {}
        return done

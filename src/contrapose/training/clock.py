"""Where a step's time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds by part of a step ("data", "encode", "loss", "backward", "update"), as the processor that launches the work sees them."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = time.perf_counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - start

    def lap(self) -> tuple[float, dict[str, float]]:
        """Seconds since the last lap, and the share of each part in them; starts the next lap."""
        now = time.perf_counter()
        elapsed, seconds = now - self.started, self.seconds
        self.started, self.seconds = now, {}
        return elapsed, {part: part_seconds / max(elapsed, 1e-9) for part, part_seconds in seconds.items()}

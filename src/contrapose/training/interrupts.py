"""Ctrl-C and SIGTERM lose nothing: the step in hand is finished, a checkpoint is written, and the run says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):  # noqa: N818 (nothing went wrong)
    """A run that was asked to stop and has saved its state."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name} after step {step}; everything is saved")
        self.signal_number = signal_number

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence alone."""
        return [f"The run was {self}."]


class Interrupts:
    """`requested`: the number of the signal that asked the run to stop, 0 while none did. `at_once`: do not wait for the step in hand."""

    requested: int = 0
    at_once: bool = False

    def handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.at_once or self.requested:  # asked twice: at once, from the last checkpoint on
            self.requested = signal_number
            raise KeyboardInterrupt
        self.requested = signal_number


@contextmanager
def interrupts(at_once: bool = False) -> Iterator[Interrupts]:
    """Turn SIGINT and SIGTERM into a request while the block runs; a second signal interrupts at once, or the first with `at_once`.

    Also where SIGINT is ignored, as shells have it for what they start in the background.
    """
    asked = Interrupts()
    asked.at_once = at_once
    if threading.current_thread() is not threading.main_thread():  # Python delivers signals to the main thread alone
        yield asked
        return
    before = {number: signal.signal(number, asked.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stopped_at_once(saved_step: Callable[[], int]) -> Iterator[None]:
    """SIGINT and SIGTERM raise Stopped in the midst of the block: for all around the steps of a run, which `--resume` does anew.

    Within `interrupts`, inside the block, the step in hand is finished first. `saved_step`: the last step that is saved.
    """
    with interrupts(at_once=True) as asked:
        try:
            yield
        except KeyboardInterrupt:
            if not asked.requested:  # the second signal to a step in hand
                raise
            raise Stopped(asked.requested, saved_step()) from None

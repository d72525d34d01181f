"""What whoever watches is shown."""

from __future__ import annotations

import io
from importlib.util import find_spec

from rich.console import Console

from contrapose.training.progress import Terminal, redraws


def test_a_bar_is_drawn_where_it_can_be_drawn_again() -> None:
    assert redraws(Console(file=io.StringIO(), force_terminal=True))
    assert not redraws(Console(file=io.StringIO()))
    notebook = Console(file=io.StringIO(), force_jupyter=True)
    assert redraws(notebook) == (find_spec("ipywidgets") is not None)


def test_without_a_terminal_the_first_line_and_the_last_are_said() -> None:
    stream = io.StringIO()
    told = Terminal(Console(file=stream))
    told.begin("train", 0, 30)
    for step in (10, 20, 30):
        told.step(step, f"loss {step}")
        told.step(step, None)
    told.end()
    lines = stream.getvalue().splitlines()
    assert [line.split("  left")[0] for line in lines] == ["step 10/30  loss 10", "step 30/30  loss 30"]

"""Which public call makes each golden array again, and which array waits for its method and why: read from the recipes."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from tests.golden import pieces
from tests.golden.check import TOLERANCE, computed, matches, read, recipe_of, slugs, tolerance

FILES = Path(__file__).parent
CALL = re.compile(r"`.*?`")
NAME = re.compile(r"([A-Za-z_]\w*)\(")


class Line(NamedTuple):
    """One pattern of a recipe: the arrays of the golden file that it names, and the call that makes them or what they wait for."""

    pattern: str
    arrays: list[str]
    call: str
    waits: str
    tolerance: float


def lines(slug: str) -> list[Line]:
    recipe, given = recipe_of(slug), read(FILES / f"{slug}.npz")
    outputs = [name for name in given if not matches(name, recipe.INPUTS)]

    def line(pattern: str, call: str, waits: str) -> Line:
        arrays = [name for name in outputs if matches(name, [pattern])]
        return Line(pattern, arrays, call, waits, max((tolerance(recipe, name) for name in arrays), default=TOLERANCE))

    made = [line(pattern, call, "") for pattern, call in recipe.CALLS.items()]
    return made + [line(pattern, "", reason) for pattern, reason in recipe.WAITS.items()]


def functions(recipe: ModuleType, call: str) -> list[str]:
    """The names of the library's functions and classes that a line of CALLS names."""
    return sorted({name for written in CALL.findall(call) for name in NAME.findall(written)})


def find(recipe: ModuleType, name: str) -> object:
    """What a recipe means by a name: its own import, or that of the pieces that recipes share."""
    return getattr(recipe, name, None) or getattr(pieces, name, None)


def page() -> str:
    """The page of the documentation."""
    sections, made, waiting = [], 0, 0
    for slug in slugs():
        recipe, table = recipe_of(slug), lines(slug)
        due = len(computed(recipe, read(FILES / f"{slug}.npz")))
        rest = sum(len(line.arrays) for line in table if line.waits)
        made, waiting = made + due, waiting + rest
        counted = f"{due} arrays are made again" + (f", {rest} wait." if rest else ".")
        sections += [f"## {slug}", f"{inspect.getdoc(recipe)} {counted}", markdown(table)]
    head = [
        "# Golden values",
        "Reference outputs in float64, made with each paper's official code where there is any and by its formulas where there is none. "
        "The tests make them again from the inputs beside them, by the calls named here, and compare: each value to within "
        f"{TOLERANCE:g} of the largest of its array, but where another tolerance is given. `tests/golden/check.py METHOD FILE.npz` does it for any "
        "file with the same names.",
        f"{made} arrays are made again. {waiting} wait for a method that is not built yet: nothing here computes them, and nothing is claimed of them.",
    ]
    return "\n\n".join(head + sections)


def markdown(table: list[Line]) -> str:
    rows = ["| arrays | made again by |", "| --- | --- |"]
    for line in table:
        wider = "" if line.tolerance == TOLERANCE else f" To {line.tolerance:g}."
        how = f"waits for {line.waits}" if line.waits else line.call + wider
        rows.append(f"| `{line.pattern}` | {how} |")
    return "\n".join(rows)

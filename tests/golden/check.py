"""Recompute the arrays of a file of golden values through the public functions, and say how far each is off.

    python tests/golden/check.py simcse_base tests/golden/simcse_base.npz

Any file with the keys that a method's note describes will do, of any shape and seed. An array that belongs to a method which is not built
yet is not computed: it waits, and the reason is printed. Exit code 1 when an array is off, missing or unknown.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.golden` from wherever this is called

TOLERANCE = 1e-9  # relative to the largest value of the array
RECIPES = Path(__file__).parent / "recipes"


@dataclass(frozen=True)
class Verdict:
    """One array: the largest error relative to the array's largest value, and whether it holds; or what it waits for."""

    name: str
    error: float
    holds: bool
    tolerance: float = TOLERANCE
    waits: str = ""

    def __str__(self) -> str:
        if self.waits:
            return f"{self.name:32} {'':9}  waits: {self.waits}"
        wider = "" if self.tolerance == TOLERANCE else f" (to {self.tolerance:g})"
        return f"{self.name:32} {self.error:9.2e}  {'ok' if self.holds else 'OFF'}{wider}"


def check(slug: str, file: Path) -> list[Verdict]:
    """A verdict an array of the file; inputs, which nothing computes, are left out."""
    recipe = recipe_of(slug)
    given = read(file)
    due = computed(recipe, given)
    made = recipe.recompute({name: given[name] for name in given if name not in due}, due)
    return [
        compare(name, given[name], made.get(name), tolerance(recipe, name))
        if name in due
        else Verdict(name, 0.0, True, waits=first_match(name, recipe.WAITS))
        for name in given
        if not matches(name, recipe.INPUTS)
    ]


def slugs() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("[a-z]*.py"))


def recipe_of(slug: str) -> ModuleType:
    return importlib.import_module(f"tests.golden.recipes.{slug}")


def read(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as opened:
        return {name: opened[name] for name in opened.files}


def computed(recipe: ModuleType, names: Iterable[str]) -> list[str]:
    """The arrays that are due: neither given, nor waiting for a method."""
    return [name for name in names if not matches(name, recipe.INPUTS) and not matches(name, recipe.WAITS)]


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def first_match(name: str, of: dict[str, str]) -> str:
    return next(value for pattern, value in of.items() if fnmatchcase(name, pattern))


def tolerance(recipe: ModuleType, name: str) -> float:
    wider = getattr(recipe, "TOLERANCES", {})
    return next((value for pattern, value in wider.items() if fnmatchcase(name, pattern)), TOLERANCE)


def compare(name: str, expected: np.ndarray, found: ArrayLike | None, tolerance: float = TOLERANCE) -> Verdict:
    if hasattr(found, "detach"):
        found = found.detach().numpy()
    if found is None or np.shape(found) != expected.shape:
        return Verdict(name, float("inf"), False, tolerance)
    if expected.dtype.kind in "iub":
        differing = float(np.mean(np.asarray(found) != expected)) if expected.size else 0.0
        return Verdict(name, differing, differing == 0, tolerance)
    largest = max(float(np.abs(expected).max(initial=0)), 1e-300)
    error = float(np.abs(np.asarray(found, dtype=np.float64) - expected).max(initial=0)) / largest
    return Verdict(name, error, error <= tolerance, tolerance)


def summary(verdicts: list[Verdict]) -> str:
    """What was computed and holds, and what was not computed at all."""
    made = [verdict for verdict in verdicts if not verdict.waits]
    wider = [verdict for verdict in made if verdict.tolerance != TOLERANCE]
    text = f"{sum(verdict.holds for verdict in made)} of {len(made)} computed arrays hold to {TOLERANCE:g}"
    if wider:
        text += f", {len(wider)} of them by the wider tolerance that is printed beside them"
    if waiting := len(verdicts) - len(made):
        text += f"; {waiting} more wait for a method that is not built yet and were not computed"
    return text


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slug", choices=slugs())
    parser.add_argument("file", type=Path)
    asked = parser.parse_args(arguments)
    verdicts = check(asked.slug, asked.file)
    print(*verdicts, summary(verdicts), sep="\n")
    return int(not all(verdict.holds for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())

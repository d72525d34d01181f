"""Recompute every array of a file of golden values through the public functions, and say how far each is off.

    python tests/golden/check.py simcse_base tests/golden/simcse_base.npz

Any file with the keys that a method's note describes will do, of any shape and seed. Exit code 1 when an array is off, missing or unknown.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))  # `tests.golden` from wherever this is called

TOLERANCE = 1e-9  # relative to the largest value of the array


@dataclass(frozen=True)
class Verdict:
    """One array: the largest error relative to the array's largest value, and whether it holds."""

    name: str
    error: float
    holds: bool


def check(slug: str, file: Path) -> list[Verdict]:
    """A verdict an array of the file; inputs, which nothing computes, are left out."""
    recipe = importlib.import_module(f"tests.golden.recipes.{slug}")
    with np.load(file, allow_pickle=False) as opened:
        given = {name: opened[name] for name in opened.files}
    made = recipe.recompute({name: given[name] for name in given if is_input(name, recipe.INPUTS)})
    outputs = [name for name in given if not is_input(name, recipe.INPUTS)]
    return [compare(name, given[name], made.get(name)) for name in outputs]


def is_input(name: str, inputs: tuple[str, ...]) -> bool:
    """Inputs are named, or by a prefix or suffix with a star."""
    return any(Path(name).match(pattern) for pattern in inputs)


def compare(name: str, expected: np.ndarray, found: np.ndarray | None) -> Verdict:
    if found is None or np.shape(found) != expected.shape:
        return Verdict(name, float("inf"), False)
    if expected.dtype.kind in "iub":
        differing = float(np.mean(np.asarray(found) != expected)) if expected.size else 0.0
        return Verdict(name, differing, differing == 0)
    largest = max(float(np.abs(expected).max(initial=0)), 1e-300)
    error = float(np.abs(np.asarray(found, dtype=np.float64) - expected).max(initial=0)) / largest
    return Verdict(name, error, error <= TOLERANCE)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = sorted(path.stem for path in (Path(__file__).parent / "recipes").glob("[a-z]*.py"))
    parser.add_argument("slug", choices=known)
    parser.add_argument("file", type=Path)
    asked = parser.parse_args(arguments)
    verdicts = check(asked.slug, asked.file)
    for verdict in verdicts:
        print(f"{verdict.name:32} {verdict.error:9.2e}  {'ok' if verdict.holds else 'OFF'}")
    wrong = sum(not verdict.holds for verdict in verdicts)
    print(f"{len(verdicts) - wrong} of {len(verdicts)} arrays hold to {TOLERANCE:g}")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

"""Eleven rows of three modalities: a vector, numbers some of which are missing, and a class; which every method here learns from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny import Tiny

ROWS = 11


def tiny(method: str, folder: Path) -> Tiny:
    return Tiny(
        columns(),
        {"picture": {"name": "vectors", "hidden": 6}, "labs": "vectors", "kind": "vectors"},
        {"temperature": 0.2},
        columns()["picture"][:3],
        {"learning_rate": 0.1},
    )


def columns() -> dict[str, np.ndarray]:
    drawn = np.random.default_rng(0)
    return {
        "picture": drawn.normal(size=(ROWS, 2, 3)).astype(np.float32),
        "labs": drawn.normal(size=(ROWS, 4)).astype(np.float32),
        "kind": np.eye(3)[drawn.integers(0, 3, ROWS)],
        "group_id": np.arange(ROWS) // 2,
    }

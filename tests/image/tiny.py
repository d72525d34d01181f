"""Small random images with labels, a random vision transformer that sees them, and what each method of images asks for beside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tests.tiny import Tiny

ROWS = 11
ENCODER = {"name": "vit-tiny", "size": 8, "width": 32, "depth": 1, "channels": 3}  # row by row: without BatchNorm
EXACT: dict[str, dict[str, Any]] = {
    "moco": {"queue_size": 8, "temperature": 0.5, "learning_rate": 0.1},
    "byol": {"learning_rate": 0.1},
    "simsiam": {"learning_rate": 0.1},
    "supcon": {"temperature": 0.5, "learning_rate": 0.1},
    "simclr": {"learning_rate": 0.1},
    "directpred": {"learning_rate": 0.01, "freq": 2, "centred": True, "projection": 8, "hidden": 32},
    "cacr": {"learning_rate": 0.1, "form": "queue", "queue_size": 8, "positives": 2},
}


def images(rows: int = ROWS, size: int = 8, seed: int = 0) -> np.ndarray:
    """Random colours, uint8 of shape (rows, size, size, 3), smooth enough to be told apart after a crop."""
    coarse = np.random.default_rng(seed).integers(0, 256, (rows, 2, 2, 3), dtype=np.uint8)
    return coarse.repeat(size // 2, axis=1).repeat(size // 2, axis=2)


def tiny(method: str, folder: Path) -> Tiny:
    shown = images()
    data = {
        "image": shown,
        "label": [str(row % 3) for row in range(ROWS)],
        "group_id": [str(row // 2) for row in range(ROWS)],
    }
    return Tiny(data, ENCODER, {}, list(shown[:2]), EXACT.get(method, {}))

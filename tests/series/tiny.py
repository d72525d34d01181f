"""Random walks of two channels and different lengths, and a small untrained encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.tiny import Tiny

ROWS = 11
EXACT = {
    "autotcl": {
        "learning_rate": 0.1,
        "augmentation_learning_rate": 0.1,
        "windows": 5,
        "smoothness_weight": 0.5,
        "budget": 0.1,
        "budget_weight": 0.5,
        "weight_decay": 0.0,
        "hard_mask": False,
    },
    "series_info_nce": {"learning_rate": 0.1, "windows": 5, "weight_decay": 0.0},
}


def tiny(method: str, folder: Path) -> Tiny:
    series = walks(ROWS)
    encoder = {"name": "dilated", "hidden": 8, "dim": 6, "depth": 2, "kernels": "1,2,4", "window": 30}
    data = {"series": series, "group_id": [number // 2 for number in range(ROWS)]}
    return Tiny(data, encoder, {"windows": 5}, series[:3], EXACT[method])


def walks(rows: int, seed: int = 0, least: int = 20, most: int = 30) -> list[np.ndarray]:
    """Series of shape (t, 2)."""
    drawn = np.random.default_rng(seed)
    return [drawn.normal(size=(drawn.integers(least, most), 2)).cumsum(axis=0) for _ in range(rows)]

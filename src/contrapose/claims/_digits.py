"""Handwritten digits of 8 x 8 pixels, which scikit-learn brings."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from contrapose.claims._images import Images, small_network
from contrapose.claims.claim import Source

DIGITS = Source(
    "digits",
    (),  # nothing is read from a folder: scikit-learn brings them
    "Handwritten digits of 8 x 8 pixels, 1,797 of 43 people, as scikit-learn brings them (the test part of UCI's Optical Recognition of "
    "Handwritten Digits): 1,200 to learn from, 297 to tune on, 300 to measure on, drawn once within each digit.",
    "CC BY 4.0, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository",
    "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
)
TRAIN, DEV = 1200, 297  # images; what is left is for the test


def digits(folder: Path) -> Images:
    """All 1,797. The folder is not read."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.round(found.images * 255 / 16).astype(np.uint8)  # (n, 8, 8), counts from 0 to 16
    return Images(images, found.target, split_rows(found.target), partial(small_network, size=8))


def split_rows(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of "train", "dev" and "test", in random order; each has its share of every digit. Always the same."""
    drawn = np.random.default_rng(0)
    order = np.concatenate([drawn.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in np.bincount(labels)])  # within its digit, from 0 to 1
    order = order[np.argsort(place, kind="stable")]
    parts = {"train": order[:TRAIN], "dev": order[TRAIN : TRAIN + DEV], "test": order[TRAIN + DEV :]}
    return {name: drawn.permutation(rows) for name, rows in parts.items()}

"""Characters of five alphabets, each drawn by twenty people: many classes of few images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from contrapose.claims._images import Images, small_network
from contrapose.claims.claim import Source

OMNIGLOT = Source(
    "omniglot_small",
    ("drawings.npz",),
    '2,720 drawings of 136 characters of five alphabets (Omniglot\'s set "background small 1"), shrunk to 28 x 28 pixels. Of the twenty people who drew '
    "an alphabet, fourteen are learned from (1,904 drawings), three tuned on and three measured on (408 each).",
    "MIT, © 2015 Brenden Lake",
    "https://github.com/brendenlake/omniglot",
)
TRAIN, DEV = 14, 3  # people of each alphabet; those who are left are for the test


def omniglot(folder: Path) -> Images:
    """All 2,720, by character. There are fourteen training drawings of each, so that five neighbours are asked."""
    with np.load(folder / OMNIGLOT.files[0], allow_pickle=False) as file:
        drawings, labels = file["drawing"], file["character"].astype(np.int64)
        rows = split_people(file["alphabet"], file["drawer"])
    return Images(drawings, labels, rows, partial(small_network, size=28), draws=3, neighbours=5)


def split_people(alphabet: np.ndarray, drawer: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of "train", "dev" and "test": nobody who drew an alphabet stands in two of them. Always the same."""
    drawn, rows = np.random.default_rng(0), {"train": [], "dev": [], "test": []}
    for each in np.unique(alphabet):
        people = drawn.permutation(np.unique(drawer[alphabet == each]))
        parts = {"train": people[:TRAIN], "dev": people[TRAIN : TRAIN + DEV], "test": people[TRAIN + DEV :]}
        for split, some in parts.items():
            rows[split].append(np.flatnonzero((alphabet == each) & np.isin(drawer, some)))
    return {split: np.concatenate(found) for split, found in rows.items()}

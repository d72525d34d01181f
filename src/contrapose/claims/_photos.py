"""Photos of daisies and tulips in 32 x 32 pixels."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from contrapose.claims._images import Images, small_network
from contrapose.claims.claim import Source

FLOWERS = Source(
    "flower_photos",
    ("photos.npz",),
    "891 photos of daisies and tulips, cropped to their middle and shrunk to 32 x 32 pixels: 571 to learn from, 142 to tune on, 178 to measure on, the "
    "source's test photos.",
    "CC BY 2.0, each photo by the photographer that ATTRIBUTION.tsv names beside it; an excerpt of the TensorFlow flower photos",
    "https://github.com/databricks/Spark-The-Definitive-Guide",
)


def flowers(folder: Path) -> Images:
    """All 891, 0 a daisy and 1 a tulip."""
    with np.load(folder / FLOWERS.files[0], allow_pickle=False) as file:
        photos, labels, split = file["photo"], file["label"].astype(np.int64), file["split"]
    rows = {part: np.flatnonzero(split == part) for part in ("train", "dev", "test")}
    return Images(photos, labels, rows, partial(small_network, size=32, channels=3))

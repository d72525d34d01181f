"""The control of images: their pixels as they are, small, in a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from contrapose.image._decode import GREY, opened
from contrapose.image.data import SEEN, decoded

SIDE = 32  # pixels at most: what is left of a photo still tells scenes apart, and a probe on it takes seconds
PIXELS_NOTE = f"Raw pixels: the image at {SIDE} x {SIDE} pixels (or at its own size, where all are square and smaller), its pixels in a row; no learning."


def raw_pixels(sides: Sequence[Sequence[Any]]) -> list[np.ndarray]:
    """(n, d) float32 in [0, 1] for each of several collections of images, all at one size and with the same channels."""
    first = [opened(values[row], f"Image {row}") for values in sides for row in range(min(SEEN, len(values)))]
    sizes = {image.size for image in first}
    width, height = next(iter(sizes)) if len(sizes) == 1 else (SIDE, SIDE)
    size = width if width == height and width < SIDE else SIDE
    channels = 1 if all(image.mode in GREY for image in first) else 3
    return [decoded(values, size, channels).reshape(len(values), -1).astype(np.float32) / 255 for values in sides]

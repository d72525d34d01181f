"""Coloured squares with their names, and encoders small enough to train in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.text.tiny import write_tiny_bert
from tests.tiny import Tiny

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220), "white": (240, 240, 240)}
ROWS = 11


def pictures(rows: int = ROWS, side: int = 16) -> list[dict[str, object]]:
    """Squares of one colour on black, at a place of their own; the text says both."""
    drawn, made = np.random.default_rng(0), []
    for row in range(rows):
        name = list(COLOURS)[row % len(COLOURS)]
        image = drawn.integers(0, 20, (side, side, 3)).astype(np.uint8)
        top = int(drawn.integers(0, side - 6))
        image[top : top + 6, 4:10] = COLOURS[name]
        made.append({"image": image, "text": f"a {name} square {'above' if top < side // 3 else 'below'}"})
    return made


def tiny(method: str, folder: Path) -> Tiny:
    values = [row["image"] for row in pictures(2)]
    if method == "growclip":
        settings = {"increments": "1,1", "stage_steps": 4, "trial": 0.25, "grows": "image,shared", "budget": 3.0}
        return Tiny(pictures(), "growing", settings, values, {"learning_rate": 0.1})
    text = {"name": str(write_tiny_bert(folder)), "max_tokens": 16}
    return Tiny(
        pictures(),
        {"image": {"name": "vit-tiny", "size": 16, "width": 32, "depth": 1}, "text": text},
        {},
        values,
        {"learning_rate": 0.05},
    )

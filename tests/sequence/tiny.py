"""Random purchases of a few users: every method trains on them in a second."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.tiny import Tiny

ITEMS = "abcdefghijkl"
ENCODER = {"dim": 8, "layers": 2, "heads": 2, "inner": 16, "max_length": 6, "dropout": 0.0, "attention_dropout": 0.0}


def interactions(users: int = 13, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of users with three to nine purchases each, in a shuffled order."""
    drawn = random.Random(seed)
    rows = [
        {"user": f"user {user}", "item": drawn.choice(ITEMS), "time": time}
        for user in range(users)
        for time in range(3 + user % 7)
    ]
    drawn.shuffle(rows)
    return rows


def tiny(method: str, folder: Path) -> Tiny:
    # most_beginnings: 11 rows, of which the second batch is smaller
    return Tiny(interactions(), ENCODER, {}, [["a", "b"], ["c"]], {"most_beginnings": 1, "learning_rate": 0.1})

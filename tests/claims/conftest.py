"""A claim of toy size: random words with random ratings, real methods, the real loop."""

from __future__ import annotations

import gzip
import json
import random
from functools import partial
from pathlib import Path

import pytest

from contrapose.claims._sentences import (
    LENGTH_BIAS,
    LENGTH_GAP,
    SPEARMAN,
    STSB_EN,
    SentenceTask,
    words_and_length,
)
from contrapose.claims.claim import Arm, Claim, Experiment, Statement
from tests.text.tiny import WORDS


def write_pairs(folder: Path, rows: int = 40) -> Path:
    """The files of STSB_EN with as many rows each: sentences of 2 to 12 random words, rated by chance."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = random.Random(0)

    def sentence() -> str:
        return " ".join(drawn.choices(WORDS, k=drawn.randint(2, 12)))

    for name in STSB_EN.files:
        lines = [
            json.dumps({"sentence1": sentence(), "sentence2": sentence(), "score": drawn.randint(0, 50) / 10})
            for _ in range(rows)
        ]
        (folder / name).write_bytes(gzip.compress("\n".join(lines).encode()))
    return folder


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "stsb")


@pytest.fixture(scope="session")
def toy() -> Claim:
    """Two arms, a grid of two points that the first two seeds tune, four steps a training."""
    return Claim(
        method="esimcse",
        says="Toys are enough.",
        source=STSB_EN,
        measures=(SPEARMAN, LENGTH_BIAS, LENGTH_GAP),
        tuned_by=SPEARMAN.name,
        arms=(Arm("SimCSE", "simcse"), Arm("ESimCSE", "esimcse", {"queue_size": 8})),
        statements=(
            Statement("It is better.", SPEARMAN.name, "ESimCSE", "SimCSE", least=0.01),
            Statement("It is less biased.", LENGTH_BIAS.name, "ESimCSE", "SimCSE"),
        ),
        experiments=(
            Experiment(
                "few words",
                "Words and length.",
                partial(SentenceTask, encoder=partial(words_and_length, dim=8)),
                {"batch_size": 16, "steps": 4, "precision": "fp32"},
                {"learning_rate": (0.001, 0.1)},
                minutes=0.1,
                tuning_seeds=2,
            ),
        ),
    )

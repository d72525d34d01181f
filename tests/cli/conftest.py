"""The real command, and a small run made once."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.text.tiny import WORDS

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Done:
    """What a command left: exit code, both streams by line."""

    code: int
    out: str
    errors: list[str]


@pytest.fixture(scope="session")
def contrapose(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Done]:
    """Runs `contrapose …` in a process of its own."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*words: object, cwd: Path | None = None) -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "contrapose", *map(str, words)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "CONTRAPOSE_CACHE": str(cache), "HF_HUB_OFFLINE": "1"},
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.splitlines())

    return run


def some_pairs(rows: int, seed: int = 0) -> Rows:
    drawn = random.Random(seed)
    return [
        {side: " ".join(drawn.choices(WORDS, k=drawn.randint(2, 9))) for side in ("anchor", "positive")}
        for _ in range(rows)
    ]


def write_csv(path: Path, rows: Rows) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pairs of random words."""
    return write_csv(tmp_path_factory.mktemp("data") / "pairs.csv", some_pairs(60))


@pytest.fixture(scope="session")
def quick(tiny_bert: Path, pairs: Path) -> list[str]:
    """The words of a training that takes a second."""
    return [
        "train",
        "pairs",
        "--data",
        str(pairs),
        "--encoder",
        str(tiny_bert),
        "--set",
        "batch_size=8",
        "--set",
        "steps=6",
    ]


@pytest.fixture(scope="session")
def trained(
    contrapose: Callable[..., Done], quick: list[str], pairs: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished run, scored on its own pairs; for tests that change nothing in it."""
    out = tmp_path_factory.mktemp("runs") / "trained"
    done = contrapose(
        *quick, "--select", f"retrieval={pairs}", "--on", f"retrieval={pairs}", "--set", "select_every=3", "--out", out
    )
    assert done.code == 0, done.errors
    return out

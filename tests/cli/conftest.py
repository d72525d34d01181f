"""The real command, and a small run made once."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.processes import Forked, anew, command
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
    """Runs `contrapose …` in a process of its own: a fork, or where a test wants to see what imports do, a new interpreter."""
    environment = {"CONTRAPOSE_CACHE": str(tmp_path_factory.mktemp("cache")), "HF_HUB_OFFLINE": "1"}

    def run(*words: object, cwd: Path | None = None, new_interpreter: bool = False) -> Done:
        start = anew if new_interpreter else partial(Forked, command)
        running = start(*map(str, words), cwd=cwd, **environment)
        out, errors = running.communicate(timeout=200)
        return Done(running.returncode, out, errors.splitlines())

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
    scored = ["--select", f"retrieval={pairs}", "--on", f"retrieval={pairs}", "--set", "select_every=3"]
    done = contrapose(*quick, *scored, "--out", out, new_interpreter=True)
    assert done.code == 0, done.errors
    return out

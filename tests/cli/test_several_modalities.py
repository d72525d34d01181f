"""Several modalities from the command line: a file of arrays, an encoder for each column, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.cli.conftest import Done
from tests.cli.test_bad_input import Command, nothing_written, refused


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    """24 rows of two vectors, one of which lacks a row, and a class."""
    drawn = np.random.default_rng(0)
    sound = drawn.normal(size=(24, 5)).astype(np.float32)
    sound[3] = np.nan
    kind = np.eye(3, dtype=np.float32)[drawn.integers(0, 3, 24)]
    np.savez(tmp_path / "rows.npz", seen=drawn.normal(size=(24, 4, 4)).astype(np.float32), sound=sound, kind=kind)
    return tmp_path / "rows.npz"


def test_a_run_is_trained_repeated_by_its_command_evaluated_and_used(
    contrapose: Command, rows: Path, tmp_path: Path
) -> None:
    words = [
        "train", "symile", "--data", rows, "--encoder", "picture=vectors,sound=vectors,kind=vectors", "--map", "picture=seen",
        "--map", "target=kind", "--on", f"zero_shot={rows}", "--set", "steps=3", "--set", "batch_size=8", "--set", "encoder.dim=6",
        "--set", "encoder.sound.missing=learned", "--set", "encoder.picture.hidden=7,5", "--out", tmp_path / "run",
    ]  # fmt: skip
    done = contrapose(*words, cwd=tmp_path)
    assert done.code == 0, done.errors
    assert "accuracy@1" in done.out
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    for said in (
        "picture=vectors,sound=vectors,kind=vectors",
        "encoder.picture.hidden=7,5",
        "encoder.sound.missing=learned",
        "encoder.dim=6",
    ):
        assert said in config["command"]
    assert contrapose("evaluate", tmp_path / "run", "--on", f"zero_shot={rows}", cwd=tmp_path).code == 0
    embedded = contrapose(
        "embed", tmp_path / "run", rows, "--column", "sound", "--out", tmp_path / "v.npy", cwd=tmp_path
    )
    assert embedded.code == 0, embedded.errors
    vectors = np.load(tmp_path / "v.npy")
    assert vectors.shape == (24, 6)
    assert np.isfinite(vectors).all()


def test_a_row_without_a_modality(contrapose: Command, rows: Path, tmp_path: Path) -> None:
    with nothing_written(tmp_path):
        done: Done = contrapose("train", "symile", "--data", rows, "--out", tmp_path / "run", cwd=tmp_path)
    refused(done, "row 3", "rows.npz", "'sound'", "encoder.missing=learned", "CL-DATA-010")


def test_one_modality_alone(contrapose: Command, rows: Path, tmp_path: Path) -> None:
    words = ["train", "pairwise_clip", "--data", rows, "--encoder", "seen=vectors", "--out", tmp_path / "run"]
    with nothing_written(tmp_path):
        refused(contrapose(*words, cwd=tmp_path), "one modality", "'seen'", "at least two", "CL-DATA-060")

"""A folder of images from the command line to vectors: checked, trained, measured beside controls, gone on from, embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import contrapose
from tests.image.test_data import folder_of
from tests.image.tiny import ENCODER, images


def test_from_a_folder_to_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path / "cache"))
    folder = str(folder_of(tmp_path / "shown", images(16, 10), ["a", "b"] * 8))
    report = contrapose.check(folder, "simclr", encoder=ENCODER)
    assert not [problem for problem in report.problems if problem.stops]
    settings = {"batch_size": 8, "steps": 2, "encoder.size": 8, "encoder.width": 32, "encoder.depth": 1}
    run = contrapose.train(
        "simclr", folder, encoder="vit-tiny", on={"knn": folder}, select={"retrieval": folder}, out=tmp_path / "run",
        progress=False, settings=settings,
    )  # fmt: skip
    [result] = run.results
    assert list(result.systems) == ["untrained", "raw pixels", "majority class", "trained"]
    card = (tmp_path / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "AutoModel.from_pretrained" in card
    assert "Read back by transformers" in card

    assert len(contrapose.evaluate(run, on={"retrieval": folder}).results) == 2
    embedded = contrapose.embed(tmp_path / "run", folder, tmp_path / "vectors.npy", precision="float32")
    np.testing.assert_allclose(np.load(embedded)[1], run.model.encode([f"{folder}/a/002.png"])[0], atol=1e-5)

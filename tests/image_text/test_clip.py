"""CLIP learns which text belongs to which image; pairs of encoders are opened, frozen, saved and measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import contrapose
from contrapose.errors import ColumnMissing, ImageInvalid, ProtocolUnknown, UsageInvalid
from contrapose.image_text.data import read_data
from contrapose.image_text.encoder import open_encoder
from contrapose.image_text.evaluation import Retrieves, ZeroShot, open_protocol
from tests.image_text.tiny import pictures
from tests.tiny import tiny


def test_it_learns_to_tell_colours(tmp_path: Path) -> None:
    rows = pictures(100)
    settings = {"steps": 100, "batch_size": 30, "learning_rate": 3e-3, "warmup_steps": 5, "precision": "fp32"}
    run = contrapose.train(
        "clip",
        rows[:60],
        encoder="growing",
        on={"retrieval": rows[60:]},
        out=tmp_path / "run",
        progress=False,
        settings=settings,
    )
    (result,) = run.results
    before, after = (result.systems[name]["recall@1 image→text"].value for name in ("untrained", "trained"))
    assert after > before + 0.3


def test_a_saved_pair_gives_the_same_vectors(tmp_path: Path) -> None:
    sample = tiny("clip", tmp_path)
    run = contrapose.train(
        "clip", sample.data, encoder=sample.encoder, out=tmp_path / "run", progress=False, settings={"steps": 2}
    )
    kept, texts = contrapose.load(run.path), [row["text"] for row in sample.data]
    for side, values in (("image", [row["image"] for row in sample.data]), ("text", texts)):
        np.testing.assert_allclose(
            kept.encode(values, encoder=side, progress=False),
            run.model.encode(values, encoder=side, progress=False),
            atol=1e-6,
        )
    assert (run.path / "model" / "text" / "tower" / "config.json").is_file()


def test_a_frozen_tower_stays_as_it_is(tmp_path: Path) -> None:
    sample = tiny("clip", tmp_path)
    pair = open_encoder(sample.encoder, {"freeze": "text"})
    pair.train()
    assert not pair["text"].tower.training
    assert not any(parameter.requires_grad for parameter in pair["text"].tower.parameters())
    assert pair["text"].projection.weight.requires_grad
    assert pair["image"].training


def test_a_record_rebuilds_the_same_pair(tmp_path: Path) -> None:
    for given in (tiny("clip", tmp_path).encoder, "growing"):
        pair = open_encoder(given, {"dim": 16})
        again = open_encoder(pair.record())
        for (name, one), other in zip(pair.state_dict().items(), again.state_dict().values(), strict=True):
            assert torch.equal(one, other), name
        assert again.record() == pair.record()


def test_a_folder_with_captions_is_read(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for number, row in enumerate(pictures(3)):
        Image.fromarray(row["image"]).save(tmp_path / "pictures" / f"{number}.png")
    lines = ["image,text", *(f"pictures/{number}.png,number {number}" for number in range(3))]
    (tmp_path / "captions.csv").write_text("\n".join(lines), encoding="utf-8")
    table = read_data(tmp_path)
    assert list(table["text"]) == ["number 0", "number 1", "number 2"]
    assert len(table) == 3


def test_texts_that_read_the_same_are_equally_right() -> None:
    rows = [
        {"image": np.full((8, 8, 3), value, np.uint8), "text": text} for value, text in ((0, "a"), (9, "b"), (99, "a"))
    ]
    assert Retrieves(rows).right == [[0, 2], [1], [2, 0]]


class Always:
    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def encode(self, values: object) -> np.ndarray:
        return np.repeat(self.vectors, len(values), axis=0) if len(self.vectors) == 1 else self.vectors[: len(values)]


def test_one_vector_for_everything_scores_nothing() -> None:
    rows = [{"image": np.full((8, 8, 3), value, np.uint8), "text": str(value)} for value in range(4)]
    same = {"image": Always(np.ones((1, 3))), "text": Always(np.ones((1, 3)))}
    assert Retrieves(rows).score(same) == 0


def test_classes_are_told_by_their_names() -> None:
    rows = [
        {"image": np.full((8, 8, 3), value, np.uint8), "label": label}
        for value, label in ((0, "a"), (1, "b"), (2, "b"))
    ]
    system = {"image": Always(np.array([[1.0, 0], [0, 1], [1, 0]])), "text": Always(np.eye(2))}
    assert ZeroShot(rows).score(system) == pytest.approx(2 / 3)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(ProtocolUnknown, match="retrieval"):
        open_protocol("retreival", [])


@pytest.mark.parametrize(("given", "said"), [("picture=resnet", "'picture' is no side"), (3, "encoder is a int")])
def test_encoders_that_are_none_are_refused(given: object, said: str) -> None:
    with pytest.raises(UsageInvalid, match=said):
        open_encoder(given)


def test_patches_that_do_not_divide_the_images_are_refused() -> None:
    with pytest.raises(UsageInvalid, match="does not divide the images"):
        open_encoder("growing", {"patch": 7})


def test_a_missing_column_and_a_broken_image_are_named(tmp_path: Path) -> None:
    with pytest.raises(ColumnMissing, match="text"):
        contrapose.train("clip", [{"image": row["image"]} for row in pictures(4)], out=tmp_path / "run", progress=False)
    (tmp_path / "broken.png").write_bytes(b"no image")
    rows = [{"image": str(tmp_path / "broken.png"), "text": "a"}] * 3
    with pytest.raises(ImageInvalid, match=r"broken\.png"):
        contrapose.train("clip", rows, encoder="growing", out=tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()

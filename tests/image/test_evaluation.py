"""Protocols on images whose classes are known to be easy or impossible; and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from contrapose.errors import ImageInvalid, ProtocolDataInvalid, ProtocolUnknown
from contrapose.evaluation.result import Result
from contrapose.image._pixels import raw_pixels
from contrapose.image.data import ImageValues, read_data
from contrapose.image.encoder import ImageEncoder, open_encoder
from contrapose.image.evaluation import PROTOCOLS, open_protocol, protocol_columns
from tests.image.test_data import folder_of
from tests.image.tiny import ENCODER, images

LEVELS = {"dark": 20, "grey": 120, "light": 230}


class Brightness(ImageEncoder):
    """An encoder that is sure of brightness: a place on a circle."""

    def encode(self, values: object, **_: object) -> np.ndarray:
        [pixels] = raw_pixels([values])
        angle = pixels.mean(axis=1) * np.pi
        return np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)


def labelled(rows: int = 60) -> dict[str, object]:
    drawn = np.random.default_rng(0)
    names = [list(LEVELS)[row % 3] for row in range(rows)]
    shown = np.stack([LEVELS[name] + drawn.integers(-10, 11, (8, 8, 3)) for name in names]).astype(np.uint8)
    return {"image": shown, "label": names, "split": ["test" if row % 4 == 0 else "train" for row in range(rows)]}


@pytest.fixture(scope="module")
def systems() -> dict[str, ImageEncoder]:
    encoder = open_encoder(ENCODER)
    return {"untrained": encoder, "trained": Brightness(encoder.backbone, size=8)}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_brightness_is_told_from_brightness(name: str, systems: dict[str, ImageEncoder]) -> None:
    protocol = open_protocol(name, labelled())
    result = Result.from_record(protocol.evaluate(systems)["result"])
    metric = protocol.scored
    assert result.systems["trained"][metric].value == 1
    assert protocol.score(systems["trained"]) == 1
    assert next(iter(result.systems)) == "untrained"
    assert "raw pixels" in result.systems
    assert "Raw pixels" in result.description
    assert result.rows == 15
    if name != "retrieval":
        assert result.systems["majority class"][metric].value == pytest.approx(1 / 3, abs=0.01)


def test_pairs_are_retrieved_both_ways(systems: dict[str, ImageEncoder]) -> None:
    ramp = np.repeat(np.arange(0, 240, 20, dtype=np.uint8), 64 * 3).reshape(-1, 8, 8, 3)
    protocol = open_protocol("retrieval", {"anchor": ramp, "positive": ramp + 3})
    result = Result.from_record(protocol.evaluate(systems)["result"])
    assert result.systems["trained"]["accuracy@1 anchor→positive"].value == 1
    assert result.systems["trained"]["accuracy@1 positive→anchor"].value == 1
    upside_down = open_protocol("retrieval", {"anchor": ramp, "positive": ramp[::-1]})
    assert upside_down.score(systems["trained"]) == 0


def test_columns_are_renamed_for_protocols(systems: dict[str, ImageEncoder]) -> None:
    data = labelled()
    renamed = {"picture": data["image"], "kind": data["label"], "split": data["split"]}
    protocol = open_protocol("knn", renamed, {"image": "picture", "label": "kind"})
    assert protocol.score(systems["trained"]) == 1
    assert {"image", "label", "anchor", "positive"} <= protocol_columns(["knn", "retrieval"])


def test_raw_pixels_of_photos_are_small() -> None:
    large = ImageValues(read_data(np.zeros((3, 40, 50, 3), np.uint8)), "image")
    assert raw_pixels([large])[0].shape == (3, 32 * 32 * 3)
    small = ImageValues(read_data(np.zeros((3, 8, 8), np.uint8)), "image")
    assert raw_pixels([small])[0].shape == (3, 64)


@pytest.mark.parametrize("name", ["knn", "retrieval"])
def test_a_broken_image_is_named_when_the_protocol_is_opened(name: str, tmp_path: Path) -> None:
    folder_of(tmp_path, images(16), ["a", "b"] * 8)
    file = tmp_path / "b" / "005.png"
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ImageInvalid, match=r"b/005\.png"):
        open_protocol(name, tmp_path)


def test_unknown_protocols_and_missing_labels_are_refused() -> None:
    with pytest.raises(ProtocolUnknown, match="knn"):
        open_protocol("kn", labelled())
    few = {name: values[:8] for name, values in labelled().items()}
    with pytest.raises(ProtocolDataInvalid, match="label"):
        open_protocol("few_shot", few)

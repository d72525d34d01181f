"""Encoders of images: built by name, loaded from folders, saved, read back by others; and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import ViTConfig, ViTModel

from contrapose.errors import (
    ContraposeError,
    EncoderNotRebuildable,
    EncoderUnknown,
    ImageEncoderMisfit,
    ImageInvalid,
    ModelFolderInvalid,
    SettingInvalid,
    SettingUnknown,
    UsageInvalid,
    WeightsBroken,
    WeightsPickled,
)
from contrapose.export.model_folder import Model, write_model
from contrapose.image.data import read_data
from contrapose.image.encoder import ImageEncoder, compare_export, load_encoder, open_encoder, usage
from tests.image.tiny import ENCODER, images

SHOWN = images(5)
NAMED = {
    "resnet, small stem": {"name": "resnet", "size": 16, "width": 8, "depth": 1},
    "resnet, large stem": {"name": "resnet", "size": 16, "width": 8, "depth": 1, "stem": "large"},
    "resnet of bottlenecks": {"name": "resnet-50", "size": 16, "width": 8, "depth": 1, "stem": "large"},
    "vit": ENCODER,
    "mlp": {"name": "mlp", "size": 8, "width": 16, "channels": 1},
}
EXPORTED = {"resnet, large stem", "resnet of bottlenecks", "vit"}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_saved_is_read_back(case: str, tmp_path: Path) -> None:
    encoder = open_encoder({**NAMED[case], "seed": 3})
    encoder.save(tmp_path)
    vectors = encoder.encode(SHOWN, progress=False)
    again = load_encoder(tmp_path, json.loads(json.dumps(encoder.record())))
    # not to the bit: where weights lie in memory changes the order of sums
    np.testing.assert_allclose(again.encode(SHOWN, progress=False), vectors, atol=1e-6)
    assert vectors.shape == (5, encoder.dim)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    differences = compare_export(tmp_path, encoder, list(SHOWN))
    assert set(differences) == ({"transformers"} if case in EXPORTED else set())
    assert all(difference < 1e-5 for difference in differences.values())
    assert ("AutoModel.from_pretrained" in usage(encoder)) == (case in EXPORTED)


@pytest.mark.parametrize("case", NAMED)
def test_a_record_builds_the_same_untrained_encoder(case: str) -> None:
    encoder = open_encoder(NAMED[case])
    again = open_encoder(encoder.record(), {})
    other = open_encoder({**NAMED[case], "seed": 1})
    assert again.record() == encoder.record()
    np.testing.assert_array_equal(again.encode(SHOWN, progress=False), encoder.encode(SHOWN, progress=False))
    assert np.abs(other.encode(SHOWN, progress=False) - encoder.encode(SHOWN, progress=False)).max() > 1e-3


def test_building_leaves_the_random_state_alone() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    open_encoder(ENCODER)
    assert torch.rand(1) == expected


def test_every_form_of_an_image_has_the_same_vector(tmp_path: Path) -> None:
    encoder = open_encoder(ENCODER)
    expected = encoder.encode(SHOWN, progress=False)
    for row, array in enumerate(SHOWN):
        Image.fromarray(array).save(tmp_path / f"{row}.png")
    forms = {
        "floats": SHOWN / 255,
        "list of arrays": list(SHOWN),
        "tensor": torch.from_numpy(SHOWN).permute(0, 3, 1, 2),
        "PIL": [Image.fromarray(each) for each in SHOWN],
        "paths": [str(tmp_path / f"{row}.png") for row in range(5)],
        "bytes": [(tmp_path / f"{row}.png").read_bytes() for row in range(5)],
    }
    for form, values in forms.items():
        np.testing.assert_array_equal(encoder.encode(values, progress=False, batch_size=5), expected, err_msg=form)


def test_bytes_and_floats_are_the_same_pixels() -> None:
    encoder = open_encoder(ENCODER)
    pixels = torch.from_numpy(SHOWN).permute(0, 3, 1, 2)
    torch.testing.assert_close(encoder(pixels), encoder(pixels / 255))
    assert encoder.double()(pixels).dtype == torch.float64


@pytest.mark.parametrize(("case", "row_wise"), [("vit", True), ("mlp", False), ("resnet, small stem", False)])
def test_batch_norm_looks_across_rows_while_it_trains(case: str, row_wise: bool) -> None:
    encoder = open_encoder(NAMED[case])
    assert encoder.row_wise == row_wise
    shown = encoder.pixels(torch.from_numpy(images(6, encoder.size)).permute(0, 3, 1, 2)[:, : encoder.channels])
    encoder.train()
    alike = torch.allclose(encoder(shown)[:3], encoder(shown[:3]), atol=1e-5)
    assert alike == row_wise
    encoder.eval()
    torch.testing.assert_close(encoder(shown)[:3], encoder(shown[:3]), atol=1e-5, rtol=1e-5)


def test_the_training_images_say_size_and_channels() -> None:
    assert open_encoder("mlp", {}, read_data(images(3)[..., 0])).record()["channels"] == 1
    assert open_encoder("mlp", {}, read_data(images(3))).size == 8
    assert open_encoder("mlp", {"size": 6}, read_data(images(3))).size == 6
    large = open_encoder("mlp", {"width": 4}, read_data(np.zeros((3, 100, 100), np.uint8)))
    assert (large.size, large.channels) == (64, 1)


def test_a_folder_of_transformers_is_loaded_with_its_preprocessing(tmp_path: Path) -> None:
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, image_size=12, patch_size=4
    )
    ViTModel(config).save_pretrained(tmp_path)
    said = {"size": {"height": 12, "width": 12}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    encoder = open_encoder(str(tmp_path))
    assert (encoder.size, encoder.mean, encoder.std) == (12, (0.5,) * 3, (0.25,) * 3)
    encoder.save(tmp_path / "saved")
    assert compare_export(tmp_path / "saved", encoder, list(SHOWN))["transformers"] < 1e-5
    rebuilt = open_encoder(encoder.record())
    np.testing.assert_array_equal(rebuilt.encode(SHOWN, progress=False), encoder.encode(SHOWN, progress=False))


@pytest.mark.parametrize("case", ["vit", "mlp"])
def test_a_model_folder_is_a_start(case: str, tmp_path: Path) -> None:
    trained = open_encoder({**NAMED[case], "seed": 5})
    write_model(Model({"encoder": trained}, "image", "simclr"), tmp_path / "model")
    start = open_encoder(str(tmp_path / "model"))
    expected = trained.encode(SHOWN, progress=False)
    np.testing.assert_allclose(start.encode(SHOWN, progress=False), expected, atol=1e-6)
    np.testing.assert_allclose(open_encoder(start.record()).encode(SHOWN, progress=False), expected, atol=1e-6)
    with pytest.raises(ImageEncoderMisfit, match="was trained on"):
        open_encoder(str(tmp_path / "model"), {"size": 30})


def test_a_module_of_ones_own() -> None:
    module = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())  # a map, which is averaged
    encoder = open_encoder((module, 8))
    assert encoder.encode(SHOWN, progress=False).shape == (5, 5)
    assert "load_model" in usage(encoder)
    with pytest.raises(EncoderNotRebuildable):
        open_encoder(encoder.record())


def test_tokens_are_pooled_by_the_first_or_their_mean() -> None:
    first, mean = (open_encoder({**ENCODER, "pooling": pooling}) for pooling in ("cls", "avg"))
    pixels = torch.from_numpy(SHOWN).permute(0, 3, 1, 2)
    states = first.backbone(
        (pixels / 255 - torch.tensor(first.mean).view(3, 1, 1)) / torch.tensor(first.std).view(3, 1, 1)
    )
    torch.testing.assert_close(first(pixels), states.last_hidden_state[:, 0])
    torch.testing.assert_close(mean(pixels), states.last_hidden_state.mean(1))


def pickled(folder: Path) -> str:
    (folder / "config.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"")
    return str(folder)


def half(folder: Path) -> str:
    open_encoder(ENCODER).save(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    return str(folder)


REFUSED = {
    "a size that patches do not divide": ({"name": "vit-tiny", "size": 20}, ImageEncoderMisfit, "multiple of 8"),
    "two channels": ({"name": "mlp", "channels": 2}, ImageEncoderMisfit, "channels=2"),
    "a stem of what has none": ({"name": "mlp", "stem": "small"}, ImageEncoderMisfit, "stem"),
    "an unknown setting": ({"name": "mlp", "sise": 8}, SettingUnknown, "size"),
    "a size of zero": ({"name": "mlp", "size": 0}, SettingInvalid, "size"),
    "an unknown name": ("resnett", EncoderUnknown, "resnet"),
    "a folder that is not there": ("./nowhere/at/all", EncoderUnknown, "no folder"),
    "an empty folder": (str, ModelFolderInvalid, "config.json"),
    "a pickle": (pickled, WeightsPickled, "pytorch_model.bin"),
    "half a file": (half, WeightsBroken, "cannot be read"),
    "a number": (7, UsageInvalid, "int"),
    "a module that cannot take the images": (lambda _: (nn.Linear(5, 3), 8), ImageEncoderMisfit, "3 x 8 x 8"),
    "settings of a module": (lambda _: ((nn.Conv2d(3, 5, 3), 8), {"width": 3}), UsageInvalid, "width"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str, tmp_path: Path) -> None:
    given, error, said = REFUSED[case]
    given = given(tmp_path) if callable(given) else given
    options = {}
    if isinstance(given, tuple) and isinstance(given[1], dict):
        given, options = given
    with pytest.raises(error) as refused:
        open_encoder(given, options)
    assert said in str(refused.value)
    assert isinstance(refused.value, ContraposeError)


def test_one_image_is_not_a_list_of_them() -> None:
    with pytest.raises(ImageInvalid, match="list"):
        open_encoder(ENCODER).encode("a.png")
    assert ImageEncoder.open(**ENCODER).encode([], progress=False).shape == (0, 32)

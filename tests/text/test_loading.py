from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import huggingface_hub.constants as hub
import pytest
import torch
from transformers import AutoModel

import contrapose.text._loading as loading
from contrapose.errors import (
    ContraposeError,
    EncoderUnknown,
    LayersUnavailable,
    ModelFolderInvalid,
    PoolingUnavailable,
    SettingInvalid,
    SettingUnknown,
    TokenLimitInvalid,
    UsageInvalid,
    WeightsBroken,
    WeightsChanged,
    WeightsPickled,
)
from contrapose.text._loading import load_transformer
from contrapose.text._pooling import pool
from contrapose.text.encoder import TextEncoder, open_encoder
from tests.text.samples import FAMILIES, random_tokens, random_transformer


@pytest.fixture
def folder(tiny_bert, tmp_path) -> Path:
    """A copy of the tiny BERT to spoil."""
    return Path(shutil.copytree(tiny_bert, tmp_path / "spoiled"))


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """No network; the folder of the Hub's cache."""
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_layers_are_the_first_ones(layers, tiny_bert):
    tokens = random_tokens([3, 9, 5])
    whole = TextEncoder.open(str(tiny_bert))
    ids, mask = tokens.padded(0)
    states = whole.transformer(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
    torch.testing.assert_close(
        TextEncoder.open(str(tiny_bert), layers=layers)(tokens), pool(states[: layers + 1], mask, "avg")
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_truncated_exports_load_elsewhere(family, tmp_path):
    truncated = load_transformer(random_transformer(family, tmp_path / "whole"), layers=2)
    truncated.save_pretrained(tmp_path / "truncated")
    elsewhere = AutoModel.from_pretrained(tmp_path / "truncated").eval()
    ids = random_tokens([9]).ids[None]
    assert elsewhere.config.num_hidden_layers == 2
    torch.testing.assert_close(elsewhere(input_ids=ids).last_hidden_state, truncated(input_ids=ids).last_hidden_state)


@pytest.mark.parametrize("layers", [3, -1])
def test_more_layers_than_there_are_is_refused(layers, tiny_bert):
    with pytest.raises(LayersUnavailable, match=f"layers={layers} is asked for, but tiny_bert has 2; give 0 .* to 2"):
        TextEncoder.open(str(tiny_bert), layers=layers)


@pytest.mark.parametrize("max_tokens", [65, 2])
def test_a_token_limit_that_cannot_be_is_refused(max_tokens, tiny_bert):
    with pytest.raises(TokenLimitInvalid, match=f"max_tokens={max_tokens} is out of range: this encoder takes 3 to 64"):
        TextEncoder.open(str(tiny_bert), max_tokens=max_tokens)


def test_the_default_token_limit_fits_the_positions(tiny_bert):
    assert TextEncoder.open(str(tiny_bert)).max_tokens == 64


def test_an_unknown_pooling_is_refused_before_anything_is_loaded():
    with pytest.raises(PoolingUnavailable, match="no pooling 'mean'"):
        TextEncoder.open("nowhere/at/all", pooling="mean")


def test_a_pooling_over_more_layers_than_there_are_is_refused(tiny_bert):
    with pytest.raises(PoolingUnavailable, match="'avg_first_last' needs the hidden states of more layers"):
        TextEncoder.open(str(tiny_bert), layers=0, pooling="avg_first_last")


def test_an_unknown_name_offers_the_nearest(offline):
    with pytest.raises(
        EncoderUnknown, match=r"'miniml' is no folder, and the Hub cannot be reached .*; did you mean 'minilm'\?"
    ):
        TextEncoder.open("miniml")


def test_a_missing_folder_offers_its_neighbour(tiny_bert):
    with pytest.raises(EncoderUnknown, match=r"There is no folder .*tiny_brt; did you mean 'tiny_bert'\?"):
        TextEncoder.open(str(tiny_bert.with_name("tiny_brt")))


def test_an_unknown_name_lists_no_folders_that_have_nothing_to_do_with_it(tiny_bert):
    with pytest.raises(EncoderUnknown, match=r"There is no folder .*; known: minilm\."):
        TextEncoder.open(str(tiny_bert.with_name("quite_another")))


def test_a_model_of_the_hub_is_found_in_its_cache(offline, tiny_bert):
    commit = "0123456789abcdef0123456789abcdef01234567"
    home = offline / "models--someone--tiny"
    shutil.copytree(tiny_bert, home / "snapshots" / commit)
    (home / "refs").mkdir()
    (home / "refs" / "main").write_text(commit)
    record = TextEncoder.open("someone/tiny").record()
    assert (record["name"], record["revision"]) == ("someone/tiny", commit)


def test_pickled_weights_are_refused_with_the_way_to_convert_them(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        WeightsPickled, match=r"pytorch_model\.bin is a pickle.*save_pretrained\(FOLDER, safe_serialization=True\)"
    ):
        TextEncoder.open(str(folder))


def test_a_pickle_itself_is_refused(folder):
    (folder / "model.pt").write_bytes(b"")
    with pytest.raises(WeightsPickled, match=r"model\.pt is a pickle"):
        TextEncoder.open(str(folder / "model.pt"))


@pytest.mark.parametrize("kept", [0.5, 0.001])
def test_truncated_weights_are_refused(kept, folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(
        WeightsBroken, match=r"The weights in .*spoiled cannot be read: .*Fetch or export the model again"
    ):
        TextEncoder.open(str(folder))


def change_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_hidden_layers": 3}, "lack 16 of the tensors"), ({"hidden_size": 64}, "cannot be read")],
)
def test_weights_that_do_not_fit_the_configuration_are_refused(change, message, folder):
    change_config(folder, **change)
    with pytest.raises(WeightsBroken, match=message):
        TextEncoder.open(str(folder))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors"),
        ("tokenizer.json", "has no tokeniser"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused(missing, message, folder):
    (folder / missing).unlink()
    with pytest.raises(ModelFolderInvalid, match=message):
        TextEncoder.open(str(folder))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_damaged_part_is_refused(name, folder):
    (folder / name).write_text("{")
    with pytest.raises(ModelFolderInvalid, match=str(folder)):
        TextEncoder.open(str(folder))


def test_code_in_a_folder_is_not_run(folder):
    change_config(folder, model_type="own", auto_map={"AutoModel": "code.Own", "AutoConfig": "code.OwnConfig"})
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")
    with pytest.raises(ModelFolderInvalid):
        TextEncoder.open(str(folder))
    assert not (folder / "ran").exists()


def test_a_tokeniser_of_another_model_is_refused(folder, encoder):
    encoder.tokenizer.add_tokens(["zebra"])
    encoder.tokenizer.save_pretrained(folder)
    with pytest.raises(ModelFolderInvalid, match="do not belong together"):
        TextEncoder.open(str(folder))


def test_the_offline_default_is_the_one_that_it_should_be():
    encoder = TextEncoder.open(layers=4, max_tokens=48)
    assert encoder.encode(["a sentence"]).shape == (1, 384)
    assert repr(encoder) == "TextEncoder('minilm', layers=4, pooling='avg', max_tokens=48; 384 dimensions)"


def test_a_changed_offline_default_is_refused_with_its_hash(folder, monkeypatch):
    package = folder.parent / "spoiled_minilm"
    package.mkdir()
    (package / "__init__.py").touch()
    folder.rename(package / "model")
    monkeypatch.setattr(sys, "path", [str(folder.parent), *sys.path])
    monkeypatch.setattr(loading, "OFFLINE_PACKAGE", "spoiled_minilm")
    with pytest.raises(
        WeightsChanged,
        match=r"SHA-256 [0-9a-f]{64}, expected 53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ):
        TextEncoder.open("minilm")


def test_without_the_extra_and_the_network_the_default_says_how_to_get_it(offline, monkeypatch):
    monkeypatch.setattr(loading, "OFFLINE_PACKAGE", "package_that_is_not_installed")
    with pytest.raises(EncoderUnknown, match=r"Hub cannot be reached .* pip install 'contrapose\[offline\]'"):
        TextEncoder.open("minilm")


def test_an_encoder_comes_from_what_a_user_gives(tiny_bert, encoder):
    options = {"layers": "1", "max_tokens": "9"}  # as on a command line
    assert open_encoder(str(tiny_bert), options).record()["layers"] == 1
    assert open_encoder({"name": str(tiny_bert), "layers": 1}).record()["layers"] == 1
    assert open_encoder(encoder.record(), {"max_tokens": 9}).max_tokens == 9
    assert open_encoder(encoder) is encoder
    assert open_encoder((encoder.transformer, encoder.tokenizer), {"max_tokens": "9"}).max_tokens == 9


@pytest.mark.parametrize(
    ("given", "options", "error", "message"),
    [
        (None, {"layer": 4}, SettingUnknown, "the encoder has no setting 'layer'; did you mean 'layers'"),
        (None, {"layers": "four"}, SettingInvalid, "setting 'layers'"),
        (3.5, {}, UsageInvalid, "encoder is a float"),
    ],
)
def test_what_is_no_encoder_is_refused(given, options, error: type[ContraposeError], message):
    with pytest.raises(error, match=message):
        open_encoder(given, options)


def test_an_encoder_that_is_made_takes_no_options(encoder):
    with pytest.raises(UsageInvalid, match=r"encoder\.layers was given with an encoder that is made already"):
        open_encoder(encoder, {"layers": 1})

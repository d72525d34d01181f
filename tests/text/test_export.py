from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch

from contrapose.errors import ModelFolderInvalid, WeightsBroken
from contrapose.text._heads import Head, NormedHead, Projection
from contrapose.text._layout import read_layout
from contrapose.text._pooling import POOLINGS
from contrapose.text.encoder import TextEncoder, compare_export, load_encoder
from tests.text.samples import TEXTS


@pytest.mark.parametrize("layers", [None, 1])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("pooling", ["avg", "cls_before_pooler"])
def test_sentence_transformers_reads_the_same_vectors(pooling, normalise, layers, tiny_bert, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = TextEncoder.open(str(tiny_bert), pooling=pooling, layers=layers, max_tokens=6)
    encoder.normalise = normalise
    encoder.save(tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(encoder.encode(TEXTS), theirs, atol=2e-6)
    assert compare_export(tmp_path, encoder, TEXTS)["sentence-transformers"] < 2e-6


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_saved_encoder_is_loaded_as_it_was(pooling, tiny_bert, tmp_path):
    encoder = TextEncoder.open(str(tiny_bert), pooling=pooling, layers=1, max_tokens=6)
    with torch.no_grad():
        encoder.transformer.embeddings.word_embeddings.weight.mul_(2)  # trained
    encoder.save(tmp_path / "model")
    loaded = load_encoder(tmp_path / "model", json.loads(json.dumps(encoder.record())))
    assert np.array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert loaded.record() == encoder.record()


@pytest.mark.parametrize("pooling", ["avg_top2", "avg_first_last", "avg_first_last_embedding"])
def test_sentence_transformers_cannot_read_another_pooling_by_mistake(pooling, tiny_bert, tmp_path):
    from sentence_transformers import SentenceTransformer

    encoder = TextEncoder.open(str(tiny_bert), pooling=pooling)
    encoder.save(tmp_path / "model")
    assert not encoder.exports_to_sentence_transformers
    assert compare_export(tmp_path / "model", encoder, TEXTS) == {}
    with pytest.raises((OSError, ValueError)):
        SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)


def test_an_export_says_nothing_of_this_machine(tiny_bert, tmp_path):
    TextEncoder.open(str(tiny_bert)).save(tmp_path)
    said = "".join(file.read_text() for file in tmp_path.glob("*.json"))
    assert not [word for word in (str(tiny_bert), "local_files_only") if word in said]


def test_a_record_opens_the_same_encoder(tiny_bert):
    encoder = TextEncoder.open(str(tiny_bert), layers=1, pooling="avg_top2", max_tokens=9)
    again = TextEncoder.from_record(json.loads(json.dumps(encoder.record())))
    assert np.array_equal(again.encode(TEXTS), encoder.encode(TEXTS))
    assert again.record() == encoder.record()


def test_a_model_folder_is_an_encoder_to_start_from(tiny_bert, tmp_path):
    encoder = TextEncoder.open(str(tiny_bert), pooling="avg_top2", max_tokens=9)
    encoder.save(tmp_path / "model")
    (tmp_path / "model" / "contrapose.json").write_text(
        json.dumps({"encoders": {"encoder": {"folder": ".", **encoder.record()}}})
    )
    for folder in (tmp_path / "model", tmp_path):  # the model, and the run that it is in
        again = TextEncoder.open(str(folder))
        assert (again.pooling, again.max_tokens) == ("avg_top2", 9)
        assert np.array_equal(again.encode(TEXTS), encoder.encode(TEXTS))


@pytest.fixture
def theirs(tiny_bert, tmp_path):
    """A folder written by sentence-transformers itself, from the modules named."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    def save(mode: str = "cls", normalise: bool = False, dense: bool = False) -> tuple[SentenceTransformer, str]:
        first = Transformer(str(tiny_bert), max_seq_length=7)
        modules = [first, Pooling(32, mode), *([Dense(32, 8)] if dense else []), *([Normalize()] if normalise else [])]
        model = SentenceTransformer(modules=modules, device="cpu")
        model.save(str(tmp_path / "theirs"))
        return model, str(tmp_path / "theirs")

    return save


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("mode", "pooling"), [("cls", "cls_before_pooler"), ("mean", "avg")])
def test_a_sentence_transformers_model_is_read_whole(mode, pooling, normalise, theirs):
    model, folder = theirs(mode, normalise)
    encoder = TextEncoder.open(folder)
    assert (encoder.pooling, encoder.normalise, encoder.max_tokens) == (pooling, normalise, 7)
    np.testing.assert_allclose(encoder.encode(TEXTS), model.encode(TEXTS), atol=2e-6)


@pytest.mark.parametrize(("made", "message"), [({"mode": "max"}, "with pooling max"), ({"dense": True}, "with Dense")])
def test_a_sentence_transformers_model_with_foreign_parts_is_refused(made, message, theirs):
    _, folder = theirs(**made)
    with pytest.raises(ModelFolderInvalid, match=f"{message}, which contrapose does not have; give encoder.pooling"):
        TextEncoder.open(folder)
    assert TextEncoder.open(folder, pooling="avg").pooling == "avg"  # its transformer alone


def test_an_old_sentence_transformers_folder_is_read(tiny_bert, tmp_path):
    folder, inner = tmp_path, tmp_path / "0_Transformer"
    shutil.copytree(tiny_bert, inner)
    kinds = {"0_Transformer": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    (inner / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 11, "do_lower_case": False}))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False})
    )
    layout = read_layout(folder)
    assert (layout.transformer, layout.pooling, layout.max_tokens, layout.normalise) == (
        inner,
        "cls_before_pooler",
        11,
        False,
    )


@pytest.mark.parametrize("head", [Head(32), Projection(32, 5), NormedHead(32)], ids=lambda head: type(head).__name__)
def test_a_head_is_saved_and_loaded_and_never_left_out(head, tiny_bert, tmp_path):
    encoder = TextEncoder.open(str(tiny_bert))
    plain = encoder.encode(TEXTS)
    encoder.put_head(head)
    record = json.loads(json.dumps(encoder.record()))
    encoder.save(tmp_path)
    (tmp_path / "contrapose.json").write_text(json.dumps({"encoders": {"encoder": {"folder": ".", **record}}}))
    assert encoder.encode(TEXTS).shape != plain.shape or np.abs(encoder.encode(TEXTS) - plain).max() > 0.01
    for loaded in (load_encoder(tmp_path, record), TextEncoder.open(str(tmp_path))):
        assert np.array_equal(loaded.encode(TEXTS), encoder.encode(TEXTS))
    assert compare_export(tmp_path, encoder, TEXTS) == {}
    (tmp_path / "head.safetensors").unlink()
    with pytest.raises(WeightsBroken, match=r"head\.safetensors"):
        load_encoder(tmp_path, record)


def test_the_checkpoints_own_pooler(tiny_bert, tmp_path):
    from transformers import BertModel

    encoder = TextEncoder.open(str(tiny_bert), pooling="cls")
    tokens = encoder.tokens(TEXTS)
    ids, mask = tokens.padded(0)
    with torch.no_grad():
        theirs = BertModel.from_pretrained(tiny_bert).eval()(input_ids=ids, attention_mask=mask.long()).pooler_output
        torch.testing.assert_close(encoder(tokens), theirs, rtol=0, atol=1e-5)
    encoder.save(tmp_path / "model")
    assert np.array_equal(load_encoder(tmp_path / "model", encoder.record()).encode(TEXTS), encoder.encode(TEXTS))

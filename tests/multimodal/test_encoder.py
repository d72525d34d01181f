"""Encoders of several modalities: what is missing, how they are named, and that a folder gives the same vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import contrapose
from contrapose.errors import (
    EncoderUnknown,
    ImageInvalid,
    SettingInvalid,
    SettingUnknown,
    UsageInvalid,
    ValuesUnfit,
    WeightsBroken,
)
from contrapose.image.encoder import ImageEncoder
from contrapose.multimodal.data import check_data, open_data, read_data
from contrapose.multimodal.encoder import (
    ColumnOptions,
    Modalities,
    ProjectedEncoder,
    VectorEncoder,
    load_encoder,
    open_encoder,
)
from contrapose.multimodal.evaluation import ZeroShot, zero_shot_scores
from contrapose.multimodal.symile import Symile
from contrapose.opening import open_encoder as open_by_name
from contrapose.text.encoder import TextEncoder

NAN = float("nan")
LEARNED = ColumnOptions(missing="learned")
TABLE = {
    "v": np.array([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]]),
    "w": np.eye(3),
    "words": ["a cat", "the dog", "a red tree"],
}


def test_vectors_go_through_the_layers_as_they_are_scaled() -> None:
    encoder = VectorEncoder(2, 3, ColumnOptions(hidden="4"), centre=[1.0, 0.0], deviation=2.0, seed=0)
    first, _, last = encoder.layers
    x = torch.tensor([[3.0, 1.0]])
    expected = last(torch.relu(first(torch.tensor([[1.0, 0.5]]))))
    torch.testing.assert_close(encoder(x), expected)
    assert first.bias is not None
    assert np.allclose(np.linalg.norm(encoder.encode(x.numpy()), axis=1), 1)


def test_a_missing_number_is_a_flag_and_a_learned_number() -> None:
    encoder = VectorEncoder(2, 3, LEARNED, centre=1.0, seed=0)
    torch.nn.init.constant_(encoder.placeholder, 0.7)
    (layer,) = encoder.layers
    torch.testing.assert_close(encoder(torch.tensor([[4.0, NAN]])), layer(torch.tensor([[3.0, 0.7, 0.0, 1.0]])))
    encoder(torch.tensor([[NAN, 2.0]])).sum().backward()
    assert encoder.placeholder.grad[0] != 0
    assert encoder.placeholder.grad[1] == 0
    assert np.isfinite(encoder.encode([None, [1.0, NAN]])).all()


def test_each_column_gets_its_own_weights_and_what_the_training_rows_say() -> None:
    table = read_data(TABLE)
    encoders = open_encoder("v=vectors,w=vectors", {"dim": 4, "v.scale": "entry", "v.hidden": "8,4"}, table)
    assert encoders["v"].centre.tolist() == [3.0, 5.0]
    assert encoders["v"].deviation.tolist() == [pytest.approx(8**0.5 / 3**0.5), 1.0]  # a constant entry is only centred
    assert [encoders["v"].options.hidden, encoders["w"].options.hidden] == [(8, 4), ()]
    same = open_encoder(None, {"scale": "none"}, read_data({"a": np.eye(2), "b": np.eye(2)}))
    assert not torch.equal(same["a"].layers[0].weight, same["b"].layers[0].weight)
    other = open_encoder(None, {"scale": "none", "seed": 1}, read_data({"a": np.eye(2), "b": np.eye(2)}))
    assert not torch.equal(same["a"].layers[0].weight, other["a"].layers[0].weight)


def test_a_record_gives_the_same_untrained_encoders_without_data() -> None:
    encoders = open_encoder(
        "v=vectors,w=vectors", {"dim": 4, "hidden": 5, "seed": 3, "missing": "learned"}, read_data(TABLE)
    )
    again = open_encoder(encoders.record(), {})
    assert again.record() == encoders.record()
    for name, tensor in encoders.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_what_is_said_beside_a_record_goes_before_it() -> None:
    encoders = open_encoder("v=vectors,w=vectors", {"dim": 4}, read_data(TABLE))
    for opened in (open_encoder, lambda given, options: open_by_name("multimodal", given, options)):
        changed = opened(encoders.record(), {"dim": "5", "v.hidden": "3"})
        assert (changed.dim, changed["v"].options.hidden, changed["w"].options.hidden) == (5, (3,), ())
        assert changed["v"].centre.tolist() == encoders["v"].centre.tolist()


def test_of_a_record_the_columns_that_are_named_anew_are_made_anew() -> None:
    encoders = open_encoder("v=vectors,w=vectors", {"dim": 4}, read_data(TABLE))
    renamed = {**encoders.record(), "name": "v=vectors"}
    assert list(open_encoder(renamed, {})) == ["v"]


@pytest.mark.parametrize(
    ("given", "options", "error", "said"),
    [
        ("v=vectors,v=vectors", {}, UsageInvalid, "once for each"),
        ("v=", {}, UsageInvalid, "'v=' does not say"),
        (17, {}, UsageInvalid, "encoder is a int"),
        ({"v": "vektors"}, {}, EncoderUnknown, "no encoder 'vektors' for column 'v'"),
        (None, {"hiden": 3}, SettingUnknown, "did you mean 'hidden'"),
        (None, {"v.dim": 3}, SettingUnknown, "'dim'"),
        (None, {"hidden": "0"}, SettingInvalid, "hidden"),
        ({"keys": "vectors"}, {}, UsageInvalid, "cannot be called 'keys'"),
    ],
)
def test_what_names_no_encoder_is_refused(given: Any, options: dict[str, Any], error: type, said: str) -> None:
    table = (
        read_data({"v": np.eye(3), "keys": np.eye(3)}, rename={})
        if given == {"keys": "vectors"}
        else read_data({"v": np.eye(3), "w": np.eye(3)})
    )
    with pytest.raises(error, match=said):
        open_encoder(given, options, table)


def test_encoders_that_end_in_several_dimensions_are_refused() -> None:
    with pytest.raises(UsageInvalid, match="'v' 4, 'w' 5"):
        Modalities({"v": VectorEncoder(2, 4), "w": VectorEncoder(2, 5)})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones((2, 3)), "3 numbers were given; this encoder takes 2"),
        ([[1.0, 2.0], [1.0]], "Value 1 holds 1 numbers where 2"),
        ([[1.0, 2.0], None], "Value 1 lacks numbers"),
        ([[1.0, "x"]], "Value 0 is"),
    ],
)
def test_values_that_do_not_fit_an_encoder_of_vectors_are_refused(values: Any, said: str) -> None:
    with pytest.raises(ValuesUnfit, match=said):
        VectorEncoder(2, 3, seed=0).encode(values)


@pytest.mark.parametrize("options", [ColumnOptions(), ColumnOptions(hidden=(4,), missing="learned")])
def test_a_folder_gives_the_same_vectors(options: ColumnOptions, tmp_path: Path) -> None:
    encoder = VectorEncoder(2, 3, options, centre=[0.5, 1.0], deviation=[2.0, 3.0])
    encoder.save(tmp_path)
    values = np.random.default_rng(0).normal(size=(5, 2))
    assert np.array_equal(load_encoder(tmp_path, encoder.record()).encode(values), encoder.encode(values))
    with pytest.raises(WeightsBroken):
        load_encoder(tmp_path, {**encoder.record(), "hidden": [4, 4]})


def test_a_text_encoder_stands_beside_vectors_by_its_name(tiny_bert: Path, tmp_path: Path) -> None:
    given = {"v": "vectors", "words": {"name": f"text:{tiny_bert}", "max_tokens": 16}}
    rows = {**TABLE, "words": ["a cat", None, "a red tree"]}
    settings = {"batch_size": 3, "steps": 2, "encoder.missing": "learned", "encoder.dim": 6}
    columns = {name: rows[name] for name in given}
    run = contrapose.train("symile", columns, encoder=given, out=tmp_path / "run", progress=False, settings=settings)
    words = run.config["encoder"]["encoders"]["words"]
    assert (words["modality"], words["encoder"]["max_tokens"]) == ("text", 16)
    vectors = run.model.encode(["a cat", None], encoder="words")
    assert vectors.shape == (2, 6)
    assert np.isfinite(vectors).all()
    scores = zero_shot_scores(run.model.encoders, {"v": TABLE["v"]}, "words", ["a cat", "the dog"])
    assert scores.shape == (3, 2)
    assert "--set encoder.words.max_tokens=16" in run.config["command"]
    untrained = open_by_name("multimodal", run.config["encoder"], {})
    assert untrained.record() == run.config["encoder"]
    assert "contrapose.load" in (run.folder.model / "README.md").read_text(encoding="utf-8")


def test_options_of_a_named_encoder_are_its_own(tiny_bert: Path) -> None:
    encoders = open_by_name(
        "multimodal", f"v=vectors,words=text:{tiny_bert}", {"words.layers": "1", "words.missing": "learned", "dim": "7"}, read_data(TABLE)
    )  # fmt: skip
    words = encoders["words"]
    assert (words.encoder.record()["layers"], words.takes_missing, encoders["v"].takes_missing) == (1, True, False)
    assert words.projection.in_features == words.encoder.dim + 1
    assert words.dim == encoders["v"].dim == 7


def test_an_unknown_modality_offers_the_nearest() -> None:
    with pytest.raises(UsageInvalid, match="did you mean 'text'"):
        open_by_name("multimodal", "v=vectors,words=texts:minilm", {}, read_data(TABLE))


def test_a_row_without_text_gets_a_learned_vector_and_a_flag(encoder: TextEncoder) -> None:
    projected = ProjectedEncoder(encoder, 4, missing="learned")
    torch.nn.init.constant_(projected.placeholder, 0.5)
    rows = read_data({"words": ["a cat", None], "v": [1, 2]})
    inputs = open_data(rows, Symile.card, Modalities({"words": projected, "v": VectorEncoder(1, 4)})).columns["words"]
    with torch.no_grad():
        found = projected.eval()(inputs[torch.tensor([1, 0])])
        missing = projected.projection(torch.cat([torch.full((encoder.dim,), 0.5), torch.ones(1)]))
        there = projected.projection(torch.cat([encoder(encoder.tokens(["a cat"]))[0], torch.zeros(1)]))
    torch.testing.assert_close(found, torch.stack([missing, there]))


def test_an_encoder_of_your_own_is_projected_and_said_not_to_be_rebuildable(encoder: TextEncoder) -> None:
    encoders = open_encoder({"words": encoder, "v": "vectors"}, {"dim": 5}, read_data(TABLE))
    assert isinstance(encoders["words"], ProjectedEncoder)
    assert encoders["words"].record()["own_module"]
    assert encoders["words"].encode(["a cat"]).shape == (1, 5)
    with pytest.raises(ValuesUnfit, match="Value 1 is missing"):
        encoders["words"].encode(["a cat", None])


@pytest.fixture
def encoder(tiny_bert: Path) -> TextEncoder:
    return TextEncoder.open(str(tiny_bert), max_tokens=16)


def test_a_picture_stands_beside_text_as_its_own_encoder_reads_it(tmp_path: Path) -> None:
    pictures = np.arange(4 * 64, dtype=np.uint8).reshape(4, 8, 8)
    given = {"picture": {"name": "image:mlp", "size": 8, "channels": 1, "width": 6}, "v": "vectors"}
    table = read_data({"picture": pictures, "v": np.eye(4)})
    encoders = open_by_name("multimodal", given, {"dim": 5}, table)
    data = open_data(table, Symile.card, encoders)
    assert np.array_equal(data.columns["picture"][torch.tensor([2, 0])][:, 0], pictures[[2, 0]])
    found = encoders["picture"].encode(list(pictures))
    assert found.shape == (4, 5)
    encoders["picture"].save(tmp_path)


@pytest.mark.parametrize(("content", "said"), [(b"no image", "2.png' is no image"), (None, "there is no file")])
def test_a_picture_that_cannot_be_read_is_named_before_training(
    content: bytes | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path / "cache"))
    for row in range(4):
        Image.fromarray(np.full((8, 8), 40 * row, np.uint8)).save(tmp_path / f"{row}.png")
    (tmp_path / "2.png").unlink()
    if content is not None:
        (tmp_path / "2.png").write_bytes(content)
    rows = "\n".join(f"{row}.png,{row}" for row in range(4))
    (tmp_path / "rows.csv").write_text(f"picture,age\n{rows}\n", encoding="utf-8")
    table = read_data(tmp_path / "rows.csv")
    given = {"picture": {"name": "image:mlp", "size": 8}, "age": "vectors"}
    encoders = open_by_name("multimodal", given, {"dim": 5}, table)
    with pytest.raises(ImageInvalid, match=rf"rows\.csv: column 'picture': .*{said}"):
        open_data(table, Symile.card, encoders)
    with pytest.raises(ImageInvalid, match=said):
        ZeroShot(tmp_path / "rows.csv").refuse(encoders)
    [problem] = check_data(table, Symile.card, encoders, 2).problems
    assert problem.stops
    assert said in problem.message


def test_pictures_are_decoded_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path))
    encoder = ImageEncoder.open("mlp", size=8)
    pictures = [np.full((8, 8, 3), 9, np.uint8), np.full((4, 6, 3), 7, np.uint8)]
    opened = [encoder.open_column(given) for given in (pictures, list(pictures), pictures[::-1])]
    assert len(list(tmp_path.rglob("*.npy"))) == 2
    for column, numbers in zip(opened, ((9, 7), (9, 7), (7, 9)), strict=True):
        assert column[torch.tensor([0, 1])].amax(dim=(1, 2, 3)).tolist() == list(numbers)


def test_paths_in_a_table_are_relative_to_its_file(tmp_path: Path) -> None:
    (tmp_path / "seen.png").touch()
    (tmp_path / "rows.csv").write_text("picture,age\nseen.png,3\n,4\n", encoding="utf-8")
    table = read_data(tmp_path / "rows.csv")
    assert table["picture"][0] == str(tmp_path / "seen.png")
    assert not table["picture"][1]

"""The encoder of sequences: against the official architecture written out, what padding and masks change, folders, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import contrapose
from contrapose.errors import (
    ContraposeError,
    EncoderUnknown,
    ItemUnknown,
    ModelFolderInvalid,
    SequenceInvalid,
    SettingInvalid,
    SettingUnknown,
    UsageInvalid,
    WeightsBroken,
)
from contrapose.sequence.data import read_data
from contrapose.sequence.encoder import EncoderOptions, SequenceEncoder, load_encoder, open_encoder
from tests.sequence.tiny import ENCODER, interactions

ITEMS = "abcdefgh"


def encoder(**options) -> SequenceEncoder:
    return SequenceEncoder(ITEMS, EncoderOptions(**{**ENCODER, **options})).eval()


def by_hand(model: SequenceEncoder, items: Tensor, lengths: Tensor) -> Tensor:
    """MCLRec's code: every place of every layer, masks of -10000, the state at the last place gathered at the end."""
    parts, heads = model.transformer, model.options.heads
    t = items.shape[1]
    states = parts.norm(parts.items(items) + parts.places.weight[:t])
    causal = torch.tril(torch.ones(t, t, dtype=states.dtype))
    barrier = (1 - (items > 0).to(states.dtype)[:, None, None] * causal) * -10000.0
    for block in parts.blocks:
        query = block.query(states)
        key, value = block.key_value(states).chunk(2, dim=-1)
        query, key, value = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in (query, key, value))
        weights = (query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1]) + barrier).softmax(dim=-1)
        context = block.out((weights @ value).transpose(1, 2).flatten(-2))
        attended = block.attended(context + states)
        states = block.fed(block.narrow(functional.gelu(block.wide(attended))) + attended)
    return states[torch.arange(len(items)), lengths - 1]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_state_at_the_last_place_is_the_official_architectures(layers: int) -> None:
    model = encoder(layers=layers).double()
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.5, generator=torch.Generator().manual_seed(weight.numel()))
    items = torch.tensor(
        [[3, 5, 1, 0, 0, 0], [2, 0, 4, 0, 6, 1], [7, 8, 0, 0, 0, 0], [0, 0, 3, 1, 0, 0], [4, 0, 0, 0, 0, 0]]
    )
    lengths = torch.tensor([3, 6, 4, 4, 1])  # rows 1 to 3 have masked items, row 2 at its end, row 3 at its start
    torch.testing.assert_close(model({"items": items, "lengths": lengths}), by_hand(model, items, lengths))


def test_a_row_does_not_depend_on_what_stands_beside_it() -> None:
    model = encoder()
    short, long = ["a", "b"], list("cdefgh")
    both = model.encode([short, long], batch_size=2)
    np.testing.assert_allclose(both, np.concatenate([model.encode([short]), model.encode([long])]), atol=1e-6)


def test_gradients_reach_every_weight_but_row_0_and_later_places() -> None:
    model = encoder(layers=2).train()
    vectors = model({"items": torch.tensor([[1, 2, 3, 0, 0, 0]]), "lengths": torch.tensor([3])})
    vectors.square().sum().backward()
    transformer = model.transformer
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert (transformer.items.weight.grad.abs().sum(dim=1) > 0).nonzero().flatten().tolist() == [1, 2, 3]
    assert (transformer.places.weight.grad.abs().sum(dim=1) > 0).nonzero().flatten().tolist() == [0, 1, 2]


def test_of_a_long_sequence_the_last_items_are_read() -> None:
    model = encoder(max_length=3)
    np.testing.assert_array_equal(model.encode([list("abcde")]), model.encode([list("cde")]))


def test_dropout_is_off_when_encoding_and_modes_are_put_back() -> None:
    model = encoder(dropout=0.5, attention_dropout=0.5).train()
    assert np.array_equal(model.encode([["a", "b"]]), model.encode([["a", "b"]]))
    assert model.training
    assert model.transformer.dropout.training


def test_the_likeliest_items_have_the_largest_products() -> None:
    model = encoder()
    scores = model.encode([["a", "b"], ["c"]]) @ model.item_vectors().T
    expected = [[ITEMS[item] for item in np.argsort(-row)[:3]] for row in scores]
    assert model.recommend([["a", "b"], ["c"]], k=3) == expected
    np.testing.assert_array_equal(model.item_vectors(["c", "a"]), model.item_vectors()[[2, 0]])
    with pytest.raises(UsageInvalid, match="from 1 to 8"):
        model.recommend([["a"]], k=9)


def test_unknown_items_are_refused_with_the_nearest_or_skipped() -> None:
    named = SequenceEncoder(["red mug", "blue mug"], EncoderOptions(**ENCODER))
    with pytest.raises(ItemUnknown, match="Sequence 1: the encoder has no item 'red mag'; did you mean 'red mug'"):
        named.encode([["red mug"], ["blue mug", "red mag"]])
    with pytest.raises(ItemUnknown, match="it has 2"):
        named.item_vectors(["zzz"])
    skipping = encoder(unknown="skip")
    np.testing.assert_array_equal(skipping.encode([["a", "?", "b"]]), skipping.encode([["a", "b"]]))


@pytest.mark.parametrize(
    ("values", "says"),
    [([["a"], []], "Sequence 1 is empty"), (["ab"], "Value 0 is 'ab', not a list"), ([7], "Value 0 is 7")],
)
def test_what_cannot_be_encoded(values: list, says: str) -> None:
    with pytest.raises(SequenceInvalid, match=says):
        encoder().encode(values)


def test_a_sequence_of_unknown_items_alone() -> None:
    with pytest.raises(SequenceInvalid, match="no item that the encoder knows"):
        encoder(unknown="skip").encode([["?"]])


@pytest.mark.parametrize(("items", "lengths"), [([[1, 2]], [0]), ([[1, 2]], [3]), ([[1, 9]], [2]), ([[-1, 2]], [2])])
def test_lengths_and_numbers_that_there_are_not(items: list, lengths: list) -> None:
    with pytest.raises(SequenceInvalid):
        encoder()({"items": torch.tensor(items), "lengths": torch.tensor(lengths)})


def test_no_items_or_one_twice() -> None:
    for items in ("", "aba"):
        with pytest.raises(SequenceInvalid, match="each once"):
            SequenceEncoder(items)


# ----------------------------------------------------------------------------------------------- opening, saving, loading


def test_items_come_from_the_table_and_rare_ones_are_left_out() -> None:
    table = read_data({"item": [list("aab"), list("abc")]})
    assert open_encoder(None, {}, table).items == ("a", "b", "c")
    assert open_encoder("transformer", {"min_count": "2", "unknown": "skip"}, table).items == ("a", "b")
    with pytest.raises(SequenceInvalid, match="lower"):
        open_encoder(None, {"min_count": 9, "unknown": "skip"}, table)


def test_a_record_rebuilds_the_same_weights() -> None:
    first = open_encoder({**ENCODER, "seed": 3}, {}, read_data(interactions()))
    again = open_encoder(json.loads(json.dumps(first.record())), {})
    other = open_encoder({**first.record(), "seed": 4}, {})
    assert again.record() == first.record()
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.transformer.items.weight, other.transformer.items.weight)


def test_a_saved_encoder_is_read_back_and_can_be_started_from(tmp_path: Path) -> None:
    run = contrapose.train(
        "sasrec", interactions(), encoder=ENCODER, out=tmp_path / "run", progress=False, steps=2, batch_size=8
    )
    folder = tmp_path / "run" / "model"
    assert json.loads((folder / "items.json").read_text()) == list(run.model.encoder().items)
    again = open_encoder(str(tmp_path / "run"), {"dropout": 0.3})
    values = [["a", "b"], ["c"]]
    np.testing.assert_array_equal(again.encode(values), run.model.encode(values))
    assert again.options.dropout == 0.3
    rebuilt = open_encoder(again.record(), {})
    np.testing.assert_array_equal(rebuilt.encode(values), run.model.encode(values))
    with pytest.raises(UsageInvalid, match=r"encoder\.dim=16 does not fit .* have 8"):
        open_encoder(str(folder), {"dim": 16})
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(WeightsBroken, match=r"model\.safetensors"):
        load_encoder(folder, again.record())


REFUSED = {
    "a name": (("sasrce", {}), EncoderUnknown, "'sasrce' is neither"),
    "an object": ((17, {}), UsageInvalid, "is a int"),
    "no items": ((None, {}), UsageInvalid, "takes its items from the data"),
    "a setting": (("transformer", {"dims": 3}), SettingUnknown, "did you mean 'dim'"),
    "heads": (("transformer", {"dim": 9, "heads": 2}), SettingInvalid, "heads 2 do not divide dim 9"),
    "rare but refused": (("transformer", {"min_count": 5}), SettingInvalid, "unknown=skip"),
    "made already": ((SequenceEncoder("ab"), {"dim": 8}), UsageInvalid, "made already"),
}


@pytest.mark.parametrize(("given", "error", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_encoder(given: tuple, error: type[ContraposeError], says: str) -> None:
    with pytest.raises(error, match=says):
        open_encoder(*given)


def test_a_folder_of_another_modality(tmp_path: Path) -> None:
    (tmp_path / "contrapose.json").write_text('{"encoders": {"encoder": {"name": "minilm"}}}')
    with pytest.raises(ModelFolderInvalid, match="no encoder of sequences"):
        open_encoder(str(tmp_path))


def test_of_no_sequences_there_are_no_vectors() -> None:
    encoder = SequenceEncoder("abc", EncoderOptions(**ENCODER)).eval()
    assert encoder.encode([], progress=False).shape == (0, encoder.dim)
    assert encoder.recommend([], k=2, progress=False) == []
    none = {"items": torch.zeros(0, 3, dtype=torch.long), "lengths": torch.zeros(0, dtype=torch.long)}
    assert encoder(none).shape == (0, encoder.dim)

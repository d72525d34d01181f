"""Leave-one-out among all items: by hand, beside its controls, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

import contrapose
from contrapose.errors import HeldOutLearned, ItemUnknown, ProtocolDataInvalid, ProtocolUnknown, UserTooShort
from contrapose.sequence._counts import Counts
from contrapose.sequence.data import core, read_data
from contrapose.sequence.encoder import EncoderOptions, SequenceEncoder, open_encoder
from contrapose.sequence.evaluation import NextItem, open_protocol, protocol_columns
from tests.sequence.tiny import ENCODER, interactions

TABLE = read_data({"user": ["u", "v", "w"], "item": [list("abcd"), list("bcd"), list("cabad")]})


def encoder(items: str = "abcd", **options) -> SequenceEncoder:
    return SequenceEncoder(items, EncoderOptions(**{**ENCODER, **options})).eval()


@pytest.mark.parametrize(("name", "held_out"), [("next_item", 1), ("next_item_dev", 2)])
def test_the_held_out_item_among_all_by_what_comes_before(name: str, held_out: int) -> None:
    model = encoder()
    found = open_protocol(name, TABLE, None, None).rank(model, (2,))
    for row, sequence in enumerate(["abcd", "bcd", "cabad"]):
        scores = (model.encode([list(sequence[:-held_out])]) @ model.item_vectors().T)[0]
        rank = 1 + int((scores > scores["abcd".index(sequence[-held_out])]).sum())
        assert found["HR@2"][row] == (rank <= 2)
        assert found["NDCG@2"][row] == pytest.approx((rank <= 2) / math.log2(1 + rank))
        assert found["MRR"][row] == pytest.approx(1 / rank)


def test_controls_count_what_is_not_held_out() -> None:
    counts = Counts.of(np.array([1, 2, 3, 4, 2, 3, 4, 3, 1, 2, 1, 4]), np.array([0, 4, 7, 12]), 4, 2)
    assert counts.popularity.tolist() == [2, 3, 1, 0]  # of "ab", "b", "cab"
    assert counts.successors.toarray().tolist() == [[0, 2, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    after_b = counts.after(np.array([1]))[0]
    assert (np.argsort(-after_b) == [1, 0, 2, 3]).all()  # nothing followed: the most popular


def test_systems_stand_beside_the_controls() -> None:
    protocol = open_protocol("next_item", TABLE, None, None)
    entry = protocol.evaluate({"untrained": encoder(), "trained": encoder(seed=1)})
    assert list(entry["result"]["systems"]) == ["untrained", "most popular", "most frequent successor", "trained"]
    assert entry["examples"][0]["query"] == "a → b → c"
    assert entry["examples"][0]["answer"] == "d"
    assert len(entry["examples"][0]["after"]) == 3
    assert "3 users, each item ranked among all 4" in entry["result"]["description"]


def test_items_that_the_encoder_skips_count_as_missed() -> None:
    table = read_data({"user": ["u", "v"], "item": [list("abcd"), list("cdaba")]})
    found = open_protocol("next_item", table, None, None).rank(encoder("abc", unknown="skip"))
    assert found["MRR"][0] == 0
    assert found["MRR"][1] > 0


def test_the_encoder_knows_none_of_the_items() -> None:
    protocol = open_protocol("next_item", TABLE, None, None)
    with pytest.raises(ProtocolDataInvalid, match="knows none"):
        protocol.rank(encoder("xyz", unknown="skip"))
    with pytest.raises(ItemUnknown, match=r"row 0 of the dict .* no item 'a'"):
        protocol.rank(encoder("bcd"))


def test_a_user_with_two_interactions() -> None:
    with pytest.raises(UserTooShort, match=r"row 1 of the dict \(user '1'\) has 2 interaction"):
        NextItem("next_item", read_data({"item": [list("abc"), list("ab"), list("a")]}))


def test_an_unknown_protocol_and_the_columns_of_known_ones() -> None:
    with pytest.raises(ProtocolUnknown, match="did you mean 'next_item'"):
        open_protocol("next_itm", TABLE, None, None)
    assert protocol_columns(["next_item", "nothing"]) == {"item", "user", "time"}


def test_what_is_learned_is_not_measured(tmp_path: Path) -> None:
    rows = interactions()
    call = {"encoder": ENCODER, "out": tmp_path / "run", "progress": False, "steps": 1, "batch_size": 8}
    with pytest.raises(HeldOutLearned, match="leave_out=1 learns from; set leave_out=2"):
        contrapose.train("sasrec", rows, select={"next_item_dev": rows}, leave_out=1, **call)
    assert not (tmp_path / "run").exists()
    run = contrapose.train("sasrec", rows, select={"next_item_dev": rows}, on={"next_item": rows}, **call)
    assert set(run.results[0].systems) == {"untrained", "most popular", "most frequent successor", "trained"}


@pytest.mark.parametrize("call", ["on", "select"])
def test_an_item_that_was_never_trained_on_is_refused_before_training(call: str, tmp_path: Path) -> None:
    other = {"item": [["a", "never seen", "b"]]}
    name = {"on": "next_item", "select": "next_item_dev"}[call]
    with pytest.raises(ItemUnknown, match="no item 'never seen'"):
        contrapose.train(
            "mclrec", interactions(), encoder=ENCODER, out=tmp_path / "run", progress=False, **{call: {name: other}}
        )
    assert not (tmp_path / "run").exists()


def test_the_core_of_a_table_is_trained_and_measured_on(tmp_path: Path) -> None:
    table = core(read_data(interactions(40)), 4)
    run = contrapose.train(
        "sasrec",
        table,
        encoder=ENCODER,
        out=tmp_path / "run",
        on={"next_item": table},
        progress=False,
        steps=1,
        batch_size=8,
    )
    assert run.results[0].rows == len(table) < 40


def test_columns_are_renamed_as_those_of_the_training_data(tmp_path: Path) -> None:
    rows = [{"who": row["user"], "what": row["item"], "time": row["time"]} for row in interactions()]
    protocol = open_protocol("next_item", rows, {"user": "who", "item": "what"}, None)
    assert protocol.fingerprint == read_data(rows, rename={"user": "who", "item": "what"}).fingerprint
    assert protocol.score(open_encoder(ENCODER, {}, protocol.table)) > 0

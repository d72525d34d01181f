"""Zero-shot prediction, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from contrapose.errors import ColumnMissing, ProtocolDataInvalid, ProtocolUnknown, ShapesDiffer, ValueMissing
from contrapose.multimodal.data import read_data
from contrapose.multimodal.encoder import ColumnOptions, Modalities, Rule, VectorEncoder
from contrapose.multimodal.evaluation import ZeroShot, open_protocol, protocol_columns, zero_shot_scores


def plain(size: int = 2, **options: Any) -> VectorEncoder:
    """Vectors as they are."""
    encoder = VectorEncoder(size, 2, ColumnOptions(**options), seed=0)
    weight = encoder.layers[0].weight.data.zero_()
    weight[:, :2] = weight.new_tensor([[1.0, 0.0], [0.0, 1.0]])
    encoder.layers[0].bias.data.zero_()
    return encoder


ENCODERS = Modalities({"x": plain(), "y": plain(), "z": plain()})
X, Y = [[3.0, 4.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 2.0]]
CANDIDATES = [[0.0, 5.0], [1.0, 0.0], [-2.0, 0.0]]


def test_scores_are_products_or_sums_of_unit_vectors() -> None:
    product = zero_shot_scores(ENCODERS, {"x": X, "y": Y}, "z", CANDIDATES, rule=Rule("product"))
    assert product == pytest.approx(np.array([[0, 0.6, -0.6], [0, 0, 0]]), abs=1e-6)
    total = zero_shot_scores(ENCODERS, {"x": X, "y": Y}, "z", CANDIDATES, rule=Rule("sum"))
    assert total == pytest.approx(np.array([[0.8, 1.6, -1.6], [1, 1, -1]]), abs=1e-6)
    one = zero_shot_scores(ENCODERS, {"x": X}, "z", CANDIDATES)
    assert one == pytest.approx(np.array([[0.8, 0.6, -0.6], [0, 1, -1]]), abs=1e-6)


def test_queries_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ShapesDiffer, match="'x' 2, 'y' 1"):
        zero_shot_scores(ENCODERS, {"x": X, "y": Y[:1]}, "z", CANDIDATES)
    with pytest.raises(ShapesDiffer):
        zero_shot_scores(ENCODERS, {"z": X}, "z", CANDIDATES)
    with pytest.raises(ColumnMissing, match="no encoder 'w'"):
        zero_shot_scores(ENCODERS, {"x": X}, "w", CANDIDATES)


ROWS = {
    "x": np.array([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0], [1.0, 1.0]]),
    "y": np.array([[1.0, 1.0], [1.0, 1.0], [1.0, -1.0], [1.0, 1.0]]),
    "z": np.array([[1.0, 1.0], [1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]]),
}


def test_candidates_are_the_distinct_values_and_the_rows_own_is_right() -> None:
    ranked = ZeroShot(ROWS, {"target": "z"}).rank(ENCODERS, Rule("product"))
    assert list(ranked) == ["z"]
    assert ranked["z"].candidates == 3
    assert ranked["z"]["accuracy@1"].tolist() == [
        1,
        1,
        1,
        0,
    ]  # the last row's product is (1, 1): its own is second or third
    every = ZeroShot(ROWS).rank(ENCODERS, Rule("product"))
    assert {name: each.candidates for name, each in every.items()} == {"x": 2, "y": 2, "z": 3}


def test_values_of_all_rows_of_a_group_are_right() -> None:
    ranked = ZeroShot({**ROWS, "group_id": [0, 1, 2, 0]}, {"target": "z"}).rank(ENCODERS, Rule("product"))
    assert ranked["z"]["accuracy@1"].tolist() == [1, 1, 1, 1]


def test_the_result_stands_beside_the_most_frequent_values_of_the_training_rows() -> None:
    training = read_data({**ROWS, "z": np.array([[-1.0, 1.0]] * 3 + [[1.0, 1.0]])})
    protocol = open_protocol("zero_shot", ROWS, {"target": "z"}, training)
    found = protocol.evaluate({"untrained": ENCODERS, "trained": ENCODERS})["result"]["systems"]
    assert found["most frequent"]["accuracy@1 z"]["value"] == 0.25
    assert found["trained"]["accuracy@1 z"]["value"] == protocol.score(ENCODERS) == 0.75


def test_rows_without_the_modality_are_left_out_where_it_is_predicted() -> None:
    encoders = Modalities({"x": plain(), "y": plain(), "z": plain(missing="learned")})
    rows = {**ROWS, "z": np.concatenate([ROWS["z"][:3], [[np.nan, np.nan]]])}
    protocol = ZeroShot(rows)
    protocol.refuse(encoders)
    ranked = protocol.rank(encoders, Rule("product"))
    assert len(ranked["z"]["mrr"]) == 3
    assert len(ranked["x"]["mrr"]) == 4
    with pytest.raises(ValueMissing, match="row 3"):
        protocol.refuse(ENCODERS)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ProtocolUnknown, match="zero_shot"):
        open_protocol("zero-shot", ROWS, None, None)
    with pytest.raises(ProtocolDataInvalid, match="no modality 'w'"):
        ZeroShot(ROWS, {"target": "w"}).refuse(ENCODERS)
    with pytest.raises(ColumnMissing, match="no column 'z'"):
        ZeroShot({"x": ROWS["x"], "y": ROWS["y"]}).refuse(ENCODERS)
    constant = {**ROWS, "z": np.ones((4, 2))}
    with pytest.raises(ProtocolDataInvalid, match="'z' has 1 distinct value"):
        ZeroShot(constant).refuse(ENCODERS)
    ZeroShot(constant, {"target": "x"}).refuse(ENCODERS)
    assert protocol_columns(["zero_shot", "unknown"]) == {"target"}


def test_columns_are_renamed_where_they_are_called_otherwise() -> None:
    rows = {"x": ROWS["x"], "y": ROWS["y"], "sound": ROWS["z"]}
    assert ZeroShot(rows, {"z": "sound", "target": "z"}).score(ENCODERS) == 0.75

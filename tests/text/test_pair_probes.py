"""SentEval's probes of texts: ten folds, and what |u − v| and u∘v tell of two sentences."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from contrapose.errors import ColumnMissing, ProtocolDataInvalid, ValueKind
from contrapose.evaluation import Result, linear_probe, probes, ridge_probe
from contrapose.text.evaluation import open_protocol

CONTROLS = ["untrained", "TF-IDF, words", "TF-IDF, characters"]
WORDS = ["cat", "dog", "house", "river", "tree", "old", "mat", "blue"]


class Letters:
    """An encoder that counts letters; `only` those of it."""

    def __init__(self, only: str = "abcdefghijklmnopqrstuvwxyz") -> None:
        self.only, self.given = only, []

    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        self.given += texts
        return np.array([[text.count(letter) for letter in self.only] for text in texts], dtype=np.float32)


def sentences(rows: int = 120) -> list[dict[str, object]]:
    """Pairs that share two words or none; the label says which, the score how many letters are shared."""
    draw, found = np.random.default_rng(0), []
    for row in range(rows):
        first, second, third, fourth = draw.permutation(WORDS)[:4]
        same = row % 2 == 0
        one, other = f"{first} {second} {row}", f"{second} {first}" if same else f"{third} {fourth}"
        found.append(
            {
                "sentence1": one,
                "sentence2": other,
                "label": ["other", "same"][same],
                "score": 4.0 * same + draw.random(),
            }
        )
    return found


def halved(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return [{**row, "split": "test" if number >= len(rows) // 2 else "train"} for number, row in enumerate(rows)]


def features(encoder: Letters, rows: list[dict[str, object]]) -> np.ndarray:
    u, v = (encoder.encode([row[side] for row in rows]) for side in ("sentence1", "sentence2"))
    return np.concatenate([abs(u - v), u * v], axis=1)


def evaluated(name: str, rows: object) -> Result:
    systems = {"untrained": Letters("aeiou"), "trained": Letters()}
    entry = open_protocol(name, rows, None, None).evaluate(systems)
    return Result.from_record(json.loads(json.dumps(entry["result"], allow_nan=False)))


def test_pairs_are_told_apart_by_a_linear_probe_of_difference_and_product():
    rows = halved(sentences())
    protocol = open_protocol("pair_probe", rows, None, None)
    read = features(Letters(), rows)
    labels = np.array([row["label"] for row in rows])
    expected = linear_probe(read[:60], labels[:60], read[60:])
    assert protocol.score(Letters()) == (expected == labels[60:]).mean()
    found = evaluated("pair_probe", rows)
    assert list(found.systems) == [*CONTROLS, "majority class", "trained"]
    assert found.systems["trained"]["accuracy"].value == protocol.score(Letters()) > 0.9
    assert "60 training and 60 test rows" in found.description


def test_tfidf_of_words_tells_pairs_that_share_words():
    assert evaluated("pair_probe", sentences()).systems["TF-IDF, words"]["accuracy"].value > 0.9


def test_the_order_of_the_two_sentences_does_not_matter():
    rows = halved(sentences())
    turned = [{**row, "sentence1": row["sentence2"], "sentence2": row["sentence1"]} for row in rows]
    for name in ("pair_probe", "pair_regression"):
        one, other = (open_protocol(name, each, None, None).score(Letters("aeiou")) for each in (rows, turned))
        assert one == pytest.approx(other)


def test_a_pair_that_stands_there_twice_stays_on_one_side():
    rows = sentences(80)
    rows += [{**row, "sentence1": row["sentence2"], "sentence2": row["sentence1"]} for row in rows]
    sides = open_protocol("pair_probe", rows, None, None).labelled
    assert {row % 80 for row in sides.train}.isdisjoint({row % 80 for row in sides.test})
    protocol = open_protocol("pair_regression", rows, None, None)
    assert {row % 80 for row in protocol.train}.isdisjoint({row % 80 for row in protocol.test})


def test_a_text_of_several_pairs_is_encoded_once():
    encoder = Letters()
    rows = [{**row, "sentence1": f"the same {number % 5}"} for number, row in enumerate(sentences())]
    open_protocol("pair_probe", rows, None, None).score(encoder)
    assert len(encoder.given) == len(set(encoder.given))


def test_scores_are_predicted_by_ridge_regression():
    rows = halved(sentences())
    read, scores = features(Letters(), rows), np.array([row["score"] for row in rows])
    predicted = ridge_probe(read[:60], scores[:60], read[60:])
    expected = stats.spearmanr(predicted, scores[60:]).statistic
    assert open_protocol("pair_regression", rows, None, None).score(Letters()) == pytest.approx(expected)
    found = evaluated("pair_regression", rows)
    assert list(found.systems) == [*CONTROLS, "mean of training", "trained"]
    assert found.metrics == ["spearman", "R2", "MAE"]
    assert found.systems["trained"]["spearman"].value == pytest.approx(expected)
    assert found.systems["mean of training"]["spearman"].value == 0
    assert found.systems["TF-IDF, words"]["spearman"].value > 0.7


def test_no_test_score_has_a_say_in_a_prediction():
    rows = halved(sentences())
    other = [row if row["split"] == "train" else {**row, "score": 5.0 - row["score"]} for row in rows]
    read = features(Letters(), rows)
    first, second = (open_protocol("pair_regression", each, None, None).predicted(read) for each in (rows, other))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("name", "rows", "error", "named"),
    [
        (
            "pair_probe",
            [{**row, "label": "same"} for row in sentences(20)],
            ProtocolDataInvalid,
            "have the label 'same'",
        ),
        ("pair_probe", [{"sentence1": "a", "label": "x"}], ColumnMissing, "sentence2"),
        ("pair_regression", [{**row, "score": 3} for row in sentences(20)], ProtocolDataInvalid, "different scores"),
        ("pair_regression", halved(sentences(20))[:11], ProtocolDataInvalid, "1 of 11 pairs are for 'test'"),
        ("pair_regression", [{**row, "score": "high"} for row in sentences(20)], ValueKind, "score"),
    ],
)
def test_pairs_that_tell_nothing_are_refused(name, rows, error, named):
    with pytest.raises(error, match=named):
        open_protocol(name, rows, None, None)


def test_ten_folds_predict_every_text_from_the_nine_others(monkeypatch):
    monkeypatch.setattr(probes, "STRENGTHS", (1.0,))  # there are fits enough
    texts = [f"{word} {row} {' '.join('xyz'[row % 3] * (row % 4 + 1))}" for row in range(15) for word in WORDS[:2]]
    rows = [{"text": text, "label": text.split()[0], "split": "train"} for text in texts]
    protocol = open_protocol("probe_folds", rows, None, None)
    vectors, labels = Letters().encode(texts), np.array([row["label"] for row in rows])
    right = []
    for part in protocol.parts:
        said = linear_probe(vectors[part.train], labels[part.train], vectors[part.test])
        right += (said == labels[part.test]).tolist()
    assert (len(protocol.parts), len(right)) == (10, 30)
    found = Result.from_record(protocol.evaluate({"trained": Letters()})["result"])
    assert (found.protocol, found.rows) == ("probe_folds", 30)
    assert list(found.systems) == [*CONTROLS[1:], "majority class", "trained"]
    assert "30 rows, divided into 10 folds" in found.description
    assert found.systems["trained"]["accuracy"].value == np.mean(right)

"""Protocols on texts: what is read, what stands beside the encoder, what the description says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.feature_extraction.text import TfidfVectorizer

from contrapose.data.readers import read
from contrapose.errors import ColumnMissing, ProtocolDataInvalid, ProtocolUnknown, ValueMissing
from contrapose.evaluation import Result, length_bias
from contrapose.text._tfidf import UNITS, tfidf_features, tfidf_vectors
from contrapose.text.encoder import TextEncoder
from contrapose.text.evaluation import open_protocol, protocol_columns

PAIRS = [
    ("the cat sat", "the cat sat down", 4.5),
    ("a red house", "a blue house by the river", 3.0),
    ("dogs run", "the cat sleeps under the old tree today", 0.5),
    ("a small tree", "one small tree", 4.8),
    ("the river is large", "dogs sleep", 0.0),
    ("it runs over the mat", "it runs over a mat", 4.0),
    ("green and blue", "the dog runs to the new green house", 1.5),
    ("the old house", "the old house", 5.0),
]
RATED = [{"sentence1": one, "sentence2": other, "score": score} for one, other, score in PAIRS]
CONTROLS = ["untrained", "TF-IDF, words", "TF-IDF, characters"]


class Letters:
    """An encoder that counts letters; `only` those of it. Remembers what it was given."""

    def __init__(self, only: str = "abcdefghijklmnopqrstuvwxyz") -> None:
        self.only, self.given = only, []

    def encode(self, texts: Sequence[str], **_: object) -> np.ndarray:
        self.given += texts
        return np.array([[text.count(letter) for letter in self.only] for text in texts], dtype=np.float32)


def labelled(rows: int = 40) -> list[dict[str, str]]:
    """Texts about animals and texts about houses, told apart by a word."""
    words = {"animal": ["cat", "dog"], "house": ["roof", "door"]}
    texts = [(label, f"{words[label][row % 2]} number {row}") for row in range(rows // 2) for label in words]
    return [{"text": text, "label": label} for label, text in texts]


def result(entry: dict) -> Result:
    return Result.from_record(json.loads(json.dumps(entry["result"], allow_nan=False)))


def evaluated(name: str, source: object, training: object = None, **more: object) -> Result:
    training = None if training is None else read(training)
    protocol = open_protocol(name, source, more.get("columns"), training)
    return result(protocol.evaluate({"untrained": Letters("aeiou"), "trained": Letters()}))


# ----------------------------------------------------------------------------------------------------------------- sts


def test_sts_stands_beside_its_controls():
    found = evaluated("sts", RATED)
    assert list(found.systems) == [*CONTROLS, "trained"]
    assert found.metrics == ["spearman", "length bias", "length gap"]
    assert found.rows == 8


def test_sts_is_spearman_of_cosines():
    one, other = (Letters().encode([row[side] for row in RATED]) for side in ("sentence1", "sentence2"))
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    gold = [row["score"] for row in RATED]
    scores = evaluated("sts", RATED).systems["trained"]
    assert scores["spearman"].value == pytest.approx(stats.spearmanr(cosines, gold).statistic)
    lengths = [[len(row[side].split()) for side in ("sentence1", "sentence2")] for row in RATED]
    expected = length_bias(cosines, gold, lengths)
    assert (scores["length bias"].value, scores["length gap"].value) == pytest.approx(
        (expected["partial"], expected["gap"]), abs=1e-6
    )


def test_sts_splits_texts_at_white_space_and_joins_them_by_single_spaces():
    encoder = Letters()
    open_protocol("sts", [{**RATED[0], "sentence1": "  the\tcat \n sat "}, *RATED[1:]], None, None).cosines(encoder)
    assert encoder.given[0] == "the cat sat"


def test_sts_encodes_a_text_once():
    encoder = Letters()
    open_protocol("sts", RATED, None, None).cosines(encoder)
    assert len(encoder.given) == len(set(encoder.given)) == 15


def test_sts_cuts_no_text_and_leaves_the_encoder_its_limit(tiny_bert: Path):
    short, long = (TextEncoder.open(str(tiny_bert), max_tokens=limit) for limit in (4, 64))
    protocol = open_protocol("sts", RATED, None, None)
    np.testing.assert_allclose(protocol.cosines(short), protocol.cosines(long), atol=1e-6)
    assert short.max_tokens == 4
    assert not np.allclose(short.encode([RATED[2]["sentence2"]]), long.encode([RATED[2]["sentence2"]]))


def test_sub_sets_bring_the_older_aggregations_by_name():
    rows = [{**row, "subset": "even" if number % 2 else "odd"} for number, row in enumerate(RATED)]
    found = evaluated("sts", rows)
    assert found.metrics[:3] == ["spearman all", "spearman mean", "spearman wmean"]
    assert "mean over 2 sub-sets" in found.description
    whole = evaluated("sts", RATED).systems["trained"]["spearman"].value
    assert found.systems["trained"]["spearman all"].value == whole


def test_pairs_without_a_gold_score_are_left_out_and_counted(tmp_path: Path):
    lines = ["sentence1,sentence2,score", *(f"{one},{other},{score}" for one, other, score in PAIRS), "a cat,a dog,"]
    (tmp_path / "pairs.csv").write_text("\n".join(lines), encoding="utf-8")
    found = evaluated("sts", tmp_path / "pairs.csv")
    assert found.rows == 8
    assert "8 gold scores (1 without one are left out)" in found.description


def test_the_gap_is_left_out_where_scores_are_not_from_zero_to_five():
    for factor in (0.2, 20.0):
        rows = [{**row, "score": factor * row["score"]} for row in RATED]
        found = evaluated("sts", rows)
        assert found.metrics == ["spearman", "length bias"]
        assert "length gap" not in found.description
        assert found.systems["trained"]["length bias"] == evaluated("sts", RATED).systems["trained"]["length bias"]


def test_length_is_left_out_where_all_pairs_are_near():
    found = evaluated(
        "sts", [row for row in RATED if abs(len(row["sentence1"].split()) - len(row["sentence2"].split())) <= 3]
    )
    assert found.metrics == ["spearman"]
    assert "length bias" not in found.description


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([{**row, "score": 3} for row in RATED], "all 8 scores are 3"),
        ([{**row, "score": None} for row in RATED], "no pair has a score"),
        ([{**row, "subset": "ab"[row["score"] > 4.6]} for row in RATED[:4]], "sub-set 'b' has 1 pairs"),
    ],
)
def test_scores_that_rank_nothing_are_refused(rows, named):
    with pytest.raises(ProtocolDataInvalid, match=named):
        open_protocol("sts", rows, None, None)


def test_an_empty_sentence_is_refused_and_not_left_out():
    with pytest.raises(ValueMissing, match="sentence2"):
        open_protocol("sts", [{**RATED[0], "sentence2": " "}, *RATED[1:]], None, None)


# -------------------------------------------------------------------------------------------------------------- TF-IDF


def by_hand(fitted: list[str], texts: list[str]) -> np.ndarray:
    """Unit vectors of words: 1 + log count, times 1 + log((1 + n) / (1 + texts that have the word)); 0 of them for a new word."""
    words = sorted({word for text in (*fitted, *texts) for word in text.split()})
    rows = []
    for text in texts:
        row = []
        for word in words:
            count, having = text.split().count(word), sum(word in other.split() for other in fitted)
            row.append((1 + np.log(count)) * (1 + np.log((1 + len(fitted)) / (1 + having))) if count else 0.0)
        rows.append(np.array(row) / np.linalg.norm(row))
    return np.array(rows)


def test_tfidf_counts_a_word_that_no_fitted_text_has_as_the_rarest():
    fitted, texts = ["the cat", "the dog the", "a cat"], ["the cat zebra", "zebra zebra the", "new words"]
    (vectors,) = tfidf_vectors(fitted, [texts], "word")
    expected = by_hand(fitted, texts)
    np.testing.assert_allclose(np.sort(vectors.toarray(), axis=1), np.sort(expected, axis=1), atol=1e-12)
    np.testing.assert_allclose((vectors @ vectors.T).toarray(), expected @ expected.T, atol=1e-12)


@pytest.mark.parametrize("unit", UNITS)
def test_tfidf_is_that_of_scikit_learn_where_no_word_is_new(unit):
    texts = [row["sentence1"] for row in RATED]
    kind = {"token_pattern": r"\b\w+\b"} if unit == "word" else {"analyzer": "char_wb", "ngram_range": (2, 4)}
    theirs = TfidfVectorizer(sublinear_tf=True, **kind).fit_transform(texts)
    np.testing.assert_allclose(tfidf_vectors(texts, [texts], unit)[0].toarray(), theirs.toarray(), atol=1e-12)


def test_tfidf_takes_its_weights_from_the_training_texts():
    rows = [{"text": "the cat"}, {"text": "the dog"}, {"text": "the house"}]
    alone, trained = evaluated("sts", RATED), evaluated("sts", RATED, rows)
    assert "weights from the evaluated texts" in alone.description
    assert "weights from the training texts" in trained.description
    assert alone.systems["TF-IDF, words"] != trained.systems["TF-IDF, words"]
    assert alone.systems["trained"] == trained.systems["trained"]


def test_features_of_a_classifier_know_no_word_of_the_test():
    train, test = tfidf_features(["the cat", "the dog"], ["the zebra", "zebra"], "word")
    assert train.shape == (2, 3)
    assert (test != 0).sum(axis=1).ravel().tolist() == [[1, 0]]


# -------------------------------------------------------------------------------------------------------------- probes


@pytest.mark.parametrize("name", ["probe", "knn"])
class TestProbes:
    def test_they_stand_beside_their_controls(self, name):
        found = evaluated(name, labelled())
        assert list(found.systems) == [*CONTROLS, "majority class", "trained"]
        assert found.metrics == ["accuracy", "macro-F1"]
        assert found.systems["majority class"]["accuracy"].value == 0.5
        assert found.systems["TF-IDF, words"]["accuracy"].value == 1
        assert found.systems["trained"]["accuracy"].value > 0.9

    def test_the_description_says_how_rows_were_divided(self, name):
        found = evaluated(name, labelled())
        assert found.rows == 10
        assert (
            "30 training and 10 test rows, divided a quarter of each label drawn for testing (seed 0)"
            in found.description
        )
        split = [{**row, "split": "test" if number >= 20 else "train"} for number, row in enumerate(labelled())]
        found = evaluated(name, split)
        assert found.rows == 20
        assert "20 training and 20 test rows, divided by the column `split`" in found.description

    def test_changing_test_labels_changes_no_prediction(self, name):
        rows = [{**row, "split": "test" if number >= 20 else "train"} for number, row in enumerate(labelled())]
        turned = [{**row, "label": {"animal": "house", "house": "animal"}[row["label"]]} for row in rows[20:]]
        one, other = (open_protocol(name, each, None, None) for each in (rows, [*rows[:20], *turned]))
        predicted = [protocol.predicted(protocol.rows(Letters())).tolist() for protocol in (one, other)]
        assert predicted[0] == predicted[1]
        assert one.score(Letters()) == pytest.approx(1 - other.score(Letters()))

    def test_the_score_to_select_by_is_the_accuracy(self, name):
        protocol = open_protocol(name, labelled(), None, None)
        assert (
            protocol.score(Letters("xyz"))
            == protocol.evaluate({"a": Letters("xyz")})["result"]["systems"]["a"]["accuracy"]["value"]
        )
        assert protocol.score(Letters("xyz")) < protocol.score(Letters())

    def test_rows_with_one_text_or_one_group_stand_on_one_side(self, name):
        rows = [{**row, "group_id": str(number // 8)} for number, row in enumerate(labelled())]
        rows += [{"text": rows[0]["text"], "label": "animal", "group_id": "alone"}]
        sides = open_protocol(name, rows, None, None).labelled
        train, test = ({rows[row]["group_id"] for row in side} for side in (sides.train, sides.test))
        assert not train & test
        assert (0 in sides.train) == (40 in sides.train)

    def test_columns_are_renamed_where_the_file_has_them(self, name):
        rows = [{"sentence": row["text"], "topic": row["label"]} for row in labelled()]
        mapped = {"text": "sentence", "label": "topic", "score": "stars"}
        assert evaluated(name, rows, columns=mapped).systems == evaluated(name, labelled(), columns=mapped).systems

    def test_what_is_missing_is_named(self, name):
        with pytest.raises(ColumnMissing, match="'label'"):
            open_protocol(name, [{"text": "a"}], None, None)
        with pytest.raises(ValueMissing, match="'label'"):
            open_protocol(name, [*labelled(), {"text": "a", "label": None}], None, None)


def test_a_label_with_one_training_row_is_refused_by_the_linear_probe_alone():
    rows = [*labelled(), {"text": "a lonely text", "label": "rare"}]
    assert open_protocol("knn", rows, None, None).labelled.known.tolist().count("rare") == 1
    with pytest.raises(ProtocolDataInvalid, match="label 'rare' has 1 training row"):
        open_protocol("probe", rows, None, None)


# ------------------------------------------------------------------------------------------------------------ retrieval


def test_retrieval_stands_beside_its_controls():
    rows = [{"anchor": row["sentence1"], "positive": row["sentence2"]} for row in RATED]
    found = evaluated("retrieval", rows)
    assert list(found.systems) == [*CONTROLS, "trained"]
    assert "8 queries among 8 candidates" in found.description
    assert "weights from the candidates" in found.description


# ----------------------------------------------------------------------------------------------------------------- all


def test_an_unknown_protocol_is_refused_with_the_nearest():
    with pytest.raises(ProtocolUnknown, match="did you mean 'probe'"):
        open_protocol("prob", labelled(), None, None)


def test_protocols_name_their_columns():
    assert protocol_columns(["sts", "nonsense"]) == {"sentence1", "sentence2", "score", "subset"}
    assert protocol_columns([]) == set()

"""The triplets of MultiCSR's claim: what is spoilt, by how much, and that a training of toy size runs on them."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from contrapose.claims._sentences import STSB_EN, words_and_length
from contrapose.claims.multicsr import TripletTask, clean_triplets, negated, spoilt
from contrapose.text.multicsr import MultiCSR
from contrapose.training.plan import refuse_misfits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A man is old.", "A man is not old."),
        ("Dogs are here and cats are not.", "Dogs are not here and cats are not."),
        ("Rain falls.", "It is false that Rain falls."),
    ],
)
def test_negation(text: str, said: str) -> None:
    assert negated(text) == said


def test_shares_of_what_is_spoilt() -> None:
    rows = spoilt([(f"a{number}", f"p{number}", f"n{number}") for number in range(1000)])
    assert 0.65 * 1000 + 0.25 * 8000 < len(rows) < 0.75 * 1000 + 0.35 * 8000
    exchanged = [row for row in rows if row["positive"][0] == "n"]
    repeated = [row for row in rows if row["positive"] == row["negative"]]
    assert len(exchanged) / len(rows) == pytest.approx(0.3, abs=0.03)
    assert len(repeated) / len(rows) == pytest.approx(0.1, abs=0.02)
    assert sum(row["positive_score"] < row["negative_score"] for row in exchanged) > 0.98 * len(exchanged)
    assert rows == spoilt([(f"a{number}", f"p{number}", f"n{number}") for number in range(1000)])


def test_no_held_out_sentence_is_trained_on_and_the_method_takes_the_rows(pairs_folder: Path) -> None:
    task = TripletTask(pairs_folder, partial(words_and_length, dim=8))
    held_out = {text for pairs in task.pairs.values() for text in (*pairs.first, *pairs.second)}
    assert held_out.isdisjoint(row["text"] for row in task.triplets)
    refuse_misfits(task.create(MultiCSR, MultiCSR.Settings()), task.data(MultiCSR))


def test_triplets_of_the_real_pairs() -> None:
    train = STSB_EN.find() / STSB_EN.files[0]
    sentences = set(TripletTask(STSB_EN.find(), partial(words_and_length, dim=8)).sentences)
    found = clean_triplets(train, sentences)
    assert len(found) > 500
    assert all(len({*triplet}) == 3 for triplet in found if triplet[0] != triplet[1])

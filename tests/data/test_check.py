"""What `check` reports: all problems with their rows, lengths, and exactly how many negatives are false."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contrapose.data.check import Lengths, TokenMeasure, check
from contrapose.data.columns import Column
from contrapose.data.readers import read

PAIR = (Column("anchor", "text", "the first text"), Column("positive", "text", "its partner"))
WORDS = TokenMeasure(lambda texts: [len(text.split()) for text in texts], lambda text: " ".join(text.split()[:2]), 2)


def report(source, needs=(), **options):
    return check(read(source, needs=needs, strict=False), needs, **options)


def problems(found):
    return [(problem.stops, problem.places, problem.rows, problem.message.split(".")[0]) for problem in found.problems]


def test_all_problems_are_listed_with_their_lines(write):
    rows = ["anchor,score", "a,1", ",2", "b,high", "nan,3", "a,1", " ,5", "b,6", "b,7", "b,8", "b,9", "b,10"]
    needs = (*PAIR, Column("score", "score", "the similarity"))
    found = report(write("pairs.csv", "\n".join(rows)), needs)
    assert problems(found)[1:] == [
        (True, "lines 3, 7", 2, "column 'anchor' is empty"),
        (True, "line 4", 1, "column 'score' is 'high', not a finite number"),
        (
            False,
            "line 5",
            1,
            "column 'anchor' reads 'nan' or the like, perhaps a missing value that was written as text",
        ),
        (False, "lines 6, 8, 9, 10, 11 and 1 more", 6, "the same as an earlier row"),
    ]
    assert found.problems[0].message.startswith("".join((found.source, " has no column 'positive' (its partner)")))


def test_clean_data_have_no_problems():
    assert report([("a", "b"), ("c", "d")], PAIR).problems == ()


def test_a_row_is_repeated_only_when_both_of_its_texts_are():
    assert report([("a", "b"), ("a", "c"), ("d", "b")], PAIR).problems == ()
    assert [p.places for p in report([("a", "b"), ("a", "c"), ("a", "b")], PAIR).problems] == ["row 2"]


def test_lengths_are_of_the_texts_that_are_there():
    [summary] = report(["a", "", None, "abc", "aīb", "a b c d e"]).texts
    assert summary.characters == Lengths(1, 3.0, pytest.approx(8.1), 9)
    assert summary.repeated == 0


def test_texts_over_the_limit_are_counted_and_examples_are_as_the_encoder_sees_them():
    found = report(["one", "one two", "one two three", "", "a b c d"], tokens=WORDS)
    assert (found.texts[0].tokens, found.texts[0].cut) == (Lengths(1, 2.5, pytest.approx(3.85), 4), 2)
    assert [example.texts["text"] for example in found.examples] == ["one", "one two", "a b"]
    assert "2 (40.0 %)" in found.to_text()


keys = st.lists(st.tuples(*[st.sampled_from(["a", "b", "c", None])] * 3), min_size=2, max_size=30)


@given(keys, st.booleans())
def test_the_share_of_false_negatives_is_that_of_all_pairs(rows, grouped):
    names = ["anchor", "positive", "group_id"] if grouped else ["anchor", "positive"]
    found = report([dict(zip(names, row, strict=False)) for row in rows], PAIR).false_negatives
    same = [[[x is not None and x == y for x, y in zip(a, b, strict=True)] for b in rows] for a in rows]
    pairs = [same[i][j][: len(names)] for i in range(len(rows)) for j in range(len(rows)) if i != j]
    assert found.share == pytest.approx(np.mean([any(pair) for pair in pairs]))
    assert found.masked == pytest.approx(np.mean([pair[2] if grouped else False for pair in pairs]))


def test_false_negatives_left_in_a_batch_are_the_ones_that_no_group_masks():
    rows = [{"text": "same", "group_id": row % 2} for row in range(4)]
    found = report(rows, batch_size=4).false_negatives
    assert (found.share, found.masked, found.left) == (1.0, pytest.approx(1 / 3), pytest.approx(8.0))


def test_a_single_row_has_no_false_negatives():
    assert report(["alone"]).false_negatives is None


def test_without_a_method_equal_values_of_one_of_many_columns_are_no_false_negatives():
    assert report([{"text": "a", "licence": "MIT"}, {"text": "b", "licence": "MIT"}]).false_negatives is None


def test_the_report_is_plain_text_in_which_data_are_not_markup():
    text = str(report(["[red]a[/red]\x1b[31m", "b\n" * 100]))
    assert "[red]a[/red] [31m" in text
    assert "\x1b" not in text
    assert "b b b" in text
    assert max(map(len, text.splitlines())) <= 110


def test_an_example_is_one_line_with_its_place_whole_and_its_text_cut():
    lines = str(report([{"anchor": "a " * 100, "positive": "b"}], PAIR)).splitlines()
    [first] = [line for line in lines if line.startswith("row 0  anchor    a a a")]
    assert len(first) == 110
    assert first.endswith("…")
    assert lines[lines.index(first) + 1] == "       positive  b"


def test_the_report_says_share_and_problems_in_words():
    found = report([("a", "b"), ("a", "c"), ("d", ""), ("e", "f")], PAIR, batch_size=64)
    text = " ".join(found.to_text().split())
    assert "the list: 4 rows; columns anchor, positive" in text
    assert "16.7 % of in-batch pairs share a text; 2 left in a batch of 4." in text
    assert "refused: row 2: column 'positive' is empty." in text

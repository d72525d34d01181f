"""Columns on demand, places, groups, fingerprints."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import ColumnMissing


@pytest.fixture
def lines(write) -> Table:
    """5,000 rows in several chunks, row r being "text r" in line r + 1."""
    return read(write("lines.txt", "\n".join(f"text {row}" for row in range(5000))))


def test_a_column_is_read_by_int_slice_and_integers(lines):
    texts = lines["text"]
    assert len(texts) == 5000
    assert (texts[0], texts[-1], texts[np.int64(2048)]) == ("text 0", "text 4999", "text 2048")
    assert texts[2047:2050] == ["text 2047", "text 2048", "text 2049"]
    assert texts[[4999, 0, -1]] == ["text 4999", "text 0", "text 4999"]
    assert texts[np.array([3, 3])] == texts[torch.tensor([3, 3])] == ["text 3", "text 3"]
    assert texts[torch.tensor([3])] == ["text 3"]
    assert texts[[]] == texts[5:5] == []
    assert list(texts) == [f"text {row}" for row in range(5000)]


@pytest.mark.parametrize("rows", [5000, -5001, [0, 5000]])
def test_rows_outside_the_table_are_refused(lines, rows):
    with pytest.raises(IndexError, match="of 5000"):
        lines["text"][rows]


@pytest.mark.parametrize("rows", [[True, False], [0.5], "3", [[1, 2]]])
def test_rows_that_are_no_integers_are_refused(lines, rows):
    with pytest.raises(TypeError, match="integers"):
        lines["text"][rows]


def test_a_batch_of_random_rows_takes_well_under_a_millisecond(write):
    texts = read(write("many.txt", "a sentence of some length\n" * 300_000))["text"]
    rows, seconds = np.random.default_rng(0), []
    for _ in range(51):
        batch = rows.integers(0, 300_000, 64)
        start = time.perf_counter()
        texts[batch]
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 1e-3


def test_taken_rows_keep_their_places_through_two_takes(lines):
    taken = lines.take(torch.tensor([4000, 10, 2048])).take([2, 0])
    assert list(taken["text"]) == ["text 2048", "text 4000"]
    assert [taken.line(row) for row in range(2)] == [2049, 4001]
    assert taken.arrow("text").to_pylist() == ["text 2048", "text 4000"]


def test_places_names_the_first_rows_and_counts_the_others(lines):
    assert lines.places([11]) == "line 12"
    assert lines.places([11, 39, 40]) == "lines 12, 40, 41"
    assert lines.places(range(1000), first=2) == "lines 1, 2 and 998 more"


def test_an_absent_column_offers_the_nearest(lines):
    with pytest.raises(ColumnMissing, match="no column 'txt'; did you mean 'text'"):
        lines["txt"]


def test_the_place_column_is_not_among_the_columns(lines):
    assert lines.columns == ["text"]


def test_a_fingerprint_follows_content_and_rows_and_nothing_else(lines, write):
    again = read(write("again.txt", "\n".join(f"text {row}" for row in range(5000))))
    assert again.fingerprint == lines.fingerprint
    assert lines.take([1, 2]).fingerprint == again.take(np.array([1, 2])).fingerprint
    assert len({t.fingerprint for t in (lines, lines.take([1, 2]), lines.take([2, 1]), lines.take([2]))}) == 4


def test_the_fingerprint_of_a_list_is_that_of_its_values():
    assert read(["a", "b"]).fingerprint == read(["a", "b"]).fingerprint
    assert len({read(rows).fingerprint for rows in (["a", "b"], ["ab", ""], ["b", "a"], ["a", "b", None])}) == 4


GROUPS = st.one_of(
    st.lists(st.none() | st.text(max_size=2), min_size=1),
    st.lists(st.none() | st.integers(0, 5), min_size=1),
    st.lists(st.none() | st.floats(width=16), min_size=1),
    st.lists(st.none() | st.integers(0, 2) | st.sampled_from(["", "a", "1"]), min_size=1),
    st.lists(st.none() | st.lists(st.integers(0, 1), max_size=1), min_size=1),
)


@given(GROUPS)
def test_groups_are_consecutive_and_equal_exactly_where_the_values_are(values):
    group = read([{"group_id": value} for value in values]).group
    assert group.dtype == torch.int64
    assert sorted(set(group.tolist())) == list(range(int(group.max()) + 1))
    for i, left in enumerate(values):
        for j, right in enumerate(values):
            empty = left is None or left != left or (isinstance(left, str) and not left.strip())
            assert (group[i] == group[j]).item() == (i == j or (not empty and left == right))


def test_categories_that_no_row_has_leave_no_gap_among_the_groups():
    frame = pd.DataFrame({"group_id": pd.Categorical([30, 10, 30], categories=[10, 20, 30])})
    assert read(frame).group.tolist() == [0, 1, 0]


def test_without_group_id_there_is_no_group(lines):
    assert lines.group is None

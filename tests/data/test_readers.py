"""What `read` makes of files and addresses."""

from __future__ import annotations

import csv
import gzip
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.errors import (
    CacheUnwritable,
    ColumnMissing,
    ColumnUnknown,
    DataDamaged,
    DataEmpty,
    DataFileMissing,
    DataFormatUnknown,
    SampleUnknown,
    ValueMissing,
)

PAIR = (Column("anchor", "text", "the first text"), Column("positive", "text", "its partner"))
HARD = (*PAIR, Column("negative", "text", "a hard negative", required=False))
TEXTS = st.lists(st.tuples(st.text(), st.text()), min_size=1, max_size=20)


def columns(table, *names):
    return [tuple(values) for values in zip(*(table[name] for name in names), strict=True)]


def write_csv(rows, path, delimiter=","):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([("anchor", "positive"), *rows])


def write_tsv(rows, path):
    write_csv(rows, path, delimiter="\t")


def write_jsonl(rows, path):
    lines = (json.dumps({"anchor": a, "positive": p}) for a, p in rows)
    path.write_text("\n".join(lines), encoding="utf-8")


def write_jsonl_gz(rows, path):
    lines = (json.dumps({"anchor": a, "positive": p}, ensure_ascii=False) + "\n" for a, p in rows)
    path.write_bytes(gzip.compress("".join(lines).encode()))


def write_parquet(rows, path):
    anchors, positives = zip(*rows, strict=True)
    parquet.write_table(pa.table({"anchor": anchors, "positive": positives}), path)


@pytest.mark.parametrize(
    ("suffix", "write_rows"),
    [
        (".csv", write_csv),
        (".tsv", write_tsv),
        (".jsonl", write_jsonl),
        (".jsonl.gz", write_jsonl_gz),
        (".parquet", write_parquet),
    ],
)
@settings(max_examples=25, deadline=None)
@given(rows=TEXTS)
def test_any_text_comes_back_as_it_was_written(suffix, write_rows, rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"pairs{suffix}"
        write_rows(rows, path)
        assert columns(read(path, strict=False, cache=folder), "anchor", "positive") == rows


def test_a_txt_file_is_the_column_text_a_row_a_line(write):
    table = read(write("some.txt", "\ufeffviens\r\ndivi, trīs\n\n četri"), strict=False)
    assert table.columns == ["text"]
    assert list(table["text"]) == ["viens", "divi, trīs", "", " četri"]
    assert [table.line(row) for row in range(4)] == [1, 2, 3, 4]


def test_a_csv_record_is_at_the_line_where_it_begins(write):
    table = read(write("pairs.csv", '\ufeffanchor,positive\r\n"a\r\nb",c\r\n\r\nd,"e\n\nf"\r\ng,h'), needs=PAIR)
    assert columns(table, "anchor", "positive") == [("a\r\nb", "c"), ("d", "e\n\nf"), ("g", "h")]
    assert [table.line(row) for row in range(3)] == [2, 5, 8]


def test_rows_of_a_parquet_file_are_numbered_and_have_no_lines(tmp_path):
    write_parquet([("a", "b"), ("c", "d")], tmp_path / "pairs.parquet")
    table = read(tmp_path / "pairs.parquet")
    assert table.line(1) is None
    assert table.where(1) == f"row 1 of {tmp_path / 'pairs.parquet'}"


def test_a_dictionary_encoded_parquet_column_of_many_batches_is_text(tmp_path):
    words = pa.array(["a", "b", "c"] * 50_000)
    parquet.write_table(pa.table({"anchor": words.dictionary_encode(), "positive": words}), tmp_path / "p.parquet")
    table = read(tmp_path / "p.parquet", needs=PAIR)
    assert table["anchor"][[0, 70_000, 149_999]] == ["a", "b", "c"]


def test_a_changed_file_is_read_anew_and_an_unchanged_one_is_not(write, cache):
    path = write("some.txt", "old")
    old = read(path)
    read(path)
    assert len(list(cache.rglob("*.arrow"))) == 1
    write("some.txt", "new")
    new = read(path)
    assert (list(old["text"]), list(new["text"])) == (["old"], ["new"])
    assert old.fingerprint != new.fingerprint


def test_a_damaged_cached_copy_is_made_anew(write, cache):
    path = write("some.txt", "one\ntwo")
    read(path)
    [copy] = cache.rglob("*.arrow")
    copy.write_bytes(copy.read_bytes()[:-40])
    assert list(read(path)["text"]) == ["one", "two"]


def test_the_same_bytes_under_another_suffix_are_another_table(write):
    assert read(write("x.txt", "a,b\nc,d")).columns == ["text"]
    assert read(write("x.csv", "a,b\nc,d")).columns == ["a", "b"]


def test_a_file_that_is_refused_leaves_nothing_in_the_cache(write, cache):
    with pytest.raises(DataEmpty):
        read(write("pairs.csv", "anchor,positive\n"))
    assert not list(cache.rglob("*.*"))


def test_a_cache_that_cannot_be_written_says_how_to_name_another(write):
    file = write("file", "")
    with pytest.raises(CacheUnwritable, match=r"Not a directory.*CONTRAPOSE_CACHE"):
        read(write("some.txt", "text"), cache=file)


def test_types_widen_over_the_whole_file_and_values_stay(write):
    rows = [{"text": "a", "size": 1, "mixed": 1, "tags": []}] * 3000
    rows += [{"text": "b", "size": 2.5, "mixed": "x", "tags": ["t"], "late": {"k": 1}}]
    table = read(write("rows.jsonl", "\n".join(map(json.dumps, rows))))
    last = {name: table[name][-1] for name in table.columns}
    assert last == {"text": "b", "size": 2.5, "mixed": "x", "tags": ["t"], "late": {"k": 1}}
    assert (table["size"][0], table["mixed"][0], table["tags"][0], table["late"][0]) == (1.0, 1, [], None)


def test_integers_beyond_float_and_int64_keep_their_value(write):
    large = [2**60 + 1, 0.5, 2**70]
    table = read(write("rows.jsonl", "\n".join(json.dumps({"id": value}) for value in large)))
    assert list(table["id"]) == large


def test_rename_takes_the_users_columns_and_leaves_the_others(write):
    path = write("pairs.csv", "english,latvian,note\na,b,c\n")
    table = read(path, rename={"anchor": "english", "positive": "latvian"}, needs=PAIR)
    assert columns(table, "anchor", "positive", "note") == [("a", "b", "c")]
    assert table.columns == ["anchor", "positive", "note"]


def test_rename_can_swap_columns_and_use_one_twice(write):
    path = write("pairs.csv", "anchor,positive\na,b\n")
    swapped = read(path, rename={"anchor": "positive", "positive": "anchor"}, needs=PAIR)
    twice = read(path, rename={"anchor": "anchor", "positive": "anchor"}, needs=PAIR)
    assert columns(swapped, "anchor", "positive") == [("b", "a")]
    assert columns(twice, "anchor", "positive") == [("a", "a")]
    assert len({read(path).fingerprint, swapped.fingerprint, twice.fingerprint}) == 3


def test_rename_to_a_column_that_the_method_lacks_offers_the_nearest(write):
    path = write("pairs.csv", "anchor,positive,other\na,b,c\n")
    with pytest.raises(ColumnUnknown, match="no column 'negatve'; did you mean 'negative'"):
        read(path, rename={"negatve": "other"}, needs=HARD)


def test_rename_from_a_column_that_the_file_lacks_offers_the_nearest(write):
    path = write("pairs.csv", "english,latvian\na,b\n")
    with pytest.raises(ColumnMissing, match="no column 'englsh'; did you mean 'english'"):
        read(path, rename={"anchor": "englsh"}, needs=PAIR)


def test_a_missing_column_offers_the_nearest_and_the_option(write):
    path = write("pairs.csv", "anchr,latvian\na,b\n")
    with pytest.raises(ColumnMissing) as caught:
        read(path, needs=PAIR)
    assert str(caught.value) == (
        f"{path} has no columns 'anchor' (the first text) and 'positive' (its partner); did you mean 'anchr'? "
        "Say which is meant: --map anchor=anchr --map positive=COLUMN [CL-DATA-003]"
    )


def test_a_file_separated_by_semicolons_is_told_so(write):
    with pytest.raises(ColumnMissing, match="'anchor;positive', has semicolons"):
        read(write("pairs.csv", "anchor;positive\na;b\n"), needs=PAIR)


def test_an_optional_column_may_be_absent_and_is_checked_when_present(write):
    assert "negative" not in read(write("two.csv", "anchor,positive\na,b\n"), needs=HARD)
    with pytest.raises(ValueMissing, match=r"line 3: column 'negative' is empty"):
        read(write("three.csv", "anchor,positive,negative\na,b,c\nd,e,\n"), needs=HARD)


def test_columns_that_are_not_needed_are_kept_unchecked(write):
    table = read(write("pairs.csv", "anchor,positive,note\na,b,\n"), needs=PAIR)
    assert table["note"][0] == ""


def test_drop_empty_drops_such_rows_counts_them_and_keeps_the_lines(write):
    path = write("pairs.csv", "anchor,positive\na,b\n,c\nd, \ne,f\n")
    table = read(path, needs=PAIR, drop_empty=True)
    assert columns(table, "anchor", "positive") == [("a", "b"), ("e", "f")]
    assert table.dropped == 2
    assert table.where(1) == f"{path}, line 5"


def test_drop_empty_that_leaves_nothing_is_refused(write):
    with pytest.raises(DataEmpty, match="empty in each of the 2 rows"):
        read(write("pairs.csv", "anchor,positive\na,\n,b\n"), needs=PAIR, drop_empty=True)


def test_without_strict_empty_rows_and_missing_columns_are_let_through(write):
    table = read(write("pairs.csv", "anchor\na\n\n \n"), needs=PAIR, strict=False)
    assert list(table["anchor"]) == ["a", " "]


def test_numbers_spelt_as_text_become_numbers(write):
    table = read(write("scored.csv", "text,score\na, 0.5\nb,3\n"), needs=(Column("score", "score", "similarity"),))
    assert list(table["score"]) == [0.5, 3.0]


@pytest.mark.parametrize(
    ("name", "message"),
    [("pears.csv", "did you mean '.*pairs.csv'"), ("folder/pairs.csv", "nor a folder"), ("x" * 5000, "check the path")],
)
def test_a_missing_file_is_named_with_the_nearest(write, tmp_path, name, message):
    write("pairs.csv", "anchor,positive\na,b\n")
    with pytest.raises(DataFileMissing, match=message):
        read(tmp_path / name)


@pytest.mark.parametrize("name", ["pairs.xlsx", "pairs", "pairs.pkl", "pairs.parquet.gz"])
def test_a_file_of_an_unknown_kind_names_the_known_ones(write, name):
    with pytest.raises(DataFormatUnknown, match=r"Known: \.txt, \.csv"):
        read(write(name, b"\x80\x04."))


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(DataFormatUnknown, match="is a folder"):
        read(tmp_path)


@pytest.mark.parametrize("content", ["", "anchor,positive", "\ufeff", "\n\n"])
def test_a_file_without_rows_is_empty(write, content):
    with pytest.raises(DataEmpty, match="holds no rows"):
        read(write("pairs.csv", content))


@pytest.mark.parametrize("content", [b"PAR1", b"no table", b"PAR1" + bytes(100) + b"PAR1"])
def test_a_broken_parquet_file_is_one_clear_error(write, content):
    with pytest.raises(DataDamaged, match="not a whole Parquet file"):
        read(write("pairs.parquet", content))


def test_the_packaged_sample_is_read_by_its_address():
    table = read("sample:latvian/dev", needs=(Column("english", "text", ""), Column("latvian", "text", "")))
    assert table.where(0) == "sample:latvian/dev, line 1"


def test_an_unknown_sample_offers_the_nearest():
    with pytest.raises(SampleUnknown, match="did you mean 'sample:latvian/train'"):
        read("sample:latvian/trian")


def test_a_dataset_is_read_by_its_address_and_split(tmp_path_factory):
    """`datasets` finds it in a folder just as it does on the Hub: the same files, splits by name."""
    # not in tmp_path, whose name begins with test_: a split is also read off the folder's name
    folder, cache = (tmp_path_factory.mktemp(name) for name in ("pairs", "cache"))
    for split, rows in (("train", 3), ("test", 2)):
        lines = [json.dumps({"anchor": f"{split} {number}", "positive": "p"}) for number in range(rows)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines))
    program = (
        "import sys; from contrapose.data.readers import read\n"
        "for split in ('', ':test'): print(list(read('hf:' + sys.argv[1] + split)['anchor']))"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache)}
    told = subprocess.run(
        [sys.executable, "-c", program, str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert told.stdout.splitlines() == ["['train 0', 'train 1', 'train 2']", "['test 0', 'test 1']"], told.stderr


def test_the_hub_without_network_is_one_clear_sentence():
    script = (
        "from contrapose.data.readers import read\ntry: read('hf:owner/name')\nexcept Exception as e: print(repr(e))"
    )
    offline = {**os.environ, "HF_HUB_OFFLINE": "1"}
    told = subprocess.run([sys.executable, "-c", script], env=offline, capture_output=True, text=True, check=True)
    assert told.stdout.startswith("HubUnavailable(\"'hf:owner/name' could not be loaded from the Hugging Face Hub: ")
    assert told.stderr == ""

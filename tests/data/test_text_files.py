"""Broken files of lines, each refused with its exact place."""

from __future__ import annotations

import gzip

import pytest

from contrapose.data.readers import read
from contrapose.errors import CsvBroken, DataDamaged, DataEncoding, DataRagged, JsonBroken


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.txt", b"fine\nna\xefve\n", "line 2: the byte 0xef at offset 7 "),
        ("a.csv", b"\xef\xbb\xbfanchor\nb\xe9", "line 2: the byte 0xe9 at offset 11 "),
        ("a.txt", b"\xef\xbb\xbf\xe9", "line 1: the byte 0xe9 at offset 3 "),
        ("a.jsonl", b'{"a": "b"}\r\n{"a": "\xff"}', "line 2: the byte 0xff at offset 19 "),
        ("a.txt", "cut off: ī".encode()[:-1], "line 1: the byte 0xc4 at offset 9 "),
    ],
)
def test_bytes_that_are_not_utf8_are_named_with_their_offset(write, name, content, place):
    path = write(name, content)
    with pytest.raises(DataEncoding) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, {place}")
    assert content[int(str(caught.value).split("offset ")[1].split()[0])] == int(
        str(caught.value).split("0x")[1][:2], 16
    )


def test_a_utf16_file_is_recognised(write):
    with pytest.raises(DataEncoding, match="iconv -f UTF-16"):
        read(write("a.csv", "anchor,positive\na,b\n".encode("utf-16")))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("anchor,positive\na,b\n\nGood day, sir,Labdien\n", "line 4: 3 fields where the header has 2"),
        ('anchor,positive\n"a\nb",c\nd\n', "line 4: 1 field where the header has 2"),
    ],
)
def test_a_csv_row_of_another_width_is_named_with_both_counts(write, content, message):
    with pytest.raises(DataRagged, match=message):
        read(write("pairs.csv", content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('anchor,positive\na,b\nc,"d\ne,f\n', "line 3: a double quote is opened here and never closed"),
        ('anchor,positive\na,b\n"5" nails,naglas\n', "line 3: a field goes on after its closing double quote"),
        ("anchor,positive\na,b\nc\rd,e\n", "line 3: a carriage return stands inside the line"),
        ("anchor,anchor\na,b\n", "line 1: the header names the column 'anchor' twice"),
    ],
)
def test_a_csv_record_that_cannot_be_read_is_named_with_its_line(write, content, message):
    with pytest.raises(CsvBroken, match=message):
        read(write("pairs.csv", content))


def test_a_field_longer_than_pythons_default_limit_is_read(write):
    long = "x" * 200_000
    assert read(write("long.csv", f"text\n{long}\n"))["text"][0] == long


def test_header_names_are_stripped_and_unnamed_columns_numbered(write):
    assert read(write("pairs.csv", ",anchor, positive\n0,a,b\n")).columns == ["unnamed 1", "anchor", "positive"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"a": "b", "c": }', "column 17: broken JSON, expecting value"),
        ('  {"a": "b"', "column 12: broken JSON"),
        ('["a", "b"]', 'column 1: found ["a", "b"], expected an object'),
        ("[" * 100_000, "too large to read"),
        ('{"a": 1' + "0" * 5000 + "}", "too large to read"),
    ],
)
def test_a_broken_json_line_is_named_with_line_and_column(write, line, message):
    path = write("pairs.jsonl", f'{{"a": "b"}}\n\n{line}\n')
    with pytest.raises(JsonBroken) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, line 3")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["pairs.csv.gz", "some.txt.gz", "pairs.jsonl.gz"])
def test_gzip_files_that_are_none_or_cut_off_or_damaged_are_one_clear_error(write, name):
    whole = gzip.compress(b'{"text": "a line of text"}\n' * 1000)
    with pytest.raises(DataDamaged, match="not a gzip file"):
        read(write(name, b'{"text": "plain"}\n'))
    with pytest.raises(DataDamaged, match="damaged or cut off"):
        read(write(name, whole[:-12]))
    with pytest.raises(DataDamaged, match="damaged or cut off"):
        read(write(name, whole[:20] + bytes(10) + whole[30:]))

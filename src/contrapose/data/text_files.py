"""Files of lines (.txt .csv .tsv .jsonl, also .gz) as rows with the line at which each begins."""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from contrapose.data.arrow import Record
from contrapose.errors import CsvBroken, DataDamaged, DataEncoding, DataRagged, JsonBroken

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONGEST_FIELD = (
    2**24
)  # characters; without a bound, a quote that is never closed would read the whole file into one field


def text_records(path: Path, kind: str, source: str) -> Iterator[Record]:
    """The rows of a file of `kind` ".txt", ".csv", ".tsv" or ".jsonl", one by one; `source` names the file in messages.

    Raises DataEncoding, DataDamaged, DataRagged, CsvBroken or JsonBroken with the place.
    """
    lines = _decoded(_raw_lines(path, source), source)
    if kind == ".txt":
        return _txt_records(lines)
    if kind == ".jsonl":
        return _jsonl_records(lines, source)
    return _csv_records(lines, source, delimiter="\t" if kind == ".tsv" else ",")


def _raw_lines(path: Path, source: str) -> Iterator[bytes]:
    if path.suffix.lower() != ".gz":
        with path.open("rb") as file:
            yield from file
        return
    try:
        with gzip.open(path) as file:
            yield from file
    except gzip.BadGzipFile as error:
        raise DataDamaged(f"{source} is not a gzip file, as its name says: {error}. Write it again.") from None
    except (EOFError, zlib.error) as error:
        raise DataDamaged(f"{source} is damaged or cut off: {error}. Fetch or write it again.") from None


def _decoded(lines: Iterable[bytes], source: str) -> Iterator[str]:
    """Lines of UTF-8, with their ends, without a byte order mark."""
    offset = 0
    for number, raw in enumerate(lines, start=1):
        skipped = len(BYTE_ORDER_MARK) if number == 1 and raw.startswith(BYTE_ORDER_MARK) else 0
        try:
            yield raw[skipped:].decode()
        except UnicodeDecodeError as error:
            utf16 = number == 1 and raw.startswith((b"\xff\xfe", b"\xfe\xff"))
            start = skipped + error.start
            raise DataEncoding(
                f"{source}, line {number}: the byte 0x{raw[start]:02x} at offset {offset + start} is not UTF-8. "
                f"Convert the file: iconv -f {'UTF-16' if utf16 else 'WINDOWS-1252'} -t UTF-8 FILE > NEW."
            ) from None
        offset += len(raw)


def _txt_records(lines: Iterable[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        yield number, {"text": line.removesuffix("\n").removesuffix("\r")}


def _csv_records(lines: Iterator[str], source: str, delimiter: str) -> Iterator[Record]:
    separator = "tab" if delimiter == "\t" else "comma"
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_FIELD))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1  # of the record's first line: a quoted field may span several
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise CsvBroken(f"{source}, line {line}: {_csv_reason(error)}") from None
        if fields is None:
            return
        if not fields:  # a blank line
            continue
        if header is None:
            header = _header(fields, f"{source}, line {line}")
        elif len(fields) != len(header):
            count = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
            mend = f"A text that holds a {separator} must stand in double quotes."
            if len(fields) < len(header):
                mend = f"Give each column a field, if an empty one, and a {separator} between each two."
            raise DataRagged(
                f"{source}, line {line}: {count} where the header has {len(header)} ({', '.join(header)}). {mend}"
            )
        else:
            yield line, dict(zip(header, fields, strict=True))


def _header(fields: list[str], where: str) -> list[str]:
    names = [name.strip() or f"unnamed {number}" for number, name in enumerate(fields, start=1)]
    for name in names:
        if names.count(name) > 1:
            raise CsvBroken(f"{where}: the header names the column '{name}' twice. Give each column a name of its own.")
    return names


def _csv_reason(error: csv.Error) -> str:
    """What is wrong with a record, and what to do, from the words of Python's csv module."""
    words = str(error)
    if "unexpected end of data" in words or "field limit" in words:
        return 'a double quote is opened here and never closed. Close it; a quote inside a quoted field is doubled: "".'
    if "expected after" in words:
        return 'a field goes on after its closing double quote. A quote inside a quoted field is doubled: "".'
    if "new-line character" in words:
        return "a carriage return stands inside the line. End lines with a line feed; quote a text of several lines."
    return f"not a record of fields: {words}."


def _jsonl_records(lines: Iterable[str], source: str) -> Iterator[Record]:
    for number, line in enumerate(lines, start=1):
        line = line.rstrip("\r\n")
        if not line.strip():
            continue
        try:
            values: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise JsonBroken(
                f"{source}, line {number}, column {error.colno}: broken JSON, {error.msg.lower()}. "
                'Each line must be one object: {"column": value, …}.'
            ) from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, thousands of open brackets
            raise JsonBroken(f"{source}, line {number}: this JSON is too large to read, {error}.") from None
        if not isinstance(values, dict):
            raise JsonBroken(
                f"{source}, line {number}, column 1: found {json.dumps(values)[:20]}, expected an object. "
                'Each line must be one object: {"column": value, …}.'
            )
        yield number, values

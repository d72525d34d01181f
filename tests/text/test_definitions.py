"""Dictionaries in the official form: what is read, and what is refused with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from contrapose.errors import DataEmpty, DataEncoding, DataFileMissing, DictionaryInvalid
from contrapose.text.defsent_plus import read_definitions


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_official_form_is_read(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "dictionary.txt"
    path.write_text("café\ta place <|list_more_def|> a drink\n\ncat\tan animal\n", encoding=encoding)
    assert read_definitions(path) == [
        {"entry": "café", "definition": "a place"},
        {"entry": "café", "definition": "a drink"},
        {"entry": "cat", "definition": "an animal"},
    ]


@pytest.mark.parametrize(
    ("content", "error", "said"),
    [
        (b"cat\tan animal\ndog\n", DictionaryInvalid, "line 2: entry 'dog' has no definition"),
        (b"cat\t \n", DictionaryInvalid, "line 1: entry 'cat' has no definition"),
        (b"\tan animal\n", DictionaryInvalid, "line 1: there is no entry"),
        (b"cat\ta<|list_more_def|> \n", DictionaryInvalid, "definition 2 of entry 'cat' is empty"),
        (b"\n", DataEmpty, "holds no entries"),
        (b"cat\t\xff\n", DataEncoding, "not UTF-8"),
        (None, DataFileMissing, "cannot be read"),
    ],
)
def test_a_dictionary_that_cannot_be_read(content: bytes | None, error: type, said: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "dictionary.txt").write_bytes(content)
    with pytest.raises(error, match=said):
        read_definitions(tmp_path / "dictionary.txt")

"""Reading dictionaries in the form of the official code of DefSent+."""

from __future__ import annotations

import codecs
from pathlib import Path

from contrapose.errors import DataEmpty, DataEncoding, DataFileMissing, DictionaryInvalid

MORE = "<|list_more_def|>"  # stands between the definitions of an entry


def read_definitions(path: Path | str) -> list[dict[str, str]]:
    """The rows, `entry` and `definition`, of a text file with an entry a line: its name, a tab, its definitions parted by <|list_more_def|>.

    UTF-8, or UTF-16 with its mark at the beginning. An entry that has several lines has the definitions of all. Blank lines are passed over.
    Raises DataFileMissing, DataEncoding, DataEmpty, and DictionaryInvalid naming file and line.
    """
    path, rows = Path(path), []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        entry, tab, said = line.partition("\t")
        place = f"{path}, line {number}"
        if not entry.strip():
            raise DictionaryInvalid(
                f"{place}: there is no entry before the tab; write entry, tab, definitions parted by {MORE}."
            )
        if not tab or not said.strip():
            raise DictionaryInvalid(
                f"{place}: entry '{entry.strip()}' has no definition; write entry, tab, definitions parted by {MORE}, or leave it out."
            )
        definitions = [each.strip() for each in said.split(MORE)]
        if "" in definitions:
            raise DictionaryInvalid(
                f"{place}: definition {definitions.index('') + 1} of entry '{entry.strip()}' is empty; leave it out, with its {MORE}."
            )
        rows += [{"entry": entry.strip(), "definition": each} for each in definitions]
    if not rows:
        raise DataEmpty(f"{path} holds no entries; write one a line: entry, tab, definitions parted by {MORE}.")
    return rows


def _text(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataFileMissing(f"{path} cannot be read ({error.strerror}). Check the path.") from None
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataEncoding(
            f"{path} is not {encoding.removesuffix('-sig').upper()} (byte {error.start}); save it as UTF-8, or as UTF-16 with its mark."
        ) from None

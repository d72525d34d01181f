"""Make the Latvian sample that comes with the package from its public source.

The source is the folder Text-Text/text-to-text of github.com/microsoft/CodeXGLUE at commit ac74a62802a0, read as
`lv-en.{train,dev,test}.jsonl.gz` with the columns `lv` and `en`.

    python benchmarks/make_latvian_sample.py --data FOLDER
"""

from __future__ import annotations

import argparse
import gzip
import html
import json
import re
from pathlib import Path

TARGET = Path(__file__).parents[1] / "src" / "contrapose" / "samples" / "latvian"
SHORTEST, LONGEST = 15, 160  # characters a side, after cleaning

MARKUP = re.compile(r"[<>\[\]{}`|#*_\\=~]")
LINK = re.compile(r"https?|www|: ?/ ?/|\.\s?md\b", re.IGNORECASE)
LIST_NUMBER = re.compile(r"^\s*(?:[-•–]\s*)*(?:\d+\s*[.)]\s*)?")
METADATA = re.compile(r"(?:title|description)\s*:")
SPACE_BEFORE = re.compile(r"\s+([.,;:!?%)\]])")
SPACE_AFTER = re.compile(r"([(\[])\s+")
APOSTROPHE = re.compile(r"\s*([’'])\s*(?=\w)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="holds lv-en.{train,dev,test}.jsonl.gz")
    parser.add_argument("--out", type=Path, default=TARGET, help="where the three files go (default: the package)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    english_seen: set[str] = set()
    latvian_seen: set[str] = set()
    for split in ("test", "dev", "train"):  # in this order: what stands in test is left out of dev and train
        kept = []
        for english, latvian in source_rows(arguments.data / f"lv-en.{split}.jsonl.gz"):
            if not (fits(english) and fits(latvian)):
                continue
            english, latvian = cleaned(english), cleaned(latvian)
            if not all(SHORTEST <= len(text) <= LONGEST for text in (english, latvian)):
                continue
            if letters(english) in english_seen or letters(latvian) in latvian_seen:
                continue
            english_seen.add(letters(english))
            latvian_seen.add(letters(latvian))
            kept.append({"english": english, "latvian": latvian})
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept)
        # no name and no time in the header, so that the same rows give the same bytes
        (arguments.out / f"{split}.jsonl.gz").write_bytes(gzip.compress(lines.encode(), mtime=0))
        print(f"{split}: {len(kept):,} pairs")


def source_rows(file: Path) -> list[tuple[str, str]]:
    """(English, Latvian), unescaped twice: the source escapes HTML that was escaped already."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return [tuple(html.unescape(html.unescape(row[side])) for side in ("en", "lv")) for row in rows]


def fits(text: str) -> bool:
    """Whether a side is text: no markup, no link, and not a page's `title :` or `description :`."""
    return not (MARKUP.search(text) or LINK.search(text) or METADATA.match(text))


def cleaned(text: str) -> str:
    """Without list number, and without the spaces that the source's tokeniser put around punctuation."""
    text = SPACE_BEFORE.sub(r"\1", LIST_NUMBER.sub("", text))
    text = APOSTROPHE.sub(r"\1", SPACE_AFTER.sub(r"\1", text))
    return " ".join(text.split())


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalpha())


if __name__ == "__main__":
    main()

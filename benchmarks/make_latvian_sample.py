"""Makes the packaged sample `sample:latvian`: English and Latvian sentences that are translations of each other.

The source is public: the folder Text-Text/text-to-text/data of github.com/microsoft/CodeXGLUE at ac74a62802a0.

    git clone https://github.com/microsoft/CodeXGLUE
    git -C CodeXGLUE checkout ac74a62802a0
    python benchmarks/make_latvian_sample.py --data CodeXGLUE/Text-Text/text-to-text/data

The same source gives the same text, byte for byte. The table printed at the end stands in the sample's README.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import html
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SPLITS = ("train", "dev", "test")
CLAIM_ORDER = ("test", "dev", "train")  # of two equal rows the one in test stays, then the one in dev
CHARACTERS = range(15, 161)
OUTPUT = Path(__file__).parents[1] / "src/contrapose/samples/latvian"

# Signs of Markdown, HTML, tables, menu paths and identifiers; entities that two rounds of unescaping left over; front matter.
MARKUP = re.compile(r"[<>\[\]{}|#*_`=\\/]|& ?\w+ ?;|^title :")
LINK = re.compile(r"https?\b|www ?\.|\.(?:md|com)\b", re.IGNORECASE)

# The source sets a list number apart from its full stop ("4 . Click"), but not an ordinal ("4. rindā", in line 4).
LIST_MARK = re.compile(r"^(?:[-•–] )*(?:\d+ [.)] )?")

DETOKENISE = (
    (re.compile(r"\s+"), " "),
    (re.compile(r"(?<=\w) ?(['’]) ?(?=(?:s|t|re|ve|ll|d|m)\b)"), r"\1"),  # isn 't, customer ’ s
    (re.compile(r"(?<!\w)(['\"]) (.+?) \1(?!\w)"), r"\1\2\1"),  # straight quotes, which look alike at both ends
    (re.compile(r"„ ?(.+?) ?([“”])"), r"„\1\2"),  # Latvian quotes, closed by the sign that opens English ones
    (re.compile(r"([(‘“]) "), r"\1"),
    (re.compile(r" (?=[.,;:!?)’”])"), ""),
)

Pair = tuple[str, str]


def clean(text: str) -> str | None:
    """The text as a person would have typed it; None where it holds markup or a link."""
    text = html.unescape(html.unescape(text)).strip()
    if MARKUP.search(text) or LINK.search(text):
        return None
    text = LIST_MARK.sub("", text)
    for pattern, replacement in DETOKENISE:
        text = pattern.sub(replacement, text)
    return text.strip()


def letters(text: str) -> str:
    """The letters alone, casefolded: what two rows may not have in common."""
    return "".join(character for character in text.casefold() if character.isalpha())


def source_pairs(folder: Path, split: str) -> Iterator[Pair]:
    """The (English, Latvian) lines of a split, as they stand in the source."""
    english, latvian = (
        # split("\n") and not splitlines(): the line break of the source is "\n" alone
        (folder / split / f"lv-en.{split}.{language}").read_text(encoding="utf-8").removesuffix("\n").split("\n")
        for language in ("en", "lv")
    )
    return zip(english, latvian, strict=True)


def cleaned_pairs(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """The pairs of which both sides are plain sentences of a fitting length."""
    for source in pairs:
        english, latvian = map(clean, source)
        if english and latvian and len(english) in CHARACTERS and len(latvian) in CHARACTERS:
            yield english, latvian


def make_sample(folder: Path) -> dict[str, list[Pair]]:
    """The pairs of each split, in the order of the source; no two in all of them share the letters of either side."""
    seen_english, seen_latvian = set[str](), set[str]()
    sample: dict[str, list[Pair]] = {}
    for split in CLAIM_ORDER:
        sample[split] = []
        for english, latvian in cleaned_pairs(source_pairs(folder, split)):
            keys = letters(english), letters(latvian)
            if keys[0] in seen_english or keys[1] in seen_latvian:
                continue
            seen_english.add(keys[0])
            seen_latvian.add(keys[1])
            sample[split].append((english, latvian))
    return sample


def to_jsonl(pairs: Iterable[Pair]) -> bytes:
    lines = (json.dumps({"english": english, "latvian": latvian}, ensure_ascii=False) for english, latvian in pairs)
    return "".join(f"{line}\n" for line in lines).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the source's folder `data`")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, metavar="FOLDER", help="default: the package's own folder"
    )
    arguments = parser.parse_args()
    sample = make_sample(arguments.data)
    arguments.output.mkdir(parents=True, exist_ok=True)
    print("| file | pairs | sha256 of the file | sha256 of its text |\n| --- | ---: | --- | --- |")
    for split in SPLITS:
        text = to_jsonl(sample[split])
        packed = gzip.compress(text, compresslevel=9, mtime=0)
        (arguments.output / f"{split}.jsonl.gz").write_bytes(packed)
        sums = (hashlib.sha256(content).hexdigest() for content in (packed, text))
        print(f"| {split}.jsonl.gz | {len(sample[split]):,} |", " | ".join(f"`{value}`" for value in sums), "|")


if __name__ == "__main__":
    main()

"""The sample that the demo learns from is as its README says."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from importlib import resources

import pytest

SPLITS = ("train", "dev", "test")
SIDES = ("english", "latvian")
FOLDER = resources.files("contrapose.samples") / "latvian"


def rows(split: str) -> list[dict[str, str]]:
    content = gzip.decompress((FOLDER / f"{split}.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in content.splitlines()]


def letters(text: str) -> str:
    return "".join(character for character in text.casefold() if character.isalpha())


@pytest.mark.parametrize("split", SPLITS)
def test_readme_names_counts_and_checksum(split: str) -> None:
    checksum = hashlib.sha256((FOLDER / f"{split}.jsonl.gz").read_bytes()).hexdigest()
    line = f"| `{split}.jsonl.gz` | {len(rows(split)):,} | `{checksum}` |"
    assert line in (FOLDER / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("side", SIDES)
def test_every_text_has_15_to_160_characters(split: str, side: str) -> None:
    assert [row for row in rows(split) if not 15 <= len(row[side]) <= 160] == []


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("side", SIDES)
def test_no_markup_link_or_entity_is_left(split: str, side: str) -> None:
    unclean = re.compile(r"[<>\[\]{}`|]|https?|www\.|&(?:amp|lt|gt|quot);", re.IGNORECASE)
    assert [row[side] for row in rows(split) if unclean.search(row[side])] == []


@pytest.mark.parametrize("side", SIDES)
def test_no_two_texts_of_a_side_share_their_letters_in_any_split(side: str) -> None:
    keys = [letters(row[side]) for split in SPLITS for row in rows(split)]
    assert len(keys) == len(set(keys))

"""Make benchmarks/data/stsb_en from the public layout of the English STS benchmark: the genres whose texts may be passed on.

python benchmarks/make_stsb_en.py --data FOLDER    # the folder `data` of github.com/PhilipMay/stsb-multi-mt at 30de0dec4ee1
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

# The source has no column for the genre; its rows stand in this order (counts: the benchmark's own table of genres).
GENRES = {
    "train": {"MSRvid": 1000, "images": 1000, "deft-forum": 450, "MSRpar": 1000, "deft-news": 300, "headlines": 1999},
    "dev": {"MSRvid": 250, "images": 250, "track5.en-en": 125, "answers-forums": 375, "MSRpar": 250, "headlines": 250},
    "test": {
        "MSRvid": 250,
        "images": 250,
        "track5.en-en": 125,
        "answers-answers": 254,
        "MSRpar": 250,
        "headlines": 250,
    },
}
# MSRvid and MSRpar: for research alone. deft-*: no licence stated. answers-*: the names of the authors, which must be given, are not there.
KEPT = ("images", "track5.en-en", "headlines")
OUTPUT = Path(__file__).parent / "data" / "stsb_en"


def kept_rows(folder: Path, split: str) -> Iterator[dict]:
    """The pairs of the kept genres, in the order of the source, character for character."""
    with open(folder / f"stsb-en-{split}.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    genres = [genre for genre, count in GENRES[split].items() for _ in range(count)]
    for genre, (first, second, score) in zip(genres, rows, strict=True):
        if genre in KEPT:
            yield {"sentence1": first, "sentence2": second, "score": float(score), "genre": genre}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the source's folder `data`")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print("| file | pairs | SHA-256 of its text |\n|---|---|---|")
    for split in GENRES:
        rows = list(kept_rows(arguments.data, split))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
        (arguments.output / f"{split}.jsonl.gz").write_bytes(gzip.compress(text, compresslevel=9, mtime=0))
        print(f"| `{split}.jsonl.gz` | {len(rows):,} | `{hashlib.sha256(text).hexdigest()}` |")


if __name__ == "__main__":
    main()

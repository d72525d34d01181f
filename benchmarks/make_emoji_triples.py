"""Make benchmarks/data/emoji_image_text: small pictures of emoji, their line drawings and their words, from EmojiTwo.

python benchmarks/make_emoji_triples.py --data FOLDER
    # images.npz: `color` uint8 (n, 64, 64, 3) on white, `line_art` uint8 (n, 64, 64); captions.jsonl.gz: `codepoints`, `name`, `keywords`,
    # `has_bw` (is there a drawing?), `split` "train" or "test" (github.com/EmojiTwo/emojitwo at 311eff547b3f)
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 16
ONE_IN = 5  # of the source's training rows, those for development
OUTPUT = Path(__file__).parent / "data" / "emoji_image_text"


def shrunk(images: np.ndarray) -> np.ndarray:
    """(n, side, side, …) bytes to (n, 16, 16, …): the mean of each square."""
    rows, side, _, *rest = images.shape
    squares = images.reshape(rows, SIDE, side // SIDE, SIDE, side // SIDE, *rest)
    return np.round(squares.mean(axis=(2, 4))).astype(np.uint8)


def firsts(images: np.ndarray) -> np.ndarray:
    """The rows whose picture stands in no row before them."""
    return np.sort(np.unique(images.reshape(len(images), -1), axis=0, return_index=True)[1])


def split_of(row: dict[str, Any]) -> str:
    """The source's test rows, and by the SHA-256 of their code points a fifth of the others for development."""
    number = int(hashlib.sha256(row["codepoints"].encode()).hexdigest(), 16)
    return "dev" if row["split"] == "train" and number % ONE_IN == 0 else row["split"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    with gzip.open(folder / "captions.jsonl.gz", "rt", encoding="utf-8") as lines:
        captions = [json.loads(line) for line in lines]
    with np.load(folder / "images.npz", allow_pickle=False) as source:
        picture, drawing = shrunk(source["color"]), shrunk(source["line_art"])
    drawn = np.flatnonzero([row["has_bw"] for row in captions])
    kept = drawn[firsts(picture[drawn])]
    rows = [{**captions[number], "split": split_of(captions[number])} for number in kept.tolist()]
    np.savez_compressed(OUTPUT / "pictures.npz", picture=picture[kept], drawing=drawing[kept])
    with (OUTPUT / "words.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["codepoints", "name", "keywords", "split"])
        writer.writerows([row["codepoints"], row["name"], "; ".join(row["keywords"]), row["split"]] for row in rows)
    sizes = {path.name: f"{path.stat().st_size:,} bytes" for path in sorted(OUTPUT.iterdir())}
    print(f"{len(drawn):,} with a drawing, {len(rows):,} kept: {dict(Counter(row['split'] for row in rows))}; {sizes}")
    for name, images in (("picture", picture), ("drawing", drawing)):
        print(f"SHA-256 of `{name}`: {hashlib.sha256(images[kept].tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()

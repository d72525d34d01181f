"""Make benchmarks/data/flower_photos: small photos of daisies and tulips, and who took them, from the TensorFlow flower photos.

python benchmarks/make_flower_photos.py --data FOLDER
    # images.npz: `images` uint8 (n, 64, 64, 3), `label` (0 daisy, 1 tulip), `split` "train" or "test", `classes`, `filename`; ATTRIBUTION.tsv:
    # a line for each file name, with its photographer (github.com/databricks/Spark-The-Definitive-Guide at 4ba5601eb9b9)
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

import numpy as np

SIDE = 32
ONE_IN = 5  # of the source's training photos of each flower, those for development
OUTPUT = Path(__file__).parent / "data" / "flower_photos"


def shrunk(images: np.ndarray) -> np.ndarray:
    """(n, side, side, 3) bytes to (n, 32, 32, 3): the mean of each square."""
    rows, side, _, channels = images.shape
    squares = images.reshape(rows, SIDE, side // SIDE, SIDE, side // SIDE, channels)
    return np.round(squares.mean(axis=(2, 4))).astype(np.uint8)


def with_development(split: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The split with a fifth of the training photos of each flower as "dev", drawn once."""
    drawn, found = np.random.default_rng(0), split.copy()
    for flower in np.unique(label):
        rows = drawn.permutation(np.flatnonzero((label == flower) & (split == "train")))
        found[rows[: round(len(rows) / ONE_IN)]] = "dev"
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    with np.load(folder / "images.npz", allow_pickle=False) as file:
        source = {name: file[name] for name in file.files}
    credited = {line.split("\t")[0] for line in (folder / "ATTRIBUTION.tsv").read_text(encoding="utf-8").splitlines()}
    if missing := sorted({*source["filename"]} - credited):
        raise SystemExit(f"{len(missing)} photos have no photographer in ATTRIBUTION.tsv (first: {missing[0]}).")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "ATTRIBUTION.tsv", OUTPUT / "ATTRIBUTION.tsv")
    photo, split = shrunk(source["images"]), with_development(source["split"], source["label"])
    others = {name: source[name] for name in ("label", "classes", "filename")}
    np.savez_compressed(OUTPUT / "photos.npz", photo=photo, split=split, **others)
    for part in ("train", "dev", "test"):
        print(part, np.bincount(source["label"][split == part]).tolist(), "of", source["classes"].tolist())
    print({path.name: f"{path.stat().st_size:,} bytes" for path in sorted(OUTPUT.iterdir())})
    print(f"SHA-256 of `photo`: {hashlib.sha256(photo.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()

"""Make benchmarks/data/ucr_uea from the classification sets that come with aeon: four files of plain arrays.

python benchmarks/make_ucr_uea.py --data FOLDER    # aeon/datasets/data of github.com/aeon-toolkit/aeon at a101ddc8b35a
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

SETS = ("ArrowHead", "BasicMotions", "GunPoint", "ItalyPowerDemand")
OUTPUT = Path(__file__).parent / "data" / "ucr_uea"


def read_ts(path: Path) -> tuple[np.ndarray, list[str]]:
    """Series (n, t, c) and labels of a file in which a line holds the channels of a series, and its label, with colons between them."""
    series, labels = [], []
    lines = path.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip().lower() == "@data")
    for line in lines[first + 1 :]:
        if line.strip():
            *channels, label = line.strip().split(":")
            series.append(np.array([channel.split(",") for channel in channels], dtype=np.float32).T)
            labels.append(label)
    return np.stack(series), labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="aeon's folder datasets/data")
    parser.add_argument("--output", type=Path, default=OUTPUT, metavar="FOLDER")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    print("| file | train | test | steps | channels | labels | SHA-256 |\n|---|---|---|---|---|---|---|")
    for name in SETS:
        sides = {side: read_ts(arguments.data / name / f"{name}_{side.upper()}.ts") for side in ("train", "test")}
        series = np.concatenate([rows for rows, _ in sides.values()])
        label = np.array([each for _, labels in sides.values() for each in labels])
        split = np.array([side for side, (rows, _) in sides.items() for _ in rows])
        path = arguments.output / f"{name}.npz"
        np.savez_compressed(path, series=series, label=label, split=split)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        counts = " | ".join(f"{len(rows):,}" for rows, _ in sides.values())
        print(f"| `{path.name}` | {counts} | {series.shape[1]} | {series.shape[2]} | {len(set(label))} | `{digest}` |")


if __name__ == "__main__":
    main()

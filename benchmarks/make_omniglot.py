"""Make benchmarks/data/omniglot_small: small drawings of characters of five alphabets, from Omniglot's set "background small 1".

python benchmarks/make_omniglot.py --data FOLDER
    # images.npz: `images_packed` uint8 (n, 105, 14), bits of 105 x 105 drawings, 1 is ink; `alphabet`, `character`, `drawer` (n,), `alphabets`,
    # `characters`; LICENSE.txt (github.com/brendenlake/omniglot at 057f034baf2e)
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

import numpy as np

FROM, SIDE = 105, 28
OUTPUT = Path(__file__).parent / "data" / "omniglot_small"


def shares() -> np.ndarray:
    """(28, 105): what share of each of 28 equal stretches each of 105 pixels covers."""
    edges, pixels = np.arange(SIDE + 1) * FROM / SIDE, np.arange(FROM)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return covered.clip(0) * SIDE / FROM


def shrunk(packed: np.ndarray) -> np.ndarray:
    """(n, 105, 14) packed bits to (n, 28, 28) bytes: the mean of each square, which is 3.75 pixels wide; ink is 255."""
    ink = np.unpackbits(packed, axis=2)[:, :, :FROM]
    return np.round(255 * (shares() @ ink @ shares().T)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data
    with np.load(folder / "images.npz", allow_pickle=False) as file:
        drawing = shrunk(file["images_packed"])
        others = {name: file[name] for name in ("alphabet", "character", "drawer", "alphabets", "characters")}
    OUTPUT.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(folder / "LICENSE.txt", OUTPUT / "LICENSE.txt")
    np.savez_compressed(OUTPUT / "drawings.npz", drawing=drawing, **others)
    print(f"{len(drawing):,} drawings of {len(others['characters'])} characters")
    print({path.name: f"{path.stat().st_size:,} bytes" for path in sorted(OUTPUT.iterdir())})
    print(f"SHA-256 of `drawing`: {hashlib.sha256(drawing.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()

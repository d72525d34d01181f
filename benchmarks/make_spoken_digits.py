"""Make benchmarks/data/spoken_digits: small spectrograms of spoken digits, from the recordings of the Free Spoken Digit Dataset.

python benchmarks/make_spoken_digits.py --data digits.npz
    # `audio` int16, all recordings end to end; `offset` where each begins; `digit`, `speaker`, `take`; `sample_rate`
    # (github.com/Jakobovski/free-spoken-digit-dataset at 26eb9aaf76e8, four of its six speakers, names replaced by numbers)
"""

from __future__ import annotations

import argparse
import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np

WINDOW, HOP = 256, 128  # samples: 32 ms and 16 ms
BANDS, FRAMES = 16, 16
LOWEST = 100.0  # Hz; the highest is half of the sample rate
DEPTH = 8.0  # natural logarithms below a recording's loudest place; what is quieter is 0
TEST_TAKES, DEV_TAKES = 5, 10  # takes below 5 are the test split, as the source says; 5 to 9 the development split
OUTPUT = Path(__file__).parent / "data" / "spoken_digits" / "digits.npz"


def bands(rate: int) -> np.ndarray:
    """(window / 2 + 1, bands): triangles of equal width on the mel scale."""
    mel = np.linspace(*(2595 * np.log10(1 + hertz / 700) for hertz in (LOWEST, rate / 2)), BANDS + 2)
    edges = 700 * (10 ** (mel / 2595) - 1)
    hertz = np.fft.rfftfreq(WINDOW, 1 / rate)[:, None]
    rising, falling = (hertz - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - hertz) / np.diff(edges)[1:]
    return np.clip(np.minimum(rising, falling), 0, None)


def spectrogram(audio: np.ndarray, rate: int) -> np.ndarray:
    """A recording as (bands, frames) bytes: log energies, 255 at the loudest place, its whole length stretched to the same frames."""
    frames = np.lib.stride_tricks.sliding_window_view(audio.astype(np.float64), WINDOW)[::HOP] * np.hanning(WINDOW)
    energy = np.log((np.abs(np.fft.rfft(frames)) ** 2) @ bands(rate) + 1e-3).T
    times = np.linspace(0, energy.shape[1] - 1, FRAMES)
    stretched = np.stack([np.interp(times, np.arange(energy.shape[1]), band) for band in energy])
    return np.round(255 * np.clip(1 + (stretched - stretched.max()) / DEPTH, 0, 1)).astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    with np.load(parser.parse_args().data, allow_pickle=False) as source:
        rate, audio, offset = int(source["sample_rate"]), source["audio"], source["offset"]
        take = source["take"]
        sound = np.stack([spectrogram(audio[start:stop], rate) for start, stop in pairwise(offset)])
        split = np.where(take < TEST_TAKES, "test", np.where(take < DEV_TAKES, "dev", "train"))
        np.savez_compressed(
            OUTPUT,
            sound=sound,
            digit=source["digit"].astype(np.uint8),
            speaker=source["speaker"].astype(np.uint8),
            split=split,
        )
    names, counts = np.unique(split, return_counts=True)
    print(f"{OUTPUT}: {dict(zip(names.tolist(), counts.tolist(), strict=True))}, {OUTPUT.stat().st_size:,} bytes")
    print(f"SHA-256 of the spectrograms: {hashlib.sha256(sound.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()

"""What claims about images stand on: handwritten digits of 8 x 8 pixels, a small network, and probes of few and of all labels."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from contrapose.claims.claim import Figures, Measure, Source, Split
from contrapose.data.batches import Data
from contrapose.evaluation.probes import FEW_SHOT_STRENGTH, few_shot, linear_probe
from contrapose.image.data import open_data, read_data
from contrapose.image.encoder import ImageEncoder
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

DIGITS = Source(
    "digits",
    (),  # nothing is read from a folder: scikit-learn brings them
    "Handwritten digits of 8 x 8 pixels, 1,797 of 43 people, as scikit-learn brings them (the test part of UCI's Optical Recognition of "
    "Handwritten Digits): 1,200 to learn from, 297 to tune on, 300 to measure on, drawn once within each digit.",
    "CC BY 4.0, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository",
    "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
)
TRAIN, DEV = 1200, 297  # images; what is left is for the test
SHOTS, DRAWS = 5, 20

FEW = Measure(
    "5-shot accuracy",
    f"Accuracy of a logistic regression on the frozen network's vectors of {SHOTS} labelled training images of each digit, mean of {DRAWS} draws "
    "(the same for all arms).",
)
FULL = Measure(
    "accuracy",
    "Accuracy of a logistic regression on the vectors of all 1,200 labelled training images. It is near its best whatever the network: an "
    "untrained one has 0.97.",
)


class DigitsTask:
    """Learn from the training digits without their labels; measure by probes, which learn from all training digits with their labels.

    keep: how many training images of each digit 0 … 9 the method learns from, the first of each; None: all. The probes always have all.
    """

    def __init__(self, folder: Path, keep: Sequence[int] | None = None) -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        self.images = np.round(found.images * 255 / 16).astype(np.uint8)  # (n, 8, 8), counts from 0 to 16
        self.labels = found.target
        self.rows = split_rows(self.labels)
        self.learned = self.rows["train"]
        if keep is not None:
            known = self.labels[self.learned]
            kept = [np.flatnonzero(known == digit)[:most] for digit, most in enumerate(keep)]
            self.learned = self.learned[np.sort(np.concatenate(kept))]
        self.table = read_data({"image": self.images[self.learned], "label": self.labels[self.learned].astype(str)})

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, small_network(settings.seed))

    def measure(self, model: Method, split: Split) -> Figures:
        encoder = next(iter(model.encoders().values()))
        vectors = {side: encoder.encode(self.images[self.rows[side]], progress=False) for side in ("train", split)}
        return self._figures(vectors["train"], vectors[split], split)

    def controls(self, split: Split) -> dict[str, Figures]:
        """The pixels themselves."""
        pixels = {side: self.images[self.rows[side]].reshape(-1, 64) / 255 for side in ("train", split)}
        return {"pixels": self._figures(pixels["train"], pixels[split], split)}

    def facts(self) -> dict[str, Any]:
        return {
            "sha256": hashlib.sha256(self.images.tobytes()).hexdigest(),
            "images": {split: len(rows) for split, rows in self.rows.items()},
            "learned from": np.bincount(self.labels[self.learned], minlength=10).tolist(),
            "encoder": self._sample.record(),
        }

    @cached_property
    def _sample(self) -> ImageEncoder:
        return small_network(0)

    def _figures(self, train: np.ndarray, held_out: np.ndarray, split: Split) -> Figures:
        known, truth = self.labels[self.rows["train"]], self.labels[self.rows[split]]
        few = few_shot(train, known, held_out, truth, shots=SHOTS, draws=DRAWS)["accuracy"]
        full = linear_probe(train, known, held_out, strength=FEW_SHOT_STRENGTH)
        return {FEW.name: float(few.mean()), FULL.name: float((full == truth).mean())}


def split_rows(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Row numbers of "train", "dev" and "test", in random order; each has its share of every digit. Always the same."""
    drawn = np.random.default_rng(0)
    order = np.concatenate([drawn.permutation(np.flatnonzero(labels == digit)) for digit in range(10)])
    place = np.concatenate([(np.arange(n) + 0.5) / n for n in np.bincount(labels)])  # within its digit, from 0 to 1
    order = order[np.argsort(place, kind="stable")]
    parts = {"train": order[:TRAIN], "dev": order[TRAIN : TRAIN + DEV], "test": order[TRAIN + DEV :]}
    return {name: drawn.permutation(rows) for name, rows in parts.items()}


def small_network(seed: int) -> ImageEncoder:
    """64 pixels → 256 → 128, BatchNorm and ReLU after each layer."""
    return ImageEncoder.open("mlp", size=8, channels=1, seed=seed)

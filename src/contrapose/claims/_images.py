"""What claims about images stand on: images of known classes, a small network, and probes of few and of all labels."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from contrapose.claims.claim import Figures, Measure, Split
from contrapose.data.batches import Data
from contrapose.evaluation.probes import FEW_SHOT_STRENGTH, few_shot, linear_probe
from contrapose.image.data import open_data, read_data
from contrapose.image.encoder import ImageEncoder
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

SHOTS = 5

FEW = Measure(
    "5-shot accuracy",
    f"Accuracy of a logistic regression on the frozen network's vectors of {SHOTS} labelled training images of each class, mean of 20 draws (of 3 on "
    "drawings), the same for all arms.",
)
FULL = Measure(
    "accuracy",
    "Accuracy of a logistic regression on the vectors of all labelled training images. On digits it is near its best whatever the network: an "
    "untrained one has 0.97.",
)


@dataclass(frozen=True)
class Images:
    """Images, their classes, and what is asked of them.

    images: uint8, (n, h, w) in grey or (n, h, w, 3) in colour. labels: (n,), classes from 0. rows: numbers of the rows of "train", "dev" and
    "test". network: an untrained one of a seed. draws: of the few labelled images. neighbours: that tell an image's class.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: dict[str, np.ndarray]
    network: Callable[[int], ImageEncoder]
    draws: int = 20
    neighbours: int = 20


class ImageTask:
    """Learn from the training images without their labels; measure by probes, which learn from all training images with their labels.

    read: the images of a folder. keep: how many training images of each class the method learns from, the first of each; None: all. The probes
    always have all.
    """

    def __init__(self, folder: Path, read: Callable[[Path], Images], keep: Sequence[int] | None = None) -> None:
        self.found = read(folder)
        self.images, self.labels, self.rows = self.found.images, self.found.labels, self.found.rows
        self.learned = self.rows["train"]
        if keep is not None:
            known = self.labels[self.learned]
            kept = [np.flatnonzero(known == label)[:most] for label, most in enumerate(keep)]
            self.learned = self.learned[np.sort(np.concatenate(kept))]
        self.table = read_data({"image": self.images[self.learned], "label": self.labels[self.learned].astype(str)})

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.found.network(settings.seed))

    def measure(self, model: Method, split: Split) -> Figures:
        encoder = next(iter(model.encoders().values()))
        vectors = {side: encoder.encode(self.images[self.rows[side]], progress=False) for side in ("train", split)}
        return self.probed(vectors["train"], vectors[split], split)

    def controls(self, split: Split) -> dict[str, Figures]:
        """The pixels themselves."""
        return {"pixels": self.probed(self.pixels("train"), self.pixels(split), split)}

    def facts(self) -> dict[str, Any]:
        return {
            "sha256": hashlib.sha256(self.images.tobytes()).hexdigest(),
            "images": {split: len(rows) for split, rows in self.rows.items()},
            "learned from": np.bincount(self.labels[self.learned], minlength=self.labels.max() + 1).tolist(),
            "encoder": self._sample.record(),
        }

    @torch.no_grad()
    def features(self, model: Method, split: Split) -> Tensor:
        """The network's vectors of a split as the loss's head takes them, (n, dim)."""
        encoder = model.eval().encoder
        return encoder(encoder.collate(self.images[self.rows[split]]))

    def pixels(self, split: Split) -> np.ndarray:
        """(n, values) from 0 to 1."""
        return self.images[self.rows[split]].reshape(len(self.rows[split]), -1) / 255

    def probed(self, train: np.ndarray, held_out: np.ndarray, split: Split) -> Figures:
        known, truth = self.labels[self.rows["train"]], self.labels[self.rows[split]]
        few = few_shot(train, known, held_out, truth, shots=SHOTS, draws=self.found.draws)["accuracy"]
        full = linear_probe(train, known, held_out, strength=FEW_SHOT_STRENGTH)
        return {FEW.name: float(few.mean()), FULL.name: float((full == truth).mean())}

    @cached_property
    def _sample(self) -> ImageEncoder:
        return self.found.network(0)


def small_network(seed: int, size: int, channels: int = 1) -> ImageEncoder:
    """Pixels → 256 → 128, BatchNorm and ReLU after each layer."""
    return ImageEncoder.open("mlp", size=size, channels=channels, seed=seed)

"""GrowCLIP: a pair that grows while data arrive retrieves better than one that stays small, and inheriting beats starting anew."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from contrapose.claims.claim import Arm, Claim, Experiment, Figures, Measure, Source, Split, Statement
from contrapose.data.batches import Data
from contrapose.image_text.data import open_data, read_data
from contrapose.image_text.encoder import Pair, open_encoder
from contrapose.image_text.evaluation import Retrieves
from contrapose.training.encoder import together
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

DIGITS = Source(
    "digits",
    (),  # nothing is read from a folder: scikit-learn brings them
    "Handwritten digits of 8 x 8 pixels, as scikit-learn brings them (the test part of UCI's Optical Recognition of Handwritten Digits); two of them "
    "in a picture of 16 x 16, with a sentence that says which and where.",
    "CC BY 4.0, E. Alpaydin and C. Kaynak, UCI Machine Learning Repository",
    "https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
)
RECALL = Measure(
    "recall@1",
    "Recall@1 among 400 held-out pictures and sentences, the mean of both ways; sentences that read the same are equally right.",
)
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZES = {"train": 3500, "dev": 400, "test": 400}
IMAGES = {"train": (0, 1200), "dev": (1200, 1497), "test": (1497, 1797)}  # digits of no two splits are the same
PLACES = ((0, 0), (0, 8), (8, 0), (8, 8))
STEPS = 300  # of each increment


class CaptionsTask:
    """Learn from pictures of two digits with their sentences, in the order of the rows; measure retrieval on other digits.

    `rows`: how many pictures of each split.
    """

    def __init__(self, folder: Path, rows: dict[str, int] = SIZES) -> None:
        from sklearn.datasets import load_digits

        found = load_digits()
        self.images, self.labels = np.round(found.images * 255 / 16).astype(np.uint8), found.target
        tables = {split: read_data(self.pictures(split, count)) for split, count in rows.items()}
        self.table, self.held_out = tables["train"], {split: Retrieves(tables[split]) for split in ("dev", "test")}

    def pictures(self, split: str, count: int) -> dict[str, Any]:
        """Two digits of a split in two of four places of a picture, the first of them above or to the left."""
        drawn = np.random.default_rng(list(IMAGES).index(split))
        pictures, sentences = np.zeros((count, 16, 16), np.uint8), []
        for picture in pictures:
            one, other = drawn.integers(*IMAGES[split], size=2)
            first, second = sorted(drawn.choice(len(PLACES), 2, replace=False))
            for row, place in ((one, first), (other, second)):
                top, left = PLACES[place]
                picture[top : top + 8, left : left + 8] = self.images[row]
            above = PLACES[first][0] < PLACES[second][0]
            said = "above" if above else "left of"
            sentences.append(f"a {NAMES[self.labels[one]]} {said} a {NAMES[self.labels[other]]}")
        return {"image": pictures, "text": sentences}

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self._sample)

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, pair(self.table, settings.seed))

    def measure(self, model: Method, split: Split) -> Figures:
        return {RECALL.name: self.held_out[split].score(together(model.encoders()))}

    def controls(self, split: Split) -> dict[str, Figures]:
        """A candidate drawn at random."""
        right = self.held_out[split].right
        return {"chance": {RECALL.name: float(np.mean([len(each) for each in right])) / len(right)}}

    def facts(self) -> dict[str, Any]:
        return {
            "sha256": hashlib.sha256(self.images.tobytes()).hexdigest(),
            "pictures": {"train": len(self.table), **{split: len(held.texts) for split, held in self.held_out.items()}},
            "encoder": self._sample.record(),
        }

    @cached_property
    def _sample(self) -> Pair:
        return pair(self.table, 0)


def pair(table: Any, seed: int) -> Pair:
    """Towers of one block, small enough to be too small."""
    options = {
        "seed": seed,
        "depth": 1,
        "width": 32,
        "hidden": 32,
        "heads": 1,
        "patch": 4,
        "dim": 32,
        "buckets": 512,
        "max_tokens": 8,
    }
    return open_encoder("growing", options, table)


claim = Claim(
    method="growclip",
    says="Pairs of images and texts arrive in increments. Towers that grow with them, where the data of the increment say, from the weights that were "
    "learned so far, do better than towers of one size, and better than towers of the grown size that start anew.",
    source=DIGITS,
    measures=(RECALL,),
    tuned_by=RECALL.name,
    arms=(
        # trials are training too: what never grows takes as many steps in all
        Arm("fixed size", "growclip", {"grows": [], "stage_steps": round(STEPS * 4.2 / 3.2)}),
        Arm("grown, weights forgotten", "growclip", {"momentum": 0.0}),
        Arm("grown, weights kept", "growclip", {"momentum": 1.0}),
        Arm("GrowCLIP", "growclip"),
    ),
    statements=(
        Statement("Growing beats one size, with as many steps.", RECALL.name, "GrowCLIP", "fixed size", least=0.02),
        Statement("Inheriting beats starting anew.", RECALL.name, "GrowCLIP", "grown, weights forgotten", least=0.02),
        Statement(
            "Inheriting with momentum beats keeping weights as they are.",
            RECALL.name,
            "GrowCLIP",
            "grown, weights kept",
            least=0.01,
        ),
    ),
    experiments=(
        Experiment(
            "two digits",
            "500, 1,000 and 2,000 pictures of two digits with sentences such as 'a three above a seven'; transformers of one block and 32 dimensions "
            "at the start, of own random weights.",
            CaptionsTask,
            {"batch_size": 128, "stage_steps": STEPS, "blocks": 1, "budget": 2.0, "precision": "fp32"},
            {"learning_rate": (1e-3, 3e-3)},
            minutes=5,
            tuning_seeds=1,
        ),
    ),
)

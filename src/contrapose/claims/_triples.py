"""What the claim about several modalities stands on: rows of three, of which two together tell the third."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.datasets import load_digits
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from contrapose.claims.claim import Figures, Measure, Source, Split
from contrapose.data.batches import Data
from contrapose.data.table import Table
from contrapose.evaluation.probes import majority_class
from contrapose.evaluation.regression import ridge_probe
from contrapose.evaluation.retrieval import Retrieval, retrieval
from contrapose.multimodal.data import open_data, read_data, values_of
from contrapose.multimodal.encoder import ColumnOptions, Modalities, VectorEncoder, centre_and_deviation
from contrapose.multimodal.evaluation import ZeroShot, rule_of
from contrapose.training.encoder import Encoders
from contrapose.training.method import Method
from contrapose.training.settings import MethodSettings

SPOKEN_DIGITS = Source(
    "spoken_digits",
    ("digits.npz",),
    "Spectrograms of 2,000 spoken digits. Beside them the 1,797 pictures of handwritten digits that come with scikit-learn, and generated bits.",
    "CC BY-SA 4.0, Free Spoken Digit Dataset (Z. Jackson and contributors); handwritten digits: CC BY 4.0, E. Alpaydin and C. Kaynak (UCI)",
    "https://github.com/Jakobovski/free-spoken-digit-dataset",
)
EMOJI = Source(
    "emoji_image_text",
    ("pictures.npz", "words.csv"),
    "1,398 emoji: a picture, a line drawing, a name and keywords of each.",
    "Pictures and drawings: CC BY 4.0, Emojione 2 and EmojiTwo artwork, emojitwo.github.io; names and keywords: MIT, EmojiOne, and Unicode licence, "
    "Unicode CLDR",
    "https://github.com/EmojiTwo/emojitwo",
)
ACCURACY = Measure(
    "accuracy", "Share of rows whose third modality, given the other two, is ranked first among its distinct values."
)
ACCURACY_AT_10 = Measure("accuracy@10", "Share of rows whose third modality is ranked among the first ten.")
RIDGE = 1.0  # the penalty, where rows have a squared length of 1 on average
Columns = Mapping[str, np.ndarray]


class TripleTask:
    """Learn from rows of three modalities, and predict `target` from the other two.

    `rows`: columns by split, "train" beside "dev" and "test". `hidden`: sizes of hidden layers by column; none: a linear encoder.
    """

    target: str
    dim: int
    options: Mapping[str, ColumnOptions]
    rows: Mapping[str, Columns]
    words: str

    @cached_property
    def table(self) -> Table:
        return read_data(dict(self.rows["train"]))

    def encoders(self, seed: int | None = None) -> Modalities:
        """Fresh ones; without a seed their weights come from torch's own generator."""
        made = {}
        for stream, (name, options) in enumerate(self.options.items()):
            vectors = self.rows["train"][name].reshape(len(self.table), -1)
            centre, deviation = centre_and_deviation(vectors, options.scale)
            made[name] = VectorEncoder(
                vectors.shape[1], self.dim, options, centre=centre, deviation=deviation, seed=seed, stream=stream
            )
        return Modalities(made)

    def data(self, method: type[Method]) -> Data:
        return open_data(self.table, method.card, self.encoders(seed=0))

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, self.encoders())

    def measure(self, model: Method, split: Split) -> Figures:
        return {ACCURACY.name: self.protocol(split).score(Encoders(model.encoders()))}

    def protocol(self, split: Split) -> ZeroShot:
        return ZeroShot(dict(self.rows[split]), {"target": self.target})

    def controls(self, split: Split) -> dict[str, Figures]:
        """The commonest value of the training rows, and logistic regression on the other two modalities side by side."""
        encoders = self.encoders(seed=0)
        inputs, labels = {}, {}
        for part, table in (("train", self.table), (split, self.protocol(split).table)):
            columns = {name: np.nan_to_num(values_of(table, name, encoders[name])) for name in encoders}
            labels[part] = codes(columns.pop(self.target))
            inputs[part] = np.concatenate(list(columns.values()), axis=1)
        fitted = LogisticRegression(C=0.01, tol=1e-3, max_iter=1000).fit(inputs["train"], labels["train"])
        predicted = {
            "commonest value": majority_class(labels["train"], len(labels[split])),
            "logistic regression": fitted.predict(inputs[split]),
        }
        return {name: {ACCURACY.name: float((each == labels[split]).mean())} for name, each in predicted.items()}

    def facts(self) -> dict[str, Any]:
        sizes = {split: len(next(iter(columns.values()))) for split, columns in self.rows.items()}
        return {
            "rows": self.words,
            "counts": sizes,
            "fingerprint": self.table.fingerprint,
            "encoders": self.encoders(seed=0).record()["encoders"],
        }


class XorTask(TripleTask):
    """Bits a and b by chance; c is a or, for a share of the rows, a xor b. Generated, always the same; the folder is not read.

    b is predicted from a and c: the best that can be reached is (1 + share) / 2. `missing`: the share of the training rows' values that are
    left out, each by itself.
    """

    target, dim = "b", 16

    def __init__(
        self, folder: Path, share: float, missing: float = 0.0, train: int = 3000, held_out: int = 2000
    ) -> None:
        options = ColumnOptions(scale="none", missing="learned" if missing else "refuse")
        self.options = dict.fromkeys("abc", options)
        self.words = (
            f"bits, c is a xor b in a share of {share:g}, {missing:.0%} of the training values left out, seed 0"
        )
        self.share, drawn = share, np.random.default_rng(0)
        sizes = {"train": train, "dev": held_out, "test": held_out}
        self.rows = {
            split: self.draw(drawn, rows, missing if split == "train" else 0.0) for split, rows in sizes.items()
        }

    def draw(self, drawn: np.random.Generator, rows: int, missing: float) -> Columns:
        a, b = drawn.integers(0, 2, (2, rows))
        c = np.where(drawn.random(rows) < self.share, a ^ b, a)
        gone = drawn.random((3, rows)) < missing
        return {
            name: np.where(left_out, np.nan, bits).astype(np.float32)[:, None]
            for name, bits, left_out in zip("abc", (a, b, c), gone, strict=True)
        }

    def controls(self, split: Split) -> dict[str, Figures]:
        best = {"best possible": {ACCURACY.name: (1 + self.share) / 2}}
        return best if np.isnan(self.rows["train"]["b"]).any() else super().controls(split) | best


class SumTask(TripleTask):
    """A digit in one modality, a digit in another, and the last digit of their sum, one-hot: drawn from real pictures and sounds.

    `first`: "picture" (scikit-learn's handwritten digits) or "sound" (the spoken digits of the folder); the second is a picture always. No
    picture and no recording stands in two splits.
    """

    target, dim = "sum", 32

    def __init__(self, folder: Path, first: str, train: int = 10_000, held_out: int = 2000, hidden: int = 128) -> None:
        network = ColumnOptions(hidden=(hidden,))
        self.options = {first: network, "other picture": network, "sum": ColumnOptions()}
        self.words = f"a {first}, a picture of another digit and the last digit of their sum, seed 0"
        drawn = np.random.default_rng(0)
        sides = [sounds(folder) if first == "sound" else pictures(), pictures()]
        self.rows = {}
        for split, rows in {"train": train, "dev": held_out, "test": held_out}.items():
            chosen = [drawn.integers(0, len(digits), rows) for _, digits in (side[split] for side in sides)]
            (x, y), (left, right) = (
                [side[split][part][rows_] for side, rows_ in zip(sides, chosen, strict=True)] for part in (0, 1)
            )
            total = np.eye(10, dtype=np.float32)[(left.astype(int) + right) % 10]
            self.rows[split] = {first: x, "other picture": y, "sum": total}


class EmojiTask(TripleTask):
    """Emoji as picture, line drawing and words; a picture of the split is searched by its drawing and its words.

    Words are a TF-IDF of name and keywords, of the words that two training rows or more have. No picture stands twice. `hidden`: units
    of an MLP for each of the three.
    """

    target, dim = "picture", 32

    def __init__(self, folder: Path, hidden: int = 128) -> None:
        self.options = dict.fromkeys(("picture", "drawing", "words"), ColumnOptions(hidden=(hidden,)))
        self.words = "a small picture of an emoji, its line drawing, and a TF-IDF of its name and keywords"
        with np.load(folder / EMOJI.files[0], allow_pickle=False) as file:
            images = {name: (file[name] / 255).astype(np.float32) for name in ("picture", "drawing")}
        with (folder / EMOJI.files[1]).open(encoding="utf-8", newline="") as file:
            said = list(csv.DictReader(file))
        split = np.array([row["split"] for row in said])
        texts = np.array([f"{row['name']} {row['keywords']}" for row in said])
        weights = TfidfVectorizer(min_df=2, dtype=np.float32).fit(texts[split == "train"]).transform(texts).toarray()
        self.rows = {
            part: {name: rows[split == part] for name, rows in (images | {"words": weights}).items()}
            for part in ("train", "dev", "test")
        }

    def measure(self, model: Method, split: Split) -> Figures:
        encoders = Encoders(model.encoders())
        return figures(self.protocol(split).rank(encoders, rule_of(encoders))[self.target])

    def controls(self, split: Split) -> dict[str, Figures]:
        """A guess, and the nearest by cosine to what a ridge regression on the other two modalities side by side says."""
        columns = {
            part: {name: values.reshape(len(values), -1) for name, values in self.rows[part].items()}
            for part in ("train", split)
        }
        target = {part: each.pop(self.target) for part, each in columns.items()}
        inputs = {part: np.concatenate(list(each.values()), axis=1) for part, each in columns.items()}
        centre, rows = target["train"].mean(axis=0), len(target[split])
        predicted = ridge_probe(inputs["train"], target["train"], inputs[split], penalty=RIDGE)
        return {
            "chance": {ACCURACY.name: 1 / rows, ACCURACY_AT_10.name: min(1.0, 10 / rows)},
            "ridge regression": figures(retrieval(predicted - centre, target[split] - centre)),
        }


def figures(ranked: Retrieval) -> Figures:
    return {ACCURACY.name: ranked.means["accuracy@1"], ACCURACY_AT_10.name: ranked.means["accuracy@10"]}


def pictures() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(n, 8, 8) of 0 to 1 and their digits, by split: 1,000, 397 and 400."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images, labels = (found.images[order] / 16).astype(np.float32), found.target[order]
    parts = {"train": slice(0, 1000), "dev": slice(1000, 1397), "test": slice(1397, None)}
    return {split: (images[part], labels[part]) for split, part in parts.items()}


def sounds(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(n, 16, 16) of 0 to 1 and their digits, by split."""
    with np.load(folder / SPOKEN_DIGITS.files[0], allow_pickle=False) as file:
        sound, digit, split = (file[name] for name in ("sound", "digit", "split"))
    return {
        part: ((sound[split == part] / 255).astype(np.float32), digit[split == part])
        for part in ("train", "dev", "test")
    }


def codes(vectors: np.ndarray) -> np.ndarray:
    """Equal rows get equal integers; one-hot rows their place, bits themselves."""
    return vectors.argmax(axis=1) if vectors.shape[1] > 1 else vectors[:, 0].astype(int)

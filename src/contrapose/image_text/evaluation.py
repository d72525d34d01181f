"""Protocols for pairs of encoders, beside the untrained pair and chance: retrieval both ways, and classes by their names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from contrapose.data.columns import GROUP, Column
from contrapose.data.table import Table
from contrapose.errors import ProtocolDataInvalid, ProtocolUnknown, nearest
from contrapose.evaluation.result import Result, scores
from contrapose.evaluation.retrieval import Retrieval, retrieval
from contrapose.image.data import ImageValues
from contrapose.image_text.data import read_data
from contrapose.training.encoder import Encoder

SIDES = (Column("image", "image", "An image."), Column("text", "text", "What it shows."))
NAMED = (Column("image", "image", "An image."), Column("label", "text", "What it shows, as the prompt says it: 'cat'."))
# As the field has it: whether any right candidate is among the first k, which `retrieval` calls accuracy.
SHOWN = {"recall@1": "accuracy@1", "recall@5": "accuracy@5", "recall@10": "accuracy@10", "mrr": "mrr"}
TIES = "by cosine; ties count against"
System = Mapping[str, Encoder]


def open_protocol(
    name: str, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None
) -> Retrieves | ZeroShot:
    """A protocol on its data, read and checked. Raises ProtocolUnknown, ProtocolDataInvalid, or what `read_data` raises."""
    if name not in PROTOCOLS:
        raise ProtocolUnknown(f"There is no protocol '{name}' for images with texts; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name].open(source, columns, training)


def protocol_columns(names: Iterable[str]) -> set[str]:
    """The columns that the data of these protocols have; of an unknown protocol none."""
    return {column.name for name in names if name in PROTOCOLS for column in PROTOCOLS[name].columns}


def opened(source: Any, columns: Mapping[str, str] | None, needs: Sequence[Column]) -> Table:
    """A protocol's table, its columns renamed where it has what they are called by."""
    loose = read_data(source, strict=False)
    known = {*(column.name for column in needs), GROUP}
    rename = {name: yours for name, yours in (columns or {}).items() if name in known and yours in loose}
    return read_data(loose, rename=rename, needs=needs)


class Retrieves:
    """For each image, is its text nearest among all texts, and for each text its image?

    `source`: whatever `read_data` takes, with the columns `image` and `text` (optional `group_id`). Right are the partner, the partners of rows
    of one group, and texts that read the same: an image with five captions is five rows of one group.
    """

    name = "retrieval"
    scored = "recall@1"

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        table = opened(source, columns, SIDES)
        if len(table) < 2:
            raise ProtocolDataInvalid(f"{table.source} has a single row; retrieval needs two candidates at least.")
        self.source, self.images, self.texts = table.source, ImageValues(table, "image"), list(table["text"])
        groups = range(len(table)) if table.group is None else table.group.tolist()
        self.right = alike(list(groups), self.texts)

    def score(self, system: System) -> float:
        """Recall@1, the mean of both ways: what `select` goes by."""
        return float(np.mean([ranked["accuracy@1"].mean() for ranked in self.rank(system)]))

    def evaluate(self, systems: Mapping[str, System]) -> dict[str, Any]:
        """The result of each system beside chance, as JSON values. `systems`: the pair before and after, in this order."""
        ranked = {name: self.rank(system) for name, system in systems.items()}
        rows = {name: self.named(each) for name, each in ranked.items()}
        first = {name: figures for name, figures in rows.items() if name == "untrained"}
        by_chance = np.array([len(right) for right in self.right]) / len(self.right)
        chance = {f"recall@1 {way}": by_chance for way in ("image→text", "text→image")}
        systems_in_order = first | {"chance": chance} | rows
        result = Result(
            self.name,
            self.source,
            len(self.texts),
            f"Retrieval image→text and text→image among {len(self.texts):,} candidates, exact, {TIES}; texts that read the same are equally "
            "right. recall@k: a right one is among the first k. Intervals: 95 % bootstrap over queries, 2,000 resamples.",
            {name: scores(figures) for name, figures in systems_in_order.items()},
        )
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def rank(self, system: System) -> list[Retrieval]:
        pictures, words = system["image"].encode(self.images), system["text"].encode(self.texts)
        return [retrieval(one, other, self.right) for one, other in ((pictures, words), (words, pictures))]

    def named(self, ranked: Sequence[Retrieval]) -> dict[str, np.ndarray]:
        ways = zip(("image→text", "text→image"), ranked, strict=True)
        return {f"{shown} {way}": figures[metric] for way, figures in ways for shown, metric in SHOWN.items()}


def alike(groups: Sequence[int], texts: Sequence[str]) -> list[list[int]]:
    """For each row: itself, the rows of its group, and the rows whose text is that of one of these."""
    by_group, by_text = defaultdict(list), defaultdict(list)
    for row, (group, text) in enumerate(zip(groups, texts, strict=True)):
        by_group[group].append(row)
        by_text[text].append(row)
    right = []
    for row, group in enumerate(groups):
        near = [row, *by_group[group]]
        right.append(list(dict.fromkeys(near + [same for each in near for same in by_text[texts[each]]])))
    return right


class ZeroShot:
    """Which class's name is nearest to an image, of all classes, though none was ever learned as a class?

    `source`: whatever `read_data` takes, with the columns `image` and `label`. A class is asked for by `prompt`, with its label in the place of {}.
    """

    name = "zero_shot"
    scored = "accuracy@1"
    prompt = "a picture of {}"

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        table = opened(source, columns, NAMED)
        labels = [str(label) for label in table["label"]]
        self.classes = sorted(set(labels))
        if len(self.classes) < 2:
            raise ProtocolDataInvalid(
                f"{table.source}: every label is '{self.classes[0]}'; classes are told apart from two on."
            )
        self.source, self.images = table.source, ImageValues(table, "image")
        self.right = [[self.classes.index(label)] for label in labels]

    def score(self, system: System) -> float:
        """Accuracy: what `select` goes by."""
        return float(self.rank(system)["accuracy@1"].mean())

    def evaluate(self, systems: Mapping[str, System]) -> dict[str, Any]:
        """The result of each system beside chance, as JSON values."""
        rows = {
            name: {metric: self.rank(system)[metric] for metric in ("accuracy@1", "mrr")}
            for name, system in systems.items()
        }
        first = {name: figures for name, figures in rows.items() if name == "untrained"}
        chance = {"accuracy@1": np.full(len(self.right), 1 / len(self.classes))}
        result = Result(
            self.name,
            self.source,
            len(self.right),
            f"Zero-shot classification: of {len(self.classes)} classes the one whose prompt, '{self.prompt}', is nearest to the image, {TIES}. "
            "Intervals: 95 % bootstrap over images, 2,000 resamples.",
            {name: scores(figures) for name, figures in (first | {"chance": chance} | rows).items()},
        )
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def rank(self, system: System) -> Retrieval:
        names = system["text"].encode([self.prompt.format(label) for label in self.classes])
        return retrieval(system["image"].encode(self.images), names, self.right)


class Kind(NamedTuple):
    """How a protocol is opened, and the columns of its data."""

    open: Callable[[Any, Mapping[str, str] | None, Table | None], Retrieves | ZeroShot]
    columns: Sequence[Column]


PROTOCOLS = {"retrieval": Kind(Retrieves, SIDES), "zero_shot": Kind(ZeroShot, NAMED)}

"""Protocols for encoders of sequences: what comes next, ranked among all items, beside popularity and the most frequent successor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from contrapose.data.columns import GROUP, Column
from contrapose.errors import ProtocolDataInvalid, ProtocolUnknown, UserTooShort, nearest
from contrapose.evaluation.ranking import CUTS, full_ranking
from contrapose.evaluation.result import Result, scores
from contrapose.sequence._counts import Counts
from contrapose.sequence._table import COLUMNS, SequenceTable
from contrapose.sequence.data import LEAST, encoded, read_data
from contrapose.sequence.encoder import SequenceEncoder

HELD_OUT = 2  # interactions of each user that controls never count: the test and the development data
EXAMPLES = 12  # users shown with their likeliest next items
SHOWN = 3
KINDS = {
    "next_item": (1, "The last interaction of each user"),
    "next_item_dev": (2, "The last interaction but one of each user"),
}


def open_protocol(
    name: str, source: Any, columns: Mapping[str, str] | None = None, training: SequenceTable | None = None
) -> NextItem:
    """A protocol on its data, read and checked. `training`: what the method learns from; controls count in it.

    Raises ProtocolUnknown, UserTooShort, or what `read_data` raises.
    """
    if name not in PROTOCOLS:
        raise ProtocolUnknown(f"There is no protocol '{name}' for sequences; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name].open(source, columns, training)


def protocol_columns(names: Iterable[str]) -> set[str]:
    """The columns that the data of these protocols have; of an unknown protocol none."""
    return {column.name for name in names if name in PROTOCOLS for column in PROTOCOLS[name].columns}


class NextItem:
    """Leave-one-out: each user's held-out interaction, ranked among all items by the interactions before it.

    `held_out`: 1 is the last interaction (the test), 2 the one before (the development data); the sequence ends before it. Every item is ranked, those
    the user has had too: people buy twice. Items that the encoder does not know are refused, or, where it skips them, count as missed.
    """

    scored = "NDCG@10"  # what `score` is the mean of

    def __init__(
        self,
        name: str,
        source: Any,
        columns: Mapping[str, str] | None = None,
        training: SequenceTable | None = None,
        ks: Sequence[int] = CUTS,
    ) -> None:
        self.name, (self.held_out, self.words), self.ks = name, KINDS[name], ks
        self.table = source if isinstance(source, SequenceTable) else _read(source, columns)
        short = np.flatnonzero(self.table.lengths < LEAST)
        if len(short):
            count = "the only such user" if len(short) == 1 else f"{len(short):,} such users in all"
            raise UserTooShort(
                f"{self.table.where(int(short[0]))} has {self.table.lengths[short[0]]} interaction(s) ({count}), and {LEAST} are needed to hold out the "
                f"last two. Leave such users out, or keep users and items with five interactions: core(read_data(…), 5)."
            )
        self.source, self.fingerprint = self.table.source, self.table.fingerprint
        self.training = self.table if training is None else training

    def refuse(self, encoder: SequenceEncoder) -> None:
        """Raises, before anything is trained or written, ItemUnknown or ProtocolDataInvalid for items that the encoder does not know."""
        self.questions(encoder)

    def score(self, encoder: SequenceEncoder) -> float:
        """Mean NDCG@10: what `select` goes by."""
        return float(self.rank(encoder, (10,))["NDCG@10"].mean())

    def evaluate(self, systems: Mapping[str, SequenceEncoder]) -> dict[str, Any]:
        """The result of each system beside the controls, and some users to read, as JSON values. `systems`: the encoder before and after."""
        encoders = list(systems.values())
        rows = {name: self.rank(encoder) for name, encoder in systems.items() if name == "untrained"}
        rows |= self.controls(encoders[-1])
        rows |= {name: self.rank(encoder) for name, encoder in systems.items() if name != "untrained"}
        result = Result(
            self.name,
            self.source,
            len(self.table),
            self.description(encoders[-1]),
            {name: scores(each) for name, each in rows.items()},
        )
        return {
            "protocol": self.name,
            "data": self.source,
            "result": result.record(),
            "examples": self.examples(encoders[0], encoders[-1]),
        }

    def description(self, encoder: SequenceEncoder) -> str:
        return (
            f"{self.words}, from all before it: {len(self.table):,} users, each item ranked among all {len(encoder.items):,}, what the user has had included; ties count against. "
            f"Controls count the interactions of {self.training.source} without each user's last {HELD_OUT}. "
            "Intervals: 95 % bootstrap over users, 2,000 resamples."
        )

    def rank(self, encoder: SequenceEncoder, ks: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """ "HR@k", "NDCG@k" and "MRR" of each user, (n,) in the order of the table. Raises ItemUnknown."""
        histories, targets, rows = self.questions(encoder)
        vectors = torch.from_numpy(encoder.encode(Numbered(histories, encoder)))
        items = torch.from_numpy(encoder.item_vectors()).T.contiguous()

        def by_vectors(users: slice) -> np.ndarray:
            return (vectors[users] @ items).numpy()

        return self.whole(full_ranking(by_vectors, targets, len(encoder.items), ks=ks or self.ks), rows)

    def controls(self, encoder: SequenceEncoder) -> dict[str, dict[str, np.ndarray]]:
        """What needs no encoder: the most popular items, and what most often followed the user's last one; among the encoder's items."""
        histories, targets, rows = self.questions(encoder)
        counts = Counts.of(*encoded(self.training, encoder), len(encoder.items), HELD_OUT)
        last = np.array([history[-1] - 1 for history in histories])

        def by_popularity(users: slice) -> np.ndarray:
            return np.broadcast_to(counts.popularity, (users.stop - users.start, len(encoder.items)))

        def by_successor(users: slice) -> np.ndarray:
            return counts.after(last[users])

        found = {"most popular": by_popularity, "most frequent successor": by_successor}
        return {
            name: self.whole(full_ranking(by, targets, len(encoder.items), ks=self.ks), rows)
            for name, by in found.items()
        }

    def questions(self, encoder: SequenceEncoder) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        """For the users who can be asked: item numbers before the held-out one, places of that one in the encoder's items, and their rows."""
        encoded(self.table, encoder)  # refuses what it has to
        known = np.array([encoder.number_of.get(name, 0) for name in self.table.items], np.int64)
        histories, targets, rows = [], [], []
        for row in range(len(self.table)):
            own = known[self.table.sequence(row)]
            history, target = own[: -self.held_out], own[-self.held_out]
            history = history[history > 0]
            if target and len(history):
                histories.append(history), targets.append(target - 1), rows.append(row)
        if not rows:
            raise ProtocolDataInvalid(
                f"{self.source}: the encoder knows none of the {len(self.table):,} items that are held out."
            )
        return histories, np.array(targets), np.array(rows)

    def whole(self, figures: Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
        """Figures of some rows as those of all, 0 for the others."""
        found = {}
        for name, values in figures.items():
            found[name] = np.zeros(len(self.table))
            found[name][rows] = values
        return found

    def examples(self, before: SequenceEncoder, after: SequenceEncoder) -> list[dict[str, Any]]:
        """Evenly chosen users: their last items, what came next, and what each encoder finds likeliest."""
        histories, targets, _ = self.questions(after)
        chosen = np.linspace(0, len(targets) - 1, min(EXAMPLES, len(targets))).astype(int)
        best = [
            self.likeliest(encoder, [histories[row] for row in chosen], targets[chosen]) for encoder in (before, after)
        ]
        return [
            {
                "query": " → ".join(after.items[number - 1] for number in histories[row][-SHOWN:]),
                "answer": after.items[targets[row]],
                "before": first,
                "after": second,
            }
            for row, first, second in zip(chosen, *best, strict=True)
        ]

    def likeliest(
        self, encoder: SequenceEncoder, histories: list[np.ndarray], targets: np.ndarray
    ) -> list[list[dict[str, Any]]]:
        """The likeliest next items of some sequences, best first."""
        found = encoder.encode(Numbered(histories, encoder), progress=False) @ encoder.item_vectors().T
        return [
            [
                {"text": encoder.items[item], "score": round(float(row[item]), 3), "right": bool(item == target)}
                for item in np.argsort(-row, kind="stable")[:SHOWN]
            ]
            for row, target in zip(found, targets, strict=True)
        ]


class Numbered(Sequence[Any]):
    """Item numbers as the lists of names that an encoder takes, made when they are asked for; all but what it reads left out."""

    def __init__(self, histories: Sequence[np.ndarray], encoder: SequenceEncoder) -> None:
        self.histories, self.encoder = histories, encoder

    def __len__(self) -> int:
        return len(self.histories)

    def __getitem__(self, row: int) -> list[str]:
        return [self.encoder.items[number - 1] for number in self.histories[row][-self.encoder.max_length :]]


def _read(source: Any, columns: Mapping[str, str] | None) -> SequenceTable:
    """A protocol's data; what is mapped holds for the training data too, and a file without a column of that name keeps its own."""
    from contrapose.data.readers import read

    table = read(source, needs=COLUMNS, strict=False)
    known = {*(column.name for column in COLUMNS), GROUP}
    return read_data(
        table, rename={name: yours for name, yours in (columns or {}).items() if name in known and yours in table}
    )


class Kind(NamedTuple):
    """How a protocol is opened, and the columns of its data."""

    open: Callable[[Any, Mapping[str, str] | None, SequenceTable | None], NextItem]
    columns: Sequence[Column]


PROTOCOLS = {name: Kind(partial(NextItem, name), COLUMNS) for name in KINDS}

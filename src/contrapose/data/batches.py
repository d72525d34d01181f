"""Rows become batches: collated columns, read only when a method asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import LongTensor, Tensor


@dataclass(frozen=True)
class Facts:
    """What a method may know of the data when it is built; kept beside the weights, so that they can be loaded without the data."""

    rows: int
    columns: tuple[str, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # labels, domains, items: distinct, sorted


@dataclass(frozen=True)
class Data:
    """Named columns of equal length, each giving b collated rows for a LongTensor of row numbers: `column[rows]`.

    `group` holds an integer for each row, or is None: rows of one group are never each other's negatives.
    """

    columns: Mapping[str, Any]
    rows: int
    group: LongTensor | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    source: str = "the data"
    fingerprint: str = ""

    @property
    def facts(self) -> Facts:
        return Facts(self.rows, tuple(self.columns), self.categories)

    def __len__(self) -> int:
        return self.rows

    def take(self, rows: LongTensor) -> Data:
        """Some rows of the data, numbered anew from 0."""
        columns = {name: Rows(column, rows) for name, column in self.columns.items()}
        return replace(self, columns=columns, rows=len(rows), group=None if self.group is None else self.group[rows])


@dataclass(frozen=True)
class Rows:
    """Some rows of a column, as a column."""

    column: Any
    rows: LongTensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: LongTensor) -> Any:
        return self.column[self.rows[rows]]


@dataclass
class Batch:
    """Some rows of the data, and everything random about them.

    `rows` has shape (b,), or (b, p) where `Method.batches` drew p − 1 partner rows for each row. Columns are collated when they are asked for:
    `batch["text"]`. A process holds the rows `first … first + b` of the step's `size` rows; `batch.whole` is the batch of all processes.
    Randomness comes from `generator` alone, which is in the same state on all processes.
    """

    data: Data
    rows: LongTensor
    step: int
    generator: torch.Generator
    device: torch.device = torch.device("cpu")
    first: int = 0
    everywhere: LongTensor | None = None  # the rows of all processes; None in one process
    columns: dict[str, Any] = field(default_factory=dict)  # collated already, or born in a view

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> Any:
        if name not in self.columns:
            row = self.rows if self.rows.ndim == 1 else self.rows[:, 0]
            self.columns[name] = to_device(self.data.columns[name][row], self.device)
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns or name in self.data.columns

    @property
    def group(self) -> LongTensor | None:
        """(b,) integers on the batch's device, or None."""
        if self.data.group is None:
            return None
        row = self.rows if self.rows.ndim == 1 else self.rows[:, 0]
        return self.data.group[row].to(self.device)

    def partner(self, number: int = 1) -> Batch:
        """The batch of the partner rows drawn beside these: column `number` of `rows`."""
        everywhere = None if self.everywhere is None else self.everywhere[:, number]
        return replace(self, rows=self.rows[:, number], everywhere=everywhere, columns={})

    @property
    def whole(self) -> Batch:
        """The batch of all processes; in one process, this one."""
        if self.everywhere is None:
            return self
        return replace(self, rows=self.everywhere, first=0, everywhere=None, columns={})

    def uniform(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float64 of shape (b, *shape): a row gets the same numbers on any number of processes."""
        size = len(self.rows if self.everywhere is None else self.everywhere)
        drawn = torch.rand(size, *shape, generator=self.generator, dtype=torch.float64)
        return drawn[self.first : self.first + len(self)].to(self.device)


def shuffled_batches(rows: int, batch_size: int, generator: torch.Generator) -> list[LongTensor]:
    """All rows in random order in batches of `batch_size`; the last one may be smaller, and is left out when it holds a single row."""
    order = torch.randperm(rows, generator=generator)
    batches = list(order.split(batch_size))
    return batches[:-1] if len(batches) > 1 and len(batches[-1]) == 1 else batches


def seeded(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose state depends on the key alone, so that no random state has to be saved to resume exactly."""
    return torch.Generator(device).manual_seed(seed_of(*key))


def seed_of(*key: int) -> int:
    return int(np.random.SeedSequence(list(key)).generate_state(1, np.uint64)[0] >> 1)


# Collated inputs are tensors, lists, mappings of these, or objects (ragged tokens, graphs) with the methods named below.


def take(inputs: Any, rows: LongTensor | slice) -> Any:
    """Some rows of collated inputs."""
    if isinstance(inputs, Mapping):
        return {name: take(value, rows) for name, value in inputs.items()}
    if isinstance(inputs, list):
        return inputs[rows] if isinstance(rows, slice) else [inputs[int(row)] for row in rows]
    return inputs[rows]


def concat(parts: Sequence[Any]) -> Any:
    """Collated inputs one after another."""
    kind = parts[0]
    if isinstance(kind, Tensor):
        return torch.cat(list(parts))
    if isinstance(kind, Mapping):
        return {name: concat([part[name] for part in parts]) for name in kind}
    if isinstance(kind, list):
        return [value for part in parts for value in part]
    return type(kind).concat(parts)


def count(inputs: Any) -> int:
    """How many rows collated inputs hold."""
    return count(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)


def to_device(inputs: Any, device: torch.device) -> Any:
    if isinstance(inputs, Mapping):
        return {name: to_device(value, device) for name, value in inputs.items()}
    return inputs.to(device) if hasattr(inputs, "to") else inputs


def in_chunks(rows: int, size: int) -> Iterator[slice]:
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))

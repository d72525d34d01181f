"""What is wrong with a table, row by row, before anything is trained on it."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from contrapose.data.arrow import codes, is_blank, is_text
from contrapose.data.columns import GROUP, Column
from contrapose.data.faults import faults, missing_columns
from contrapose.data.table import Table

if TYPE_CHECKING:
    from rich.console import RenderableType

# How tools spell a missing value when they write it as text.
SPELT_MISSING = ("nan", "null", "none", "n/a", "<na>", "nil")


@dataclass(frozen=True)
class TokenMeasure:
    """How an encoder sees texts: the tokens of each, uncut; a text after it was tokenised and cut; the most tokens."""

    count: Callable[[Sequence[str]], Sequence[int]]
    decode: Callable[[str], str]
    limit: int


@dataclass(frozen=True)
class Lengths:
    """Smallest, median, 95th percentile and largest of some lengths."""

    smallest: int
    median: float
    percentile_95: float
    largest: int


@dataclass(frozen=True)
class TextSummary:
    """The texts of a column that are not empty: their lengths, how many repeat an earlier one, how many will be cut."""

    column: str
    characters: Lengths
    repeated: int
    tokens: Lengths | None = None
    cut: int | None = None


@dataclass(frozen=True)
class Problem:
    """What is wrong, in how many rows, and the places of the first few. `stops`: a method would refuse the data."""

    message: str
    rows: int
    places: str
    stops: bool


@dataclass(frozen=True)
class FalseNegatives:
    """Of the pairs of rows that a random batch makes negatives of each other, the share that are not.

    `share`: the rows have a text in common, or a group. `masked`: they have a group in common, so that the pair is left
    out in training. Both are exact expectations: shares of all ordered pairs of rows.
    """

    share: float
    masked: float
    batch_size: int

    @property
    def left(self) -> float:
        """Expected number of ordered pairs in a batch that are pushed apart though they belong together."""
        return (self.share - self.masked) * self.batch_size * (self.batch_size - 1)


@dataclass(frozen=True)
class Example:
    """A row to read: its place, and its texts as the encoder sees them."""

    place: str
    texts: dict[str, str]


@dataclass(frozen=True)
class CheckReport:
    """What `check` found. `print(report)` is plain text; Rich renders it with colour."""

    source: str
    rows: int
    columns: tuple[str, ...]
    groups: int | None
    limit: int | None
    texts: tuple[TextSummary, ...]
    examples: tuple[Example, ...]
    false_negatives: FalseNegatives | None
    problems: tuple[Problem, ...]

    def to_text(self, width: int = 110) -> str:
        from rich.console import Console

        stream = io.StringIO()
        Console(file=stream, width=width, color_system=None, force_terminal=False, force_jupyter=False).print(self)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())

    __str__ = __repr__ = to_text

    def __rich__(self) -> RenderableType:
        from contrapose.data.check_view import view

        return view(self)


def check(
    table: Table, needs: Sequence[Column] = (), *, batch_size: int = 64, tokens: TokenMeasure | None = None
) -> CheckReport:
    """Looks at every row of a table that was read with `strict=False`; finds all problems rather than the first.

    needs: the columns that the method asks for; none given: every text column.
    batch_size: rows in a batch, for the expected number of false negatives.
    tokens: how the encoder sees texts, to count the ones that will be cut and to show examples as it sees them.
    """
    asked = needs or _text_columns(table)
    texts = [column for column in asked if column.name in table and is_text(table.arrow(column.name).type)]
    texts = [column for column in texts if column.kind == "text"]
    keys = {column.name: codes(table.arrow(column.name)) for column in texts}
    required = [keys[column.name] for column in texts if column.required]
    group = None if table.group is None else table.group.numpy()
    return CheckReport(
        source=table.source,
        rows=len(table),
        columns=tuple(table.columns),
        groups=None if group is None else int(group.max()) + 1,
        limit=tokens.limit if tokens else None,
        texts=tuple(_summary(table, name, key, tokens) for name, key in keys.items()),
        examples=_examples(table, list(keys), tokens),
        false_negatives=false_negatives(required, group, min(batch_size, len(table))),
        problems=(
            *_refusals(table, asked, stops=bool(needs) or len(asked) == 1),
            *_spelt_missing(table, list(keys)),
            *_repeated_rows(table, required or list(keys.values())),
        ),
    )


def _text_columns(table: Table) -> list[Column]:
    """Every text column. A single one is what a method would need; of several, nobody knows."""
    names = [name for name in table.columns if is_text(table.arrow(name).type) and name != GROUP]
    return [Column(name, "text", "a text column", required=len(names) == 1) for name in names]


def false_negatives(texts: Sequence[np.ndarray], group: np.ndarray | None, batch_size: int) -> FalseNegatives | None:
    """The share of pairs with a text or a group in common, from their codes, each int64 of shape (n,); None for n < 2.

    For one column with n_g rows of value g: the sum of n_g (n_g - 1) over n (n - 1). For several, by inclusion and
    exclusion, so that two rows with both anchor and positive in common count once.
    """
    keys = [*texts] if group is None else [*texts, group]
    if not keys or len(keys[0]) < 2:
        return None
    either = 0
    for size in range(1, len(keys) + 1):
        either -= (-1) ** size * sum(map(_equal_pairs, combinations(keys, size)))
    pairs = len(keys[0]) * (len(keys[0]) - 1)
    masked = 0 if group is None else _equal_pairs([group])
    return FalseNegatives(either / pairs, masked / pairs, batch_size)


def _equal_pairs(keys: Sequence[np.ndarray]) -> int:
    """Ordered pairs of rows that are equal in all keys."""
    counts = np.bincount(_joint(keys))
    return int((counts * (counts - 1)).sum())


def _joint(keys: Sequence[np.ndarray]) -> np.ndarray:
    """One code for each row that is equal where all keys are."""
    joint = keys[0]
    for key in keys[1:]:
        joint = np.unique(joint * (int(key.max()) + 1) + key, return_inverse=True)[1]
    return joint


def _repeats(key: np.ndarray) -> np.ndarray:
    """Rows whose code stands in an earlier row too."""
    repeats = np.ones(len(key), bool)
    repeats[np.unique(key, return_index=True)[1]] = False
    return np.flatnonzero(repeats)


def _summary(table: Table, name: str, key: np.ndarray, tokens: TokenMeasure | None) -> TextSummary:
    column = table.arrow(name)
    kept = np.flatnonzero(~is_blank(column))
    characters = _lengths(pc.utf8_length(column).to_numpy()[kept])
    repeated = len(_repeats(key))
    if tokens is None:
        return TextSummary(name, characters, repeated)
    values = table[name]
    counts = [n for start in range(0, len(kept), 1024) for n in tokens.count(values[kept[start : start + 1024]])]
    cut = sum(count > tokens.limit for count in counts)
    return TextSummary(name, characters, repeated, _lengths(np.array(counts)), cut)


def _lengths(lengths: np.ndarray) -> Lengths:
    if not len(lengths):
        return Lengths(0, 0.0, 0.0, 0)
    median, percentile_95 = np.percentile(lengths, [50, 95])
    return Lengths(int(lengths.min()), float(median), float(percentile_95), int(lengths.max()))


def _examples(table: Table, names: Sequence[str], tokens: TokenMeasure | None) -> tuple[Example, ...]:
    """The first, the middle and the last row."""
    examples = []
    for row in sorted({0, len(table) // 2, len(table) - 1}):
        texts = {name: table[name][row] or "" for name in names}
        seen = {name: tokens.decode(text) for name, text in texts.items()} if tokens else texts
        examples.append(Example(table.places([row]), seen))
    return tuple(examples)


def _refusals(table: Table, needs: Sequence[Column], stops: bool) -> Iterator[Problem]:
    missing = missing_columns(table, needs)
    if missing is not None:
        yield Problem(missing.args[0], 0, "", stops)
    for column in needs:
        for fault in faults(table, column) if column.name in table else ():
            message = f"column '{column.name}' {fault.what}. {fault.why} {fault.mend}"
            yield Problem(message, len(fault.rows), table.places(fault.rows), stops)


def _spelt_missing(table: Table, names: Sequence[str]) -> Iterator[Problem]:
    for name in names:
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(table.arrow(name)))
        rows = np.flatnonzero(pc.is_in(lowered, pa.array(SPELT_MISSING, pa.large_string())).to_numpy())
        if len(rows):
            shown = table[name][int(rows[0])]
            message = f"column '{name}' reads '{shown}' or the like, perhaps a missing value that was written as text."
            yield Problem(message, len(rows), table.places(rows), stops=False)


def _repeated_rows(table: Table, keys: Sequence[np.ndarray]) -> Iterator[Problem]:
    rows = _repeats(_joint(keys)) if keys else ()
    if len(rows):
        message = "the same as an earlier row. It counts twice, and the two are false negatives of each other."
        yield Problem(message, len(rows), table.places(rows), stops=False)

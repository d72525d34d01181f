"""Zero-shot prediction: each modality of a row from all the others, by the rule that the encoders were trained for."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import mul
from typing import Any, NamedTuple

import numpy as np

from contrapose.data.columns import Column
from contrapose.data.table import Table
from contrapose.errors import ColumnMissing, ProtocolDataInvalid, ProtocolUnknown, ShapesDiffer, nearest
from contrapose.evaluation.result import Result, scores
from contrapose.evaluation.retrieval import Retrieval, retrieval_by_score
from contrapose.multimodal._options import Rule
from contrapose.multimodal._projected import is_missing
from contrapose.multimodal.data import opened_by, read_data, refuse_columns, refuse_missing, values_of
from contrapose.training.encoder import Encoder, Encoders

TARGET = "target"  # --map target=COLUMN: the only modality that is predicted
SHOWN = ("accuracy@1", "accuracy@5", "mrr")


def open_protocol(name: str, source: Any, columns: Mapping[str, str] | None, training: Table | None) -> ZeroShot:
    """A protocol on its data, read. Raises ProtocolUnknown, or what `read_data` raises."""
    if name not in PROTOCOLS:
        raise ProtocolUnknown(f"There is no protocol '{name}' for several modalities; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name].open(source, columns, training)


def protocol_columns(names: Iterable[str]) -> set[str]:
    """The columns that are these protocols' alone; of an unknown protocol none."""
    return {column.name for name in names if name in PROTOCOLS for column in PROTOCOLS[name].columns}


def zero_shot_scores(
    encoders: Mapping[str, Encoder] | Encoders,
    queries: Mapping[str, Sequence[Any]],
    target: str,
    candidates: Sequence[Any],
    *,
    rule: Rule | None = None,
) -> np.ndarray:
    """How well each of m candidates of one modality fits each of n rows of others, float64 of shape (n, m); larger is better.

    Args:
        encoders: by column, as `model.encoders` of a loaded model.
        queries: values of the other modalities by column, n each; not all need be given.
        target: the modality of the candidates.
        candidates: its values.
        rule: "product" scores by the product of all unit vectors (Symile), "sum" by the sum of the cosines with each query (pairwise CLIP);
            None: that which the encoders were trained for.

    A softmax over `scores / rule.temperature` makes the rows probabilities. Raises ShapesDiffer for queries of several lengths, ColumnMissing.
    """
    for name in (target, *queries):
        if name not in encoders:
            raise ColumnMissing(f"There is no encoder '{name}'; {nearest(name, list(encoders))}")
    if not queries or len({len(values) for values in queries.values()}) != 1 or target in queries:
        lengths = ", ".join(f"'{name}' {len(values):,}" for name, values in queries.items()) or "none"
        raise ShapesDiffer(f"queries are values of other modalities than '{target}', of one length; got {lengths}.")
    rule = rule or rule_of(encoders) or Rule("product")
    vectors = {name: encoders[name].encode(values) for name, values in queries.items()}
    return _scores(vectors, encoders[target].encode(candidates), rule)


def rule_of(encoders: Mapping[str, Encoder] | Encoders) -> Rule | None:
    """The rule that the encoders were trained for; None where they were not."""
    return next((each.rule for each in encoders.values() if getattr(each, "rule", None) is not None), None)


def _scores(queries: Mapping[str, np.ndarray], candidates: np.ndarray, rule: Rule) -> np.ndarray:
    combine = mul if rule.score == "product" else lambda x, y: x + y
    return reduce(combine, [rows.astype(np.float64) for rows in queries.values()]) @ candidates.astype(np.float64).T


class ZeroShot:
    """Each modality in turn is predicted from all the others: is the right one of its distinct values ranked first?

    `source`: what `read_data` takes, with the columns of the encoders. Candidates are the distinct values of the column, so that a column of
    few values (a class as one-hot vectors) is classified, and one of pictures searched; right is the row's own, and with a `group_id`
    those of all rows of its group. Rows without the modality are left out there. `--map target=COLUMN` predicts that one alone.
    """

    name = "zero_shot"
    scored = "accuracy@1"

    def __init__(self, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None) -> None:
        renamed = dict(columns or {})
        self.target = renamed.pop(TARGET, None)
        table = read_data(source)
        here = {name: yours for name, yours in renamed.items() if yours in table and name not in table}
        self.table = table.renamed(here) if here else table
        self.training = training
        self.source = table.source

    def refuse(self, encoders: Mapping[str, Encoder] | Encoders) -> None:
        """Raises, before anything is trained or written, what is wrong with the data for these encoders."""
        refuse_columns(self.table, encoders)
        if self.target is not None and self.target not in encoders:
            raise ProtocolDataInvalid(
                f"--map {TARGET}={self.target}: there is no modality '{self.target}'; {nearest(self.target, list(encoders))}"
            )
        for name, encoder in encoders.items():
            values = values_of(self.table, name, encoder)
            refuse_missing(self.table, name, encoder, values)
            opened_by(encoder, self.table, name, values)
            if name in self.targets(encoders):
                self.task(values, name)

    def score(self, encoders: Encoders) -> float:
        """Accuracy@1, the mean over the predicted modalities: what `select` goes by."""
        return float(np.mean([each["accuracy@1"].mean() for each in self.rank(encoders, rule_of(encoders)).values()]))

    def evaluate(self, systems: Mapping[str, Encoders]) -> dict[str, Any]:
        """The result of each system beside the most frequent values, as JSON values."""
        rule = next((found for each in systems.values() if (found := rule_of(each)) is not None), None)
        for encoders in systems.values():
            self.refuse(encoders)
        rows = {name: self.rank(each, rule_of(each) or rule) for name, each in systems.items() if name == "untrained"}
        rows["most frequent"] = self.rank_by_frequency(next(iter(systems.values())))
        rows |= {name: self.rank(each, rule_of(each) or rule) for name, each in systems.items() if name not in rows}
        result = Result(
            self.name,
            self.source,
            len(self.table),
            self.description(rule or Rule("product"), rows["most frequent"]),
            {name: scores(named(each)) for name, each in rows.items()},
        )
        return {"protocol": self.name, "data": self.source, "result": result.record()}

    def description(self, rule: Rule, ranked: Mapping[str, Retrieval]) -> str:
        sizes = ", ".join(f"{name} among {each.candidates:,}" for name, each in ranked.items())
        how = "product with" if rule.score == "product" else "sum of the cosines with"
        known = "the training rows" if self.training is not None else "these rows"
        return (
            f"Each modality of a row from all the others ({sizes} distinct values), by the {how} their unit vectors; ties count against. "
            f"Most frequent: the commonest values of {known} first, whatever the row. Intervals: 95 % bootstrap over rows, 2,000 resamples."
        )

    def rank(self, encoders: Encoders, rule: Rule | None) -> dict[str, Retrieval]:
        """By predicted modality, the metrics of each row."""
        values = {name: values_of(self.table, name, each) for name, each in encoders.items()}
        vectors = {name: each.encode(values[name]) for name, each in encoders.items()}
        ranked = {}
        for name in self.targets(encoders):
            task = self.task(values[name], name)
            others = {other: rows[task.rows] for other, rows in vectors.items() if other != name}
            known = vectors[name][task.candidates]

            def score(rows: slice, others: Any = others, known: Any = known) -> np.ndarray:
                taken = {other: vectors[rows] for other, vectors in others.items()}
                return _scores(taken, known, rule or Rule("product")).astype(np.float32)

            ranked[name] = retrieval_by_score(score, len(task.rows), len(task.candidates), task.right)
        return ranked

    def rank_by_frequency(self, encoders: Encoders) -> dict[str, Retrieval]:
        """The control that looks at no row."""
        ranked, table = {}, self.training if self.training is not None else self.table
        for name in self.targets(encoders):
            values = values_of(self.table, name, encoders[name])
            counts = Counter(map(key_of, values_of(table, name, encoders[name]) if name in table else values))
            task = self.task(values, name)
            frequency = np.array([counts[key_of(values[int(row)])] for row in task.candidates], dtype=np.float64)

            def score(rows: slice, frequency: Any = frequency) -> np.ndarray:
                return np.broadcast_to(frequency, (rows.stop - rows.start, len(frequency)))

            ranked[name] = retrieval_by_score(score, len(task.rows), len(task.candidates), task.right)
        return ranked

    def targets(self, encoders: Mapping[str, Encoder] | Encoders) -> list[str]:
        return list(encoders) if self.target is None else [self.target]

    def task(self, values: Sequence[Any], name: str) -> Task:
        """What is predicted of a modality. Raises ProtocolDataInvalid where it has fewer than two values."""
        keys = {row: key_of(value) for row, value in enumerate(values) if not is_absent(value)}
        number: dict[Any, int] = {}
        candidates = []
        for row, key in keys.items():
            if key not in number:
                number[key] = len(candidates)
                candidates.append(row)
        if len(candidates) < 2:
            raise ProtocolDataInvalid(
                f"{self.source}: column '{name}' has {len(candidates)} distinct value(s), so there is nothing to tell apart; name another by "
                f"--map {TARGET}=COLUMN."
            )
        group = range(len(self.table)) if self.table.group is None else self.table.group.tolist()
        of_group: dict[int, set[int]] = defaultdict(set)
        for row, key in keys.items():
            of_group[group[row]].add(number[key])
        return Task(np.array(list(keys)), np.array(candidates), [sorted(of_group[group[row]]) for row in keys])


class Task(NamedTuple):
    """Rows that have the modality, the rows whose values are the candidates, and for each of the rows its right candidates."""

    rows: np.ndarray
    candidates: np.ndarray
    right: list[list[int]]


def named(ranked: Mapping[str, Retrieval]) -> dict[str, np.ndarray]:
    """Metrics by row, named with the modality."""
    return {f"{metric} {name}": each[metric] for metric in SHOWN for name, each in ranked.items()}


def key_of(value: Any) -> Any:
    """What is equal for equal values."""
    return (
        value.tobytes()
        if isinstance(value, np.ndarray)
        else value
        if isinstance(value, str)
        else json.dumps(value, default=repr)
    )


def is_absent(value: Any) -> bool:
    return bool(np.isnan(value).all()) if isinstance(value, np.ndarray) else is_missing(value)


class Kind(NamedTuple):
    """How a protocol is opened, and the columns that are its alone."""

    open: Callable[[Any, Mapping[str, str] | None, Table | None], ZeroShot]
    columns: Sequence[Column]


PROTOCOLS = {
    "zero_shot": Kind(
        ZeroShot, (Column(TARGET, "label", "The modality that is predicted; all in turn without.", required=False),)
    ),
}

"""Labels read off vectors of whole series: an RBF machine, a linear probe, nearest neighbours, and raw values beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from contrapose.data.columns import Column
from contrapose.evaluation.classification import classification
from contrapose.evaluation.labelled import Labelled, divide
from contrapose.evaluation.probing import Encodes, LabelledProtocol, Probe
from contrapose.evaluation.result import Result
from contrapose.series._columns import open_table
from contrapose.series._table import SERIES, SeriesTable
from contrapose.series.data import length_of, refuse_unfit
from contrapose.training.bar import Bar

if TYPE_CHECKING:
    from contrapose.evaluation.probes import Rows
    from contrapose.series.encoder import SeriesEncoder

LABELLED_SERIES = (
    Column(SERIES, "series", "A time series."),
    Column("label", "label", "What it is: the class to be told from the series."),
    Column("split", "label", "'train' or 'test'.", required=False),
)
PENALTIES = tuple(10.0**power for power in range(-4, 5))
HARD = 1e8  # a penalty that forgives nothing, where there are too few rows to choose one by
FEW_ROWS, FEW_OF_A_CLASS = 50, 5
NEAREST = "1-NN, raw values"


def svm_probe(train: ArrayLike, labels: ArrayLike, test: ArrayLike) -> np.ndarray:
    """The labels (m,) that a support vector machine with Gaussian kernel predicts: TS2Vec's protocol for classification.

    train: (n, d); labels: (n,); test: (m, d), not scaled; the kernel's width is 1 / (d · variance). The penalty C is the best of
    10⁻⁴ … 10⁴ in five-fold cross-validation within the training rows; with fewer than 50 of them, or 5 a class, it is 10⁸.
    """
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    train, labels = np.asarray(train, dtype=np.float64), np.asarray(labels)
    machine = SVC(C=HARD, gamma="scale")
    if len(train) >= FEW_ROWS and len(train) // len(np.unique(labels)) >= FEW_OF_A_CLASS:
        machine = GridSearchCV(machine, {"C": [*PENALTIES, HARD]}, cv=5)
    return machine.fit(train, labels).predict(np.asarray(test, dtype=np.float64))


SVM = Probe(
    "svm",
    svm_probe,
    1,
    "Support vector machine with Gaussian kernel on frozen vectors, its penalty by five-fold cross-validation within the training rows (10⁸ "
    "with fewer than 50 of them): TS2Vec's protocol.",
)
NOTE = (
    f"{NEAREST}: the label of the training series at the least Euclidean distance, as they are. Raw values: the series themselves through the "
    "same probe. Both where all series have one length; of other series their means, deviations and extremes by channel."
)


class SeriesProbe(LabelledProtocol):
    """A probe on labelled series, beside the nearest raw series. `table`: where the series stand."""

    def __init__(self, table: SeriesTable, probe: Probe, labelled: Labelled) -> None:
        super().__init__(probe, table.source, table.series, labelled, raw_values, NOTE, Bar)
        self.table = table

    def refuse(self, encoder: SeriesEncoder) -> None:
        """Raises SeriesInvalid, before anything is trained or written, for a series that the encoder does not take."""
        refuse_unfit(encoder, self.table.series, self.table.where)

    def evaluate(self, systems: Mapping[str, Encodes]) -> dict[str, Any]:
        entry = super().evaluate(systems)
        result = Result.from_record(entry["result"])
        train, test = ([self.values[row] for row in rows] for rows in (self.labelled.train, self.labelled.test))
        predicted = nearest_series(*features(train, test), self.labelled.known)
        controls = {"untrained": result.systems.pop("untrained")} if "untrained" in result.systems else {}
        controls[NEAREST] = classification(predicted, self.labelled.truth)
        both = {**controls, **result.systems}
        return {**entry, "result": Result(**{**vars(result), "systems": both}).record()}


def open_probe(
    probe: Probe, source: Any, columns: Mapping[str, str] | None = None, training: SeriesTable | None = None
) -> SeriesProbe:
    """A probe on series. `source`: whatever `read_data` takes, with `label` and perhaps `split`; `training` is not looked at.

    Without `split` a quarter of each label is drawn for testing, seed 0; equal series and those of one `group_id` stay on one side.
    """
    table = open_table(source, columns, LABELLED_SERIES)
    groups: list[Sequence[Any]] = [[series.tobytes() for series in table.series]]
    labelled = divide(
        list(table["label"]),
        list(table["split"]) if "split" in table else None,
        source=table.source,
        where=table.where,
        groups=groups if table.group is None else [*groups, table.group.tolist()],
        least=probe.least,
    )
    return SeriesProbe(table, probe, labelled)


def raw_values(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> dict[str, tuple[Rows, Rows]]:
    return {"raw values": features(train, test)}


def features(train: Sequence[np.ndarray], test: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Series of one length as they are, (n, t c); others by mean, deviation, smallest and largest value of each channel. NaN becomes 0."""
    lengths = {length_of(series) for series in (*train, *test)}
    if len(lengths) == 1:
        (t,) = lengths
        first, second = (np.stack([series[:t].ravel() for series in side]) for side in (train, test))
    else:
        first, second = (np.stack([summary(series) for series in side]) for side in (train, test))
    return np.nan_to_num(first), np.nan_to_num(second)


def summary(series: np.ndarray) -> np.ndarray:
    return np.concatenate([rule(series, axis=0) for rule in (np.nanmean, np.nanstd, np.nanmin, np.nanmax)])


def nearest_series(train: np.ndarray, test: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The label of the nearest training row by Euclidean distance; of equals the first."""
    squares = (train**2).sum(axis=1)
    found = [labels[(squares - 2 * (train @ row)).argmin()] for row in test]
    return np.array(found)

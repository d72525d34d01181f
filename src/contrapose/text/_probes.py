"""Probes for text encoders: labelled texts read, and TF-IDF beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.evaluation.labelled import divide, in_folds
from contrapose.evaluation.probing import LabelledProtocol, Probe
from contrapose.text._columns import open_table
from contrapose.text._tfidf import UNITS, tfidf_features
from contrapose.training.bar import Bar

if TYPE_CHECKING:
    from contrapose.evaluation.probes import Rows

LABELLED_TEXTS = (
    Column("text", "text", "A text."),
    Column("label", "label", "What it is: the class to be told from the text."),
    Column("split", "label", "'train' or 'test'.", required=False),
)
NOTE = "TF-IDF (words; characters 2 to 4 within words; sublinear), with its terms and weights from the training rows, goes through the same probe."


def open_probe(
    probe: Probe, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None
) -> LabelledProtocol:
    """A probe on texts. `source`: whatever `read` takes, with the columns `text`, `label` and perhaps `split`.

    `training`, what the method learns from, is not looked at: the control takes its words from the probe's own training rows.

    Without `split` a quarter of each label is drawn for testing, seed 0; rows with the same text, or with one `group_id`, stay on one side.
    Raises what `read` and `divide` raise, and ProtocolDataInvalid for a label with a single training row, where the probe needs two.
    """
    table = read(open_table(source, columns, LABELLED_TEXTS), needs=LABELLED_TEXTS)
    texts = list(table["text"])
    labelled = divide(
        list(table["label"]),
        list(table["split"]) if "split" in table else None,
        source=table.source,
        where=table.where,
        groups=[texts] if table.group is None else [texts, table.group.tolist()],
        least=probe.least,
    )
    return LabelledProtocol(probe, table.source, texts, labelled, tfidf, NOTE, Bar)


def open_folds(
    probe: Probe, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None
) -> LabelledProtocol:
    """A probe on texts that nobody divided, as SentEval tests on MR, CR, SUBJ and MPQA: ten folds, each predicted from the nine others.

    `source`: columns `text` and `label`; a `split` is not looked at. A fold's penalty is chosen within its training rows. Rows
    with the same text, or with one `group_id`, stand in one fold. Raises as `open_probe` does.
    """
    needs = LABELLED_TEXTS[:2]
    table = read(open_table(source, columns, needs), needs=needs)
    texts = list(table["text"])
    groups = [texts] if table.group is None else [texts, table.group.tolist()]
    labelled = in_folds(list(table["label"]), source=table.source, where=table.where, groups=groups, least=probe.least)
    return LabelledProtocol(probe, table.source, texts, labelled, tfidf, NOTE, Bar, name=f"{probe.name}_folds")


def tfidf(train: Sequence[str], test: Sequence[str]) -> dict[str, tuple[Rows, Rows]]:
    return {f"TF-IDF, {unit}s": tfidf_features(train, test, unit) for unit in UNITS}

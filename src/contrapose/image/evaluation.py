"""Protocols for image encoders, always beside the controls: the untrained encoder, raw pixels, the majority class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from contrapose.data.columns import Column
from contrapose.data.table import Table
from contrapose.errors import ProtocolUnknown, nearest
from contrapose.evaluation.few_shot import FEW_SHOT, FewShotProtocol
from contrapose.evaluation.labelled import divide
from contrapose.evaluation.probing import LINEAR, NEAREST, LabelledProtocol, Probe
from contrapose.image._pixels import PIXELS_NOTE, raw_pixels
from contrapose.image._retrieval import RETRIEVED, ImageRetrieval
from contrapose.image.data import ImageValues, read_data, refuse_broken
from contrapose.training.bar import Bar

if TYPE_CHECKING:
    from contrapose.evaluation.probes import Rows

LABELLED_IMAGES = (
    Column("image", "image", "An image."),
    Column("label", "label", "What it is: the class to be told from the image."),
    Column("split", "label", "'train' or 'test'.", required=False),
)

Protocol = LabelledProtocol | ImageRetrieval


def open_protocol(
    name: str, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None
) -> Protocol:
    """A protocol on its data, read and checked. `training`, what the method learns from, is not looked at: pixels need no fitting.

    Raises ProtocolUnknown, ProtocolDataInvalid, or what `read_data` raises.
    """
    if name not in PROTOCOLS:
        raise ProtocolUnknown(f"There is no protocol '{name}' for images; {nearest(name, PROTOCOLS)}")
    return PROTOCOLS[name].open(source, columns, training)


def protocol_columns(names: Iterable[str]) -> set[str]:
    """The columns that the data of these protocols have; of an unknown protocol none."""
    return {column.name for name in names if name in PROTOCOLS for column in PROTOCOLS[name].columns}


def open_probe(
    probe: Probe, source: Any, columns: Mapping[str, str] | None = None, training: Table | None = None
) -> LabelledProtocol:
    """A probe on images. `source`: whatever `read_data` takes, with the columns `image`, `label` and perhaps `split`.

    Without `split` a quarter of each label is drawn for testing, seed 0; rows with one `group_id` stay on one side. Raises what `read_data`
    and `divide` raise.
    """
    loose = read_data(source, strict=False)
    known = {column.name for column in LABELLED_IMAGES}
    rename = {name: old for name, old in (columns or {}).items() if name in known and old in loose}
    table = read_data(loose, rename=rename, needs=LABELLED_IMAGES)
    labelled = divide(
        list(table["label"]),
        list(table["split"]) if "split" in table else None,
        source=table.source,
        where=table.where,
        groups=[] if table.group is None else [table.group.tolist()],
        least=probe.least,
    )
    images = ImageValues(table, "image")
    refuse_broken(images)
    given = (table.source, images, labelled, pixel_control, PIXELS_NOTE, Bar)
    return FewShotProtocol(*given) if probe is FEW_SHOT else LabelledProtocol(probe, *given)


def pixel_control(train: Sequence[Any], test: Sequence[Any]) -> dict[str, tuple[Rows, Rows]]:
    first, second = raw_pixels([train, test])
    return {"raw pixels": (first, second)}


class Kind(NamedTuple):
    """How a protocol is opened, and the columns of its data."""

    open: Callable[[Any, Mapping[str, str] | None, Table | None], Protocol]
    columns: Sequence[Column]


PROTOCOLS = {
    "knn": Kind(partial(open_probe, NEAREST), LABELLED_IMAGES),
    "probe": Kind(partial(open_probe, LINEAR), LABELLED_IMAGES),
    "few_shot": Kind(partial(open_probe, FEW_SHOT), LABELLED_IMAGES),
    "retrieval": Kind(ImageRetrieval, RETRIEVED),
}

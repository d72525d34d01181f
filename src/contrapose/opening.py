"""From what a user gives to what methods take: a modality's rooms, columns by their names, settings by whose they are."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from pydantic.fields import FieldInfo

from contrapose.catalogue import methods
from contrapose.data.cache import file_digest
from contrapose.data.columns import GROUP
from contrapose.data.table import Table
from contrapose.errors import UsageInvalid, nearest
from contrapose.training.encoder import Encoder, Encoders
from contrapose.training.method import Method
from contrapose.training.run_folder import flattened


def rooms_of(modality: str) -> SimpleNamespace:
    """A modality's data, encoder and evaluation modules."""
    return SimpleNamespace(
        **{room: importlib.import_module(f"contrapose.{modality}.{room}") for room in ("data", "encoder", "evaluation")}
    )


def open_encoder(
    modality: str, given: Any, options: Mapping[str, Any], table: Table | None = None
) -> Encoder | Encoders:
    """The encoder, or the encoders, of a modality; for one whose columns may be of any modality, names such as "text:minilm" are looked up there.

    Such a modality's encoder room has `resolved`, so that it need not know the others. Raises UsageInvalid, EncoderUnknown, and what the
    rooms' `open_encoder` raises.
    """
    room = rooms_of(modality).encoder
    if hasattr(room, "resolved"):
        given, options = room.resolved(given, options, table, open_named)
    return room.open_encoder(given, options, table)


def open_named(modality: str, given: Any, options: Mapping[str, Any]) -> Encoder:
    """The encoder of another modality. Raises UsageInvalid where there is no such modality."""
    known = {listing.modality for listing in methods().values()}
    if modality not in known:
        raise UsageInvalid(f"'{modality}:' is no modality; {nearest(modality, known)}")
    opened = open_encoder(modality, given, options)
    if not isinstance(opened, Encoder):
        raise UsageInvalid(f"'{modality}' has several encoders, so that none of them can be one of several.")
    return opened


def options_of(modality: str, record: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """What can be said of a modality's encoders, by name; of an encoder of another modality that is one of several as "column.name"."""
    found = dict(rooms_of(modality).encoder.EncoderOptions.model_fields)
    for column, each in record.get("encoders", {}).items():
        if each.get("modality"):
            fields = rooms_of(each["modality"]).encoder.EncoderOptions.model_fields
            found |= {f"{column}.{name}": field for name, field in fields.items()}
    return found


def of_method(columns: Mapping[str, str] | None, kind: type[Method], elsewhere: Collection[str]) -> dict[str, str]:
    """The renamings without those that are meant for a protocol's data alone, whose columns are `elsewhere`."""
    own = {GROUP, *(column.name for column in kind.card.columns)}
    return {name: yours for name, yours in (columns or {}).items() if name in own or name not in elsewhere}


def apart_from_encoder(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of the method, and those of the encoder without their "encoder."; nested ones by names with dots."""
    flat = flattened(settings)
    options = {name.removeprefix("encoder."): flat.pop(name) for name in list(flat) if name.startswith("encoder.")}
    return flat, options


def facts_of(table: Table) -> dict[str, Any]:
    """What tells data from other data."""
    return {"source": table.source, "rows": len(table), "fingerprint": table.fingerprint}


def has_name(source: Any) -> bool:
    """Whether data can be found again by what config.yaml says of them; objects in memory cannot."""
    return isinstance(source, (str, os.PathLike))


def said(source: Any) -> str:
    """Data of a protocol in words."""
    return str(source) if has_name(source) else f"a {type(source).__name__} from Python"


def content_of(source: Any, read_data: Callable[[Any], Table]) -> Any:
    """What tells the data of a protocol from others, as JSON values: digests of files, or of what Python holds; a name for what is elsewhere.

    `read_data` is the modality's.
    """
    if not has_name(source):
        return read_data(source).fingerprint
    path = Path(source)
    files = sorted(each for each in path.rglob("*") if each.is_file()) if path.is_dir() else [path]
    return {str(each): file_digest(each) for each in files if each.is_file()} or str(source)

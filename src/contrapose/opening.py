"""From what a user gives to what methods take: a modality's rooms, columns by their names, settings by whose they are."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from contrapose.data.cache import file_digest
from contrapose.data.columns import GROUP
from contrapose.data.table import Table
from contrapose.training.method import Method
from contrapose.training.run_folder import flattened


def rooms_of(modality: str) -> SimpleNamespace:
    """A modality's data, encoder and evaluation modules."""
    return SimpleNamespace(
        **{room: importlib.import_module(f"contrapose.{modality}.{room}") for room in ("data", "encoder", "evaluation")}
    )


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

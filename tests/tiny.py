"""A tiny sample of each modality, on which every one of its methods trains in a second: what the tests of all methods share.

A modality has a `tests/MODALITY/tiny.py` with `tiny(method, folder)`; a method joins the shared tests by being there.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from contrapose.catalogue import methods


@dataclass(frozen=True)
class Tiny:
    """data, encoder: as `contrapose.train` takes them. settings: of the method on these data.

    values: some, as the method's first encoder encodes them. exact: settings for two equal steps of SGD at rate 1 in float64, where others
    than the method's own are needed; no dropout among them.
    """

    data: Any
    encoder: Any = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    values: Sequence[Any] = ()
    exact: Mapping[str, Any] = field(default_factory=dict)


def tiny(method: str, folder: Path) -> Tiny:
    """The sample of a method; files that it needs are written into `folder`, always the same."""
    folder.mkdir(parents=True, exist_ok=True)
    return importlib.import_module(f"tests.{methods()[method].modality}.tiny").tiny(method, folder)


def in_processes(method: str) -> bool:
    """Whether a method runs in several processes: all do but those of a modality whose sample says `PROCESSES = False`."""
    return getattr(importlib.import_module(f"tests.{methods()[method].modality}.tiny"), "PROCESSES", True)

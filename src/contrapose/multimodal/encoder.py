"""Encoders of several modalities: one for each column, all into one space."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file

from contrapose.data.columns import GROUP
from contrapose.data.table import Table
from contrapose.errors import (
    EncoderNotRebuildable,
    EncoderUnknown,
    ModelFolderInvalid,
    UsageInvalid,
    VectorsInvalid,
    WeightsBroken,
)
from contrapose.multimodal._arrays import vectors_of
from contrapose.multimodal._options import ColumnOptions, EncoderOptions, Rule
from contrapose.multimodal._projected import ProjectedEncoder
from contrapose.multimodal._vectors import WEIGHTS, VectorEncoder, centre_and_deviation
from contrapose.training.encoder import Encoder, Encoders
from contrapose.training.settings import parse_settings

__all__ = [
    "ColumnOptions",
    "EncoderOptions",
    "Modalities",
    "ProjectedEncoder",
    "Rule",
    "VectorEncoder",
    "centre_and_deviation",
    "compare_export",
    "load_encoder",
    "open_encoder",
    "resolved",
    "usage",
]

VECTORS = "vectors"  # the name of this modality's own encoder
ELSEWHERE = re.compile(r"([a-z_]+):(.*)")  # "text:minilm", an encoder of another modality


class Modalities(Encoders):
    """An encoder for each modality, named as the column that it reads; all have the same `dim`."""

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        """Raises UsageInvalid for a name that no module can have, and for encoders of several dims."""
        try:
            super().__init__(encoders)
        except KeyError:
            taken = next(name for name in encoders if "." in name or hasattr(Encoders, name) or not name)
            raise UsageInvalid(
                f"A column that is encoded cannot be called '{taken}'; call it otherwise: --map {taken.strip('.') or 'column'}_1={taken}."
            ) from None
        if len({encoder.dim for encoder in encoders.values()}) > 1:
            dims = ", ".join(f"'{name}' {encoder.dim}" for name, encoder in encoders.items())
            raise UsageInvalid(f"The encoders end in several dimensions ({dims}); vectors that are compared need one.")

    @property
    def dim(self) -> int:
        return next(iter(self.values())).dim

    def record(self) -> dict[str, Any]:
        """What rebuilds them without their weights: `{"name": …, "dim": …, "seed": …, "encoders": {column: record}}`."""
        first = next(iter(self.values()), None)
        return super().record() if first is None else {**super().record(), "dim": first.dim, "seed": first.seed}


def open_encoder(given: Any = None, options: Mapping[str, Any] | None = None, table: Table | None = None) -> Modalities:
    """An encoder for each modality, from what a user gives.

    Args:
        given: None or "vectors": every column of `table` but `group_id` is a modality, of vectors. "picture=vectors,sound=vectors", or the
            same as a mapping: these columns alone. Values of a mapping are names, `{"name": "vectors", "hidden": 256}`, records, or
            `Encoder` objects, each of which gets a linear layer into the shared space. A record of all, or `Modalities`, is taken whole.
        options: of EncoderOptions for all columns, `picture.hidden` for one; text allowed.
        table: what is to be learned from: sizes, centres and deviations of vectors are taken from it, and stand in the record.

    Raises UsageInvalid, EncoderUnknown, SettingUnknown, SettingInvalid, ColumnMissing, VectorsInvalid.
    """
    if isinstance(given, Modalities):
        if options:
            raise UsageInvalid(
                f"encoder.{next(iter(options))} was given with encoders that are made already; set it where they are made."
            )
        return given
    wanted = by_column(given, table)
    shared, own = apart(options or {}, wanted)
    chosen = parse_settings(EncoderOptions, {**of_record(given), **shared}, owner="the encoder")
    asked = {name: getattr(chosen, name) for name in shared if name in ColumnOptions.model_fields}
    ends = {name: getattr(chosen, name) for name in ("dim", "seed") if name in shared}
    usual = {"dim": chosen.dim, "seed": chosen.seed}
    return Modalities(
        {
            column: open_one(column, spec, {**asked, **own.get(column, {})}, {**usual, "stream": number}, ends, table)
            for number, (column, spec) in enumerate(wanted.items())
        }
    )


def open_one(
    column: str,
    spec: Any,
    options: Mapping[str, Any],
    usual: Mapping[str, int],
    ends: Mapping[str, int],
    table: Table | None,
) -> Encoder:
    """The encoder of a column. `options` and `ends` (dim, seed) were asked for and go before what `spec` says; `usual` goes after it."""
    if isinstance(spec, Encoder):
        if isinstance(spec, (VectorEncoder, ProjectedEncoder)):
            return spec
        spec = {"encoder": spec}
    said = {"name": spec} if isinstance(spec, str) else dict(spec)
    owner = f"the encoder of '{column}'"
    if isinstance(said.get("encoder"), Encoder):
        missing = parse_settings(ColumnOptions, options, owner=owner).missing if "missing" in options else None
        facts = {"modality": None, "missing": "refuse", **usual, **said, **ends}
        asked = {} if missing is None else {"missing": missing}
        return ProjectedEncoder.from_record({**facts, **asked}, said["encoder"])
    if said.get("own_module"):
        raise EncoderNotRebuildable(rebuild_refused(column, said))
    if said.pop("name", VECTORS) != VECTORS:
        raise EncoderUnknown(
            f"There is no encoder '{spec if isinstance(spec, str) else spec['name']}' for column '{column}'; give vectors, MODALITY:NAME "
            "(text:minilm), or in Python an Encoder."
        )
    facts = {
        name: said.pop(name)
        for name in ("size", "dim", "centre", "deviation", "seed", "stream", "rule")
        if name in said
    }
    chosen = parse_settings(ColumnOptions, {**said, **options}, owner=owner)
    if "size" not in facts or ("scale" in options and chosen.scale != said.get("scale")):
        if table is None:
            raise UsageInvalid(f"{owner.capitalize()} takes its size from data, and there are none.")
        vectors = vectors_of(table, column)
        if np.isnan(vectors).all():
            raise VectorsInvalid(
                f"{table.source}: column '{column}' is empty in each of the {len(vectors):,} rows, so that its encoder has nothing to learn from; "
                "leave the column out: --encoder names those that count."
            )
        centre, deviation = centre_and_deviation(vectors, chosen.scale)
        facts |= {"size": vectors.shape[1], "centre": centre, "deviation": deviation}
    return VectorEncoder.from_record({**usual, **facts, **ends, **chosen.model_dump()})


def of_record(given: Any) -> dict[str, Any]:
    """What a record of all encoders says of all."""
    whole = isinstance(given, Mapping) and "encoders" in given
    return {name: given[name] for name in ("dim", "seed") if whole and name in given}


def by_column(given: Any, table: Table | None) -> dict[str, Any]:
    """What is said of the encoder of each modality."""
    if isinstance(given, Encoders):
        return dict(given.items())
    if isinstance(given, Mapping) and "encoders" in given:  # a record; a name beside it was given anew
        records = given["encoders"]
        if given["name"] == ",".join(f"{column}={record['name']}" for column, record in records.items()):
            return dict(records)
        named = by_column(given["name"], table)
        return {
            name: records[name] if name in records and records[name]["name"] == spec else spec
            for name, spec in named.items()
        }
    if isinstance(given, Mapping):
        return {str(name): spec for name, spec in given.items()}
    if given is None or (isinstance(given, str) and "=" not in given):
        if table is None:
            raise UsageInvalid("Which columns are the modalities? Name them: --encoder picture=vectors,sound=vectors.")
        return {name: given or VECTORS for name in table.columns if name != GROUP}
    if not isinstance(given, str):
        raise UsageInvalid(
            f"encoder is a {type(given).__name__}; give a mapping of columns to encoders, or picture=vectors,words=text:minilm."
        )
    found: dict[str, str] = {}
    for part in given.split(","):
        column, _, name = part.partition("=")
        if not column.strip() or not name.strip() or column.strip() in found:
            raise UsageInvalid(
                f"--encoder {given}: '{part}' does not say which encoder a column has; write COLUMN=ENCODER once for each, with commas between."
            )
        found[column.strip()] = name.strip()
    return found


def apart(options: Mapping[str, Any], columns: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Options of all encoders, and those of one, by its column."""
    shared, own = {}, {}
    for name, value in options.items():
        column, _, option = name.partition(".")
        if option and column in columns:
            own.setdefault(column, {})[option] = value
        else:
            shared[name] = value
    return shared, own


def resolved(
    given: Any,
    options: Mapping[str, Any],
    table: Table | None,
    opened: Callable[[str, Any, Mapping[str, Any]], Encoder],
) -> tuple[Any, dict[str, Any]]:
    """What `open_encoder` takes, with encoders of other modalities opened, and the options that are left.

    `opened(modality, given, options)` opens one; "text:minilm", a mapping of that name and more options, and a record of one are such.
    """
    if isinstance(given, Encoders) or given is None:
        return given, dict(options)
    wanted = by_column(given, table)
    shared, own = apart(options, wanted)
    for column, spec in wanted.items():
        said = {"name": spec} if isinstance(spec, str) else spec
        if not isinstance(said, Mapping) or isinstance(said.get("encoder"), Encoder):
            continue
        if said.get("modality"):  # a record
            wanted[column] = {**said, "encoder": opened(said["modality"], said["encoder"], {})}
        elif found := ELSEWHERE.fullmatch(said.get("name") or ""):
            ours = {name: value for name, value in said.items() if name in ("missing", "dim")}
            theirs = {name: value for name, value in said.items() if name not in ("name", "missing", "dim")}
            asked = own.pop(column, {})
            own[column] = {name: asked.pop(name) for name in ("missing",) if name in asked}
            inner = opened(found[1], found[2] or None, {**theirs, **asked})
            wanted[column] = {**ours, "modality": found[1], "encoder": inner}
    left = {**shared, **{f"{column}.{name}": value for column, each in own.items() for name, value in each.items()}}
    return wanted, {**of_record(given), **left}


def load_encoder(folder: Path, record: Mapping[str, Any]) -> Encoder:
    """The encoder that `save` wrote into a folder; one of another modality stands in the record, opened, as "encoder".

    Raises EncoderNotRebuildable for one of your own, WeightsBroken, ModelFolderInvalid.
    """
    if record.get("own_module"):
        raise EncoderNotRebuildable(rebuild_refused(folder.name, record))
    projected = isinstance(record.get("encoder"), Encoder)
    encoder = (
        ProjectedEncoder.from_record(record, record["encoder"]) if projected else VectorEncoder.from_record(record)
    )
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelFolderInvalid(f"{folder} has no {WEIGHTS}; copy the folder again, or export it anew.")
    try:
        tensors = load_file(file)
        missing = (encoder.own_state() if projected else encoder.state_dict()).keys() ^ tensors.keys()
        encoder.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError) as error:
        raise WeightsBroken(f"{file} cannot be read: {str(error).splitlines()[0]}") from None
    if missing:
        raise WeightsBroken(f"{file} does not hold what it should: {', '.join(sorted(missing))}.")
    return encoder.eval()


def rebuild_refused(column: str, record: Mapping[str, Any]) -> str:
    return (
        f"The encoder of '{column}' was made from your own {record['name']}, which contrapose cannot build; build it, and give it as the "
        f"encoder of that column: its weights are in {WEIGHTS} and the folder 'encoder'."
    )


def compare_export(folder: Path, encoder: Encoder, values: Sequence[Any]) -> dict[str, float]:
    """Nothing: no other library reads these folders."""
    return {}


def usage(encoder: Encoder) -> str:
    """How a folder that `save` wrote is used, in Markdown."""
    return """```python
import contrapose
from contrapose.multimodal.evaluation import zero_shot_scores

model = contrapose.load("path/to/this/folder")
vectors = model.encode(values, encoder="COLUMN")
scores = zero_shot_scores(model.encoders, {"COLUMN": values, "ANOTHER": others}, "TARGET", candidates)
```

Vectors of different modalities are compared by `zero_shot_scores` alone: a cosine between two of them says nothing after training with a
product of all."""

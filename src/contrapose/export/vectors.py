"""Vectors of a corpus that may be larger than memory, streamed into one file; what was embedded outlives a kill."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from contrapose.data.arrow import BATCH, Record, open_arrow, write_records
from contrapose.errors import (
    DataRagged,
    OutputExists,
    ShapesDiffer,
    UsageInvalid,
    ValuesNotFinite,
    VectorFormatUnknown,
)
from contrapose.export.model_folder import unit
from contrapose.export.parts import Parts, write_header
from contrapose.training.interrupts import Interrupts, Stopped, interrupts
from contrapose.training.precision import Precision, takes_bf16
from contrapose.training.progress import Reporter, Silent, Terminal

CALL_ROWS = 1024  # rows given to the encoder at once: enough to sort by length, few enough to stop soon
COMPARED_ROWS = 64  # embedded in both precisions, to see whether the model bears bf16
LEAST_COSINE = 0.999  # of a vector in bf16 with the exact one
PATIENCE = 2.0  # seconds before any progress is shown

Encode = Callable[[list[Any]], np.ndarray]


class EmbeddingStopped(Stopped):
    """An embedding that was asked to stop; its whole parts are kept, and the same call goes on after them."""

    def __init__(self, signal_number: int, kept: int, rows: int) -> None:
        super().__init__(signal_number, kept)
        name = signal.Signals(signal_number).name
        self.args = (f"stopped by {name} with {kept:,} of {rows:,} rows kept; the same command goes on from there",)


def embed_corpus(
    encode: Encode,
    values: Sequence[Any],
    out: Path,
    *,
    identity: str,
    rows_per_part: int = 8192,
    columns: Mapping[str, Sequence[Any]] | None = None,
    progress: bool = True,
) -> Path:
    """Embed n values into `out`, a new file; returns its path.

    `encode`: a list of b values to vectors of shape (b, d). `values`, `columns`: sequences of length n, read by slices and never whole.
    `.parquet`: `row` (int64, from 0), the `columns` that are carried along, `vector` (fixed-size list of d float32).
    `.npy`: float32 of shape (n, d), which `numpy.load(out, mmap_mode="r")` opens without reading it.

    Parts of `rows_per_part` rows gather in the hidden folder `.NAME.parts` beside `out`, which goes when they are joined. After a kill the
    same call goes on after the last whole part, and the file is bit for bit that of an unbroken call. `identity` stands for model and data.
    While the parts are joined the disk holds the vectors twice.

    Raises OutputExists, VectorFormatUnknown, UsageInvalid, DataRagged and EmbeddingChanged before anything is written; EmbeddingStopped
    after SIGINT or SIGTERM, and WriteFailed when the disk says no, both with the whole parts kept; ShapesDiffer and ValuesNotFinite.
    """
    out, columns, rows = Path(out), dict(columns or {}), len(values)
    refuse(out, rows, rows_per_part, columns)
    reporter: Reporter = Terminal() if progress else Silent()
    with interrupts() as asked:
        # one row says the dimension, or why the encoder cannot encode, before anything is written
        dim = encoded(encode, values, range(min(rows, 1))).shape[1]
        parts = Parts.open(out, rows, dim, rows_per_part, identity)
        try:
            embed_parts(encode, values, parts, reporter, asked)
            (write_parquet if out.suffix == ".parquet" else write_npy)(out, parts, columns, asked)
        except EmbeddingStopped as stopped:
            reporter.say(f"Embedding {stopped}.")
            raise
        finally:
            if out.exists() or not parts.kept():
                shutil.rmtree(parts.folder, ignore_errors=True)
    return out


def checked_precision(encode: Callable[..., np.ndarray], values: Sequence[Any], wanted: Precision) -> Precision:
    """The precision to embed n values in: what is `wanted`, or with "auto" bf16 where the processor has it and this model bears it, and says so.

    `encode(values, precision=…, progress=False)` gives vectors; those of the first rows are made both ways and compared.
    """
    if not takes_bf16(wanted, "cpu"):
        return "float32"
    if wanted != "auto" or len(values) == 0:
        return "bfloat16"
    first = list(values[:COMPARED_ROWS])
    exact, fast = (unit(encode(first, precision=precision, progress=False)) for precision in ("float32", "bfloat16"))
    lowest = float((exact * fast).sum(axis=1).min())
    enough = lowest >= LEAST_COSINE  # and not NaN
    said = f"the first {len(first)} vectors in bf16 have cosines of at least {lowest:.5f} with those in float32"
    chosen = "bf16; precision float32 gives exact ones" if enough else f"float32, as {LEAST_COSINE} is asked for"
    Terminal().say(f"Embedding in {chosen}: {said}.")
    return "bfloat16" if enough else "float32"


def refuse_out(out: Path) -> None:
    """Raises VectorFormatUnknown or OutputExists for a file that cannot be written."""
    known = ".parquet (rows with their vector and carried columns) or .npy (one float32 array)"
    if out.suffix not in {".parquet", ".npy"}:
        raise VectorFormatUnknown(f"{out}: vectors are not written as '{out.suffix}'; name the file {known}.")
    if out.exists():
        raise OutputExists(f"{out} exists already; delete or move it, or give another --out.")


def refuse(out: Path, rows: int, rows_per_part: int, columns: Mapping[str, Sequence[Any]]) -> None:
    """Raises for what can be known to fail before anything is embedded."""
    refuse_out(out)
    if rows_per_part < 1:
        raise UsageInvalid(f"rows_per_part is {rows_per_part}; a part has at least one row.")
    if columns and out.suffix == ".npy":
        raise UsageInvalid(f"{out} cannot carry the column '{next(iter(columns))}': .npy is one array; write .parquet.")
    for name, column in columns.items():
        if name in {"row", "vector"}:
            raise UsageInvalid(f"{out} has a column '{name}' of its own; rename yours to carry it along.")
        if len(column) != rows:
            raise DataRagged(f"Column '{name}' has {len(column):,} rows and there are {rows:,} values to embed.")


def embed_parts(encode: Encode, values: Sequence[Any], parts: Parts, reporter: Reporter, asked: Interrupts) -> None:
    """Embed the parts that are not there yet, and tell how far it is once that takes over two seconds."""
    done = first = parts.kept()
    began, shown = time.monotonic(), False
    if done:
        reporter.say(f"Going on: {done:,} of {parts.rows:,} rows are embedded already.")
    try:
        for part in parts:
            if parts.read(part) is not None:
                continue
            vectors = np.empty((len(part), parts.dim), np.float32)
            for start in range(0, len(part), CALL_ROWS):
                stop_if_asked(asked, parts)
                rows = part[start : start + CALL_ROWS]
                vectors[start : start + CALL_ROWS] = encoded(encode, values, rows, parts.dim)
                done += len(rows)
                seconds = time.monotonic() - began
                if shown:
                    reporter.step(done, f"{(done - first) / seconds:,.0f} rows/s")
                elif seconds > PATIENCE:
                    reporter.begin("Embedding", done, parts.rows)
                    shown = True
            with parts.written(parts.file(part)) as file:
                write_header(file, vectors.shape)
                file.write(vectors.data)
    finally:
        reporter.end()


def encoded(encode: Encode, values: Sequence[Any], rows: range, dim: int | None = None) -> np.ndarray:
    """The vectors of some rows, as one call of the encoder gives them; of any dimension without `dim`."""
    vectors = np.asarray(encode(list(values[rows.start : rows.stop])), dtype=np.float32)
    if vectors.ndim != 2 or vectors.shape != (len(rows), dim or vectors.shape[1]):
        raise ShapesDiffer(
            f"The encoder gave vectors of shape {vectors.shape} for the {len(rows):,} values from row {rows.start:,} on; "
            f"expected ({len(rows)}, {dim or 'd'})."
        )
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise ValuesNotFinite(
            f"The vector of row {rows[broken[0]]:,} holds NaN or infinity ({len(broken):,} of {len(rows):,} rows do); "
            "look at that row's value, or embed in float32."
        )
    return vectors


def stop_if_asked(asked: Interrupts, parts: Parts) -> None:
    if asked.requested:
        raise EmbeddingStopped(asked.requested, parts.kept(), parts.rows)


# ------------------------------------------------------------------------------------------------- joining the parts


def write_npy(out: Path, parts: Parts, columns: Mapping[str, Sequence[Any]], asked: Interrupts) -> None:
    with parts.written(out) as file:
        write_header(file, (parts.rows, parts.dim))
        for part in parts:
            stop_if_asked(asked, parts)
            file.write(parts.read(part).data)


def write_parquet(out: Path, parts: Parts, columns: Mapping[str, Sequence[Any]], asked: Interrupts) -> None:
    carried = carry(columns, parts)
    schema = pa.schema([("row", pa.int64()), *carried.schema, ("vector", pa.list_(pa.float32(), parts.dim))])
    with parts.written(out) as file, pq.ParquetWriter(file, schema, use_dictionary=list(columns)) as writer:
        for part in parts:
            stop_if_asked(asked, parts)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(parts.read(part).reshape(-1)), parts.dim)
            block = [np.arange(part.start, part.stop), *carried.slice(part.start, len(part)).columns, vectors]
            writer.write_table(pa.table(block, schema=schema))


def carry(columns: Mapping[str, Sequence[Any]], parts: Parts) -> pa.Table:
    """The carried columns as a table mapped into memory: a column's type is known only when all its values were seen."""
    if not columns or not parts.rows:
        return pa.table({name: pa.nulls(0) for name in columns})

    def records() -> Iterator[Record]:
        for start in range(0, parts.rows, BATCH):
            block = [column[start : start + BATCH] for column in columns.values()]
            for row, values in enumerate(zip(*block, strict=True), start):
                yield row, dict(zip(columns, values, strict=True))

    path = parts.folder / "columns.arrow"
    with parts.written(path) as file:
        write_records(records, Path(file.name))
    return open_arrow(path).select(list(columns))

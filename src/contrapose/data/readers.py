"""`read`: whatever the user has, a path, an address or an object in memory, as a checked table of named columns."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contrapose.data.arrow import open_arrow, write_batches, write_records
from contrapose.data.cache import cache_folder, file_digest, written_whole
from contrapose.data.columns import GROUP, Column
from contrapose.data.faults import faults, missing_columns, numbers
from contrapose.data.hub import hub_table
from contrapose.data.objects import object_table
from contrapose.data.table import Table
from contrapose.data.text_files import text_records
from contrapose.errors import (
    ColumnMissing,
    ColumnUnknown,
    DataDamaged,
    DataEmpty,
    DataFileMissing,
    DataFormatUnknown,
    SampleUnknown,
    ValueMissing,
    nearest,
)

LINE_KINDS = (".txt", ".csv", ".tsv", ".jsonl")
KNOWN = ".txt, .csv, .tsv, .jsonl (each also as .gz), .parquet"
VERSION = "1"  # of what the readers write into the cache: a change of form gets a new number, and files are read anew


def read(
    source: Any,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Sequence[Column] = (),
    drop_empty: bool = False,
    strict: bool = True,
    cache: str | os.PathLike[str] | None = None,
) -> Table:
    """Data as a table of named columns, checked against what is needed of them.

    source: a file (.txt: the column "text", a row a line; .csv .tsv .jsonl; each of them also as .gz; .parquet),
        "hf:owner/name" or "hf:owner/name:split" (a dataset of the Hugging Face Hub), "sample:latvian/train" (comes with
        the package), or an object: a list of texts (the column "text"), of dicts or of tuples, a dict of columns, a
        DataFrame, an Arrow table, a datasets.Dataset, a Table.
    rename: `{"anchor": "english"}`: the method's column `anchor` is the data's column `english`.
    needs: the columns to check; others are kept as they are. Columns of kind "number" and "score" become float64, also
        where they are spelt as text.
    drop_empty: leave out rows in which one of them is empty, and count them in `Table.dropped`, in place of raising.
    strict: False reads without the check of columns and values; what cannot be read at all still raises.
    cache: folder of the memory-mapped copies of files; default $CONTRAPOSE_CACHE, else the user's cache folder.

    Raises, before anything else is done and with file, line and column: DataFileMissing, DataFormatUnknown, DataEmpty,
    DataEncoding, DataRagged, CsvBroken, JsonBroken, DataDamaged, SampleUnknown, HubUnavailable, CacheUnwritable,
    ColumnMissing, ColumnUnknown, ValueMissing, ValueKind.
    """
    table = _open(source, needs, cache)
    if not len(table):
        raise DataEmpty(f"{table.source} holds no rows. Give at least one batch of them.")
    table = _rename(table, rename or {}, needs)
    return _checked(table, needs, drop_empty) if strict else table


def _open(source: Any, needs: Sequence[Column], cache: str | os.PathLike[str] | None) -> Table:
    if not isinstance(source, (str, os.PathLike)):
        return object_table(source, needs)
    name = os.fspath(source)
    if name.startswith("hf:"):
        return hub_table(name)
    if name.startswith("sample:"):
        with resources.as_file(_sample(name)) as path:
            return _file_table(path, name, cache)
    return _file_table(Path(name).expanduser(), name, cache)


def _rename(table: Table, rename: Mapping[str, str], needs: Sequence[Column]) -> Table:
    known = [*(column.name for column in needs), GROUP]
    for name, old in rename.items():
        if needs and name not in known:
            raise ColumnUnknown(f"--map {name}={old}: the method has no column '{name}'; {nearest(name, known)}")
        if old not in table:
            raise ColumnMissing(
                f"--map {name}={old}: {table.source} has no column '{old}'; {nearest(old, table.columns)}"
            )
    return table.renamed(rename) if rename else table


def _checked(table: Table, needs: Sequence[Column], drop_empty: bool) -> Table:
    error = missing_columns(table, needs)
    if error is not None:
        raise error
    empty = np.zeros(len(table), bool)
    for column in needs:
        if column.name not in table:
            continue
        for fault in faults(table, column):
            if fault.error is not ValueMissing or not drop_empty:
                raise fault.refuse(table)
            empty[fault.rows] = True
        if column.kind in ("number", "score"):
            table = table.replaced(column.name, pa.array(numbers(table.arrow(column.name)), from_pandas=True))
    if not empty.any():
        return table
    if empty.all():
        raise DataEmpty(f"{table.source}: a needed column is empty in each of the {len(table):,} rows; none is left.")
    kept = table.take(np.flatnonzero(~empty))
    kept.dropped = table.dropped + int(empty.sum())
    return kept


def _file_table(path: Path, source: str, cache: str | os.PathLike[str] | None) -> Table:
    """A file as a table over its copy in the cache, which is made anew when the file's bytes are new."""
    _require_file(path, source)
    kind = _kind(path, source)
    try:
        key = f"{file_digest(path)}-{kind[1:]}-{VERSION}"
    except OSError as error:
        raise DataFileMissing(f"'{source}' cannot be read: {error.strerror}.") from None
    if path.suffix.lower() == ".gz":
        key += "-gz"
    mapped = cache_folder(cache) / "tables" / f"{key}.arrow"
    arrow = open_arrow(mapped)
    if arrow is None:
        with written_whole(mapped) as part:
            if not _writer(path, kind, source)(part):
                raise DataEmpty(f"{source} holds no rows. Give a file with at least one batch of them.")
        arrow = open_arrow(mapped)
    return Table(arrow, source=source, by_line=kind in LINE_KINDS, key=key)


def _writer(path: Path, kind: str, source: str) -> Callable[[Path], int]:
    if kind == ".parquet":
        return partial(write_batches, _parquet_batches(path, source))
    return partial(write_records, partial(text_records, path, kind, source))


def _parquet_batches(path: Path, source: str) -> Iterator[pa.RecordBatch]:
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            yield from file.iter_batches()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise DataDamaged(f"{source} is not a whole Parquet file: {reason}. Fetch or write it again.") from None


def _require_file(path: Path, source: str) -> None:
    # os.path answers False where Path raises: for a text of a thousand letters, say, given by mistake.
    if os.path.isdir(path):
        raise DataFormatUnknown(f"'{source}' is a folder. Give a file: {KNOWN}.")
    if os.path.exists(path):
        return
    if not os.path.isdir(path.parent):
        raise DataFileMissing(f"There is no file '{source}', nor a folder '{path.parent}'. Check the path.")
    close = difflib.get_close_matches(path.name, os.listdir(path.parent), n=1, cutoff=0.6)
    hint = f"did you mean '{path.with_name(close[0])}'?" if close else "check the path."
    raise DataFileMissing(f"There is no file '{source}'; {hint}")


def _kind(path: Path, source: str) -> str:
    """The suffix that says how to read a file, without .gz."""
    name = path.name.lower()
    kind = Path(name.removesuffix(".gz")).suffix
    if kind in LINE_KINDS or name.endswith(".parquet"):
        return kind
    raise DataFormatUnknown(f"'{source}' is not a file of a kind that is read. Known: {KNOWN}.")


def _sample(address: str) -> Any:
    """The packaged file of an address such as "sample:latvian/train"."""
    folder = resources.files("contrapose") / "samples"
    files = {
        f"sample:{sample.name}/{file.name.removesuffix('.jsonl.gz')}": file
        for sample in (folder.iterdir() if folder.is_dir() else ())
        if sample.is_dir()
        for file in sample.iterdir()
        if file.name.endswith(".jsonl.gz")
    }
    if address not in files:
        raise SampleUnknown(f"There is no sample '{address}'; {nearest(address, files)}")
    return files[address]

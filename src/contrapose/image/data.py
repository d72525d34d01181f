"""Images as pixels: decoded once, kept on disk, handed out as uint8."""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import LongTensor, Tensor

from contrapose.data.arrow import is_text
from contrapose.data.batches import Data
from contrapose.data.cache import cache_folder, written_whole
from contrapose.data.check import CheckReport, Problem, check
from contrapose.data.columns import Column
from contrapose.data.plain import plain_columns
from contrapose.data.readers import read
from contrapose.data.table import Table, row_numbers
from contrapose.errors import DataEmpty, ImageInvalid, ValueKind
from contrapose.image._arrays import (
    archive_columns,
    image_column,
    is_pixels,
    objects_to_columns,
    shape_of,
    to_numpy,
)
from contrapose.image._decode import GREY, opened, pixels
from contrapose.image._folders import digest_of_files, folder_table, names_images, with_whole_paths
from contrapose.image._given import GivenImages
from contrapose.training.bar import Bar
from contrapose.training.method import Card

if TYPE_CHECKING:
    from contrapose.image.encoder import ImageEncoder

BLOCK = 256  # images decoded at once: enough to keep the threads busy, few enough for large photos
FORMAT = 2  # of the cached files; a new number leaves the old ones unread
SEEN = 100  # images that say how large an encoder's should be


def read_data(
    source: Any,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Sequence[Column] = (),
    drop_empty: bool = False,
    strict: bool = True,
) -> Table:
    """Images as a table, its columns checked against what is needed of them.

    source: a folder of images (the column "image"; names of sub-folders are the column "label"); a .npy or .npz of arrays; a table (.csv,
        .tsv, .jsonl, .parquet, "hf:owner/name", a DataFrame, a datasets.Dataset) with paths, relative to its file, or bytes of images; a
        list of PIL images, of arrays or of paths (the column "image"); an array or tensor (n, h, w) or (n, h, w, c); a dict of such columns;
        a list of dicts.
    rename, needs, drop_empty, strict: as for `contrapose.data.readers.read`, with whose columns of other kinds nothing changes.

    Pixels of arrays are uint8, or floats from 0 to 1, which are rounded to 255ths. Raises ImageInvalid, ImagesDiffer, DataEmpty for a folder
    without images and for a single one, DataFormatUnknown for a file of another kind, ValueKind for a column of no images, and what `read` raises.
    """
    table = read(_open(source), rename=rename, needs=needs, drop_empty=drop_empty, strict=strict)
    if strict:
        for column in needs:
            if column.kind == "image" and column.name in table:
                refuse_values(table, column.name)
        if needs and len(table) < 2:
            raise DataEmpty(single(table))
    return table


def single(table: Table) -> str:
    return f"{table.source} holds a single image. Give at least two; a batch's worth is better."


def _open(source: Any) -> Table:
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if os.path.isdir(path):
            return folder_table(path, str(source))
        if path.suffix in (".npy", ".npz") and path.is_file():
            return _of_columns(archive_columns(path), str(source))
        return with_whole_paths(read(source, strict=False), source)
    columns = None if isinstance(source, Table) else objects_to_columns(source)
    if columns is None:
        return source if isinstance(source, Table) else with_whole_paths(read(source, strict=False), None)
    return with_whole_paths(
        _of_columns(columns, "the array" if hasattr(source, "dtype") else f"the {type(source).__name__}"), None
    )


def _of_columns(columns: Mapping[str, Any], source: str) -> Table:
    made = {name: image_column(values, name, source) for name, values in columns.items()}
    images = {name: values for name, values in made.items() if isinstance(values, pa.Array)}
    others = (
        read({name: values for name, values in made.items() if name not in images}, strict=False)
        if len(images) < len(made)
        else None
    )
    table = {name: images[name] if name in images else others.arrow(name) for name in made}
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"'{name}' {length:,}" for name, length in lengths.items())
        raise ImageInvalid(
            f"The columns of {source} are not equally long: {counts}. Each row needs a value in every column."
        )
    if not max(lengths.values(), default=0):
        raise DataEmpty(f"{source} holds no images. Give at least one batch of them.")
    return Table(pa.table(table), source=source)


class ImageValues(Sequence[Any]):
    """A column of n images as they were given, read when they are asked for: paths, bytes or arrays (h, w, c) of uint8.

    `values[3]` is one image; `values[10:20]` and `values[[4, 2]]` are `ImageValues` of these rows. `name(row)` says where one comes from.
    """

    def __init__(self, table: Table, column: str) -> None:
        self._table, self._column = table, column
        self._rows = np.arange(len(table))
        held = table.arrow(column)
        self._array = to_numpy(held) if is_pixels(held.type) else None
        self._values = table[column]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, (int, np.integer)):
            row = int(self._rows[row_numbers([index], len(self))[0]])
            return self._values[row] if self._array is None else self._array[row]
        some = copy.copy(self)
        some._rows = self._rows[row_numbers(index, len(self))]
        return some

    def __repr__(self) -> str:
        return f"ImageValues({len(self):,} of column '{self._column}' of {self._table.source})"

    def name(self, row: int) -> str:
        value = None if self._array is not None else self[row]
        return (
            f"'{value}'"
            if isinstance(value, str)
            else f"{self._table.where(int(self._rows[row]))}: column '{self._column}'"
        )

    @property
    def array(self) -> np.ndarray | None:
        """(n, h, w, c) uint8 where the images are arrays."""
        return None if self._array is None else self._array[self._rows]

    def digest(self) -> str:
        """SHA-256 in hex of the images themselves."""
        if self._array is not None:
            return hashlib.sha256(np.ascontiguousarray(self.array)).hexdigest()
        if isinstance(self[0], str):
            return digest_of_files(
                [self[row] for row in range(len(self))], f"column '{self._column}' of {self._table.source}"
            )
        digest = hashlib.sha256()
        for value in self:
            content = value if isinstance(value, bytes) else repr(value).encode()
            digest.update(len(content).to_bytes(8) + content)
        return digest.hexdigest()


class Pixels:
    """A column of n images, decoded once: `column[rows]` are uint8 tensors (b, c, size, size), copied out of a file mapped into memory."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    @classmethod
    def open(
        cls, values: ImageValues | GivenImages, size: int, channels: int, cache: Path | str | None = None
    ) -> Pixels:
        """Decode a column, or find it in the cache by its content, `size` and `channels`; see `pixels` for how images are brought to one size.

        `cache`: a folder; None: the one of `contrapose.data.cache`. Arrays that are as they should be already are taken as they stand.
        Raises ImageInvalid, which names the file or the row.
        """
        array = values.array
        if array is not None and array.shape[1:] == (size, size, channels):
            return cls(array.transpose(0, 3, 1, 2))
        key = hashlib.sha256(f"{FORMAT} {size} {channels} {values.digest()}".encode()).hexdigest()
        path = cache_folder(cache) / "images" / f"{key}.npy"
        found = _mapped(path, (len(values), channels, size, size))
        if found is None:
            with written_whole(path) as part:
                _write(values, part, size, channels)
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        return cls(found)

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: LongTensor | Sequence[int]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.array[row_numbers(rows, len(self))]))

    def __repr__(self) -> str:
        count, channels, height, width = self.array.shape
        return f"Pixels({count:,} images, {channels} x {height} x {width})"


def _mapped(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return array if array.shape == shape and array.dtype == np.uint8 else None


def _write(values: ImageValues | GivenImages, path: Path, size: int, channels: int) -> None:
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(len(values), channels, size, size))
    with Bar("Decoding", len(values)) as bar:
        for start in range(0, len(values), BLOCK):
            block = values[start : start + BLOCK]
            array[start : start + len(block)] = decoded(block, size, channels)
            bar.advance(len(block))
    array.flush()


def decoded(values: Sequence[Any], size: int, channels: int, first: int = 0) -> np.ndarray:
    """Images as uint8 (n, c, size, size), several at a time. `first` is the number that messages give to the first one. Raises ImageInvalid."""
    named = values.name if isinstance(values, (ImageValues, GivenImages)) else lambda row: f"Image {first + row}"

    def one(row: int) -> np.ndarray:
        return pixels(values[row], size, channels, named(row))

    if len(values) < 8:
        rows = [one(row) for row in range(len(values))]
    else:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            rows = list(threads.map(one, range(len(values))))
    return np.stack(rows) if rows else np.zeros((0, channels, size, size), np.uint8)


def refuse_broken(values: ImageValues) -> None:
    """Raises ImageInvalid for the first image that cannot be decoded: data that are embedded after a training are looked at before it."""
    if values.array is not None:
        return
    with Bar("Checking images", len(values)) as bar:
        for start in range(0, len(values), BLOCK):
            bar.advance(len(decoded(values[start : start + BLOCK], 32, 3)))


def image_columns(table: Table) -> list[str]:
    """The columns of a table that hold images."""
    return [name for name in table.columns if holds_images(table, name)]


def holds_images(table: Table, column: str) -> bool:
    kind = table.arrow(column).type
    if is_text(kind):
        return names_images(table, column)
    if pa.types.is_struct(kind):
        return "bytes" in [field.name for field in kind]
    return is_pixels(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def seen(table: Table, few: int = SEEN) -> tuple[tuple[int, int] | None, bool]:
    """What the first images of a table look like: (width, height) where all have it, else None; and whether all are grey.

    One that is missing or cannot be read is passed over: it is named when the column is opened, or checked.
    """
    sizes, grey = set(), True
    for name in image_columns(table):
        shape = shape_of(table.arrow(name).type)
        if shape is not None:
            sizes.add((shape[1], shape[0]))
            grey &= shape[2] == 1
            continue
        values = ImageValues(table, name)[:few]
        for row in range(len(values)):
            try:
                image = opened(values[row], values.name(row))
            except ImageInvalid:
                continue
            sizes.add(image.size)
            grey &= image.mode in GREY
    return (next(iter(sizes)) if len(sizes) == 1 else None), grey and bool(sizes)


def open_data(table: Table, card: Card, encoder: ImageEncoder) -> Data:
    """A checked table as what a method trains on: images as pixels of the encoder's size, labels and domains as codes, numbers as float32."""
    encoded = [column for column in card.columns if column.kind == "image"]
    columns, categories = plain_columns(table, [column for column in card.columns if column not in encoded])
    opened = {
        column.name: Pixels.open(ImageValues(table, column.name), encoder.size, encoder.channels)
        for column in encoded
        if column.name in table
    }
    return Data({**columns, **opened}, len(table), table.group, categories, table.source, table.fingerprint)


def check_data(table: Table, card: Card, encoder: ImageEncoder, batch_size: int) -> CheckReport:
    """What is wrong with images for a method, by row: every one is decoded."""
    report = check(table, card.columns, batch_size=batch_size)
    problems = [] if len(table) > 1 else [Problem(single(table), 1, table.places([0]), stops=True)]
    for column in card.columns:
        if column.kind == "image" and column.name in table:
            problems += _problems(table, column.name, encoder.size)
    return replace(report, problems=(*report.problems, *problems))


def _problems(table: Table, column: str, size: int) -> list[Problem]:
    if not holds_images(table, column):
        return [Problem(f"column '{column}' holds no images; {FORMS}", len(table), table.places([0]), stops=True)]
    values = ImageValues(table, column)
    broken: list[tuple[int, str]] = []
    small = []
    with Bar("Checking images", len(values)) as bar:
        for row in range(len(values)):
            try:
                value = values[row]
                if value is not None:
                    pixels(value, size, 3, values.name(row))
                    small += [row] if min(opened(value, "").size) < size else []
            except ImageInvalid as error:
                broken.append((row, error.args[0]))
            bar.advance(1)
    found = []
    if broken:
        found.append(Problem(broken[0][1], len(broken), table.places([row for row, _ in broken]), stops=True))
    if small:
        message = (
            f"column '{column}': the shorter side is below {size}, the encoder's size, so that the image is enlarged."
        )
        found.append(Problem(message, len(small), table.places(small), stops=False))
    return found


def values_of(table: Table, column: str, encoder: Any) -> ImageValues:
    """A column's images as an encoder takes them."""
    return ImageValues(table, column)


FORMS = "images are paths that end in .png, .jpg or the like, bytes of image files, or arrays of uint8."


def refuse_values(table: Table, column: str) -> None:
    """Raises ValueKind for a column that holds no images: nothing is embedded before that is known."""
    if holds_images(table, column):
        return
    shown = repr(table[column][0])
    shown = shown if len(shown) <= 40 else shown[:39] + "…"
    raise ValueKind(
        f"{table.where(0)}: column '{column}' is {shown}, no image; {FORMS} Name the column that is meant: --map {column}=COLUMN."
    )

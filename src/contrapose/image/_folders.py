"""Images as files: a folder of them, or a table that names them."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

import pyarrow as pa

from contrapose.data.arrow import is_text
from contrapose.data.cache import file_digest
from contrapose.data.table import Table
from contrapose.errors import DataEmpty, DataFormatUnknown, ImageInvalid
from contrapose.image._decode import SUFFIXES
from contrapose.training.bar import Bar

IGNORED = {"Thumbs.db", "desktop.ini"}  # what systems leave in folders of pictures, beside names that begin with a dot


def folder_table(folder: Path, source: str) -> Table:
    """A folder as a table: "image", the path of each file in the order of the names; and "label", its sub-folder, where there are any.

    Raises DataEmpty for a folder without images, DataFormatUnknown for a file of another kind and where some images stand outside sub-folders.
    """
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.is_file()
        and file.name not in IGNORED
        and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    )
    other = [file for file in files if file.suffix.lower() not in SUFFIXES]
    if other:
        raise DataFormatUnknown(
            f"{source}: '{other[0].relative_to(folder)}' is no image that is read ({len(other):,} such in all). Known: {', '.join(SUFFIXES)}. "
            "Move other files out of the folder, and convert images of other kinds."
        )
    if not files:
        raise DataEmpty(
            f"{source} holds no images. Give a folder with {', '.join(SUFFIXES)}, or with a folder of them for each label."
        )
    within = [file.relative_to(folder).parts for file in files]
    columns = {"image": [str(file) for file in files]}
    if any(len(parts) > 1 for parts in within):
        outside = [file for file, parts in zip(files, within, strict=True) if len(parts) == 1]
        if outside:
            raise DataFormatUnknown(
                f"{source}: '{outside[0].name}' stands beside the sub-folders, whose names are labels ({len(outside):,} such in all). "
                "Move it into one of them, or give a folder without sub-folders."
            )
        columns["label"] = [parts[0] for parts in within]
    names = ["/".join(parts) for parts in within]
    content = hashlib.sha256("\n".join([*names, digest_of_files(columns["image"], source)]).encode()).hexdigest()
    return Table(pa.table(columns), source=source, key=content)


def with_whole_paths(table: Table, source: object) -> Table:
    """The table with its columns of image paths made whole: they are relative to the file that names them."""
    beside = Path(os.fspath(source)).expanduser().parent if isinstance(source, (str, os.PathLike)) else Path()
    for name in table.columns:
        if is_text(table.arrow(name).type) and names_images(table, name):
            paths = [
                None if value is None or not value.strip() else str(beside / value.strip()) for value in table[name]
            ]
            where = f"column '{name}' of {table.source}"
            table = table.replaced(
                name, pa.array(paths, pa.large_string()), digest_of_files([p for p in paths if p], where)
            )
    return table


def names_images(table: Table, column: str) -> bool:
    """Whether the first value of a column of texts ends as the name of an image does."""
    first = next((value for value in table[column] if value is not None and value.strip()), "")
    return first.strip().lower().endswith(SUFFIXES)


def digest_of_files(paths: list[str], where: str) -> str:
    """SHA-256 over the bytes of files, in their order. Raises ImageInvalid for one that is not there."""
    digest = hashlib.sha256()
    with Bar("Reading images", len(paths)) as bar:
        for path in paths:
            try:
                digest.update(digest_of_file(path).encode())
            except OSError as error:
                raise ImageInvalid(
                    f"{where}: '{path}' cannot be read: {error.strerror}. Paths in a table are relative to its file. Mend it, or leave the row out."
                ) from None
            bar.advance(1)
    return digest.hexdigest()


def digest_of_file(path: str) -> str:
    """SHA-256 in hex of a file's bytes. Raises OSError."""
    facts = os.stat(path)
    return _known_digest(path, facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=2**20)
def _known_digest(path: str, changed: int, length: int) -> str:
    """The digest of a file that has not changed since it was last read in this process."""
    return file_digest(Path(path))

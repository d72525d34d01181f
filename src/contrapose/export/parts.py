"""The vectors of a corpus while they are gathered: a folder of whole parts beside the output, which outlives a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from contrapose.errors import EmbeddingChanged, WriteFailed

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Parts:
    """The vectors of consecutive rows, an .npy file a part, and a manifest that says whose they are."""

    folder: Path
    rows: int
    dim: int
    rows_per_part: int

    @classmethod
    def open(cls, out: Path, rows: int, dim: int, rows_per_part: int, identity: str) -> Parts:
        """New parts for `out`, or those of a call that was stopped, whose size of a part stays. Raises EmbeddingChanged for others'."""
        folder = out.with_name(f".{out.name}.parts")
        facts = {"format": 1, "identity": identity, "rows": rows, "dim": dim}
        found = manifest(folder)
        if found.items() >= facts.items():
            return cls(folder, rows, dim, found["rows_per_part"])
        if any(folder.glob("part-*.npy")):
            raise EmbeddingChanged(
                f"{folder} holds vectors of another model or of other data, whose embedding was stopped. "
                "Delete that folder to start anew, or give another --out."
            )
        parts = cls(folder, rows, dim, rows_per_part)
        with parts.written(folder / MANIFEST) as file:
            file.write(json.dumps({**facts, "rows_per_part": rows_per_part}, indent=2).encode())
        return parts

    def __iter__(self) -> Iterator[range]:
        """The rows of each part."""
        for start in range(0, self.rows, self.rows_per_part):
            yield range(start, min(start + self.rows_per_part, self.rows))

    def read(self, part: range) -> np.ndarray | None:
        """The vectors of a part, float32 of shape (len(part), dim), mapped into memory; None when it is not there whole."""
        try:
            vectors = np.load(self.file(part), mmap_mode="r")
        except (OSError, ValueError, EOFError):
            return None
        return vectors if vectors.shape == (len(part), self.dim) and vectors.dtype == np.float32 else None

    def file(self, part: range) -> Path:
        return self.folder / f"part-{part.start:012d}.npy"

    def kept(self) -> int:
        """How many rows stand in whole parts."""
        return sum(len(part) for part in self if self.read(part) is not None)

    @contextmanager
    def written(self, target: Path) -> Iterator[BinaryIO]:
        """A file to write to; it becomes `target` when the block ends well, and vanishes otherwise. Raises WriteFailed."""
        temporary = self.folder / f"{target.name}.writing"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(temporary, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise WriteFailed(
                f"{target} could not be written ({error.strerror or error}); {self.kept():,} of {self.rows:,} rows are kept. "
                "Make room, and the same command goes on from there; or give another --out."
            ) from None
        finally:
            for leave_nothing in (temporary.unlink, self.folder.rmdir):  # rmdir spares a folder that holds anything
                with suppress(OSError):
                    leave_nothing()


def write_header(file: BinaryIO, shape: tuple[int, ...]) -> None:
    """The header of an .npy file of float32, after which the values are written.

    Not `numpy.save`, which hides why a write failed, nor `open_memmap`: on a full disk a write to mapped memory kills the process.
    """
    header = {"descr": np.dtype(np.float32).str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def manifest(folder: Path) -> dict[str, Any]:
    """Whose parts a folder holds; empty where nothing says so."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and "rows_per_part" in found else {}

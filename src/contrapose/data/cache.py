"""Where derived files are kept, and how they are written so that half a file is never found there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from contrapose.errors import CacheUnwritable


def cache_folder(cache: str | os.PathLike[str] | None = None) -> Path:
    """The folder given, else $CONTRAPOSE_CACHE, else the user's cache folder of contrapose. It need not exist yet."""
    return Path(cache or os.environ.get("CONTRAPOSE_CACHE") or platformdirs.user_cache_dir("contrapose"))


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A temporary path to write to; it becomes `path` only when the block ends well, and vanishes otherwise.

    Two processes may write the same path at once: each writes its own file, and the last one to end stays.
    Raises CacheUnwritable when the folder cannot be made or the file cannot be written.
    """
    part = path.with_name(f"{path.stem[:16]}-{os.getpid()}-{os.urandom(4).hex()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        part.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CacheUnwritable(
            f"The cache folder '{path.parent}' cannot be written: {reason}. "
            "Name a folder with room in the environment variable CONTRAPOSE_CACHE."
        ) from error
    finally:
        with suppress(OSError):
            part.unlink()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

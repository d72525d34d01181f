"""Images of one column among others, as its encoder is handed them: no table says where they come from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrapose.image._folders import digest_of_file
from contrapose.training.bar import Bar


class GivenImages(Sequence[Any]):
    """Paths, bytes of image files or arrays by number, with the face of `ImageValues`: `Pixels.open` decodes either."""

    array = None  # they may be of several shapes

    def __init__(self, values: Sequence[Any], numbers: range | None = None) -> None:
        self._values = values
        self._numbers = range(len(values)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return GivenImages(self._values, self._numbers[index])
        return self._values[self._numbers[index]]

    def name(self, row: int) -> str:
        value = self[row]
        return f"'{value}'" if isinstance(value, str) else f"Image {self._numbers[row]}"

    def digest(self) -> str:
        """SHA-256 in hex of the images themselves. A file that is not there counts by its path: decoding names it."""
        digest = hashlib.sha256()
        with Bar("Reading images", len(self)) as bar:
            for value in self:
                content = content_of(value)
                digest.update(len(content).to_bytes(8) + content)
                bar.advance(1)
        return digest.hexdigest()


def content_of(value: Any) -> bytes:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        try:
            return digest_of_file(value).encode()
        except OSError:
            return value.encode()
    if isinstance(value, bytes):
        return value
    array = np.asarray(value)
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()

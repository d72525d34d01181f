"""One image, however it is given, as pixels of one size."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from contrapose.errors import ContraposeError, ImageInvalid

MODES = {1: "L", 3: "RGB"}
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "F")  # PIL's modes without colour


def opened(value: Any, where: str) -> Image.Image:
    """A PIL image of a path, the bytes of a file, `{"bytes": …, "path": …}` (datasets), an array (h, w[, c]) or a PIL image.

    `where` names the image in messages. Raises ImageInvalid for what is no image. The pixels are not decoded yet.
    """
    if isinstance(value, Image.Image):
        return value
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, (str, Path)):
        path = Path(value)
        if not path.is_file():
            raise ImageInvalid(f"{where}: there is no file '{path}'. Check the path, or leave the row out.")
        return _identified(path, where)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _identified(io.BytesIO(value), where)
    if value is None or isinstance(value, (int, float, bool)):
        raise ImageInvalid(
            f"{where} is {value!r}, not an image; give a path, bytes, a PIL image or an array (h, w, c)."
        )
    array = as_bytes(np.asarray(value), where)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageInvalid(
            f"{where} has shape {array.shape}; an image is (h, w), or (h, w, c) with 1, 3 or 4 channels."
        )
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def as_bytes(array: np.ndarray, where: str) -> np.ndarray:
    """Pixels as uint8: integers from 0 to 255 as they are, floats from 0 to 1 times 255, rounded. Raises ImageInvalid for others."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind not in "iuf":
        raise ImageInvalid(f"{where} holds {array.dtype}, not pixels; give uint8, or floats from 0 to 1.")
    most = 1 if array.dtype.kind == "f" else 255
    fit = (array >= 0) & (array <= most)  # NaN does not fit
    if not fit.all():
        kind = "floats of an image are from 0 to 1" if most == 1 else "integers of an image are from 0 to 255"
        raise ImageInvalid(f"{where} holds {array[~fit].flat[0]}; {kind}. Scale them before they are given.")
    return np.rint(array * 255).astype(np.uint8) if most == 1 else array.astype(np.uint8)


def pixels(value: Any, size: int, channels: int, where: str) -> np.ndarray:
    """One image as uint8 (c, size, size): upright as its EXIF data say, its shorter side brought to `size`, the middle cut out, RGB or grey.

    Transparency is dropped; 16-bit grey is scaled to 8 bits; resizing is bilinear with anti-aliasing. Raises ImageInvalid.
    """
    image = opened(value, where)
    try:
        image = eight_bits(ImageOps.exif_transpose(image), where).convert(MODES[channels])
    except ContraposeError:
        raise
    except Exception as error:  # on damaged files PIL's decoders raise whatever goes wrong within them: TypeError, struct.error, IndexError
        raise ImageInvalid(f"{where} cannot be decoded: {_reason(error)}. Replace it, or leave it out.") from None
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), method=Image.Resampling.BILINEAR)
    array = np.asarray(image)
    return array[None] if channels == 1 else array.transpose(2, 0, 1)


def eight_bits(image: Image.Image, where: str) -> Image.Image:
    """PIL clips 16-bit grey to white when it is converted; here it is scaled."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
    if image.mode == "F":
        return Image.fromarray(as_bytes(np.asarray(image), where))
    return image


def _identified(file: Path | io.BytesIO, where: str) -> Image.Image:
    try:
        return Image.open(file)
    except Exception as error:  # as in `pixels`
        raise ImageInvalid(
            f"{where} is no image that can be read: {_reason(error)}. Replace it, or leave it out."
        ) from None


def _reason(error: Exception) -> str:
    said = str(error).strip().rstrip(".") or type(error).__name__
    return "the file is of no kind that is known, or damaged" if said.startswith("cannot identify") else said

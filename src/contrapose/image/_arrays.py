"""Images in memory and in folders as columns of a table."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from contrapose.errors import ImageInvalid, ImagesDiffer
from contrapose.image._decode import SUFFIXES, as_bytes

CHANNELS = (1, 3, 4)


def is_pixels(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds arrays (h, w, c) of uint8: fixed lists within fixed lists."""
    return shape_of(kind) is not None


def shape_of(kind: pa.DataType) -> tuple[int, int, int] | None:
    """(h, w, c) of the arrays that a column holds; None where it holds others."""
    shape = []
    while pa.types.is_fixed_size_list(kind):
        shape.append(kind.list_size)
        kind = kind.value_type
    return tuple(shape) if len(shape) == 3 and kind == pa.uint8() else None


def to_arrow(images: np.ndarray) -> pa.Array:
    """(n, h, w, c) uint8 as a column; contiguous pixels are not copied."""
    column: pa.Array = pa.array(np.ascontiguousarray(images).reshape(-1))
    for length in reversed(images.shape[1:]):
        column = pa.FixedSizeListArray.from_arrays(column, length)
    return column


def to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """The reverse of `to_arrow`, without a copy where the column is one piece."""
    shape = shape_of(column.type)
    parts = []
    for chunk in column.chunks:
        flat = chunk
        while pa.types.is_fixed_size_list(flat.type):
            flat = flat.flatten()
        parts.append(flat.to_numpy().reshape(-1, *shape))
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros((0, *shape), np.uint8), *parts])


def stacked(images: Any, where: str) -> np.ndarray:
    """An array or tensor of images as uint8 (n, h, w, c).

    (n, h, w) is grey. Channels stand last; in a tensor of torch they may stand second, where PyTorch has them. Raises ImageInvalid.
    """
    tensor = hasattr(images, "detach")
    array = images.detach().cpu().numpy() if tensor else np.asarray(images)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim == 4 and tensor and array.shape[1] in CHANNELS and array.shape[3] not in CHANNELS:
        array = array.transpose(0, 2, 3, 1)
    if array.ndim != 4 or array.shape[3] not in CHANNELS or 0 in array.shape[1:3]:
        raise ImageInvalid(
            f"{where} has shape {tuple(array.shape)}; images in one array are (n, h, w), or (n, h, w, c) with 1, 3 or 4 channels."
        )
    return as_bytes(array, where)


def is_many_images(values: Any) -> bool:
    """Whether values are one array of images: an array or tensor of three or four dimensions."""
    return hasattr(values, "shape") and hasattr(values, "dtype") and len(values.shape) in (3, 4)


def is_image_object(value: Any) -> bool:
    """Whether a value is an image in memory: of PIL, or an array or tensor (h, w[, c])."""
    from PIL import Image

    return isinstance(value, Image.Image) or (
        hasattr(value, "shape") and hasattr(value, "dtype") and len(value.shape) in (2, 3)
    )


def image_column(values: Any, name: str, source: str) -> pa.Array | Sequence[Any]:
    """A column of images in memory for Arrow; a column of anything else as it is.

    Arrays must be of one shape, PIL images of one size and mode, or each is kept as a PNG: PIL images can be brought to one size later,
    since they say how they are to be read. Raises ImageInvalid and ImagesDiffer.
    """
    where = f"Column '{name}' of {source}"
    if is_many_images(values):
        return to_arrow(stacked(values, where))
    values = list(values)
    first = next((value for value in values if value is not None), None)
    if first is None or not is_image_object(first):
        return values
    if hasattr(first, "getbands"):
        return pa.array(
            [None if value is None else _png(value, f"row {row}", where) for row, value in enumerate(values)]
        )
    shapes = [getattr(value, "shape", None) for value in values]
    for row, shape in enumerate(shapes):
        if shape != first.shape:
            found = f"shape {tuple(shape)}" if shape else f"a {type(values[row]).__name__}"
            raise ImagesDiffer(
                f"{where}: row {row} has {found}, row 0 has shape {tuple(first.shape)}. Arrays are not resized: give arrays of one shape, "
                "or PIL images or files, which are brought to `encoder.size`."
            )
    return to_arrow(stacked(np.stack([np.asarray(value) for value in values]), where))


def _png(image: Any, row: str, where: str) -> bytes:
    import io

    if not hasattr(image, "getbands"):
        raise ImagesDiffer(
            f"{where}: {row} is a {type(image).__name__}, other rows are PIL images. Give all rows in one form."
        )
    kept = image if image.mode in ("1", "L", "LA", "I;16", "RGB", "RGBA") else image.convert("RGB")
    written = io.BytesIO()
    kept.save(written, "PNG", compress_level=1)
    return written.getvalue()


def objects_to_columns(source: Any) -> dict[str, Any] | None:
    """The columns of data in memory that hold images; None for data that hold none, which a table reads by itself."""
    if is_many_images(source):
        return {"image": source}
    if isinstance(source, Mapping):
        holds = any(is_many_images(column) or is_image_object(_first(column)) for column in source.values())
        return {str(name): column for name, column in source.items()} if holds else None
    if not isinstance(source, Sequence) or isinstance(source, (str, bytes)) or not len(source):
        return None
    first = _first(source)
    if isinstance(first, Mapping) and any(is_image_object(value) for value in first.values()):
        names = dict.fromkeys(name for row in source for name in row)
        return {str(name): [row.get(name) for row in source] for name in names}
    if isinstance(first, (str, Path)) and str(first).lower().endswith(SUFFIXES):
        return {"image": [None if each is None else str(each) for each in source]}
    return {"image": source} if is_image_object(first) else None


def _first(values: Any) -> Any:
    if not isinstance(values, Sequence) or isinstance(values, (str, bytes)):
        return None
    return next((value for value in values if value is not None), None)


def archive_columns(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz by their names, or that of a .npy as "image". Raises ImageInvalid for a file that cannot be read, or only as a pickle."""
    try:
        loaded = np.load(path, allow_pickle=False, mmap_mode="r" if path.suffix == ".npy" else None)
        columns = {"image": loaded} if path.suffix == ".npy" else {name: loaded[name] for name in loaded.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ImageInvalid(
            f"'{path}' cannot be read as arrays: {str(error).splitlines()[0].rstrip('.') if str(error) else type(error).__name__}. Write it "
            "anew with numpy.savez, with arrays of numbers or of text alone."
        ) from None
    return columns

"""Images in every form that is read, the same pixels out of each; and what is refused, by file or row."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contrapose.data.columns import Column
from contrapose.errors import (
    ColumnMissing,
    ContraposeError,
    DataEmpty,
    DataFormatUnknown,
    ImageInvalid,
    ImagesDiffer,
    ValueKind,
)
from contrapose.image._arrays import shape_of, to_arrow, to_numpy
from contrapose.image._decode import pixels
from contrapose.image.data import (
    ImageValues,
    Pixels,
    check_data,
    decoded,
    open_data,
    read_data,
    refuse_values,
    seen,
    values_of,
)
from contrapose.image.encoder import open_encoder
from contrapose.image.simclr import SimCLR
from contrapose.image.supcon import SupCon
from tests.image.tiny import ENCODER, images

IMAGE = (Column("image", "image", "An image."),)


def png(array: np.ndarray) -> bytes:
    written = io.BytesIO()
    Image.fromarray(array).save(written, "PNG")
    return written.getvalue()


def folder_of(folder: Path, shown: np.ndarray, labels: list[str] | None = None) -> Path:
    for row, array in enumerate(shown):
        file = folder / (labels[row] if labels else "") / f"{row:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(file)
    return folder


def forms(shown: np.ndarray, folder: Path) -> dict[str, object]:
    """The same images in every form."""
    import pandas

    np.save(folder / "array.npy", shown)
    np.savez(folder / "arrays.npz", image=shown, label=np.arange(len(shown)))
    files = folder_of(folder / "files", shown)
    (folder / "table.csv").write_text("image\n" + "\n".join(f"files/{row:03d}.png" for row in range(len(shown))))
    pandas.DataFrame({"image": [png(each) for each in shown]}).to_parquet(folder / "table.parquet")
    pandas.DataFrame({"image": [{"bytes": png(each), "path": None} for each in shown]}).to_parquet(
        folder / "hub.parquet"
    )
    return {
        "folder": files,
        "npy": folder / "array.npy",
        "npz": folder / "arrays.npz",
        "csv of paths": folder / "table.csv",
        "parquet of bytes": folder / "table.parquet",
        "parquet as datasets writes it": folder / "hub.parquet",
        "array": shown,
        "floats": (shown / 255).astype(np.float32),
        "tensor, channels second": torch.from_numpy(shown).permute(0, 3, 1, 2),
        "list of PIL": [Image.fromarray(each) for each in shown],
        "list of arrays": list(shown),
        "list of paths": [str(files / f"{row:03d}.png") for row in range(len(shown))],
        "dict": {"image": shown, "label": list(range(len(shown)))},
        "list of dicts": [{"image": Image.fromarray(each), "label": row} for row, each in enumerate(shown)],
    }


def test_every_form_gives_the_same_pixels(tmp_path: Path) -> None:
    shown = images(9)
    for form, source in forms(shown, tmp_path).items():
        column = Pixels.open(ImageValues(read_data(source, needs=IMAGE), "image"), 8, 3, tmp_path / "cache")
        found = column[torch.tensor([4, 0, 8])]
        assert found.dtype == torch.uint8, form
        np.testing.assert_array_equal(found.permute(0, 2, 3, 1), shown[[4, 0, 8]], err_msg=form)


def test_sub_folders_are_labels_in_the_order_of_names(tmp_path: Path) -> None:
    table = read_data(folder_of(tmp_path, images(6), ["dog", "cat"] * 3), needs=SupCon.card.columns)
    assert list(table["label"]) == ["cat"] * 3 + ["dog"] * 3
    assert [Path(path).name for path in table["image"]] == [
        "001.png",
        "003.png",
        "005.png",
        "000.png",
        "002.png",
        "004.png",
    ]


def test_the_fingerprint_is_of_the_pixels_of_files_too(tmp_path: Path) -> None:
    folder_of(tmp_path / "files", images(4))
    (tmp_path / "table.csv").write_text("image\n" + "\n".join(f"files/{row:03d}.png" for row in range(4)))
    before = [read_data(source).fingerprint for source in (tmp_path / "files", tmp_path / "table.csv")]
    Image.fromarray(images(1, seed=5)[0]).save(tmp_path / "files" / "002.png")
    after = [read_data(source).fingerprint for source in (tmp_path / "files", tmp_path / "table.csv")]
    assert all(first != second for first, second in zip(before, after, strict=True))


def test_a_second_opening_reads_the_cache_and_a_damaged_one_is_made_anew(tmp_path: Path) -> None:
    values = ImageValues(read_data([Image.fromarray(each) for each in images(4)]), "image")
    first = Pixels.open(values, 6, 1, tmp_path)
    [file] = (tmp_path / "images").iterdir()
    written = file.stat().st_mtime_ns
    assert Pixels.open(values, 6, 1, tmp_path).array.tobytes() == first.array.tobytes()
    assert file.stat().st_mtime_ns == written
    file.write_bytes(file.read_bytes()[:100])
    assert Pixels.open(values, 6, 1, tmp_path)[torch.arange(4)].shape == (4, 1, 6, 6)


def test_the_shorter_side_is_brought_to_size_and_the_middle_cut_out() -> None:
    wide = np.zeros((10, 30, 3), np.uint8)
    wide[:, 10:20] = 200
    assert (pixels(wide, 10, 3, "it") == 200).all()
    assert pixels(wide, 5, 3, "it").shape == (3, 5, 5)


@pytest.mark.parametrize(
    ("image", "grey"),
    [
        (Image.new("L", (4, 4), 100), 100),
        (Image.new("RGB", (4, 4), (100, 100, 100)), 100),
        (Image.new("RGBA", (4, 4), (100, 100, 100, 7)), 100),  # transparency is dropped
        (Image.fromarray(np.full((4, 4), 100 * 256 + 3, np.uint16)), 100),  # PIL would clip it to white
        (Image.new("1", (4, 4), 1), 255),
        (Image.new("CMYK", (4, 4), (0, 0, 0, 155)), 100),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_every_mode_becomes_grey_or_colour(image: Image.Image, grey: int) -> None:
    assert (pixels(image, 4, 1, "it") == grey).all()
    assert (pixels(image, 4, 3, "it") == grey).all()


def test_a_photo_that_was_taken_sideways_stands_upright() -> None:
    upright = np.zeros((8, 8), dtype=np.uint8)
    upright[:4] = 255
    sideways, exif = Image.fromarray(np.rot90(upright)), Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by 90 degrees clockwise
    file = io.BytesIO()
    sideways.save(file, "png", exif=exif)
    assert pixels(file.getvalue(), 8, 1, "the photo")[0].tolist() == upright.tolist()


def test_arrays_stand_in_arrow_and_come_back() -> None:
    shown = images(5)
    column = to_arrow(shown)
    assert shape_of(column.type) == (8, 8, 3)
    import pyarrow as pa

    np.testing.assert_array_equal(to_numpy(pa.chunked_array([column[:2], column[2:]])), shown)


def test_values_are_lazy_and_sliced() -> None:
    values = values_of(read_data({"image": images(6)}), "image", None)
    assert len(values[2:5]) == 3
    np.testing.assert_array_equal(values[2:5][1], images(6)[3])
    np.testing.assert_array_equal(values[[5, 0]][0], images(6)[5])


def test_what_the_images_look_like_is_seen(tmp_path: Path) -> None:
    assert seen(read_data(images(3))) == ((8, 8), False)
    assert seen(read_data(images(3)[..., 0])) == ((8, 8), True)
    mixed = [Image.new("L", (5, 7)), Image.new("L", (9, 7))]
    assert seen(read_data(mixed)) == (None, True)


def test_open_data_has_codes_of_labels_and_groups() -> None:
    table = read_data({"image": images(4), "label": ["b", "a", "b", "c"], "group_id": [1, 1, 2, 3]})
    data = open_data(table, SupCon.card, open_encoder(ENCODER))
    assert data.columns["label"].tolist() == [1, 0, 1, 2]
    assert data.categories["label"] == ("a", "b", "c")
    assert data.group.tolist() == [0, 0, 1, 2]


def broken_file(folder: Path) -> Path:
    folder_of(folder, images(3))
    file = folder / "001.png"
    file.write_bytes(file.read_bytes()[:60])
    return folder


def archive(file: Path, damage: Callable[[bytes], bytes]) -> Path:
    np.savez(file, image=images(4))
    file.write_bytes(damage(file.read_bytes()))
    return file


REFUSED = {
    "a folder without images": (lambda folder: folder, DataEmpty, "holds no images"),
    "a file of another kind": (
        lambda folder: ((folder / "a.heic").write_bytes(b"") and None) or folder, DataFormatUnknown, "a.heic"
    ),
    "an image beside the labels": (
        lambda folder: folder_of(folder_of(folder, images(2), ["a", "b"]), images(1)), DataFormatUnknown, "000.png"
    ),
    "one image": (lambda folder: folder_of(folder, images(1)), DataEmpty, "single image"),
    "arrays of two shapes": (lambda folder: [*images(2), images(1, 6)[0]], ImagesDiffer, "row 2"),
    "pixels from 0 to 16": (lambda folder: images(2) / 16, ImageInvalid, "from 0 to 1"),
    "integers above 255": (lambda folder: images(2).astype(np.int64) + 300, ImageInvalid, "0 to 255"),
    "NaN": (lambda folder: np.full((2, 4, 4), np.nan), ImageInvalid, "nan"),
    "five channels": (lambda folder: np.zeros((2, 4, 4, 5)), ImageInvalid, "(2, 4, 4, 5)"),
    "texts": (lambda folder: {"image": ["a", "b"]}, ValueKind, "no image"),
    "no column of that name": (lambda folder: {"picture": images(2)}, ColumnMissing, "known: picture"),
    "a path that leads nowhere": (lambda folder: [str(folder / "a.png"), str(folder / "b.png")], ImageInvalid, "a.png"),
    "columns of two lengths": (lambda folder: {"image": images(2), "label": [1, 2, 3]}, ImageInvalid, "equally long"),
    "a PIL image among None and arrays": (
        lambda folder: [Image.new("L", (4, 4)), np.zeros((4, 4))], ImagesDiffer, "row 1"
    ),
    "half an archive": (
        lambda folder: archive(folder / "a.npz", lambda file: file[: len(file) // 2]), ImageInvalid, "a.npz"
    ),
    "an archive with a wrong byte": (
        lambda folder: archive(folder / "a.npz", lambda file: file[:150] + bytes([file[150] ^ 1]) + file[151:]),
        ImageInvalid,
        "a.npz",
    ),
    "an archive that is a pickle": (
        lambda folder: np.save(folder / "a.npy", np.array([{}, []], object)) or folder / "a.npy", ImageInvalid, "a.npy"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_data_are_refused_with_their_place(case: str, tmp_path: Path) -> None:
    make, error, said = REFUSED[case]
    with pytest.raises(error) as refused:
        read_data(make(tmp_path), needs=IMAGE)
    assert said in str(refused.value)


def test_a_broken_file_is_named_before_anything_is_trained(tmp_path: Path) -> None:
    table = read_data(broken_file(tmp_path / "files"), needs=IMAGE)
    with pytest.raises(ImageInvalid, match=r"001\.png"):
        Pixels.open(ImageValues(table, "image"), 8, 3, tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_the_check_finds_every_broken_and_every_enlarged_image(tmp_path: Path) -> None:
    table = read_data(broken_file(tmp_path / "files"), strict=False)
    report = check_data(table, SupCon.card, open_encoder({**ENCODER, "size": 16}), 2)
    stops = [problem for problem in report.problems if problem.stops]
    assert any("001.png" in problem.message for problem in stops)
    assert any("label" in problem.message for problem in stops)
    enlarged = [problem for problem in report.problems if not problem.stops]
    assert [problem.rows for problem in enlarged] == [2]
    assert "enlarged" in str(report)


def test_the_check_goes_on_past_files_that_are_no_images(tmp_path: Path) -> None:
    folder_of(tmp_path, images(6))
    for row in (1, 4):
        (tmp_path / f"{row:03d}.png").write_bytes(b"<html>not found</html>")
    table = read_data(tmp_path, strict=False)
    assert seen(table) == ((8, 8), False)
    [problem] = check_data(table, SimCLR.card, open_encoder("mlp", {}, table), 2).problems
    assert (problem.rows, problem.stops) == (2, True)
    assert "001.png" in problem.message


def test_the_check_says_that_one_image_is_too_few(tmp_path: Path) -> None:
    table = read_data(folder_of(tmp_path, images(1)), strict=False)
    [problem] = check_data(table, SimCLR.card, open_encoder(ENCODER), 2).problems
    assert problem.stops
    assert "single image" in problem.message


def test_whatever_a_decoder_stumbles_over_is_said_of_the_image() -> None:
    written = io.BytesIO()
    Image.fromarray(images(1)[0]).convert("1").save(written, "TIFF")
    offsets = struct.pack("<HHI", 273, 4, 1)  # of the strips: long integers, which become bytes
    damaged = written.getvalue().replace(offsets, struct.pack("<HHI", 273, 7, 1))
    assert damaged != written.getvalue()
    with pytest.raises(ImageInvalid, match="the third"):
        pixels(damaged, 8, 1, "the third")


@pytest.mark.parametrize("value", [None, 3, np.zeros((2, 2, 2, 2)), b"no image", {"bytes": None, "path": None}])
def test_a_value_that_is_no_image_is_refused_by_its_number(value: object) -> None:
    with pytest.raises(ImageInvalid, match="Image 1"):
        decoded([images(1)[0], value], 4, 3)


def test_numbers_are_no_images() -> None:
    table = read_data({"image": images(2), "score": [0.5, 1.0]})
    refuse_values(table, "image")
    with pytest.raises(ValueKind, match="score"):
        refuse_values(table, "score")
    assert issubclass(ValueKind, ContraposeError)

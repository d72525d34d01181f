from __future__ import annotations

import json
import os
import random
import resource
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from contrapose import errors
from contrapose.export import vectors
from contrapose.export.vectors import COMPARED_ROWS, EmbeddingStopped, checked_precision, embed_corpus

ROWS, DIM, PART = 5000, 6, 1500  # parts of two calls, the last part shorter than the others
TEXTS = [f"text {row}" for row in range(ROWS)]
FORMATS = pytest.mark.parametrize("suffix", [".npy", ".parquet"])


class Encoder:
    """A vector depends on the value and, as padding would have it, on those that are encoded with it."""

    def __init__(self, seconds: float = 0.0, signal_number: int = 0, at_call: int = 0) -> None:
        self.seconds, self.signal_number, self.at_call = seconds, signal_number, at_call
        self.calls: list[int] = []

    def __call__(self, texts: list[str]) -> np.ndarray:
        assert isinstance(texts, list)
        time.sleep(self.seconds)
        self.calls.append(len(texts))
        if len(self.calls) == self.at_call:
            os.kill(os.getpid(), self.signal_number)
        numbers = np.array([int(text.split()[1]) for text in texts], dtype=np.float64)
        company = numbers.sum() + len(texts)
        return np.sin(np.outer(numbers + 1, np.arange(1, DIM + 1)) + company).astype(np.float32)


class Lazy:
    """A sequence that is read by slices of bounded length and in no other way."""

    def __init__(self, values: list[Any], most: int) -> None:
        self.values, self.most = values, most

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: slice) -> list[Any]:
        found = self.values[index]
        assert isinstance(index, slice)
        assert len(found) <= self.most
        return found


def embed(out: Path, encode: Any = None, texts: Any = TEXTS, **options: Any) -> Path:
    options = {"identity": "model and data", "rows_per_part": PART, "progress": False, **options}
    return embed_corpus(encode or Encoder(), texts, out, **options)


def read(path: Path) -> np.ndarray:
    if path.suffix == ".npy":
        return np.load(path)
    return np.array(pq.read_table(path)["vector"].to_pylist(), dtype=np.float32)


def expected() -> np.ndarray:
    """The vectors by the definition: parts of PART rows, in calls of CALL_ROWS from the beginning of the part."""
    found = []
    for start in range(0, ROWS, PART):
        part = TEXTS[start : start + PART]
        found += [Encoder()(part[at : at + vectors.CALL_ROWS]) for at in range(0, len(part), vectors.CALL_ROWS)]
    return np.concatenate(found)


def parts_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def stop(out: Path, at_call: int = 6, **options: Any) -> Encoder:
    """Embed until a SIGTERM within that call; the first call asks for one row, the others for a half of a part each."""
    encoder = Encoder(signal_number=signal.SIGTERM, at_call=at_call)
    with pytest.raises(EmbeddingStopped):
        embed(out, encoder, **options)
    return encoder


@FORMATS
def test_every_row_has_its_vector(tmp_path: Path, suffix: str) -> None:
    out = embed(tmp_path / f"vectors{suffix}")
    np.testing.assert_array_equal(read(out), expected())
    assert read(out).dtype == np.float32
    assert list(tmp_path.iterdir()) == [out]


def test_parquet_columns_and_types(tmp_path: Path) -> None:
    table = pq.read_table(embed(tmp_path / "vectors.parquet", columns={"id": [f"id-{row}" for row in range(ROWS)]}))
    types = [("row", pa.int64()), ("id", pa.string()), ("vector", pa.list_(pa.float32(), DIM))]
    assert table.schema.remove_metadata().equals(pa.schema(types))
    assert table["row"].to_pylist() == list(range(ROWS))
    assert table["id"].to_pylist() == [f"id-{row}" for row in range(ROWS)]


def test_a_carried_column_takes_the_type_that_holds_all_its_values(tmp_path: Path) -> None:
    late = [None] * 4000 + [1] * 500 + [0.5] * 500  # null in the first parts, integers and fractions in the last
    table = pq.read_table(embed(tmp_path / "vectors.parquet", columns={"late": late}))
    assert table["late"].to_pylist() == late


def test_nothing_is_read_whole(tmp_path: Path) -> None:
    corpus, ids = Lazy(TEXTS, vectors.CALL_ROWS), Lazy(list(range(ROWS)), 2048)
    table = pq.read_table(embed(tmp_path / "vectors.parquet", texts=corpus, columns={"id": ids}))
    assert table["id"].to_pylist() == ids.values


@FORMATS
def test_an_empty_corpus_gives_an_empty_file_of_the_right_shape(tmp_path: Path, suffix: str) -> None:
    out = embed(tmp_path / f"vectors{suffix}", texts=[], columns={"id": []} if suffix == ".parquet" else None)
    if suffix == ".npy":
        assert np.load(out).shape == (0, DIM)
    else:
        assert pq.read_table(out).schema.names == ["row", "id", "vector"]
        assert pq.read_table(out).schema.field("vector").type == pa.list_(pa.float32(), DIM)
    assert list(tmp_path.iterdir()) == [out]


# ------------------------------------------------------------------------------------------------ stopping and going on


@FORMATS
def test_a_stopped_embedding_goes_on_to_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    columns = {"id": list(range(ROWS))} if suffix == ".parquet" else None
    unbroken = embed(tmp_path / f"unbroken{suffix}", columns=columns)
    out = tmp_path / f"vectors{suffix}"
    stop(out, columns=columns)
    assert not out.exists()
    assert embed(out, columns=columns).read_bytes() == unbroken.read_bytes()


def test_whole_parts_are_not_embedded_again(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    stopped = stop(out, at_call=6)  # within the first half of the third part
    assert stopped.calls == [1, 1024, 476, 1024, 476, 1024]
    encoder = Encoder()
    embed(out, encoder)
    assert encoder.calls == [1, 1024, 476, 500]


def test_a_part_that_the_last_call_completed_is_kept(tmp_path: Path) -> None:
    stop(tmp_path / "vectors.npy", at_call=5)
    assert len(list(parts_of(tmp_path / "vectors.npy").glob("part-*.npy"))) == 2


def test_the_size_of_a_part_stays_when_it_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    stop(out)
    np.testing.assert_array_equal(read(embed(out, rows_per_part=700)), expected())


def test_a_stop_says_how_to_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    encoder = Encoder(signal_number=signal.SIGINT, at_call=4)
    with pytest.raises(EmbeddingStopped) as stopped:
        embed(tmp_path / "vectors.npy", encoder, progress=True)
    assert stopped.value.signal_number == signal.SIGINT
    said = "stopped by SIGINT with 1,500 of 5,000 rows kept; the same command goes on from there"
    assert str(stopped.value) == said
    assert f"Embedding {said}." in capsys.readouterr().err


def test_a_truncated_part_is_embedded_again(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    stop(out)
    first = min(parts_of(out).glob("part-*.npy"))
    first.write_bytes(first.read_bytes()[:-8])
    np.testing.assert_array_equal(read(embed(out)), expected())


def test_a_stop_before_the_first_whole_part_leaves_nothing(tmp_path: Path) -> None:
    stop(tmp_path / "vectors.npy", at_call=2)
    assert list(tmp_path.iterdir()) == []


def child(out: Path, seconds: float) -> subprocess.Popen[bytes]:
    """The embedding in a process of its own; it prints a line when it begins."""
    code = (
        "import sys; from pathlib import Path; from tests.export.test_vectors import Encoder, embed;"
        "print('ready', flush=True); embed(Path(sys.argv[1]), Encoder(float(sys.argv[2])), rows_per_part=1024)"
    )
    command = [sys.executable, "-c", code, str(out), str(seconds)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *filter(None, sys.path)])}
    process = subprocess.Popen(command, cwd=root, env=environment, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


@FORMATS
def test_sigkill_at_random_moments_changes_nothing(tmp_path: Path, suffix: str) -> None:
    seed = int(os.environ.get("CONTRAPOSE_KILL_SEED") or secrets.randbelow(2**31))
    print(f"to kill at the same moments again: CONTRAPOSE_KILL_SEED={seed}")
    moments = random.Random(seed)
    unbroken, out = (embed(tmp_path / f"{name}{suffix}", rows_per_part=1024) for name in ("unbroken", "broken"))
    out.unlink()
    for _ in range(4):
        process = child(out, seconds=0.05)
        time.sleep(moments.uniform(0.0, 0.4))  # five parts of 0.05 s, and joining them
        process.kill()
        process.wait()
        assert process.stdout.read() == b""
        if out.exists():  # whole or not at all
            break
    if not out.exists():
        embed(out, rows_per_part=1024)
    assert out.read_bytes() == unbroken.read_bytes()


# ------------------------------------------------------------------------------------------------------ what is refused


def test_parts_of_another_model_or_data_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    stop(out)
    with pytest.raises(errors.EmbeddingChanged, match=r"\.vectors\.npy\.parts holds .* Delete that folder .* --out"):
        embed(out, identity="another model")
    np.testing.assert_array_equal(read(embed(out)), expected())  # the refusal spoilt nothing


def test_parts_without_a_readable_manifest_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    stop(out)
    (parts_of(out) / "manifest.json").write_text("[")
    with pytest.raises(errors.EmbeddingChanged):
        embed(out)


def test_a_manifest_without_parts_refuses_nobody(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    parts_of(out).mkdir()
    (parts_of(out) / "manifest.json").write_text(json.dumps({"identity": "another", "rows_per_part": 10}))
    np.testing.assert_array_equal(read(embed(out)), expected())


def test_an_existing_file_is_refused_and_untouched(tmp_path: Path) -> None:
    out = tmp_path / "vectors.npy"
    out.write_text("mine")
    encoder = Encoder()
    with pytest.raises(errors.OutputExists, match=r"vectors\.npy exists already"):
        embed(out, encoder)
    assert (out.read_text(), encoder.calls) == ("mine", [])


@pytest.mark.parametrize("name", ["vectors.csv", "vectors"])
def test_an_unknown_suffix_names_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.VectorFormatUnknown, match=r"\.parquet .* \.npy"):
        embed(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "columns", "error"),
    [
        ("vectors.npy", {"id": TEXTS}, errors.UsageInvalid),
        ("vectors.parquet", {"vector": TEXTS}, errors.UsageInvalid),
        ("vectors.parquet", {"id": TEXTS[1:]}, errors.DataRagged),
    ],
)
def test_columns_that_cannot_be_carried_are_refused(tmp_path: Path, name: str, columns: Any, error: Any) -> None:
    encoder = Encoder()
    with pytest.raises(error, match=next(iter(columns))):
        embed(tmp_path / name, encoder, columns=columns)
    assert (encoder.calls, list(tmp_path.iterdir())) == ([], [])


def test_a_vector_that_is_not_finite_is_named_by_its_row(tmp_path: Path) -> None:
    def encode(texts: list[str]) -> np.ndarray:
        found = Encoder()(texts)
        found[[text == "text 3210" for text in texts]] = np.nan
        return found

    with pytest.raises(errors.ValuesNotFinite, match="row 3,210 "):
        embed(tmp_path / "vectors.npy", encode)


def test_an_encoder_that_drops_a_row_is_refused(tmp_path: Path) -> None:
    def encode(texts: list[str]) -> np.ndarray:
        return Encoder()(texts)[: len(texts) - (len(texts) > 1)]

    with pytest.raises(errors.ShapesDiffer, match=r"\(1023, 6\).*expected \(1024, 6\)"):
        embed(tmp_path / "vectors.npy", encode)
    assert list(tmp_path.iterdir()) == []


@FORMATS
@pytest.mark.parametrize(("limit", "kept"), [(30_000, 0), (60_000, 4)], ids=["in a part", "in the joined file"])
def test_a_write_that_fails_keeps_the_whole_parts(tmp_path: Path, suffix: str, limit: int, kept: int) -> None:
    out, before = tmp_path / f"vectors{suffix}", resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))  # bytes; a part has 36,128, all vectors 120,000
    try:
        with pytest.raises(errors.WriteFailed, match=r"File too large.* kept\."):
            embed(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert len(list(parts_of(out).glob("part-*.npy"))) == kept
    assert not list(tmp_path.rglob("*.writing"))
    encoder = Encoder()
    np.testing.assert_array_equal(read(embed(out, encoder)), expected())
    assert (len(encoder.calls) == 1) == bool(kept)


def test_a_place_that_cannot_be_made_is_a_failed_write(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.WriteFailed, match="Not a directory"):
        embed(tmp_path / "file" / "vectors.npy")


# ------------------------------------------------------------------------------------------------------------ progress


def test_nothing_is_shown_under_two_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embed(tmp_path / "vectors.npy", progress=True)
    assert capsys.readouterr() == ("", "")


def test_progress_says_rows_and_rows_a_second(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors, "PATIENCE", 0.0)
    embed(tmp_path / "vectors.npy", Encoder(seconds=0.01), progress=True)
    assert "5,000/5,000" in (said := capsys.readouterr().err)
    assert "rows/s" in said


class TwoPrecisions:
    """In bf16, every vector is turned by an angle."""

    def __init__(self, cosine: float) -> None:
        self.cosine, self.rows = cosine, 0

    def __call__(self, values: list[str], *, precision: str, progress: bool) -> np.ndarray:
        self.rows = max(self.rows, len(values))
        turned = [self.cosine, (1 - self.cosine**2) ** 0.5] if precision == "bfloat16" else [1.0, 0.0]
        return np.array([turned] * len(values), dtype=np.float32) * 3


@pytest.fixture
def with_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrapose.training.precision.has_bf16", lambda device: True)


@pytest.mark.usefixtures("with_bf16")
@pytest.mark.parametrize(("cosine", "chosen"), [(0.9995, "bfloat16"), (0.998, "float32"), (float("nan"), "float32")])
def test_bf16_is_taken_where_the_model_bears_it(cosine: float, chosen: str, capsys: pytest.CaptureFixture[str]) -> None:
    encode = TwoPrecisions(cosine)
    assert checked_precision(encode, TEXTS, "auto") == chosen
    assert encode.rows == COMPARED_ROWS
    said = capsys.readouterr().err
    assert f"Embedding in {'bf16' if chosen == 'bfloat16' else 'float32'}" in said
    assert f"cosines of at least {cosine:.5f}" in said


@pytest.mark.usefixtures("with_bf16")
@pytest.mark.parametrize("wanted", ["float32", "bfloat16"])
def test_a_precision_that_is_asked_for_is_taken_unseen(wanted: str) -> None:
    assert checked_precision(TwoPrecisions(0.5), TEXTS, wanted) == wanted


def test_auto_is_float32_on_a_processor_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contrapose.training.precision.has_bf16", lambda device: False)
    assert checked_precision(TwoPrecisions(1.0), TEXTS, "auto") == "float32"


@pytest.mark.usefixtures("with_bf16")
def test_an_empty_corpus_has_nothing_to_compare() -> None:
    assert checked_precision(TwoPrecisions(0.5), [], "auto") == "bfloat16"


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(errors.UsageInvalid, match="no precision 'bf16'"):
        checked_precision(TwoPrecisions(1.0), TEXTS, "bf16")

"""The calls from Python."""

from __future__ import annotations

import csv
import threading
from pathlib import Path
from types import ModuleType

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from lightning_fabric.loggers import CSVLogger
from safetensors.torch import load_model
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer

import contrapose
from contrapose import api
from contrapose.errors import EncoderNotRebuildable, RunExists, UsageInvalid
from contrapose.text.encoder import TextEncoder
from tests.cli.conftest import some_pairs

QUICK = {"batch_size": 8, "steps": 4, "progress": False}
ROWS = some_pairs(30)
SOURCES = {
    "list of dicts": ROWS,
    "dict of columns": {side: [row[side] for row in ROWS] for side in ("anchor", "positive")},
    "DataFrame": pd.DataFrame(ROWS),
    "tuples": [(row["anchor"], row["positive"]) for row in ROWS],
    "dataset": datasets.Dataset.from_list(ROWS),
    "Arrow table": pa.Table.from_pylist(ROWS),
}


def weights(run: contrapose.Run) -> bytes:
    return (run.path / "model" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def reference(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> contrapose.Run:
    return contrapose.train(
        "pairs",
        ROWS,
        encoder=str(tiny_bert),
        out=tmp_path_factory.mktemp("runs") / "r",
        on={"retrieval": ROWS},
        **QUICK,
    )


@pytest.mark.parametrize("data", SOURCES.values(), ids=SOURCES)
def test_the_same_rows_in_any_form_give_the_same_weights(
    data: object, reference: contrapose.Run, tiny_bert: Path, tmp_path: Path
) -> None:
    run = contrapose.train("pairs", data, encoder=str(tiny_bert), out=tmp_path / "run", **QUICK)
    assert weights(run) == weights(reference)


def test_encoders_by_name_record_and_object_are_the_same(
    reference: contrapose.Run, tiny_bert: Path, tmp_path: Path
) -> None:
    encoder = TextEncoder.open(str(tiny_bert))
    for number, given in enumerate([{"name": str(tiny_bert)}, encoder, encoder.record()]):
        run = contrapose.train("pairs", ROWS, encoder=given, out=tmp_path / str(number), **QUICK)
        assert weights(run) == weights(reference)


def test_an_encoder_that_was_handed_over_stays_as_it_was(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = TextEncoder.open(str(tiny_bert))
    before = encoder.encode(["a cat"], progress=False)
    contrapose.train("pairs", ROWS, encoder=encoder, out=tmp_path / "run", **QUICK)
    assert np.array_equal(encoder.encode(["a cat"], progress=False), before)


def test_a_run_gives_its_model_metrics_and_results(reference: contrapose.Run) -> None:
    assert reference.model.encode(["a cat", "a dog"], progress=False).shape == (2, 32)
    assert reference.metrics["terms.info_nce"].notna().any()
    assert list(reference.results[0].systems) == ["untrained", "TF-IDF, words", "TF-IDF, characters", "trained"]
    assert repr(reference) == f"Run('{reference.path}': pairs on {reference.config['data']['source']})"


def test_a_saved_model_gives_the_same_vectors(reference: contrapose.Run, tmp_path: Path) -> None:
    contrapose.load(reference.path).save(tmp_path / "model")
    texts = ["a cat", "the old house"]
    assert np.array_equal(contrapose.load(tmp_path / "model").encode(texts), reference.model.encode(texts))


def test_the_callers_random_state_is_left_alone(tiny_bert: Path, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    contrapose.train("pairs", ROWS, encoder=str(tiny_bert), out=tmp_path / "run", **QUICK)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_on_data_from_python_resumes_with_the_same_data(reference: contrapose.Run, tiny_bert: Path) -> None:
    again = contrapose.train(
        "pairs", ROWS, encoder=str(tiny_bert), out=reference.path, on={"retrieval": ROWS}, resume=True, **QUICK
    )
    assert weights(again) == weights(reference)


def test_no_public_name_is_hidden_by_a_folder_of_the_package() -> None:
    """Python binds a package's folder to its name when it is imported, over whatever function has that name."""
    folders = {path.name for path in Path(contrapose.__file__).parent.iterdir() if path.is_dir()}
    assert not folders & set(contrapose.__all__)
    assert not [name for name in contrapose.__all__ if isinstance(getattr(contrapose, name), ModuleType)]


def test_a_report_is_written_anew(reference: contrapose.Run) -> None:
    reference.report.unlink()
    assert contrapose.write_report(reference) == reference.report
    assert "the list" in reference.report.read_text(encoding="utf-8")


def test_a_report_of_what_a_check_found_reads_as_text() -> None:
    report = contrapose.check([{"anchor": "a", "positive": "b"}, {"anchor": "c", "positive": "d"}])
    assert repr(report) == str(report)
    assert str(report).startswith("the list: 2 rows")


def test_a_file_is_not_replaced_by_a_model(reference: contrapose.Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunExists):
        reference.model.save(tmp_path / "file")


# ------------------------------------------------------------------------------------------------- data from Python


def test_data_from_python_are_named_and_not_copied_into_the_configuration(reference: contrapose.Run) -> None:
    assert reference.config["from_python"] == ["data", "on"]
    assert reference.config["on"] == {"retrieval": "a list from Python"}
    assert "handed over from Python" in reference.report.read_text(encoding="utf-8")


def test_a_run_on_data_from_python_is_not_resumed_by_its_folder_alone(reference: contrapose.Run) -> None:
    with pytest.raises(UsageInvalid, match=r"data, on.*contrapose\.train\(…, out=.*, resume=True\)"):
        api.resume(reference.path)


def test_a_run_on_data_from_python_is_evaluated_on_other_data(tiny_bert: Path, tmp_path: Path) -> None:
    run = contrapose.train("pairs", ROWS, encoder=str(tiny_bert), out=tmp_path / "run", **QUICK)
    (result,) = contrapose.evaluate(run, on={"retrieval": some_pairs(12, seed=4)}).results
    assert result.rows == 12
    assert "from the candidates" in result.description


# ------------------------------------------------------------------------------------------------- modules of one's own


class Bag(nn.Module):
    """A state a token, and nothing that looks further."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(200, 16)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.words(input_ids)


@pytest.mark.parametrize("kind", ["plain", "of transformers"])
def test_a_module_with_a_tokeniser_is_trained_and_kept(kind: str, tiny_bert: Path, tmp_path: Path) -> None:
    tokeniser = AutoTokenizer.from_pretrained(tiny_bert)
    module = Bag() if kind == "plain" else AutoModel.from_pretrained(tiny_bert)
    run = contrapose.train("pairs", ROWS, encoder=(module, tokeniser), out=tmp_path / "run", **QUICK)
    vectors = run.model.encode(["a cat"], progress=False)
    assert run.report.exists()
    with pytest.raises(EncoderNotRebuildable):
        contrapose.load(run.path)
    if kind == "plain":  # the way that the card shows
        rebuilt = Bag()
        load_model(rebuilt, run.path / "model" / "model.safetensors")
        assert np.array_equal(TextEncoder(rebuilt, tokeniser, max_tokens=64).encode(["a cat"]), vectors)
        assert "load_model(module" in (run.path / "model" / "README.md").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ the model's card


def card(run: contrapose.Run) -> str:
    return (run.path / "model" / "README.md").read_text(encoding="utf-8")


def test_the_card_says_data_method_settings_results_licence_and_use(tiny_bert: Path, tmp_path: Path) -> None:
    rows = some_pairs(70)
    out = tmp_path / "run"
    said = card(contrapose.train("pairs", rows, encoder=str(tiny_bert), out=out, on={"retrieval": rows}, **QUICK))
    for part in (
        "70 rows of",
        "method `pairs`",
        "| batch_size | 8 |",
        "| patience | – |",
        "accuracy@1",
        "Intervals: 95 % bootstrap",
        "## Licence",
        "contrapose.load(",
        "SentenceTransformer(",
        "the unit vectors of 64 training rows differ by at most",
    ):
        assert part in said


def test_the_card_says_where_others_cannot_load_the_model(tiny_bert: Path, tmp_path: Path) -> None:
    encoder = {"name": str(tiny_bert), "pooling": "avg_first_last"}
    said = card(contrapose.train("pairs", ROWS, encoder=encoder, out=tmp_path / "run", **QUICK))
    assert "sentence-transformers has no pooling `avg_first_last`" in said
    assert "SentenceTransformer(" not in said


# ---------------------------------------------------------------------------------------------------------------- loggers


def test_any_logger_has_every_line_and_no_thread_stays_behind(tiny_bert: Path, tmp_path: Path) -> None:
    logger, threads = CSVLogger(tmp_path, name="", version=""), set(threading.enumerate())
    settings = {**QUICK, "log_every": 1}
    contrapose.train("pairs", ROWS, encoder=str(tiny_bert), out=tmp_path / "run", loggers=[logger], **settings)
    with open(tmp_path / "metrics.csv", encoding="utf-8") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    left = {thread.name for thread in set(threading.enumerate()) - threads}
    assert left <= {"tqdm_monitor"}

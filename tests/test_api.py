"""The calls from Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import contrapose
from contrapose.text.encoder import TextEncoder
from tests.cli.conftest import some_pairs

QUICK = {"batch_size": 8, "steps": 4, "progress": False}
ROWS = some_pairs(30)
SOURCES = {
    "list of dicts": ROWS,
    "dict of columns": {side: [row[side] for row in ROWS] for side in ("anchor", "positive")},
    "DataFrame": pd.DataFrame(ROWS),
    "tuples": [(row["anchor"], row["positive"]) for row in ROWS],
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


@pytest.mark.parametrize("name", [name for name, listing in contrapose.methods().items() if listing.modality == "text"])
def test_every_text_method_trains_end_to_end(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    rows = [{**row, "text": row["anchor"]} for row in ROWS]
    if name == "simcse":
        rows = [{"text": row["text"]} for row in rows]
    run = contrapose.train(name, rows, encoder=str(tiny_bert), out=tmp_path / "run", **QUICK)
    losses = run.metrics["terms.info_nce"].dropna()
    assert np.isfinite(losses).all()
    assert run.model.encode(["a cat"], progress=False).shape == (1, 32)

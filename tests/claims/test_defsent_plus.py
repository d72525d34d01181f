"""The task of DefSent+'s claim: definitions to learn from, and every measure for models and controls."""

from __future__ import annotations

import gzip
import json
from functools import partial

import numpy as np
import pytest

from contrapose.claims._definitions import WORDNET, DefinitionsTask
from contrapose.claims._sentences import words_and_length
from contrapose.claims.defsent_plus import claim
from contrapose.text.defsent_plus import DefSentPlus
from tests.claims.conftest import write_pairs

ROWS = [("cat", "a small animal"), ("cat", "a whip"), ("dog", "a loyal animal"), ("tree", "a tall plant")]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> DefinitionsTask:
    folder = write_pairs(tmp_path_factory.mktemp("data") / "wordnet")
    lines = [json.dumps({"entry": entry, "definition": said}) for entry, said in ROWS]
    (folder / WORDNET.files[0]).write_bytes(gzip.compress("\n".join(lines).encode()))
    return DefinitionsTask(folder, partial(words_and_length, dim=8))


def test_model_and_controls_have_every_measure(task: DefinitionsTask) -> None:
    model = task.create(DefSentPlus, DefSentPlus.Settings(entry_pooling="avg"))
    data = task.data(DefSentPlus)
    model.build(data.facts)
    names = {measure.name for measure in claim.measures}
    untrained = task.measure(model.eval(), "test")
    assert names == set(untrained)
    assert all(names == set(figures) for figures in task.controls("test").values())
    model.prepare(data, None)
    assert task.measure(model.eval(), "test")["entry cosine"] == pytest.approx(untrained["entry cosine"], rel=1e-5)


def test_the_entry_cosine_of_tfidf_is_that_of_mean_definitions(task: DefinitionsTask) -> None:
    from contrapose.text._tfidf import tfidf_vectors

    (vectors,) = tfidf_vectors(task.sentences, [task.sentences], "word")
    rows = vectors.toarray()
    entries = np.stack([rows[:2].mean(axis=0), rows[2], rows[3]])
    unit = entries / np.linalg.norm(entries, axis=1, keepdims=True)
    expected = ((unit @ unit.T).sum() - 3) / 6
    assert task.controls("dev")["TF-IDF, words"]["entry cosine"] == pytest.approx(expected)


def test_the_definitions_of_the_repository_are_there() -> None:
    assert (WORDNET.find() / "definitions.jsonl.gz").is_file()

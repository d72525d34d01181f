"""The task that the claims about sentences share, and its encoder that can read length."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from contrapose.claims._sentences import STSB_EN, SentenceTask, Words, WordsAndLength, words_and_length
from contrapose.claims.claim import Claim
from contrapose.evaluation.similarity import spearman
from contrapose.text.simcse import SimCSE

SENTENCES = ["The cat sat.", "A dog, a cat!"]


def test_words_are_lower_case_and_signs_stand_alone() -> None:
    tokeniser = Words(SENTENCES)
    assert list(tokeniser.vocabulary) == ["!", ",", ".", "a", "cat", "dog", "sat", "the"]
    assert tokeniser(["THE cat, a bird"])["input_ids"] == [[9, 6, 3, 5, 1]]
    assert tokeniser(["the cat sat"], truncation=True, max_length=2)["input_ids"] == [[9, 6]]


def test_a_text_is_the_mean_of_its_words_and_a_vector_of_its_length() -> None:
    module = WordsAndLength(10, 4, longest=5).eval()
    ids, mask = torch.tensor([[3, 4, 5], [6, 0, 0]]), torch.tensor([[1, 1, 1], [1, 0, 0]])
    states = module(ids, mask)
    assert states.shape == (2, 3, 4)
    expected = module.words.weight[[3, 4, 5]].mean(dim=0) + module.length.weight[3]
    torch.testing.assert_close(states[0], module.linear(expected).expand(3, 4))
    torch.testing.assert_close(states[1, 0], module.linear(module.words.weight[6] + module.length.weight[1]))


def test_texts_beyond_the_longest_share_its_vector() -> None:
    module = WordsAndLength(10, 4, longest=2).eval()
    ids = torch.full((1, 5), 3)
    torch.testing.assert_close(
        module(ids, torch.ones_like(ids))[0, 0], module.linear(module.words.weight[3] + module.length.weight[2])
    )


def test_its_vectors_depend_on_the_row_alone_and_on_length() -> None:
    encoder = words_and_length(SENTENCES, dim=8)
    alone = np.concatenate([encoder.encode([text]) for text in SENTENCES])
    np.testing.assert_allclose(encoder.encode(SENTENCES), alone, atol=1e-6)
    once, twice = encoder.encode(["cat", "cat cat"])
    assert np.abs(once - twice).max() > 0.01


def test_sentences_of_the_held_out_pairs_are_never_learned(tmp_path: Path) -> None:
    rows = {
        "train": [("the cat", "seen in  dev"), ("a dog", "the cat"), ("seen in test", "a tree")],
        "dev": [("seen in dev", "a house on a hill by the sea"), ("red", "blue")],
        "test": [("seen in test", "a river that runs under the old mill"), ("green", "old")],
    }
    for split, pairs in rows.items():
        lines = [
            json.dumps({"sentence1": first, "sentence2": second, "score": float(number)})
            for number, (first, second) in enumerate(pairs)
        ]
        (tmp_path / f"{split}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    assert SentenceTask(tmp_path, partial(words_and_length, dim=8)).sentences == ["the cat", "a dog", "a tree"]


@pytest.fixture(scope="module")
def task(pairs_folder: Path, toy: Claim) -> SentenceTask:
    return toy.experiments[0].task(pairs_folder)


def test_the_same_seed_gives_the_same_encoder(task: SentenceTask) -> None:
    def vectors(seed: int) -> np.ndarray:
        torch.manual_seed(seed)
        return task.create(SimCSE, SimCSE.Settings()).encoder.encode(["the cat"])

    assert np.array_equal(vectors(1), vectors(1))
    assert not np.array_equal(vectors(1), vectors(2))


def test_figures_are_those_of_the_split(task: SentenceTask) -> None:
    torch.manual_seed(0)
    model = task.create(SimCSE, SimCSE.Settings())
    for split in ("dev", "test"):
        pairs = task.pairs[split]
        cosines = (model.encoder.encode(pairs.first) * model.encoder.encode(pairs.second)).sum(axis=1)
        assert task.measure(model, split)["spearman"] == pytest.approx(spearman(cosines, pairs.gold))
    assert task.measure(model, "dev") != task.measure(model, "test")


def test_the_controls_have_every_measure(task: SentenceTask, toy: Claim) -> None:
    controls = task.controls("test")
    assert list(controls) == ["TF-IDF, words", "TF-IDF, characters"]
    assert all(list(figures) == [measure.name for measure in toy.measures] for figures in controls.values())


def test_the_repositorys_data_are_whole_and_free_of_what_may_not_be_passed_on() -> None:
    for name, rows in zip(STSB_EN.files, (2999, 625, 625), strict=True):
        with gzip.open(STSB_EN.find() / name, "rt", encoding="utf-8") as file:
            pairs = [json.loads(line) for line in file]
        assert len(pairs) == rows
        assert {pair["genre"] for pair in pairs} <= {"images", "track5.en-en", "headlines"}

"""DSE: the head, the teacher's scores row by row, two stages through the real loop, and what it refuses."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import contrapose
from contrapose.data.batches import Facts, seeded
from contrapose.data.readers import read
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    PoolingUnavailable,
    SettingInvalid,
    TargetsInvalid,
    TeacherInvalid,
)
from contrapose.text._cross_encoder import CrossEncoder
from contrapose.text._pair_encoder import PairEncoder
from contrapose.text._teacher import kept_scores, read_teacher_scores
from contrapose.text.data import open_data, texts_of
from contrapose.text.dse import (
    DSE,
    PairHead,
    distillation_loss,
    pair_features,
    reduce_logits,
    task_loss,
    write_teacher_scores,
)
from contrapose.text.encoder import TextEncoder
from contrapose.training.checkpoint import read_checkpoint
from contrapose.training.loop import fit
from contrapose.training.run_folder import RunFolder
from contrapose.training.settings import parse_settings
from tests.text.samples import TEXTS
from tests.text.tiny import WORDS

TINY = {"pooling": "concat_top2_mean", "batch_size": 8, "steps": 3, "log_every": 1, "precision": "fp32", "hidden": 8}


def rated_pairs(rows: int = 24, **column: Any) -> list[dict[str, Any]]:
    """Pairs rated by the share of words that they have in common, or with another column in the place of the rating."""
    drawn = random.Random(0)
    pairs = []
    for row in range(rows):
        first = drawn.choices(WORDS, k=5)
        second = first[: row % 6] + drawn.choices(WORDS, k=5 - row % 6 if row % 6 < 5 else 0)
        pair = {"sentence1": " ".join(first), "sentence2": " ".join(second) or first[0]}
        pairs.append(pair | ({name: value[row] for name, value in column.items()} or {"score": float(row % 6)}))
    return pairs


def built(rows: list[dict[str, Any]], encoder: TextEncoder, **settings: Any) -> tuple[DSE, Any]:
    data = open_data(read(rows, needs=DSE.card.columns), DSE.card, encoder)
    model = DSE(parse_settings(DSE.Settings, {**TINY, **settings}, owner="dse"), encoder)
    model.build(data.facts)
    return model, data


def vectors(rows: int, dim: int, seed: int) -> Tensor:
    return torch.randn(rows, dim, dtype=torch.float64, generator=seeded(seed))


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("kind", "hidden"), [("concat", 7), ("concat", 0), ("dot", 0), ("dot", 5)])
def test_the_matrix_holds_the_score_of_every_pair(
    kind: str, hidden: int, symmetric: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contrapose.text._pair_encoder.AT_ONCE", 30)  # several chunks
    outputs = 1 if kind == "dot" and not hidden else 3
    head = PairHead(6, outputs, kind=kind, hidden=hidden, symmetric=symmetric).double()
    queries, candidates = vectors(5, 6, 0), vectors(4, 6, 1)
    matrix = head.matrix(queries, candidates)
    for row, query in enumerate(queries):
        torch.testing.assert_close(matrix[row], head(query.expand(4, 6), candidates), rtol=0, atol=1e-12)
    if symmetric or kind == "dot":
        torch.testing.assert_close(head.matrix(candidates, queries).transpose(0, 1), matrix, rtol=0, atol=1e-12)


def test_order_matters_unless_it_is_symmetric() -> None:
    u, v = vectors(3, 4, 0), vectors(3, 4, 1)
    head = PairHead(4, hidden=5).double()
    assert (head(u, v) - head(v, u)).abs().max() > 1e-3
    assert pair_features(u, v).tolist() == torch.cat([u, v, u * v, (u - v).abs()], dim=1).tolist()


def test_the_dot_head_without_layers_is_the_dot_product() -> None:
    u, v = vectors(3, 4, 0), vectors(3, 4, 1)
    torch.testing.assert_close(PairHead(4, kind="dot", hidden=0)(u, v)[:, 0], (u * v).sum(dim=1))
    with pytest.raises(SettingInvalid, match="3 classes"):
        PairHead(4, 3, kind="dot", hidden=0)


def test_the_distillation_is_summed_over_classes() -> None:
    scores, teacher = torch.zeros(2, 3), torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 1.0]])
    assert distillation_loss(scores, teacher).item() == (14 + 1) / 2


def test_two_logits_become_the_log_odds_of_the_second_class() -> None:
    logits = torch.tensor([[1.0, 3.0]])
    assert reduce_logits(logits, "binary").tolist() == [[2.0]]
    assert torch.equal(reduce_logits(logits, "multiclass"), logits)


def test_rows_without_label_do_not_count() -> None:
    scores, labels = vectors(4, 1, 0), torch.tensor([1.0, 0.0, 7.0, 1.0])
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0])
    kept = [0, 1, 3]
    torch.testing.assert_close(
        task_loss(scores, labels, "binary", weight), task_loss(scores[kept], labels[kept], "binary")
    )
    assert task_loss(scores, labels, "binary", torch.zeros(4)).item() == 0


@pytest.mark.parametrize(("task", "labels"), [("multiclass", [0, 3]), ("multiclass", [-1, 0]), ("binary", [0, 2])])
def test_labels_that_are_no_class(task: str, labels: list[int]) -> None:
    with pytest.raises(ArgumentInvalid, match="labels are the numbers 0 to"):
        task_loss(torch.zeros(2, 3 if task == "multiclass" else 1), torch.tensor(labels), task)


def test_the_student_learns_its_teachers_score_row_by_row(encoder: TextEncoder, tmp_path: Path) -> None:
    """Rows are drawn in random order; unlabelled ones are scored too, and the teacher has not seen them."""
    rows = rated_pairs(
        24, score=[float(row % 6) for row in range(24)], labelled=[int(row % 3 > 0) for row in range(24)]
    )
    folder = RunFolder.create(tmp_path / "run", {})
    data = open_data(read(rows, needs=DSE.card.columns), DSE.card, encoder)
    settings = parse_settings(DSE.Settings, TINY, owner="dse")
    student = fit(lambda kind, chosen: kind(chosen, copy.deepcopy(encoder)), DSE, settings, data, folder)
    teacher = CrossEncoder(CrossEncoder.Settings(), copy.deepcopy(encoder))
    teacher.build(data.facts)
    teacher.load_state_dict(read_checkpoint(folder.stage_file("teacher"))[0])
    stages = [line["stage"] for line in folder.metrics()]
    assert stages == ["teacher"] * 3 + ["train"] * 3
    student.prepare(data, teacher.eval())
    for row in (0, 7, 23):
        alone = teacher.logits(data, torch.tensor([row]))
        torch.testing.assert_close(student.teacher[row : row + 1], alone, rtol=1e-4, atol=1e-5)


def test_the_teacher_reads_both_texts_as_one(encoder: TextEncoder) -> None:
    teacher = CrossEncoder(CrossEncoder.Settings(max_pair_tokens=9), encoder)
    pair = teacher.joined(
        encoder.tokens(["the cat", "a dog"]), encoder.tokens(["the tree", "the cat sat on the mat in it"])
    )
    first, second = (encoder.tokenizer.decode(ids) for ids in pair.split())
    assert first == "[CLS] the cat [SEP] the tree [SEP]"
    assert second == "[CLS] a dog [SEP] the cat sat on [SEP]"


LEARNED = {
    "regression": {"score": [float(row % 6) for row in range(24)]},
    "binary": {"label": ["like" if row % 6 > 2 else "apart" for row in range(24)]},
    "multiclass": {"label": [("far", "near", "same")[row % 3] for row in range(24)]},
}


@pytest.mark.parametrize("task", LEARNED)
def test_each_task_trains_saves_and_loads_with_its_head(task: str, tiny_bert: Path, tmp_path: Path) -> None:
    rows = rated_pairs(24, **LEARNED[task])
    on = {"sts": rows} if task == "regression" else None
    run = contrapose.train(
        "dse", rows, encoder=str(tiny_bert), out=tmp_path / "run", progress=False, on=on, select=on, settings=TINY
    )
    scorer = run.model.encoder()
    assert isinstance(scorer, PairEncoder)
    scores = scorer.score_pairs(TEXTS[:3], TEXTS[3:])
    matrix = scorer.score_matrix(TEXTS[:3], scorer.encode(TEXTS[3:]))
    assert scores.shape == ((3, 3) if task == "multiclass" else (3,))
    np.testing.assert_allclose(matrix[np.arange(3), np.arange(3)], scores, atol=1e-5)
    predicted = scorer.predict(TEXTS[:3], TEXTS[3:])
    names = set(LEARNED[task].get("label", ()))
    assert set(predicted) <= names if names else np.allclose(predicted, scores)
    assert contrapose.load(run.path).encoder().record() == scorer.record()


def test_a_file_of_logits_is_the_teacher(encoder: TextEncoder, tmp_path: Path) -> None:
    rows = rated_pairs(12, label=["same" if row % 2 else "apart" for row in range(12)])
    sides = [[row[name] for row in rows] for name in ("sentence1", "sentence2")]
    logits = np.stack([np.arange(12.0), 3 * np.arange(12.0)], axis=1)
    path = write_teacher_scores(tmp_path / "scores.npz", logits, *sides)
    model, data = built(rows, encoder, teacher=str(path))
    model.refuse(data)
    model.prepare(data, None)
    assert model.teacher[:, 0].tolist() == (2 * np.arange(12.0)).tolist()
    assert texts_of(data.take(torch.tensor([3, 1])).columns["sentence1"]) == [sides[0][3], sides[0][1]]


def test_a_file_of_other_pairs_is_refused(tmp_path: Path) -> None:
    path = write_teacher_scores(tmp_path / "scores.npz", np.zeros((3, 1)), ["a", "b", "c"], ["d", "e", "f"])
    with pytest.raises(TeacherInvalid, match=r"row 1 is of another pair \(2 such rows"):
        read_teacher_scores(path, ["a", "c", "b"], ["d", "f", "e"])
    with pytest.raises(TeacherInvalid, match="for 2 pairs"):
        read_teacher_scores(path, ["a", "b"], ["d", "e"])
    broken = write_teacher_scores(tmp_path / "nan.npz", [[0.0], [np.nan]], ["a", "b"], ["c", "d"])
    with pytest.raises(TeacherInvalid, match="first in row 1"):
        read_teacher_scores(broken, ["a", "b"], ["c", "d"])
    (tmp_path / "text.npz").write_text("no scores")
    with pytest.raises(TeacherInvalid, match="holds no teacher scores"):
        read_teacher_scores(tmp_path / "text.npz", ["a"], ["b"])


def test_a_sequence_classifier_is_the_teacher_its_classes_by_name(
    tiny_bert: Path, encoder: TextEncoder, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    names = {0: "near", 1: "far", 2: "same"}  # not the order of the alphabet
    with torch.random.fork_rng():
        classifier = AutoModelForSequenceClassification.from_pretrained(tiny_bert, num_labels=3, id2label=names).eval()
    classifier.save_pretrained(tmp_path / "classifier")
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    tokenizer.save_pretrained(tmp_path / "classifier")
    rows = rated_pairs(24, **LEARNED["multiclass"])
    model, data = built(rows, encoder, teacher=str(tmp_path / "classifier"))
    model.prepare(data, None)
    with torch.inference_mode():
        one = classifier(**tokenizer(rows[5]["sentence1"], rows[5]["sentence2"], return_tensors="pt")).logits[0]
    torch.testing.assert_close(model.teacher[5], one[[1, 0, 2]], rtol=1e-4, atol=1e-5)
    other, same = built(rated_pairs(), encoder, teacher=str(tmp_path / "classifier"))
    with pytest.raises(TeacherInvalid, match="gives 3 logits a pair and regression needs 1"):
        other.prepare(same, None)


def test_without_teacher_it_is_siamese(encoder: TextEncoder) -> None:
    for settings in ({"teacher": "none"}, {"distillation": 0.0}):
        model, data = built(rated_pairs(), encoder, **settings)
        assert model.next_stage([]).method is None
        model.prepare(data, None)
        assert model.teacher is None


def test_the_projection_is_part_of_the_encoder(encoder: TextEncoder) -> None:
    model, _ = built(rated_pairs(), encoder, projection=5)
    assert model.encoders()["encoder"].encode(TEXTS, progress=False).shape == (len(TEXTS), 5)


SIDES = {"sentence1": "a cat", "sentence2": "a dog"}
BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], type[ContraposeError], str]] = {
    "no target": ([SIDES] * 3, {}, TargetsInvalid, "neither a column 'score' nor"),
    "two targets": ([{**SIDES, "score": 1.0, "label": "x"}] * 3, {}, TargetsInvalid, "task=regression"),
    "one class": ([{**SIDES, "label": "x"}] * 3, {}, TargetsInvalid, "Every label is 'x'"),
    "another mark": ([{**SIDES, "score": 1.0, "labelled": 2}] * 3, {}, TargetsInvalid, "must be 0 or 1"),
    "nothing labelled": ([{**SIDES, "score": 1.0, "labelled": 0}] * 3, {}, TargetsInvalid, "no row is labelled"),
    "share": ([{**SIDES, "score": 1.0}] * 3, {"distillation": 1.5}, SettingInvalid, "less than or equal to 1"),
    "layers": ([{**SIDES, "score": 1.0}] * 3, {"pooling": "concat_top3_mean"}, PoolingUnavailable, "more layers"),
    "no such file": ([{**SIDES, "score": 1.0}] * 3, {"teacher": "no.npz"}, TeacherInvalid, "no.npz"),
}


@pytest.mark.parametrize(("rows", "settings", "error", "said"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_before_anything_is_written(
    rows: list[dict[str, Any]], settings: dict[str, Any], error: type, said: str, tiny_bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=said):
        contrapose.train(
            "dse", rows, encoder=str(tiny_bert), out=tmp_path / "run", progress=False, settings={**TINY, **settings}
        )
    assert not (tmp_path / "run").exists()


def test_it_learns_to_score_pairs_and_comes_near_its_teacher(encoder: TextEncoder, tmp_path: Path) -> None:
    """Three seeds: the gap to the teacher falls."""
    data = open_data(read(rated_pairs(48), needs=DSE.card.columns), DSE.card, encoder)
    for seed in range(3):
        chosen = {
            "seed": seed,
            "steps": 40,
            "learning_rate": 3e-3,
            "teacher_learning_rate": 3e-3,
            "distillation": 1.0,
            "dropout": 0,
        }
        folder = RunFolder.create(tmp_path / str(seed), {})
        settings = parse_settings(DSE.Settings, {**TINY, **chosen}, owner="dse")
        fit(lambda kind, given: kind(given, copy.deepcopy(encoder)), DSE, settings, data, folder)
        gaps = [line["watched"]["gap"] for line in folder.metrics() if line["stage"] == "train"]
        assert np.mean(gaps[-5:]) < 0.5 * np.mean(gaps[:3])


def test_facts_alone_build_it(encoder: TextEncoder) -> None:
    model = DSE(DSE.Settings(pooling=None), encoder)
    model.build(Facts(3, ("sentence1", "sentence2", "label"), {"label": ("a", "b")}))
    assert (model.task, model.pair_head.outputs) == ("binary", 1)


def test_scores_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path))
    asked: list[int] = []

    def score(rows: Tensor) -> Tensor:
        asked.extend(rows.tolist())
        return rows[:, None].float()

    sides = (["a", "b", "c"], ["d", "e", "f"])
    first = kept_scores(score, *sides, "teacher 1", "Scoring")
    again = kept_scores(score, *sides, "teacher 1", "Scoring")
    assert torch.equal(first, again)
    assert asked == [0, 1, 2]
    kept_scores(score, *sides, "teacher 2", "Scoring")
    assert len(asked) == 6

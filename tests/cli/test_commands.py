"""Each command does what its help says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

import contrapose as package
from contrapose.text.evaluation import PROTOCOLS
from contrapose.training.precision import has_bf16
from tests.cli.conftest import Done, some_pairs, write_csv

Command = Callable[..., Done]


def test_train_leaves_a_whole_run(trained: Path) -> None:
    left = {path.name for path in trained.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "results.json", "model", "report.html"} <= left
    config = yaml.safe_load((trained / "config.yaml").read_text())
    assert (config["method"], config["settings"]["batch_size"], config["settings"]["temperature"]) == ("pairs", 8, 0.05)


def test_the_result_stands_beside_its_controls(trained: Path) -> None:
    (entry,) = json.loads((trained / "results.json").read_text())
    assert list(entry["result"]["systems"]) == ["untrained", "TF-IDF, words", "TF-IDF, characters", "trained"]
    assert "60 queries among 60 candidates" in entry["result"]["description"]


def test_the_model_gives_the_same_vectors_in_sentence_transformers(trained: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = [row["anchor"] for row in some_pairs(20, seed=1)]
    ours = package.load(trained).encode(texts, progress=False)
    theirs = SentenceTransformer(str(trained / "model"), device="cpu").encode(texts)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert "Read back by sentence-transformers" in (trained / "model" / "README.md").read_text()


def test_training_says_what_it_is_about_to_do(contrapose: Command, quick: list[str], tmp_path: Path) -> None:
    turned = ["--map", "anchor=positive", "--map", "positive=anchor"]
    done = contrapose(*quick, *turned, "--out", tmp_path / "run", new_interpreter=True)
    assert done.code == 0
    said = "\n".join(done.errors)
    assert "6 steps of 8 rows from 60" in said
    assert "7 negatives per anchor" in said
    for noise in ("Warning", "LOAD REPORT", "Writing model shards", "Mixed Precision"):
        assert noise not in said


def test_memory_is_a_setting_and_the_plan_names_the_chunk(
    contrapose: Command, quick: list[str], tmp_path: Path
) -> None:
    whole = [*quick, "--set", "batch_size=60"]
    plenty, scarce = (contrapose(*whole, "--memory", amount, "--out", tmp_path / amount) for amount in ("4GB", "1.3MB"))
    assert (plenty.code, scarce.code) == (0, 0), (plenty.errors, scarce.errors)
    assert yaml.safe_load((tmp_path / "4GB" / "config.yaml").read_text())["settings"]["memory"] == "4GB"
    assert any("embedding cache off" in line for line in plenty.errors)
    assert any("embedding cache on" in line for line in scarce.errors)


def test_settings_from_a_file(contrapose: Command, tiny_bert: Path, pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("temperature: 0.2\nsteps: 2\nbatch_size: 8\nencoder: {max_tokens: 12}\n")
    words = ["train", "pairs", "--data", pairs, "--encoder", tiny_bert, "--settings", tmp_path / "settings.yaml"]
    assert contrapose(*words, "--set", "steps=3", "--out", tmp_path / "run").code == 0
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["settings"]["temperature"], config["settings"]["steps"], config["encoder"]["max_tokens"]) == (
        0.2,
        3,
        12,
    )


def test_the_command_in_the_configuration_repeats_the_run(contrapose: Command, trained: Path, tmp_path: Path) -> None:
    words = yaml.safe_load((trained / "config.yaml").read_text())["command"].split()
    words[words.index("--out") + 1] = str(tmp_path / "again")
    assert contrapose(*words[1:]).code == 0
    assert (tmp_path / "again/model/model.safetensors").read_bytes() == (
        trained / "model/model.safetensors"
    ).read_bytes()


def test_resume_needs_nothing_else_and_takes_what_agrees(
    contrapose: Command, quick: list[str], trained: Path, tmp_path: Path
) -> None:
    before = (trained / "model/model.safetensors").read_bytes()
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    for words in (["train"], [*quick, "--set", "select_every=3"], ["train", "pairs", "--set", "batch_size=8"]):
        shutil.rmtree(run / "model")
        done = contrapose(*words, "--resume", "--out", run)
        assert done.code == 0, done.errors
        assert (run / "model/model.safetensors").read_bytes() == before


def test_evaluate_adds_a_result(contrapose: Command, quick: list[str], tmp_path: Path) -> None:
    other = write_csv(tmp_path / "other.csv", some_pairs(15, seed=3))
    assert contrapose(*quick, "--out", tmp_path / "run").code == 0
    done = contrapose("evaluate", tmp_path / "run", "--on", f"retrieval={other}")
    assert done.code == 0, done.errors
    assert [entry["data"] for entry in json.loads((tmp_path / "run/results.json").read_text())] == [str(other)]
    assert "other.csv" in (tmp_path / "run/report.html").read_text()


def test_every_protocol_in_one_run(contrapose: Command, quick: list[str], tmp_path: Path) -> None:
    """Columns of a protocol may have other names, also where the method knows nothing of them."""
    rows = [{"topic": "cat" if row % 2 else "tree", "body": pair["anchor"]} for row, pair in enumerate(some_pairs(40))]
    rated = [
        {"sentence1": pair["anchor"], "sentence2": pair["positive"], "score": str(row % 5), "subset": "ab"[row % 2]}
        for row, pair in enumerate(some_pairs(20, seed=4))
    ]
    labelled, pairs = write_csv(tmp_path / "labelled.csv", rows), write_csv(tmp_path / "rated.csv", rated)
    on = [f"probe={labelled}", f"knn={labelled}", f"sts={pairs}"]
    words = [word for each in on for word in ("--on", each)] + ["--map", "label=topic", "--map", "text=body"]
    assert contrapose(*quick, *words, "--out", tmp_path / "run").code == 0
    found = {entry["protocol"]: entry["result"] for entry in json.loads((tmp_path / "run/results.json").read_text())}
    controls = ["untrained", "TF-IDF, words", "TF-IDF, characters"]
    assert {name: list(each["systems"]) for name, each in found.items()} == {
        "probe": [*controls, "majority class", "trained"],
        "knn": [*controls, "majority class", "trained"],
        "sts": [*controls, "trained"],
    }
    assert "spearman wmean" in found["sts"]["systems"]["trained"]
    again = contrapose("evaluate", tmp_path / "run", "--on", f"knn={labelled}")
    assert again.code == 0, again.errors
    report = (tmp_path / "run/report.html").read_text()
    for heading in ("probe on", "knn on", "sts on", "majority class"):
        assert heading in report


@pytest.mark.parametrize("suffix", ["parquet", "npy"])
def test_embed_writes_the_vectors_of_the_model(contrapose: Command, trained: Path, tmp_path: Path, suffix: str) -> None:
    rows = [{"id": str(number), "body": pair["anchor"]} for number, pair in enumerate(some_pairs(9, seed=5))]
    out, carried = tmp_path / f"vectors.{suffix}", ["--keep", "id"] if suffix == "parquet" else []
    done = contrapose(
        "embed", trained, write_csv(tmp_path / "docs.csv", rows), "--column", "body", *carried, "--out", out
    )
    assert done.code == 0, done.errors
    precision = "bfloat16" if has_bf16("cpu") else "float32"
    expected = package.load(trained).encode([row["body"] for row in rows], progress=False, precision=precision)
    if suffix == "npy":
        found = np.load(out, allow_pickle=False)
    else:
        table = pq.read_table(out)
        assert table["id"].to_pylist() == [row["id"] for row in rows]
        found = np.array(table["vector"].to_pylist(), dtype=np.float32)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_embed_gives_exact_vectors_where_they_are_asked_for(contrapose: Command, trained: Path, tmp_path: Path) -> None:
    texts = [pair["anchor"] for pair in some_pairs(9, seed=5)]
    (tmp_path / "docs.txt").write_text("\n".join(texts))
    done = contrapose("embed", trained, tmp_path / "docs.txt", "--precision", "float32", "--out", tmp_path / "v.npy")
    assert done.code == 0, done.errors
    found = np.load(tmp_path / "v.npy", allow_pickle=False)
    np.testing.assert_allclose(found, package.load(trained).encode(texts, progress=False), atol=1e-6)


def test_methods_lists_and_explains(contrapose: Command) -> None:
    listed = contrapose("methods")
    assert listed.code == 0
    assert "pairs" in listed.out
    assert "esimcse" in listed.out
    explained = contrapose("methods", "pairs")
    assert "temperature" in explained.out
    assert "negative" in explained.out


def test_check_reports_problems_by_line(contrapose: Command, tmp_path: Path, tiny_bert: Path, pairs: Path) -> None:
    (tmp_path / "bad.csv").write_text("anchor,positive\na cat,a dog\n,the mat\na cat,the tree\n")
    done = contrapose("check", tmp_path / "bad.csv", "--encoder", tiny_bert)
    assert done.code == 1
    assert "line 3" in done.out
    assert contrapose("check", pairs, "--encoder", tiny_bert).code == 0


@pytest.mark.parametrize("command", ["train", "evaluate", "embed", "methods", "check", "report", "demo"])
def test_help_teaches(contrapose: Command, command: str) -> None:
    done = contrapose(command, "--help")
    assert done.code == 0
    assert "contrapose" in done.out
    assert done.errors == []


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_help_names_every_protocol(contrapose: Command, command: str) -> None:
    shown = contrapose(command, "--help").out
    for name in PROTOCOLS:
        assert f"{name}=" in shown


def test_compare_prints_the_table_the_words_and_the_page(
    contrapose: Command, tiny_bert: Path, pairs: Path, tmp_path: Path
) -> None:
    words = ["compare", "simcse", "esimcse", "--data", pairs, "--map", "text=anchor", "--encoder", tiny_bert]
    limits = ["--set", "steps=2", "--set", "batch_size=8", "--set", "esimcse.queue_size=8"]
    done = contrapose(*words, *limits, "--on", f"retrieval={pairs}", "--out", "runs/both", cwd=tmp_path)
    assert done.code == 0, done.errors
    for part in ("TF-IDF, words", "time a training", "retrieval: accuracy@1: the best control is"):
        assert part in " ".join(done.out.split())
    assert done.out.rstrip().endswith("page  runs/both/comparison.html")
    assert (tmp_path / "runs/both/comparison.html").is_file()

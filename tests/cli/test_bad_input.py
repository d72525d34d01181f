"""A mistake of the user's: one line on stderr that names the place and the mend, exit code 2, nothing written."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Done, some_pairs, write_csv

Command = Callable[..., Done]
HEADER = b"anchor,positive\n"


def refused(done: Done, *named: str) -> None:
    """One line, with each of the words named; exit code 2."""
    assert done.code == 2, (done.code, done.out, done.errors)
    assert len(done.errors) == 1, done.errors
    for word in named:
        assert word in done.errors[0], (word, done.errors[0])


@contextmanager
def nothing_written(*folders: Path) -> Iterator[None]:
    """Every file and folder below these is afterwards what it was."""
    before = [contents(folder) for folder in folders]
    yield
    assert [contents(folder) for folder in folders] == before


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


FILES = {
    "empty": (b"", ["pairs.csv", "no rows", "CL-DATA-002"]),
    "header alone": (HEADER, ["pairs.csv", "no rows", "CL-DATA-002"]),
    "a column missing": (
        b"anchor,positiv\na,b\nc,d\n",
        ["pairs.csv", "'positive'", "positiv", "--map positive=positiv"],
    ),
    "one side empty": (HEADER + b"a,b\nc,\nd,e\n", ["pairs.csv", "line 3", "'positive'", "--drop-empty"]),
    "bytes that are not UTF-8": (HEADER + b"a,b\ncaf\xe9,d\n", ["pairs.csv", "line 3", "byte", "UTF-8"]),
    "too many fields": (HEADER + b"a,b\nc,d,e\n", ["pairs.csv", "line 3", "3", "2"]),
}


@pytest.mark.parametrize(("content", "named"), FILES.values(), ids=FILES)
def test_a_bad_file(contrapose: Command, tmp_path: Path, tiny_bert: Path, content: bytes, named: list[str]) -> None:
    (tmp_path / "pairs.csv").write_bytes(content)
    words = ["train", "pairs", "--data", tmp_path / "pairs.csv", "--encoder", tiny_bert]
    with nothing_written(tmp_path):
        refused(contrapose(*words, "--out", tmp_path / "run", cwd=tmp_path), *named)


COMMANDS = {
    "a missing file": (["--data", "{folder}/pear.csv"], ["pear.csv", "pairs.csv", "CL-DATA-001"]),
    "no negatives": (["--set", "batch_size=1"], ["batch_size is 1", "negative", "CL-TRAIN-002"]),
    "temperature 0": (["--set", "temperature=0"], ["'temperature'", "greater than 0", "'0'", "CL-SET-003"]),
    "temperature below 0": (["--set", "temperature=-0.5"], ["'temperature'", "greater than 0", "CL-SET-003"]),
    "temperature that is no number": (["--set", "temperature=warm"], ["'temperature'", "number", "'warm'"]),
    "an unknown setting": (["--set", "temprature=0.1"], ["'temprature'", "did you mean 'temperature'"]),
    "an amount of memory that is none": (["--memory", "lots"], ["'memory'", "4GB", "'lots'", "CL-SET-003"]),
    "an unknown encoder": (["--encoder", "minlm"], ["minlm", "did you mean 'minilm'"]),
    "an unknown encoder setting": (["--set", "encoder.layer=2"], ["'layer'", "did you mean 'layers'"]),
    "too many layers": (["--set", "encoder.layers=9"], ["layers=9", "has 2"]),
    "an unknown protocol": (["--on", "retreival={folder}/pairs.csv"], ["'retreival'", "did you mean 'retrieval'"]),
    "--on twice with other data": (
        ["--on", "retrieval={folder}/pairs.csv", "--on", "retrieval={folder}/other.csv"],
        ["--on retrieval", "other.csv", "each protocol once", "contrapose evaluate RUN"],
    ),
    "--on without its data": (["--on", "retrieval"], ["--on retrieval", "NAME=VALUE"]),
    "a setting that may not be empty": (["--set", "temperature="], ["'temperature'", "number", "''"]),
    "evaluation data that are not there": (["--on", "retrieval={folder}/tost.csv"], ["tost.csv", "CL-DATA-001"]),
    "an unknown option": (["--epoch", "3"], ["--epoch", "--help"]),
    "a broken settings file": (["--settings", "{folder}/settings.yaml"], ["settings.yaml", "line 3", "CL-SET-004"]),
    "an unknown column in --map": (["--map", "anchor=english"], ["pairs.csv", "'english'"]),
}


@pytest.mark.parametrize(("words", "named"), COMMANDS.values(), ids=COMMANDS)
def test_a_bad_command(
    contrapose: Command, tmp_path: Path, quick: list[str], words: list[str], named: list[str]
) -> None:
    write_csv(tmp_path / "pairs.csv", some_pairs(20))
    (tmp_path / "settings.yaml").write_text("steps: 3\ntemperature 0.05\nseed: [\n", encoding="utf-8")
    words = [word.format(folder=tmp_path) for word in words]
    with nothing_written(tmp_path):
        refused(contrapose(*quick, *words, "--out", tmp_path / "run", cwd=tmp_path), *named)


LABELLED = {
    "no labels": ("text\na cat\na dog\n", ["labelled.csv", "'label'", "--map label="]),
    "an empty label": ("text,label\na cat,x\na dog,\n", ["labelled.csv", "line 3", "'label'", "empty"]),
    "one class": ("text,label\n" + "".join(f"cat {n},x\n" for n in range(12)), ["labelled.csv", "'x'", "CL-EVAL-008"]),
    "a label in the test alone": (
        "text,label,split\na,x,train\nb,y,train\nc,x,train\nd,y,train\ne,x,test\nf,z,test\n",
        ["labelled.csv, line 7", "'z'", "no training row"],
    ),
    "another word in split": (
        "text,label,split\na,x,train\nb,y,dev\n",
        ["labelled.csv, line 3", "'dev'", "'train' or 'test'"],
    ),
    "one training row of a label": (
        "text,label,split\na,x,train\nb,y,train\nc,x,train\nd,x,test\ne,x,test\n",
        ["labelled.csv, line 3", "'y'", "1 training row"],
    ),
}


@pytest.mark.parametrize(("content", "named"), LABELLED.values(), ids=LABELLED)
def test_bad_labelled_texts(
    contrapose: Command, tmp_path: Path, quick: list[str], content: str, named: list[str]
) -> None:
    (tmp_path / "labelled.csv").write_text(content, encoding="utf-8")
    out = tmp_path / "run"
    refused(contrapose(*quick, "--on", f"probe={tmp_path / 'labelled.csv'}", "--out", out), *named)
    assert not out.exists()


RATED = {
    "scores that are all equal": (["a,b,3", "c,d,3", "e,f,3"], ["rated.csv", "all 3 scores are 3"]),
    "a score that is no number": (["a,b,3", "c,d,high"], ["rated.csv", "line 3", "'score'", "'high'"]),
    "no score at all": (["a,b,", "c,d,"], ["rated.csv", "no pair has a score"]),
}


@pytest.mark.parametrize(("rows", "named"), RATED.values(), ids=RATED)
def test_bad_rated_pairs(contrapose: Command, tmp_path: Path, trained: Path, rows: list[str], named: list[str]) -> None:
    (tmp_path / "rated.csv").write_text("\n".join(["sentence1,sentence2,score", *rows]), encoding="utf-8")
    before = (trained / "results.json").read_bytes()
    refused(contrapose("evaluate", trained, "--on", f"sts={tmp_path / 'rated.csv'}"), *named)
    assert (trained / "results.json").read_bytes() == before


def test_a_setting_that_does_not_fit_the_encoder(contrapose: Command, tiny_bert: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("a cat\na dog\nthe tree\n", encoding="utf-8")
    words = ["train", "whitenedcse", "--data", "texts.txt", "--encoder", tiny_bert, "--set", "groups=5", "--out", "run"]
    with nothing_written(tmp_path):
        done = contrapose(*words, cwd=tmp_path, new_interpreter=True)
        refused(done, "groups=5", "32 dimensions", "CL-SET-003")


OF_A_METHOD = {
    "dse, two columns that could be meant": (
        "dse",
        "sentence1,sentence2,score,label\na,b,1,x\nc,d,2,y\n",
        ["'score' and 'label'", "task=regression", "CL-DATA-016"],
    ),
    "moe_embeddings, no domain": ("moe_embeddings", "anchor,positive,domain\na,b,x\nc,d,\n", ["line 3", "'domain'"]),
}


@pytest.mark.parametrize(("method", "content", "named"), OF_A_METHOD.values(), ids=OF_A_METHOD)
def test_bad_data_of_a_method(
    contrapose: Command, tiny_bert: Path, tmp_path: Path, method: str, content: str, named: list[str]
) -> None:
    (tmp_path / "data.csv").write_text(content, encoding="utf-8")
    with nothing_written(tmp_path):
        refused(contrapose("train", method, "--data", "data.csv", "--encoder", tiny_bert, cwd=tmp_path), *named)


def test_an_unknown_method(contrapose: Command, pairs: Path, tmp_path: Path) -> None:
    done = contrapose("train", "simsce", "--data", pairs, cwd=tmp_path)
    refused(done, "'simsce'", "did you mean 'simcse'", "contrapose methods")
    assert not contents(tmp_path)


COMPARED = {
    "one method": (["simcse"], ["two methods or more", "simcse"]),
    "an unknown method": (["simcse", "esimce"], ["'esimce'", "did you mean 'esimcse'"]),
    "a grid without development data": (
        ["simcse", "esimcse", "--grid", "temperature=0.05,0.1"],
        ["--select", "test data"],
    ),
    "a grid without values": (["simcse", "esimcse", "--grid", "temperature"], ["--grid temperature", "NAME=VALUE"]),
}


@pytest.mark.parametrize(("words", "named"), COMPARED.values(), ids=COMPARED)
def test_what_cannot_be_compared(
    contrapose: Command, pairs: Path, tmp_path: Path, words: list[str], named: list[str]
) -> None:
    texts = ["--data", pairs, "--map", "text=anchor", "--on", f"retrieval={pairs}"]
    with nothing_written(tmp_path):
        refused(contrapose("compare", *words, *texts, "--out", tmp_path / "out"), *named)


def test_an_output_folder_that_exists(contrapose: Command, quick: list[str], trained: Path) -> None:
    with nothing_written(trained):
        refused(contrapose(*quick, "--out", trained), str(trained), "--resume", "CL-RUN-001")


def test_a_truncated_checkpoint(contrapose: Command, trained: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    newest = max(run.glob("checkpoints/step-*.safetensors"))
    newest.write_bytes(newest.read_bytes()[:-20])
    with nothing_written(run):
        refused(contrapose("train", "--resume", "--out", run), newest.name, "Delete this file", "CL-RUN-004")


def test_weights_with_another_checksum(contrapose: Command, trained: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    weights = bytearray((model / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (model / "model.safetensors").write_bytes(weights)
    (tmp_path / "texts.txt").write_text("a cat\n", encoding="utf-8")
    with nothing_written(tmp_path):
        words = ["embed", model, tmp_path / "texts.txt", "--out", tmp_path / "vectors.npy"]
        refused(contrapose(*words, new_interpreter=True), "model.safetensors", "SHA-256", "CL-MODEL-004")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pkl"])
def test_a_pickle_as_a_model(contrapose: Command, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    (tmp_path / "texts.txt").write_text("a cat\n", encoding="utf-8")
    with nothing_written(tmp_path):
        done = contrapose("embed", tmp_path / name, tmp_path / "texts.txt", "--out", tmp_path / "v.npy")
        refused(done, name, "pickle")


def test_a_folder_of_pickled_weights_as_an_encoder(
    contrapose: Command, tmp_path: Path, tiny_bert: Path, pairs: Path
) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "bert"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with nothing_written(tmp_path):
        done = contrapose("train", "pairs", "--data", pairs, "--encoder", folder, "--out", tmp_path / "run")
        refused(done, "pytorch_model.bin", "pickle", "save_pretrained")


CHANGES = {
    "a setting": (["--set", "temperature=0.1"], "settings.temperature was 0.05 and is 0.1"),
    "two settings": (
        ["--set", "steps=7", "--set", "seed=3"],
        "settings.seed was 0 and is 3; settings.steps was 6 and is 7",
    ),
    "the method": (["simcse"], "method was 'pairs' and is 'simcse'"),
    "the encoder's layers": (["--set", "encoder.layers=1"], "encoder.layers was None and is 1"),
    "the data": (["--data", "{folder}/other.csv"], "data.rows was 60 and is 9"),
    "the evaluation": (["--on", "retrieval={folder}/other.csv"], "on.retrieval was "),
}


@pytest.mark.parametrize(("words", "named"), CHANGES.values(), ids=CHANGES)
def test_resume_with_a_change(contrapose: Command, trained: Path, tmp_path: Path, words: list[str], named: str) -> None:
    write_csv(tmp_path / "other.csv", some_pairs(9))
    words = [word.format(folder=tmp_path) for word in words]
    with nothing_written(trained):
        refused(contrapose("train", *words, "--resume", "--out", trained), named, "CL-RUN-003")


@pytest.mark.parametrize("value", ["null", "17"])
def test_a_row_to_embed_that_is_no_text(contrapose: Command, trained: Path, tmp_path: Path, value: str) -> None:
    (tmp_path / "docs.jsonl").write_text(f'{{"body": "a cat"}}\n{{"body": {value}}}\n', encoding="utf-8")
    words = ["embed", trained, tmp_path / "docs.jsonl", "--column", "body", "--out", tmp_path / "v.npy"]
    with nothing_written(tmp_path):
        refused(contrapose(*words), "docs.jsonl, line 2", "'body'", "not text", "CL-DATA-011")


def test_a_run_that_has_no_model_yet(contrapose: Command, trained: Path, pairs: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(trained / "config.yaml", run)
    done = contrapose("evaluate", run, "--on", f"retrieval={pairs}")
    refused(done, "has not finished", f"contrapose train --resume --out {run}")


def test_a_record_of_a_model_that_is_damaged(contrapose: Command, trained: Path, pairs: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    (model / "contrapose.json").write_text('{"modality": "te', encoding="utf-8")
    done = contrapose("embed", model, pairs, "--column", "anchor", "--out", tmp_path / "v.npy")
    refused(done, "contrapose.json", "CL-MODEL-005")


def test_resume_of_nothing(contrapose: Command, tmp_path: Path) -> None:
    refused(contrapose("train", "--resume", "--out", tmp_path / "nothing"), "is not a run", "CL-RUN-002")


def test_a_file_that_is_no_gzip(contrapose: Command, tmp_path: Path, tiny_bert: Path) -> None:
    (tmp_path / "pairs.csv.gz").write_bytes(gzip.compress(HEADER + b"a,b\n" * 50)[:-9])
    refused(contrapose("train", "pairs", "--data", tmp_path / "pairs.csv.gz", "--encoder", tiny_bert), "pairs.csv.gz")

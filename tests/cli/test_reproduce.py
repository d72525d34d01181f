"""`contrapose reproduce`: what it lists, what it refuses, and what Ctrl-C leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.claims.conftest import write_pairs
from tests.cli.conftest import Done
from tests.cli.test_bad_input import refused

Command = Callable[..., Done]


def test_alone_it_lists_the_claims(contrapose: Command) -> None:
    done = contrapose("reproduce", new_interpreter=True)
    assert (done.code, done.errors) == (0, [])
    assert "esimcse" in done.out


def test_its_help_teaches(contrapose: Command) -> None:
    done = contrapose("reproduce", "--help")
    assert (done.code, done.errors) == (0, [])
    assert "contrapose reproduce esimcse" in done.out


BAD = {
    "an unknown name": (["esimsce"], ["'esimsce'", "did you mean 'esimcse'", "CL-CLAIM-001"]),
    "no such data folder": (["esimcse", "--data", "{folder}/nothing"], ["nothing", "stsb_en", "CL-CLAIM-002"]),
    "a data folder without a file": (
        ["esimcse", "--data", "{folder}/part"],
        ["test.jsonl.gz", "--data", "CL-CLAIM-002"],
    ),
    "a damaged data file": (["esimcse", "--data", "{folder}/damaged"], ["dev.jsonl.gz", "CL-DATA-"]),
    "two seeds": (["esimcse", "--seeds", "2"], ["--seeds", "equal to 3", "CL-SET-005"]),
    "an output folder of something else": (["esimcse", "--out", "{folder}/part"], ["part", "--out", "CL-CLAIM-003"]),
    "an output folder that is a file": (
        ["esimcse", "--out", "{folder}/part/dev.jsonl.gz"],
        ["dev.jsonl.gz", "CL-CLAIM-003"],
    ),
}


@pytest.mark.parametrize(("words", "named"), BAD.values(), ids=BAD)
def test_a_mistake_is_one_line_and_nothing_is_written(
    contrapose: Command, tmp_path: Path, words: list[str], named: list[str]
) -> None:
    (write_pairs(tmp_path / "part") / "test.jsonl.gz").unlink()
    dev = write_pairs(tmp_path / "damaged") / "dev.jsonl.gz"
    dev.write_bytes(dev.read_bytes()[:-30])
    before = sorted(tmp_path.rglob("*"))
    refused(contrapose("reproduce", *(word.format(folder=tmp_path) for word in words), cwd=tmp_path), *named)
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_says_how_to_go_on_and_leaves_no_result(tmp_path: Path) -> None:
    data, out = write_pairs(tmp_path / "data", rows=400), tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CONTRAPOSE_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "contrapose", "reproduce", "esimcse", "--data", str(data), "--out", str(out)]
    ignoring = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)}  # as in a shell's background
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **ignoring
    ) as running:
        assert "SimCSE" in running.stderr.readline()  # the first training is announced
        running.send_signal(signal.SIGINT)
        printed, said = running.communicate(timeout=100)
    assert running.returncode == 128 + signal.SIGINT
    assert "The same command goes on." in said
    assert "Traceback" not in said
    assert printed == ""
    assert not (out / "result.json").exists()
    assert (out / "claim.txt").read_text() == "esimcse\n"

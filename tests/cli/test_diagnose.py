"""`contrapose diagnose` as a command."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Done
from tests.cli.test_bad_input import nothing_written, refused

Command = Callable[..., Done]


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_it_says_what_the_loss_hears_and_where_the_page_is(contrapose: Command, copied: Path) -> None:
    done = contrapose("diagnose", copied, "--temperatures", "0.1,1")
    assert done.code == 0, done.errors
    assert "in effect" in done.out
    assert "diagnosis.html" in done.out
    assert (copied / "diagnosis" / "diagnosis.html").is_file()


BAD = {
    "words for numbers": (["--temperatures", "0.1,warm"], ["--temperatures 0.1,warm", "0.05,0.1,0.5", "CL-SET-005"]),
    "a score without a sweep": (["--score", "retrieval=dev.csv"], ["--sweep"]),
    "labels that are not there": (["--map", "label=topic"], ["--map label=topic", "'topic'"]),
    "rows that are not there": (["--on", "pear.csv"], ["pear.csv", "CL-DATA-001"]),
}


@pytest.mark.parametrize(("words", "named"), BAD.values(), ids=BAD)
def test_bad_input(contrapose: Command, copied: Path, words: list[str], named: list[str]) -> None:
    with nothing_written(copied):
        refused(contrapose("diagnose", copied, *words), *named)


def test_a_method_without_a_temperature(contrapose: Command, copied: Path) -> None:
    config = copied / "config.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("method: pairs", "method: dse"), encoding="utf-8")
    with nothing_written(copied):
        refused(contrapose("diagnose", copied), "'dse'", "'temperature'", "CL-CLAIM-050")


def test_no_run(contrapose: Command, tmp_path: Path) -> None:
    refused(contrapose("diagnose", tmp_path / "nowhere"), "nowhere", "config.yaml")

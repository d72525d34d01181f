"""One process or two: the same gradients. A method joins by being there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from contrapose.catalogue import methods
from contrapose.training.checkpoint import read_checkpoint
from tests import torchrun
from tests.processes import two_processes
from tests.tiny import in_processes


def launched(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    """What two processes of torchrun did."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", [name for name in methods() if in_processes(name)])
def test_two_processes_have_the_gradients_of_one(name: str, tmp_path: Path) -> None:
    torchrun.main(name, tmp_path / "sample", tmp_path / "one")
    two_processes(torchrun.main, name, tmp_path / "sample", tmp_path / "two")
    files = sorted(file.name for file in (tmp_path / "one" / "checkpoints").glob("stage-*.safetensors"))
    assert files
    for file in files:
        one, two = (read_checkpoint(tmp_path / run / "checkpoints" / file)[0] for run in ("one", "two"))
        assert one.keys() == two.keys()
        for tensor in one:
            torch.testing.assert_close(
                two[tensor], one[tensor], rtol=0, atol=1e-10, msg=lambda said, t=f"{file}: {tensor}": f"{t}: {said}"
            )


def test_a_run_of_two_processes_is_one_run(tiny_bert: Path, tmp_path: Path) -> None:
    lines = ["anchor,positive", *(f"the {word},a {word}" for word in ("cat", "dog", "tree", "house", "river", "mat"))]
    (tmp_path / "pairs.csv").write_text("\n".join(lines), encoding="utf-8")
    words = ["train", "pairs", "--data", "pairs.csv", "--encoder", str(tiny_bert), "--set", "steps=2", "--out", "run"]
    first, again = (launched("-m", "contrapose", *words, "--on", "retrieval=pairs.csv", cwd=tmp_path) for _ in range(2))
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("report  run/report.html") == 1
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert again.returncode == 1
    assert again.stderr.count("contrapose: run exists already") == 1

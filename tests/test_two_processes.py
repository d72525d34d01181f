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

METHODS = [name for name, listing in methods().items() if listing.modality == "text"]


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_have_the_gradients_of_one(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    torchrun.main(name, tiny_bert, tmp_path / "one")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "tests.torchrun",
    ]
    done = subprocess.run(
        [*launch, name, str(tiny_bert), str(tmp_path / "two")],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    one, two = (
        read_checkpoint(tmp_path / run / "checkpoints" / "stage-train.safetensors")[0] for run in ("one", "two")
    )
    assert one.keys() == two.keys()
    for tensor in one:
        torch.testing.assert_close(
            two[tensor], one[tensor], rtol=0, atol=1e-10, msg=lambda said, t=tensor: f"{t}: {said}"
        )

"""Every golden file holds whole; a file whose arrays are off is told apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.golden.check import check, main

FILES = sorted(Path(__file__).parent.glob("*.npz"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_array_holds(file: Path) -> None:
    assert [verdict for verdict in check(file.stem, file) if not verdict.holds] == []


def test_a_wrong_array_is_named_and_gives_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with np.load(Path(__file__).parent / "esimcse.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["loss"] = arrays["loss"] * (1 + 1e-7)
    np.savez(tmp_path / "wrong.npz", **arrays)
    assert main(["esimcse", str(tmp_path / "wrong.npz")]) == 1
    assert "loss                              1.00e-07  OFF" in capsys.readouterr().out


def test_arrays_of_another_shape_are_recomputed(tmp_path: Path) -> None:
    generator = np.random.default_rng(7)
    with np.load(Path(__file__).parent / "esimcse.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["z"], arrays["queue"] = generator.normal(size=(9, 2, 5)), generator.normal(size=(3, 5))
    np.savez(tmp_path / "other.npz", **arrays)
    off = {verdict.name for verdict in check("esimcse", tmp_path / "other.npz") if not verdict.holds}
    assert off == {"loss", "grad_z", "loss_empty_queue", "grad_z_empty_queue"}  # old outputs, new inputs

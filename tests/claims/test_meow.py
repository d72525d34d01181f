"""The task of MEOW's claim: every measure of model and control, on a small graph in the form of ACM's folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, save_npz

from contrapose.claims import meow
from contrapose.claims.meow import GraphTask, claim
from contrapose.graph.heco import HeCo
from contrapose.graph.meow import MEOW

PAPERS = 120


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraphTask:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path / "cache"))
    draw, folder = np.random.default_rng(0), tmp_path / "acm"
    for name in ("nodes", "edges"):
        (folder / name).mkdir(parents=True)
    classes = np.arange(PAPERS) % 3
    save_npz(folder / "nodes" / "paper.npz", csr_matrix(draw.uniform(size=(PAPERS, 4)) + np.eye(3, 4)[classes]))
    save_npz(folder / "nodes" / "author.npz", csr_matrix(draw.uniform(size=(50, 4))))
    for name, many in {"author": 50, "subject": 6}.items():
        lines = [f"paper,{name}", *(f"{paper},{draw.integers(many)}" for paper in range(PAPERS))]
        (folder / "edges" / f"paper-{name}.csv").write_text("\n".join(lines))
    (folder / "graph.yaml").write_text("target: paper\n")
    (folder / "labels.csv").write_text(
        "\n".join(["node,label", *(f"{node},{label}" for node, label in enumerate(classes))])
    )
    sides = [("train", "dev", "test")[node // 3 % 3] for node in range(PAPERS)]
    for shots in meow.SHOTS:
        lines = [f"{node},{label},{side}" for node, (label, side) in enumerate(zip(classes, sides, strict=True))]
        (folder / f"labels_{shots}.csv").write_text("\n".join(["node,label,split", *lines]))
    return GraphTask(folder, meow.ACM, {"top_k": 10, "dim": 8})


@pytest.mark.parametrize("split", ["dev", "test"])
def test_model_and_control_have_every_measure(task: GraphTask, split: str) -> None:
    names = {measure.name for measure in claim.measures}
    model = task.create(MEOW, MEOW.Settings())
    assert set(task.measure(model, split)) == names
    assert {name: set(figures) for name, figures in task.controls(split).items()} == {"raw features": names}
    assert {*claim.controls} <= {*task.controls(split)}


def test_a_seed_draws_weights_and_masks_and_hecos_encoder_has_no_contexts(task: GraphTask) -> None:
    one, same, other = (task.create(MEOW, MEOW.Settings(seed=seed)).encoder for seed in (0, 0, 1))
    assert (one.encode([0]) == same.encode([0])).all()
    assert (one.encode([0]) != other.encode([0])).any()
    assert not task.create(HeCo, HeCo.Settings()).encoder.options.contexts
    assert task.facts()["nodes"] == {"author": 50, "paper": PAPERS, "subject": 6}


def test_papers_without_features_are_held_against_whom_they_are_joined_to(task: GraphTask) -> None:
    folder = task.files["graph.yaml"].parent
    (folder / "nodes" / "paper.npz").unlink()
    (folder / "nodes" / "author.npz").unlink()
    (folder / "edges" / "paper-subject.csv").write_text(
        "\n".join(["paper,subject", *(f"{paper},{paper % 3}" for paper in range(PAPERS))])
    )
    (folder / "graph.yaml").write_text("target: paper\nmetapaths: [paper-subject-paper]\n")
    plain = GraphTask(folder, meow.AMINER, {"top_k": 10, "dim": 8})
    assert plain.controls("test")["raw features"] == {measure.name: pytest.approx(1) for measure in claim.measures}

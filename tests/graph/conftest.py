"""Graphs for the tests of this folder, and a cache of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_matrix, save_npz

from contrapose.graph.data import Graph, Nodes, read_data
from tests.graph.tiny import planted


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def nodes() -> Nodes:
    return read_data(planted(targets=60)[0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five papers, three authors, two venues, as a folder: features dense, sparse and none."""
    place = tmp_path / "graph"
    for name in ("nodes", "edges"):
        (place / name).mkdir(parents=True)
    np.save(place / "nodes" / "paper.npy", np.arange(10.0).reshape(5, 2))
    save_npz(place / "nodes" / "author.npz", csr_matrix(np.eye(3)))
    (place / "edges" / "paper-author.csv").write_text("paper,author\n0,0\n0,1\n1,1\n2,1\n3,2\n")
    np.save(place / "edges" / "paper-venue.npy", np.array([[0, 1, 2, 3, 4], [0, 0, 1, 1, 1]]))
    (place / "graph.yaml").write_text("target: paper\n")
    return place


@pytest.fixture
def small(folder: Path) -> Graph:
    return read_data(folder).graph

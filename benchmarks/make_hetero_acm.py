"""Makes benchmarks/data/hetero_acm from the files that MEOW's authors published: a graph's folder as contrapose reads it, and labels.

git clone https://github.com/jianxiangyu/MEOW && git -C MEOW checkout 6a072d79648ab83f7ec7b7482af1696ed00938a1
python benchmarks/make_hetero_acm.py MEOW/data/acm benchmarks/data/hetero_acm
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, load_npz, save_npz

SHOTS = (20, 40, 60)  # training nodes a class
SIDES = {"train": "train", "val": "dev", "test": "test"}
GRAPH = """target: paper
metapaths: [paper-author-paper, paper-subject-paper]
"""


def make(source: Path, target: Path) -> None:
    for folder in ("nodes", "edges"):
        (target / folder).mkdir(parents=True, exist_ok=True)
    for letter, name in {"p": "paper", "a": "author"}.items():
        save_npz(
            target / "nodes" / f"{name}.npz", csr_matrix(load_npz(source / f"{letter}_feat.npz"), dtype=np.float32)
        )
    for letters, name in {"pa": "author", "ps": "subject"}.items():
        edges = np.loadtxt(source / f"{letters}.txt", dtype=np.int64)
        np.savetxt(target / "edges" / f"paper-{name}.csv", edges, "%d", ",", header=f"paper,{name}", comments="")
    (target / "graph.yaml").write_text(GRAPH, encoding="utf-8")
    labels = np.load(source / "labels.npy", allow_pickle=False).astype(np.int64)
    (target / "labels.csv").write_text(table(range(len(labels)), labels), encoding="utf-8")
    for shots in SHOTS:
        lines = ["node,label,split"]
        for theirs, ours in SIDES.items():
            nodes = np.load(source / f"{theirs}_{shots}.npy", allow_pickle=False)
            lines += [f"{node},{labels[node]},{ours}" for node in nodes]
        (target / f"labels_{shots}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    licence = next((path for path in (source / "LICENSE.txt", source.parents[1] / "LICENSE") if path.is_file()), None)
    if licence is not None:
        shutil.copyfile(licence, target / "LICENSE.txt")


def table(nodes: range, labels: np.ndarray) -> str:
    return "\n".join(["node,label", *(f"{node},{labels[node]}" for node in nodes)]) + "\n"


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]))

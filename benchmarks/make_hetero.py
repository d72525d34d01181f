"""Makes benchmarks/data/hetero_acm and hetero_aminer from files that MEOW's authors published: a graph's folder as contrapose reads it, and labels.

git clone https://github.com/jianxiangyu/MEOW && git -C MEOW checkout 6a072d79648ab83f7ec7b7482af1696ed00938a1
python benchmarks/make_hetero.py MEOW/data/acm benchmarks/data/hetero_acm
python benchmarks/make_hetero.py MEOW/data/aminer benchmarks/data/hetero_aminer
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, load_npz, save_npz

SHOTS = (20, 40, 60)  # training nodes a class
SIDES = {"train": "train", "val": "dev", "test": "test"}
TYPES = {"p": "paper", "a": "author", "s": "subject", "r": "reference"}  # as files of the source abbreviate them


def make(source: Path, target: Path) -> None:
    others = [letter for letter in "asr" if (source / f"p{letter}.txt").is_file()]
    for letter in "pa":
        if (features := source / f"{letter}_feat.npz").is_file():
            (target / "nodes").mkdir(parents=True, exist_ok=True)
            save_npz(target / "nodes" / f"{TYPES[letter]}.npz", csr_matrix(load_npz(features), dtype=np.float32))
    (target / "edges").mkdir(parents=True, exist_ok=True)
    for letter in others:
        name, edges = TYPES[letter], np.loadtxt(source / f"p{letter}.txt", dtype=np.int64)
        np.savetxt(target / "edges" / f"paper-{name}.csv", edges, "%d", ",", header=f"paper,{name}", comments="")
    paths = ", ".join(f"paper-{TYPES[letter]}-paper" for letter in others)
    (target / "graph.yaml").write_text(f"target: paper\nmetapaths: [{paths}]\n", encoding="utf-8")
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

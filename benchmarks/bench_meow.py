"""An epoch of MEOW on ACM, and the memory that it takes, beside the official code.

git clone https://github.com/jianxiangyu/MEOW && git -C MEOW checkout 6a072d79648ab83f7ec7b7482af1696ed00938a1
python benchmarks/bench_meow.py [--official MEOW] [--epochs 3] [--threads 1]
python benchmarks/bench_meow.py --nodes 200000        contrapose alone, on a generated graph: preparation, an epoch, peak memory

Each system runs in a process of its own. Seconds are the processor's, the median over epochs after the first; memory is the most that the process ever held
beyond what it held with the graph and its neighbours read (resident). glibc keeps much of what is freed for itself, so that a second process is told
to hand all back at once (MALLOC_MMAP_THRESHOLD_) and shows what was in use: "peak MB in use". Both get the same graph and the official settings for ACM. The official code asks for a GPU throughout: its calls of cuda()
are answered by the tensor itself, and its faiss index on a GPU is faiss's on the processor. Its PathSim, a loop in Python that takes minutes, is left out: both
are handed the same neighbours.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from measured import RESULTS, finished, machine, write

RESULT = RESULTS / "meow.json"
ACM = Path(__file__).parent / "data" / "hetero_acm"
OURS, THEIRS = "contrapose", "official"
OPTIONS = {"top_k": "110,700", "edge_mask": "0.3,0.2"}
TOP_K, CLUSTERS = (110, 700), (100, 300)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--nodes", type=int, help="of a generated graph")
    parser.add_argument("--batch", type=int, help="nodes contrasted in a step; default: all")
    parser.add_argument("--system", help=argparse.SUPPRESS)  # what a process is to do
    options = parser.parse_args()
    if options.system:
        print(json.dumps(measure(options)))
        return
    result = finished(RESULT)
    for system in (OURS, THEIRS) if options.official else (OURS,):
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        words = [sys.executable, __file__, *sys.argv[1:], "--system", system]
        told = {**environment, "MALLOC_MMAP_THRESHOLD_": str(2**16)}
        runs = [
            json.loads(
                subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, env=each).stdout.splitlines()[-1]
            )
            for each in (environment, told)[: 1 if options.nodes else 2]
        ]
        asked = {"system": system, "nodes": options.nodes, "batch": options.batch, "threads": options.threads}
        found = {**machine(), **asked, **runs[0], "peak MB in use": runs[-1]["peak MB"] if len(runs) > 1 else None}
        kept = [piece for piece in result["pieces"] if {name: piece.get(name) for name in asked} != asked]
        result = {"what": __doc__.partition("\n")[0], "pieces": [*kept, found]}
        write(RESULT, result)
        print({name: found[name] for name in (*asked, "epoch seconds", "peak MB", "peak MB in use")}, flush=True)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    step, prepared, before = (ours if options.system == OURS else theirs)(options)
    seconds = []
    for _ in range(options.epochs + 1):
        began = time.process_time()
        step()
        seconds.append(round(time.process_time() - began, 3))
    return {
        "preparation seconds": round(prepared, 2),
        "epoch seconds": median(seconds[1:] or seconds),
        "epochs": seconds,
        "peak MB": round(held() - before, 1),
    }


def held() -> float:
    """The most that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def ours(options: argparse.Namespace) -> tuple[Any, float, float]:
    import sklearn.cluster
    import torch

    from contrapose.data.batches import Batch, seeded
    from contrapose.graph._structure import cached_neighbours
    from contrapose.graph.data import open_data, read_data
    from contrapose.graph.encoder import open_encoder
    from contrapose.graph.meow import MEOW

    assert sklearn.cluster
    torch.set_num_threads(options.threads)
    before, began = held(), time.process_time()
    nodes = read_data(generated(options.nodes) if options.nodes else ACM)
    if not options.nodes:
        for path, k in zip(nodes.graph.metapaths(), TOP_K, strict=True):
            cached_neighbours(nodes.graph, path, k)
        before, began = held(), time.process_time()
    encoder = open_encoder(None, {"top_k": "20"} if options.nodes else OPTIONS, nodes)
    settings = {"batch_size": options.batch} if options.batch else {}
    method = MEOW(MEOW.Settings(clusters=CLUSTERS, **settings), encoder)
    data = open_data(nodes, MEOW.card, encoder)
    method.build(data.facts)
    method.train()
    optimiser = torch.optim.Adam(method.parameters(), lr=7e-4)
    prepared = time.process_time() - began

    def epoch() -> None:
        for rows in method.batches(data, 0, seeded(0))[: 1 if options.nodes else None]:
            optimiser.zero_grad()
            method.backward(method.training_step(Batch(data, rows, 0, seeded(0))))
            optimiser.step()

    return epoch, prepared, before


def generated(n: int) -> Any:
    """n papers with three authors of 2n and one of n / 2,000 subjects, and 32 features."""
    import numpy as np
    from scipy.sparse import csr_matrix

    from contrapose.graph.data import Graph

    draw = np.random.default_rng(0)
    authors, subjects = 2 * n, max(2, n // 2000)
    papers = np.arange(n)
    edges = {
        ("paper", "author"): np.stack([np.repeat(papers, 3), draw.integers(authors, size=3 * n)]),
        ("paper", "subject"): np.stack([papers, draw.integers(subjects, size=n)]),
    }
    features = {
        "paper": csr_matrix(draw.uniform(size=(n, 32))),
        "author": csr_matrix(draw.uniform(size=(authors, 32))),
    }
    return Graph({"paper": n, "author": authors, "subject": subjects}, features, edges, "paper", "a generated graph")


def theirs(options: argparse.Namespace) -> tuple[Any, float, float]:
    from types import SimpleNamespace

    import faiss
    import numpy as np
    import torch
    from scipy.sparse import coo_matrix

    from contrapose.graph._structure import cached_neighbours
    from contrapose.graph.data import read_data

    sys.path.insert(0, str(options.official.resolve() / "code_meow"))
    torch.Tensor.cuda = torch.nn.Module.cuda = lambda self, *_, **__: self
    np.float = float
    faiss.StandardGpuResources, faiss.GpuIndexFlatConfig = object, SimpleNamespace
    faiss.GpuIndexFlatIP = lambda _, dim, __: faiss.IndexFlatIP(dim)
    from module.meow import MEOW
    from module.preprocess import mask_edges, mask_features, normalize_adj

    torch.set_num_threads(options.threads)
    faiss.omp_set_num_threads(options.threads)
    graph = read_data(ACM).graph
    kept = [coo_matrix(cached_neighbours(graph, path, k)) for path, k in zip(graph.metapaths(), TOP_K, strict=True)]
    before, began = held(), time.process_time()
    dense = [torch.from_numpy(graph.features[name].toarray()).float() for name in ("paper", "author")]
    features = [*dense, torch.eye(graph.counts["subject"])]
    nearby = [
        torch.from_numpy(graph.incidence("paper", name).toarray()).float().to_sparse() for name in ("author", "subject")
    ]
    masked = mask_features(features[0], 0.3)
    adjacencies = [normalize_adj(each) for each in kept]
    masked_adjacencies = mask_edges(kept, 2, [0.3, 0.2])
    model = MEOW([each.shape[1] for each in features], 2, 64, 64, 0.4, adjacencies, 1, 0.2, nearby, "acm").train()
    optimiser = torch.optim.Adam(model.parameters(), lr=7e-4)
    prepared = time.process_time() - began

    def epoch() -> None:
        optimiser.zero_grad()
        model(features, masked, masked_adjacencies, adjacencies, list(CLUSTERS)).backward()
        optimiser.step()

    return epoch, prepared, before


if __name__ == "__main__":
    main()

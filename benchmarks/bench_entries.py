"""Memory of DefSent+ with many entries: a step of its cross-entropy in tiles beside torch's over all entries, and a whole training.

    python benchmarks/bench_entries.py [--entries 10000 100000] [--parts tiles dense training]

Each piece is a process of its own, on a processor, float32, 384 dimensions. tiles, dense: loss and gradients of 512 definitions among the entries;
what counts is the peak of resident memory above what stood there before. training: `contrapose.train` of one round, 5 steps of
64 definitions, from made-up definitions (real ones, numbered), with MiniLM's embeddings and none of its layers, which do not depend on the
entries; its peak is the whole process's, with torch and all libraries in it.
Needs Linux. Results stand in results/entries.json.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measured import RESULTS, machine, write

BATCH, DIM = 512, 384
DEFINITIONS = Path(__file__).parent / "data/wordnet_definitions/definitions.jsonl.gz"
PARTS = ("tiles", "dense", "training")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--entries", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        part, entries = asked.one.split(":")
        print(json.dumps(trained(int(entries)) if part == "training" else stepped(part, int(entries))))
        return
    pieces = []
    for entries in asked.entries:
        for part in asked.parts:
            words = [sys.executable, __file__, "--one", f"{part}:{entries}"]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            pieces.append({"part": part, "entries": entries, **json.loads(done.stdout.splitlines()[-1])})
            print(json.dumps(pieces[-1]))
    write(RESULTS / "entries.json", {"what": __doc__.partition("\n")[0], **machine(), "pieces": pieces})


def stepped(part: str, entries: int) -> dict[str, Any]:
    import torch

    from contrapose.text.defsent_plus import entry_cross_entropy

    torch.manual_seed(0)
    matrix, predicted = torch.randn(entries, DIM), torch.randn(BATCH, DIM, requires_grad=True)
    index = torch.randint(entries, (BATCH,))

    def step() -> None:
        if part == "tiles":
            loss = entry_cross_entropy(predicted, matrix, index)
        else:
            loss = torch.nn.functional.cross_entropy(predicted @ matrix.T, index)
        loss.backward()

    warm = matrix[:8].clone()
    torch.nn.functional.cross_entropy(predicted @ warm.T, index % 8).backward()  # the libraries' own buffers
    entry_cross_entropy(predicted, warm, index % 8).backward()
    before = forget_peak()
    began = time.perf_counter()
    step()
    seconds = time.perf_counter() - began
    return {
        "entries MiB": mib(matrix.nbytes),
        "peak above before, MiB": mib(peak() - before),
        "seconds": round(seconds, 3),
    }


def trained(entries: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["CONTRAPOSE_CACHE"] = f"{folder}/cache"  # entries' vectors are kept there
        import contrapose
        from contrapose.data.readers import read

        real = list(read(DEFINITIONS)["definition"])
        data = {"entry": [f"entry {row}" for row in range(entries)]}
        data["definition"] = [f"{real[row % len(real)]} {row // len(real)}" for row in range(entries)]
        before = forget_peak()
        began = time.perf_counter()
        settings = {"rounds": 1, "steps": 5, "batch_size": 64, "precision": "fp32", "encoder.max_tokens": 32}
        settings |= {"entry_pooling": "avg"}
        encoder = {"name": "minilm", "layers": 0}
        contrapose.train("defsent_plus", data, encoder=encoder, out=f"{folder}/run", progress=False, settings=settings)
        seconds = time.perf_counter() - began
    known = {"entries MiB": mib(entries * DIM * 4), "before, MiB": mib(before)}
    return {**known, "peak of the process, MiB": mib(peak()), "seconds": round(seconds, 1)}


def forget_peak() -> int:
    """Bytes of resident memory now, from which on the peak counts."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak() -> int:
    return resident("VmHWM")


def resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def mib(size: float) -> float:
    return round(size / 2**20, 1)


if __name__ == "__main__":
    main()

"""What the figures of geometry cost: CPU seconds for a million rows, and for 20,000 where every pair is looked at; memory.

python benchmarks/bench_geometry.py [--rows 1000000] [--pair-rows 20000] [--repeats 3]

Rows are random, from seed 0, float32, 384 dimensions; one thread. Seconds are the process's own, so that others on the
machine count little; repeats are interleaved, and the median is what counts. Memory is how much the process grew over
all figures, beside the rows. Writes results/geometry.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from contrapose import geometry

RESULT = Path(__file__).parents[1] / "results" / "geometry.json"
DIMENSIONS = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--pair-rows", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(asked.rows, DIMENSIONS, generator=generator)
    labels = torch.randint(1000, (asked.rows,), generator=generator)
    few = rows[: asked.pair_rows]
    figures = {
        "alignment": lambda: geometry.alignment(rows, rows),
        "mean_cosine": lambda: geometry.mean_cosine(rows),
        "tolerance": lambda: geometry.tolerance(rows, labels),
        "isotropy": lambda: geometry.isotropy(rows, labels),
        "spread": lambda: geometry.spread(rows),
        "effective_rank": lambda: geometry.effective_rank(rows),
        "partition_isotropy": lambda: geometry.partition_isotropy(rows),
        "uniformity, pairs=1_000_000": lambda: geometry.uniformity(rows, pairs=1_000_000),
        f"uniformity of {asked.pair_rows:,} rows": lambda: geometry.uniformity(few),
        f"hubness of {asked.pair_rows:,} rows": lambda: geometry.hubness(few),
    }
    before = peak_mib()
    seconds = {name: [] for name in figures}
    for _ in range(asked.repeats):
        for name, figure in figures.items():
            start = time.process_time()
            figure()
            seconds[name].append(round(time.process_time() - start, 3))
            print(f"{name:32} {seconds[name][-1]:8.2f} s", flush=True)
    result = {
        "what": f"contrapose.geometry on {asked.rows:,} random rows of {DIMENSIONS} float32, seed 0",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread",
        "versions": {name: version(name) for name in ("contrapose", "torch")},
        "date": time.strftime("%Y-%m-%d"),
        "mib_of_rows": round(rows.nbytes / 2**20),
        "mib_beside_rows": round(peak_mib() - before),
        "median_cpu_seconds": {name: median(each) for name, each in seconds.items()},
        "cpu_seconds": seconds,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


def peak_mib() -> float:
    """Of this process alone (Linux): for getrusage a child begins with its parent's peak."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10


if __name__ == "__main__":
    main()

"""The demo over three seeds: accuracy on the test pairs, seconds of training. Writes results/demo.json.

python benchmarks/bench_demo.py [--seeds 3]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import contrapose
from contrapose.api import demo

RESULT = Path(__file__).parents[1] / "results" / "demo.json"
METRICS = ("accuracy@1 anchor→positive", "accuracy@1 positive→anchor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = range(parser.parse_args().seeds)
    rows = [one(seed) for seed in seeds]
    result = {
        "what": "contrapose demo: pairs on sample:latvian/train, chosen on dev, scored once on test",
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in ("contrapose", "torch", "transformers")},
        "seeds": rows,
        "mean": {name: mean(row["trained"][name] for row in rows) for name in METRICS},
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


def one(seed: int) -> dict:
    """A run of one seed: every system's accuracy, the seconds that its steps and its development scores took."""
    with tempfile.TemporaryDirectory() as folder:
        run = demo(Path(folder) / "run", seed)
        lines = run.folder.metrics()
        systems = run.results[0].systems
    steps = [line for line in lines if "clock" in line]
    return {
        "seed": seed,
        "training_seconds": round(sum(line["clock"]["seconds"] for line in steps), 1),
        "steps": steps[-1]["step"],
        "settings": contrapose.api.DEMO,
        "dev": [line["selected"] for line in lines if "selected" in line],
        **{name: {metric: systems[name][metric].value for metric in METRICS} for name in systems},
    }


if __name__ == "__main__":
    main()

"""A large batch through MiniLM on this machine: seconds a step and peak memory of the process, beside sentence-transformers' cached loss.

pip install accelerate    # sentence-transformers' trainer needs it
python benchmarks/bench_large_batch.py [--rows 8192] [--memory 4GB]            contrapose alone: what --memory promises
python benchmarks/bench_large_batch.py --rows 1024 --memory 1.5GB --peer       beside CachedMultipleNegativesRankingLoss, 32 texts at a time

The pairs are those of sample:latvian/train, as often as it takes, copies in one group. Two steps; the second is the one that is timed. Each system runs
in a process of its own, and memory is the most that the process ever held (resident), Python, weights and optimiser included. Both in bf16
where the processor has it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench_training import COLUMNS, MAX_TOKENS
from measured import RESULTS, Stopwatch, finished, machine, offline_weights, write

RESULT = RESULTS / "large_batch.json"
OURS, THEIRS = "contrapose", "sentence-transformers CachedMultipleNegativesRankingLoss"
STEPS, MINI_BATCH = 2, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8192, help="pairs in a batch")
    parser.add_argument("--memory", default="4GB")
    parser.add_argument("--peer", action="store_true")
    parser.add_argument("--system", help=argparse.SUPPRESS)  # what a process is to do
    options = parser.parse_args()
    if options.system:
        seconds = (ours if options.system == OURS else theirs)(options.rows, options.memory)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(json.dumps({"seconds": round(seconds, 2), "peak GB": round(peak, 2)}))
        return
    result = finished(RESULT)
    for system in (OURS, THEIRS) if options.peer else (OURS,):
        words = [sys.executable, __file__, "--rows", str(options.rows), "--memory", options.memory, "--system", system]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        asked: dict[str, Any] = {"system": system, "rows": options.rows}
        if system == OURS:
            asked["memory"] = options.memory
        found = {**asked, **json.loads(done.stdout.splitlines()[-1]), **machine()}
        kept = [piece for piece in result["pieces"] if {name: piece.get(name) for name in asked} != asked]
        result = {"what": __doc__.partition("\n")[0], "pieces": [*kept, found]}
        write(RESULT, result)
        print({name: found[name] for name in (*asked, "seconds", "peak GB")})


def pairs(rows: int) -> dict[str, list]:
    """Of two batches."""
    from contrapose.data.readers import read

    table = read("sample:latvian/train", rename=COLUMNS)
    once = {name: list(table[name]) for name in COLUMNS} | {"group_id": list(range(len(table)))}
    times = -(-STEPS * rows // len(table))
    return {name: (column * times)[: STEPS * rows] for name, column in once.items()}


def ours(rows: int, memory: str) -> float:
    """Seconds of the second step."""
    import contrapose

    watch = Stopwatch()
    job = {"encoder.max_tokens": MAX_TOKENS, "batch_size": rows, "memory": memory, "steps": STEPS, "log_every": 1}
    with tempfile.TemporaryDirectory() as folder:
        contrapose.train("pairs", pairs(rows), out=Path(folder) / "run", loggers=[watch.logger()], settings=job)
    return watch.laps()["seconds"][-1]


def theirs(rows: int, memory: str) -> float:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    from contrapose.training.precision import has_bf16

    watch = Stopwatch()
    model = SentenceTransformer(str(offline_weights()), device="cpu")
    model.max_seq_length = MAX_TOKENS
    loss = CachedMultipleNegativesRankingLoss(
        model,
        scale=20.0,
        mini_batch_size=MINI_BATCH,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    with tempfile.TemporaryDirectory() as folder:
        job = SentenceTransformerTrainingArguments(
            folder,
            per_device_train_batch_size=rows,
            max_steps=STEPS,
            bf16=has_bf16("cpu"),
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        data = Dataset.from_dict({name: column for name, column in pairs(rows).items() if name in COLUMNS})
        SentenceTransformerTrainer(model, job, train_dataset=data, loss=loss, callbacks=[watch.callback()]).train()
    return watch.laps()["seconds"][-1]


if __name__ == "__main__":
    main()

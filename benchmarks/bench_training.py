"""Training the demo's job beside sentence-transformers' trainer, in float32 (its default) and in bf16: seconds a step, and accuracy after it.

pip install accelerate    # sentence-transformers' trainer needs it
python benchmarks/bench_training.py speed [--rounds 5]
python benchmarks/bench_training.py accuracy [--seeds 3]

Both train all-MiniLM-L6-v2 on the pairs of sample:latvian/train, 64 a batch, 48 tokens a text, AdamW at 1e-4 after 10 steps of warm-up, linear
decay, temperature 0.05, dropout as the weights' own configuration has it, with the symmetric loss: `pairs` here, there
MultipleNegativesRankingLoss(directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"). Everything else is left at its default.

speed: the first 1,600 pairs, once: 25 steps, of which 5 are left out. A round is one process of each system, one after another; what counts is
the time from the end of step 5 to the end of step 25, so that no start-up, and all that a step needs, is in it.
accuracy: the whole job (165 steps) here and with their default; accuracy@1 on the test pairs, both ways, of the last weights, chosen by nobody.

A piece is one process. Finished ones stand in results/training_speed.json and are not repeated; --most N stops after N new ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from measured import RESULTS, Stopwatch, finished, machine, offline_weights, spread, write

OURS, FP32, BF16 = "contrapose", "sentence-transformers fp32", "sentence-transformers bf16"
SYSTEMS = (OURS, FP32, BF16)
RESULT = RESULTS / "training_speed.json"
BATCH, MAX_TOKENS, RATE, WARMUP = 64, 48, 1e-4, 10
STEPS, LAP = 25, 5  # the first lap is left out
EPOCHS = 1.5  # of the whole job, as `contrapose demo` has it
COLUMNS = {"anchor": "english", "positive": "latvian"}
BARS = {FP32: (2.0, 3.0), BF16: (1.35, 2.0)}  # at least, and aim


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("speed", "accuracy", "piece"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--most", type=int, default=1000, help="new pieces before it stops")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # of `piece`: what a process is to do, as JSON
    options = parser.parse_args()
    if options.part == "piece":
        asked = json.loads(options.one)
        print(json.dumps((train_ours if asked["system"] == OURS else train_theirs)(**asked)))
        return
    numbers = range(options.rounds if options.part == "speed" else options.seeds)
    systems = SYSTEMS if options.part == "speed" else (OURS, FP32)
    asked = [{"part": options.part, "system": system, "number": n} for n in numbers for system in systems]
    result = finished(RESULT)
    done = [{name: piece[name] for name in ("part", "system", "number")} for piece in result["pieces"]]
    for piece in [piece for piece in asked if piece not in done][: options.most]:
        print(f"{piece} …", file=sys.stderr)
        found = {**piece, **machine(), **in_a_process(piece)}
        result = finished(RESULT)  # the other part may have gone on meanwhile
        result["pieces"].append(found)
        write(RESULT, summary(result))
    print(json.dumps({name: value for name, value in summary(result).items() if name != "pieces"}, indent=1))


def in_a_process(piece: dict[str, Any]) -> dict[str, Any]:
    words = [sys.executable, __file__, "piece", "--one", json.dumps(piece)]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def train_ours(part: str, system: str, number: int) -> dict[str, Any]:
    import contrapose

    watch, job = Stopwatch(), {"seed": number, "encoder.max_tokens": MAX_TOKENS, "batch_size": BATCH}
    job |= {"learning_rate": RATE, "warmup_steps": WARMUP, "temperature": 0.05}
    job |= {"epochs": EPOCHS} if part == "accuracy" else {"log_every": LAP}
    with tempfile.TemporaryDirectory() as folder:
        data = training_pairs(part)
        loggers = [watch.logger()]
        run = contrapose.train("pairs", data, out=Path(folder) / "run", progress=False, loggers=loggers, settings=job)
        if part == "accuracy":
            return accuracy(Path(folder) / "run" / "model")
        assert run.folder.metrics()[-1]["step"] == STEPS
    return watch.laps()


def train_theirs(part: str, system: str, number: int) -> dict[str, Any]:
    from datasets import Dataset
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    watch = Stopwatch()
    model = SentenceTransformer(str(offline_weights()), device="cpu")
    model.max_seq_length = MAX_TOKENS
    loss = MultipleNegativesRankingLoss(
        model, scale=20.0, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
    )
    with tempfile.TemporaryDirectory() as folder:
        job = SentenceTransformerTrainingArguments(
            folder,
            per_device_train_batch_size=BATCH,
            num_train_epochs=EPOCHS if part == "accuracy" else 1,
            learning_rate=RATE,
            warmup_steps=WARMUP,
            bf16=system == BF16,
            seed=number,
            use_cpu=True,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        data = Dataset.from_dict(training_pairs(part))
        trainer = SentenceTransformerTrainer(
            model, job, train_dataset=data, loss=loss, callbacks=[watch.callback(every=LAP)]
        )
        trainer.train()
        assert trainer.state.global_step == (STEPS if part == "speed" else 165)
        if part == "speed":
            return watch.laps()
        model.save(f"{folder}/model")
        return accuracy(Path(folder) / "model")


def training_pairs(part: str) -> dict[str, list[str]]:
    from contrapose.data.readers import read

    table = read("sample:latvian/train", rename=COLUMNS)
    rows = len(table) if part == "accuracy" else STEPS * BATCH
    return {name: list(table[name][:rows]) for name in COLUMNS}


def accuracy(model: Path) -> dict[str, float]:
    """accuracy@1 on the test pairs of the model in a folder, whoever trained it; both are read by the same code."""
    from contrapose.text.encoder import TextEncoder
    from contrapose.text.evaluation import TextRetrieval

    protocol = TextRetrieval("sample:latvian/test", COLUMNS)
    ranked = protocol.rank(TextEncoder.open(str(model), max_tokens=MAX_TOKENS))
    return {
        way.name: float(figures["accuracy@1"].mean())
        for way, (figures, _) in zip(protocol.directions, ranked, strict=True)
    }


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Medians, ratios and means of all pieces, before the pieces themselves."""
    pieces = result["pieces"]
    speed = {
        system: [piece for piece in pieces if (piece["part"], piece["system"]) == ("speed", system)]
        for system in SYSTEMS
    }
    scored = {
        system: [piece for piece in pieces if (piece["part"], piece["system"]) == ("accuracy", system)]
        for system in SYSTEMS
    }
    steps = {system: spread(list(step_seconds(mine))) for system, mine in speed.items() if mine}
    said: dict[str, Any] = {"what": __doc__.partition("\n")[0], "seconds a step": steps}
    said["pairs a second, median"] = {system: round(BATCH / step["median"], 1) for system, step in steps.items()}
    if OURS in steps:
        said["times as fast"] = {
            system: {"ratio": round(steps[system]["median"] / steps[OURS]["median"], 2), "bar": bar, "aim": aim}
            for system, (bar, aim) in BARS.items()
            if system in steps
        }
    ways = ("anchor→positive", "positive→anchor")
    said["test accuracy@1, mean over seeds"] = {
        system: {"seeds": len(mine), **{way: round(mean(piece[way] for piece in mine), 4) for way in ways}}
        for system, mine in scored.items()
        if mine
    }
    return {**said, "pieces": pieces}


def step_seconds(pieces: list[dict[str, Any]]) -> Iterator[float]:
    for piece in pieces:
        yield from (seconds / LAP for seconds in piece["seconds"])


if __name__ == "__main__":
    main()

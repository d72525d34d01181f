"""A training step of six methods for sentences beside that of the papers' own code: the same encoder, texts and batch of 64 rows.

    python benchmarks/bench_official_steps.py --official FOLDER [--rounds 3] [--only dse multicsr]

FOLDER holds the checkouts, each under its repository's name: WhitenedCSE, SimCSE (for DebCSE, which has no code), MultiCSR, DefSent-Plus,
Distilled-Sentence-Embedding, Mixture-of-Experts-Sentence-Similarity; what each had to have changed to start stands in the result.

Systems: the official step in float32, ours in float32, and ours in its default precision. The encoder is MiniLM's first 4 layers, as in our
claims (moe_embeddings: a ModernBERT of that size); texts are cut at 32 tokens. A round is one process of each system after another: 12 steps, of
which the first 3 are left out. Ours is `contrapose.train` with everything that a step needs, its data, its log and its watch over the run
included; theirs is collation, forward, backward, clipping and optimiser. Preparing is in neither (candidates of DebCSE, entries of DefSent+,
tokens). Finished pieces stand in results/official_steps.json and are not repeated; --most N stops after N new ones.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from measured import RESULTS, Stopwatch, finished, machine, spread, write
from official_steps import BATCH, DRIVERS, MAX_TOKENS, RATE, Inputs, commit

from contrapose.training.precision import has_bf16

OFFICIAL, FP32, DEFAULT = "official fp32", "contrapose fp32", "contrapose default"
SYSTEMS = {
    OFFICIAL: None,
    FP32: "fp32",
    DEFAULT: "auto",
}  # the last only where the processor has bf16; it is fp32 elsewhere
RESULT = RESULTS / "official_steps.json"
DATA = Path(__file__).parent / "data"
STEPS, LAP, LAYERS = 12, 3, 4
OURS: dict[str, dict[str, Any]] = {  # what differs from the defaults, so that both compute the same
    "whitenedcse": {},
    "debcse": {"reference": "initial"},
    "multicsr": {"reference": "initial", "objective": "bce_softmax"},
    "defsent_plus": {"rounds": 1},
    "dse": {},
    "moe_embeddings": {"similarity": "dot"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="the folder of the checkouts; without it ours alone is measured")
    parser.add_argument("--only", nargs="+", choices=sorted(DRIVERS), default=list(DRIVERS), metavar="METHOD")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=int, default=1000, help="new pieces before it stops")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a process is to do, as JSON
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(measured_piece(asked.official, **json.loads(asked.one))))
        return
    wanted = [
        {"method": method, "system": system, "number": number}
        for number in range(asked.rounds)
        for method in asked.only
        for system in SYSTEMS
        if (system != OFFICIAL or asked.official) and (system != DEFAULT or has_bf16("cpu"))
    ]
    result = finished(RESULT)
    done = [{name: piece[name] for name in ("method", "system", "number")} for piece in result["pieces"]]
    with tempfile.TemporaryDirectory() as folder:
        for kind in ("minilm", "modernbert"):
            save_encoder(Path(folder) / kind)
        for piece in [piece for piece in wanted if piece not in done][: asked.most]:
            print(f"{piece} …", file=sys.stderr)
            result["pieces"].append({**piece, **machine(), **in_a_process(piece, folder, asked.official)})
            write(RESULT, summary(result, asked.official))
    print(
        json.dumps(
            {name: value for name, value in summary(result, asked.official).items() if name != "pieces"}, indent=1
        )
    )


def in_a_process(piece: dict[str, Any], folder: str, official: Path | None) -> dict[str, Any]:
    """Its laps, or in words why it could not be run."""
    where = ["--official", str(official.resolve())] if official else []
    words = [sys.executable, __file__, *where, "--one", json.dumps({**piece, "encoders": folder})]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return {"cannot be run": done.stderr.strip().splitlines()[-1][:300]}
    return json.loads(done.stdout.splitlines()[-1])


def measured_piece(official: Path | None, method: str, system: str, number: int, encoders: str) -> dict[str, Any]:
    import torch

    torch.manual_seed(number)
    watch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        inputs = read_inputs(Path(encoders) / ("modernbert" if method == "moe_embeddings" else "minilm"), Path(folder))
        if system == OFFICIAL:
            checkout, drive = DRIVERS[method]
            sys.path.insert(0, str(official / checkout))
            steps = iter(range(1, STEPS + 1))
            drive(inputs, STEPS, lambda: next(steps) % LAP == 0 and watch.press())
        else:
            train_ours(method, SYSTEMS[system], number, inputs, watch)
    laps = watch.laps()
    assert len(laps["seconds"]) == STEPS // LAP - 1, laps
    return laps


def train_ours(method: str, precision: str, number: int, inputs: Inputs, watch: Stopwatch) -> None:
    import contrapose
    from contrapose.text._teacher import write_teacher_scores

    folder = inputs.encoder.parent
    first, second, scores = (list(column) for column in zip(*inputs.pairs, strict=True))
    data = {
        "whitenedcse": {"text": inputs.texts},
        "debcse": {"text": inputs.texts},
        "multicsr": named(inputs.triplets, "text", "positive", "negative"),
        "defsent_plus": named(inputs.definitions, "entry", "definition"),
        "dse": {"sentence1": first, "sentence2": second, "score": scores},
        "moe_embeddings": named(inputs.domains, "anchor", "positive", "domain"),
    }[method]
    settings = {
        "batch_size": BATCH,
        "steps": STEPS,
        "log_every": LAP,
        "learning_rate": RATE,
        "warmup_steps": 0,
        "seed": number,
    }
    settings |= {"precision": precision, "encoder.max_tokens": MAX_TOKENS, **OURS[method]}
    if method == "dse":
        import numpy as np

        logits = np.asarray(scores)[:, None] + 0.1
        settings["teacher"] = str(write_teacher_scores(folder / "teacher.npz", logits, first, second))
    run = contrapose.train(
        method,
        data,
        encoder=str(inputs.encoder),
        out=folder / "run",
        progress=False,
        loggers=[watch.logger()],
        settings=settings,
    )
    assert run.folder.metrics()[-1]["step"] == STEPS


def named(rows: list[tuple[str, ...]], *names: str) -> dict[str, list[str]]:
    return {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def read_inputs(encoder: Path, folder: Path) -> Inputs:
    """The rows that both sides learn from; the encoder in a folder of its own, beside which a driver may write."""
    from contrapose.data.readers import read

    own = folder / "encoder"
    own.symlink_to(encoder.resolve())
    rated, defined, sisters = (
        read(DATA / name)
        for name in (
            "stsb_en/train.jsonl.gz",
            "wordnet_definitions/definitions.jsonl.gz",
            "wordnet_sisters/train.jsonl.gz",
        )
    )
    pairs = [(a, b, float(s)) for a, b, s in zip(rated["sentence1"], rated["sentence2"], rated["score"], strict=True)]
    texts = list(dict.fromkeys(text for pair in pairs for text in pair[:2]))
    triplets = [(a, b, other[0]) for (a, b, _), other in zip(pairs, pairs[1:] + pairs[:1], strict=True)]
    definitions = list(zip(defined["entry"], defined["definition"], strict=True))
    domains = list(zip(sisters["anchor"], sisters["positive"], sisters["domain"], strict=True))
    return Inputs(own, texts, pairs, triplets, definitions, domains)


def save_encoder(folder: Path) -> None:
    """MiniLM's first layers, or a ModernBERT of their size: as many numbers in its gated MLP."""
    import torch
    from transformers import ModernBertConfig, ModernBertModel

    from contrapose.text.encoder import TextEncoder

    encoder = TextEncoder.open("minilm", layers=LAYERS)
    sizes, words = encoder.transformer.config, encoder.tokenizer
    transformer = encoder.transformer
    if folder.name == "modernbert":
        torch.manual_seed(0)
        special = {
            "pad_token_id": words.pad_token_id,
            "cls_token_id": words.cls_token_id,
            "sep_token_id": words.sep_token_id,
        }
        special |= {"bos_token_id": words.cls_token_id, "eos_token_id": words.sep_token_id}
        same = {
            name: getattr(sizes, name)
            for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
        }
        gated = sizes.intermediate_size * 2 // 3
        transformer = ModernBertModel(
            ModernBertConfig(**same, **special, intermediate_size=gated, max_position_embeddings=512)
        )
    transformer.save_pretrained(folder)
    words.save_pretrained(folder)


def summary(result: dict[str, Any], official: Path | None) -> dict[str, Any]:
    """Seconds a step and ratios by method, before the pieces themselves."""
    said: dict[str, Any] = {
        "what": __doc__.partition("\n")[0],
        "batch": BATCH,
        "tokens": MAX_TOKENS,
        "layers": LAYERS,
        "methods": {},
    }
    for method, (checkout, driver) in DRIVERS.items():
        mine = [piece for piece in result["pieces"] if piece["method"] == method]
        if not mine:
            continue
        steps, busy = (
            {
                system: [lap / LAP for piece in mine if piece["system"] == system for lap in piece.get(clock, [])]
                for system in SYSTEMS
            }
            for clock in ("seconds", "processor_seconds")
        )
        medians, processor = (
            {system: spread(values, 4) for system, values in each.items() if values} for each in (steps, busy)
        )
        before = result.get("methods", {}).get(method, {})
        found: dict[str, Any] = {
            "official code": checkout,
            "commit": commit(official / checkout) if official else before.get("commit", "unknown"),
            "how it is run": " ".join(driver.__doc__.split()),
            "seconds a step": medians,
            "processor seconds a step": processor,  # of all threads; on a busy machine the better reading
            "steps a second": {system: round(1 / each["median"], 2) for system, each in medians.items()},
        }
        refused = {piece["system"]: piece["cannot be run"] for piece in mine if "cannot be run" in piece}
        found |= {"cannot be run": refused} if refused else {}
        if OFFICIAL in medians:
            found["times as fast as the official step"] = {  # by processor seconds
                system: round(processor[OFFICIAL]["median"] / each["median"], 2)
                for system, each in processor.items()
                if system != OFFICIAL
            }
        said["methods"][method] = found
    return {**said, "pieces": result["pieces"]}


if __name__ == "__main__":
    main()

"""`contrapose embed` beside SentenceTransformer.encode: sentences a second, and whether the vectors are the same.

python benchmarks/bench_embed.py --data sentences.jsonl.gz [--rows 20000] [--rounds 5]

FILE is anything that contrapose reads, with a column `text`. The committed figures are of the first 20,000 of 119,742 shuffled English sentences of
15 to 400 characters from public sources: Tatoeba, the examples of Open English WordNet, Microsoft's documentation (CodeXGLUE), abstracts of SciTLDR,
WikiText-2 and SQuAD. Sentences of another length give other figures; the result says how many tokens a row has.

Both embed with all-MiniLM-L6-v2 on the processor, everything at its default. Ours reads the file, loads the model, embeds and writes Parquet, in bf16
where the processor has it, and once more in float32; theirs is handed a model and a list in memory. A first call on 256 rows is left out. A round is
one process of each, one after another. The cosines compare every row of ours with theirs, outside the timing.

Finished pieces stand in results/embedding_speed.json and are not repeated; --most N stops after N new ones.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from measured import RESULTS, finished, machine, offline_weights, spread, write

OURS, EXACT, THEIRS = "contrapose embed", "contrapose embed --precision float32", "SentenceTransformer.encode"
SYSTEMS = (OURS, EXACT, THEIRS)
RESULT = RESULTS / "embedding_speed.json"
WARM = 256
BAR, AIM, LEAST_COSINE = 1.45, 2.5, 0.999


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="FILE")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most", type=int, default=1000, help="new pieces before it stops")
    parser.add_argument("--piece", help=argparse.SUPPRESS)  # what a process is to do
    options = parser.parse_args()
    texts = read_texts(options.data, options.rows)
    if options.piece:
        piece = cosines(texts) if options.piece == "cosines" else {"seconds": timed(options.piece, texts)}
        print(json.dumps(piece))
        return
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    asked = [{"system": system, "number": n, "rows": digest} for n in range(options.rounds) for system in SYSTEMS]
    asked.append({"system": "cosines", "number": 0, "rows": digest})
    result = finished(RESULT)
    done = [{name: piece[name] for name in ("system", "number", "rows")} for piece in result["pieces"]]
    for piece in [piece for piece in asked if piece not in done][: options.most]:
        print(f"{piece['system']}, {piece['number']} …", file=sys.stderr)
        words = [sys.executable, __file__, "--data", options.data, "--rows", str(options.rows)]
        done_by = subprocess.run([*words, "--piece", piece["system"]], stdout=subprocess.PIPE, text=True, check=True)
        result["pieces"].append({**piece, **machine(), **json.loads(done_by.stdout.splitlines()[-1])})
        write(RESULT, summary(result, texts))
    print(json.dumps({name: value for name, value in summary(result, texts).items() if name != "pieces"}, indent=1))


def read_texts(data: str, rows: int) -> list[str]:
    from contrapose.data.readers import read

    return list(read(data)["text"][:rows])


def timed(system: str, texts: list[str]) -> float:
    with embedder(system) as embed:
        embed(texts[:WARM])
        began = time.perf_counter()
        embed(texts)
        return round(time.perf_counter() - began, 3)


def cosines(texts: list[str]) -> dict[str, Any]:
    """The lowest, and the 1st percentile, of the cosines of rows of ours with theirs."""
    vectors = {}
    for system in SYSTEMS:
        with embedder(system) as embed:
            vectors[system] = embed(texts)
    found = {system: np.einsum("nd,nd->n", vectors[system], vectors[THEIRS]) for system in (OURS, EXACT)}
    return {
        system: {"lowest": round(float(each.min()), 6), "1 %": round(float(np.quantile(each, 0.01)), 6)}
        for system, each in found.items()
    }


@contextlib.contextmanager
def embedder(system: str) -> Any:
    """What takes a list of texts and gives their unit vectors; ours writes the file that it reads first, which counts as its time."""
    if system == THEIRS:
        from sentence_transformers import SentenceTransformer

        yield SentenceTransformer(str(offline_weights()), device="cpu").encode
        return
    with tempfile.TemporaryDirectory() as folder:
        yield ours(Path(folder), "float32" if system == EXACT else "auto")


def ours(folder: Path, precision: str) -> Callable[[list[str]], np.ndarray]:
    import pyarrow.parquet as pq

    import contrapose
    from contrapose.text.encoder import TextEncoder

    model = contrapose.Model({"encoder": TextEncoder.open()}, "text", "none").save(folder / "model")

    def embed(texts: list[str]) -> np.ndarray:
        file, out = folder / f"{len(texts)}.txt", folder / f"{len(texts)}.parquet"
        file.write_text("\n".join(texts) + "\n", encoding="utf-8")
        written = contrapose.embed(model, file, out, precision=precision)
        return np.array(pq.read_table(written)["vector"].combine_chunks().flatten()).reshape(len(texts), -1)

    return embed


def summary(result: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    from contrapose.text.encoder import TextEncoder

    pieces = result["pieces"]
    seconds = {system: [piece["seconds"] for piece in pieces if piece["system"] == system] for system in SYSTEMS}
    spreads = {system: spread(each) for system, each in seconds.items() if each}
    tokens = TextEncoder.open().tokens(texts).lengths
    said: dict[str, Any] = {
        "what": __doc__.partition("\n")[0],
        "rows": len(texts),
        "tokens a row, mean": round(float(tokens.float().mean()), 2),
        "seconds": spreads,
        "rows a second, median": {system: round(len(texts) / each["median"]) for system, each in spreads.items()},
    }
    if THEIRS in spreads:
        said["times as fast"] = {
            system: round(spreads[THEIRS]["median"] / spreads[system]["median"], 2)
            for system in (OURS, EXACT)
            if system in spreads
        }
        said["bar and aim"] = [BAR, AIM]
    for piece in pieces:
        if piece["system"] == "cosines":
            said["cosines with theirs"] = {system: piece[system] for system in (OURS, EXACT)}
            said["cosines asked for"] = LEAST_COSINE
    return {**said, "pieces": pieces}


if __name__ == "__main__":
    main()

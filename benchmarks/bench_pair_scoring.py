"""Every query with every candidate: a cross-encoder that reads each pair, and DSE's student with one vector a text.

    python benchmarks/bench_pair_scoring.py [--sizes 100 500] [--rounds 3]

Seconds for n x n pairs of sentences of STS-B, embedding included; the cross-encoder's from the pairs that it scores in a sample, times their number.
Weights are the pretrained ones, since the time does not depend on them. Median of interleaved rounds. Results stand in results/pair_scoring.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from measured import RESULTS, machine, write

from contrapose.data.batches import Facts
from contrapose.data.readers import read
from contrapose.text._cross_encoder import CrossEncoder
from contrapose.text.dse import DSE
from contrapose.text.encoder import TextEncoder

COLUMNS = Facts(0, ("sentence1", "sentence2", "score"))
STSB = Path(__file__).parent / "data/stsb_en/test.jsonl.gz"


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=STSB, help="pairs with the columns sentence1 and sentence2")
    parser.add_argument("--sizes", type=int, nargs="+", default=[100, 500])
    parser.add_argument("--sample", type=int, default=100, help="pairs that the cross-encoder scores")
    parser.add_argument("--pooling", nargs="+", default=["concat_top4_mean", "avg"])
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    table = read(asked.data)
    queries, candidates = (list(dict.fromkeys(table[side])) for side in ("sentence1", "sentence2"))
    teacher = CrossEncoder(CrossEncoder.Settings(), TextEncoder.open("minilm"))
    teacher.build(COLUMNS)
    reader = teacher.eval().encoders()["encoder"]
    pieces = []
    for pooling in asked.pooling:
        student = DSE(DSE.Settings(pooling=pooling), TextEncoder.open("minilm"))
        student.build(COLUMNS)
        scorer = student.eval().encoders()["encoder"]
        for size in asked.sizes:
            left, right = queries[:size], candidates[:size]
            few = min(asked.sample, len(left), len(right))
            rounds = [
                (
                    seconds(partial(reader.score_pairs, left[:few], right[:few])),
                    seconds(partial(scorer.score_matrix, left, right)),
                )
                for _ in range(asked.rounds)
            ]
            pairs = len(left) * len(right)
            slow, fast = (
                statistics.median(each[0] for each in rounds) / few * pairs,
                statistics.median(each[1] for each in rounds),
            )
            piece = {
                "pooling": pooling,
                "pairs": pairs,
                "cross-encoder, s": round(slow, 2),
                "student, s": round(fast, 3),
            }
            pieces.append({**piece, "times as fast": round(slow / fast, 1)})
            print(json.dumps(pieces[-1]))
    write(RESULTS / "pair_scoring.json", {"what": __doc__.partition("\n")[0], **machine(), "pieces": pieces})


if __name__ == "__main__":
    main()

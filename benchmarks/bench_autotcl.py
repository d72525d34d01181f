"""A training step of AutoTCL beside its official code: seconds, with the encoder and the sizes of its univariate ETTh1 configuration.

pip install einops
git clone https://github.com/AslanDing/AutoTCL OFFICIAL && git -C OFFICIAL checkout 2ca00603734d9d339e74f42b22633df6c91c6256
python benchmarks/bench_autotcl.py OFFICIAL [--rounds 3] [--steps 6] [--small]

64 random walks of 257 steps and one channel, 32 a batch; the encoder is 64 wide, 10 deep, 320 dimensions, the augmentation network 64 wide, 1 deep, 16
dimensions; both networks move in every step, and the mean of weights is kept. --small: 32 wide, 5 deep, 64 dimensions, which the official class takes
through its network's class alone. One thread, float32. The official code looks for anomalies in every backward pass (it calls set_detect_anomaly);
it is timed as it is, and without that. Its calls of .cuda() stay where they are and do nothing here,
and two packages that it imports without need are empty; nothing else of it is touched.

A round is one process of each system, one after another. A lap is a step; the first two are left out. What counts is the processor's seconds, since
others may be using the machine. Finished pieces stand in results/autotcl_speed.json and are not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import MagicMock

from measured import RESULTS, Stopwatch, finished, machine, spread, write

OURS, SHIPPED, CALM = "contrapose", "official", "official without anomaly detection"
SYSTEMS = (OURS, SHIPPED, CALM)
RESULT = RESULTS / "autotcl_speed.json"
SERIES, STEPS_OF_A_SERIES, BATCH, LEFT_OUT = 64, 257, 32, 2
SIZES = {False: {"hidden": 64, "dim": 320, "depth": 10}, True: {"hidden": 32, "dim": 64, "depth": 5}}
BAR = 1.5  # at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("official", type=Path, help="a checkout of the official code")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # what a process is to do, as JSON
    options = parser.parse_args()
    if options.one:
        asked = json.loads(options.one)
        print(json.dumps((ours if asked["system"] == OURS else theirs)(options.official, **asked)))
        return
    result = finished(RESULT)
    for number in range(options.rounds):
        for system in SYSTEMS:
            piece = {"system": system, "small": options.small, "number": number, "steps": options.steps}
            if piece in [{name: done[name] for name in piece} for done in result["pieces"]]:
                continue
            print(f"{piece} …", file=sys.stderr)
            words = [sys.executable, __file__, str(options.official), "--one", json.dumps(piece)]
            done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
            result["pieces"].append({**piece, **machine(), **json.loads(done.stdout.splitlines()[-1])})
            write(RESULT, summary(result))
    print(json.dumps({name: value for name, value in summary(result).items() if name != "pieces"}, indent=1))


def walks() -> Any:
    import numpy as np

    drawn = np.random.default_rng(0)
    steps = drawn.normal(size=(SERIES, STEPS_OF_A_SERIES, 1)).cumsum(axis=1)
    return ((steps - steps.mean()) / steps.std()).astype(np.float32)


def ours(official: Path, system: str, small: bool, number: int, steps: int) -> dict[str, Any]:
    import torch

    import contrapose
    from contrapose.series.encoder import SeriesEncoder

    torch.set_num_threads(1)
    watch = Stopwatch()
    encoder = SeriesEncoder(1, **SIZES[small], window=STEPS_OF_A_SERIES, scale="none", seed=number)
    with tempfile.TemporaryDirectory() as folder:
        contrapose.train(
            "autotcl",
            walks(),
            encoder=encoder,
            out=Path(folder) / "run",
            progress=False,
            loggers=[watch.logger()],
            settings={"batch_size": BATCH, "steps": steps, "log_every": 1, "precision": "fp32", "seed": number},
        )
    return kept(watch)


def theirs(official: Path, system: str, small: bool, number: int, steps: int) -> dict[str, Any]:
    import torch

    sys.path.insert(0, str(official))
    import pandas  # noqa: F401  (before the empty packages: it would ask them for their version)

    sys.modules |= {name: MagicMock() for name in ("tsaug", "bottleneck")}  # imported, and not used here
    torch.set_num_threads(1)
    torch.manual_seed(number)
    torch.Tensor.cuda = lambda tensor, *given, **named: tensor
    import AutoTCL_CoST as code

    torch.autograd.set_detect_anomaly(system == SHIPPED)
    sizes = SIZES[small]
    if small:
        network = code.TSEncoder

        def resized(output_dims: int, **named: Any) -> Any:
            main = {} if "hidden_dims" in named else {"hidden_dims": sizes["hidden"], "depth": sizes["depth"]}
            return network(output_dims=output_dims, **named, **main)

        code.TSEncoder = resized
    model = code.AutoTCL(
        1, output_dims=sizes["dim"], device="cpu", batch_size=BATCH, max_train_length=STEPS_OF_A_SERIES, aug_depth=1,
        gamma_zeta=0.05, gumbel_bias=0.05,
    )  # fmt: skip
    watch, update = Stopwatch(), model.net.update_parameters

    def updated(network: Any) -> None:
        update(network)
        watch.press()

    model.net.update_parameters = updated  # the last thing that a step does
    model.fit(walks(), n_iters=steps, task_type="forecasting", lcoal_weight=0.3, reg_weight=0.003, regular_weight=0)
    return kept(watch)


def kept(watch: Stopwatch) -> dict[str, Any]:
    return {name: values[LEFT_OUT - 1 :] for name, values in watch.laps().items()}


def summary(result: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for small in (False, True):
        seconds = {
            system: [
                each
                for piece in result["pieces"]
                if piece["system"] == system and piece["small"] == small
                for each in piece["processor_seconds"]
            ]
            for system in SYSTEMS
        }
        if all(seconds.values()):
            one = {system: spread(values) for system, values in seconds.items()}
            ratio = {
                f"against the {system}": round(median(seconds[system]) / median(seconds[OURS]), 2)
                for system in SYSTEMS[1:]
            }
            found["small" if small else "as published"] = {
                "processor seconds a step": one,
                "times as fast": ratio,
                "bar": BAR,
            }
    return {"what": __doc__.splitlines()[0], **found, "pieces": result["pieces"]}


if __name__ == "__main__":
    main()

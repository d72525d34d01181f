"""Objectives beside the loss functions of six other libraries: seconds of forward and backward, peak memory, and whether they agree.

python benchmarks/bench_objectives.py --peers FOLDER [--parts info_nce nt_xent supervised large] [--sizes 512 2048 8192] [--dimensions 128 512]

FOLDER holds what is not installed, each in a folder of its own or all in one: `pip install --no-deps --target FOLDER open_clip_torch lightly
stable-pretraining pytorch-metric-learning`, and a checkout of solo-learn. None of it is needed: what is missing is said and left out.
Each round calls every contestant once, in an order that is turned by one; set OMP_NUM_THREADS to the threads that are asked for. What was
measured replaces its own rows in results/objectives.json, so that it can be measured in pieces; without all six peers only --out writes.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import gc
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median, quantiles

import torch
from peer_losses import TEMPERATURE, Loss, find_peers
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.objectives import info_nce, nt_xent, supervised

RESULT = Path(__file__).parents[1] / "results" / "objectives.json"
MEMORY_LIMIT = 6.0  # GiB, and seconds a call: beyond, a contestant is left out
TIME_LIMIT = 60.0
SAME = 1e-9  # relative, in float64
LARGE = (65536, 128)
OURS, PLAIN = "contrapose", "plain torch"
# Peers' losses take the precision that they are fed; they are mostly fed float32.
FP32, BF16, BOTH_BF16 = "time: fp32 against fp32", "time: bf16 against fp32", "time: bf16 against bf16"
M_FP32, M_BF16, M_BOTH_BF16 = "memory: fp32 against fp32", "memory: bf16 against fp32", "memory: bf16 against bf16"
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def plain_info_nce(first: Tensor, second: Tensor, labels: LongTensor) -> Tensor:
    logits = functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T / TEMPERATURE
    own = torch.arange(len(logits))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def plain_nt_xent(first: Tensor, second: Tensor, labels: LongTensor) -> Tensor:
    z = functional.normalize(torch.cat([first, second]), dim=-1)
    logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-math.inf)
    return functional.cross_entropy(logits, torch.arange(len(z)).roll(len(first)))


def plain_supervised(first: Tensor, second: Tensor, labels: LongTensor) -> Tensor:
    z = functional.normalize(first, dim=-1)
    logits = (z @ z.T / TEMPERATURE).fill_diagonal_(-math.inf)
    alike = (labels[:, None] == labels).fill_diagonal_(False)
    return -(logits.log_softmax(1).masked_fill(~alike, 0).sum(1) / alike.sum(1)).mean()


LOSSES: dict[tuple[str, str], Loss] = {
    ("info_nce", OURS): lambda first, second, _: info_nce(first, second, temperature=TEMPERATURE, symmetric=True),
    ("nt_xent", OURS): lambda first, second, _: nt_xent(first, second, temperature=TEMPERATURE),
    ("supervised", OURS): lambda first, _, labels: supervised(first, labels=labels, temperature=TEMPERATURE),
    ("info_nce", PLAIN): plain_info_nce,
    ("nt_xent", PLAIN): plain_nt_xent,
    ("supervised", PLAIN): plain_supervised,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a folder with the libraries that are not installed")
    parts = ("info_nce", "nt_xent", "supervised", "large")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--sizes", nargs="+", type=int, default=[512, 2048, 8192])
    parser.add_argument("--dimensions", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--seconds", type=float, default=20, help="of timed rounds for each loss, size and dimension")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="where to write; default: results/objectives.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    peers, missing = find_peers(options.peers)
    for name, peer in peers.items():
        print(f"found    {name} {peer.version}, {peer.loaded}")
    for name, why in missing.items():
        print(f"missing  {name}: {why}")
    losses = LOSSES | {key: loss for peer in peers.values() for key, loss in peer.losses.items()}
    out = options.out or (None if missing else RESULT)
    result = json.loads(out.read_text(encoding="utf-8")) if out and out.is_file() else {"cells": {}}
    result |= about(options.threads) | {"peers": {name: [peer.version, peer.loaded] for name, peer in peers.items()}}
    result["agreement"] = agreement(losses)
    cells = [(part, rows, size) for part in options.parts for rows in options.sizes for size in options.dimensions]
    for part, rows, dimension in cells:
        if part == "large":
            continue
        mine = {name: loss for (kind, name), loss in losses.items() if kind == part}
        cell = result["cells"][f"{part} {rows} x {dimension}"] = measured(mine, rows, dimension, options.seconds)
        show(f"{part}, {rows} x {dimension}", cell)
        write(result, out)
    if "large" in options.parts:
        result["large"] = large()
        write(result, out)
    print("\n".join(result["bars"]))
    if out is None:
        print("Nothing written: not every peer was found. --out FILE writes all the same.")


def write(result: dict, out: Path | None) -> None:
    result["bars"] = bars(result)
    if out is not None:
        out.parent.mkdir(exist_ok=True)
        unfinished = out.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        unfinished.replace(out)


def about(threads: int) -> dict:
    """What it was measured on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "what": "forward and backward from embeddings as an encoder gives them (not normalised), float32 or bfloat16, to their gradients",
        "processor": f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": threads,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "temperature": TEMPERATURE,
        "memory": "the largest sum of allocations of torch's CPU allocator during one call, without the inputs",
    }


def batch(rows: int, dimension: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, LongTensor]:
    """Two views with cosine about 0.7, eight rows a label."""
    generator = torch.Generator().manual_seed(0)
    first, noise = (torch.randn(rows, dimension, generator=generator) for _ in range(2))
    return first.to(dtype), (first + noise).to(dtype), torch.arange(rows) % max(rows // 8, 1)


def call(loss: Loss, first: Tensor, second: Tensor, labels: LongTensor) -> tuple[float, float, Tensor]:
    """Seconds of one forward and backward, the loss, and the gradient of the first view."""
    first, second = first.detach().clone().requires_grad_(), second.detach().clone().requires_grad_()
    start = time.perf_counter()
    value = loss(first, second, labels)
    value.backward()
    return time.perf_counter() - start, float(value.detach()), first.grad


def peak_memory(loss: Loss, inputs: tuple[Tensor, Tensor, LongTensor]) -> float:
    """MiB; each allocation and release of one call, added up in the order of time."""
    first, second, labels = inputs
    first, second = first.detach().clone().requires_grad_(), second.detach().clone().requires_grad_()
    activities = [torch.profiler.ProfilerActivity.CPU]
    with silent(), torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        loss(first, second, labels).backward()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = highest = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        highest = max(highest, held)
    return highest / 2**20


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without the lines that the profiler writes to the standard error at every start and stop."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def expected_memory(loss: Loss, rows: int, dimension: int, dtype: torch.dtype) -> float:
    """MiB at `rows`, by the growth at small sizes; the larger these are, the nearer."""
    expected = growth(loss, (64, 128, 256), dimension, dtype)
    if rows > 1024 and expected(1024) <= MEMORY_LIMIT * 1024:
        expected = growth(loss, (256, 512, 1024), dimension, dtype)
    return expected(rows)


def growth(loss: Loss, sizes: tuple[int, int, int], dimension: int, dtype: torch.dtype) -> Callable[[int], float]:
    """MiB by rows: the polynomial of third degree without a constant through what these sizes take."""
    powers = torch.arange(1, 4)
    taken = torch.tensor([peak_memory(loss, batch(size, dimension, dtype)) for size in sizes], dtype=torch.float64)
    parts = torch.linalg.solve(torch.tensor(sizes, dtype=torch.float64)[:, None] ** powers, taken)
    return lambda rows: float(parts @ (torch.tensor(rows, dtype=torch.float64) ** powers))


def measured(losses: dict[str, Loss], rows: int, dimension: int, seconds: float) -> dict:
    """One cell of the table: every contestant in every precision, in rounds."""
    contestants: dict[str, Callable[[], tuple]] = {}
    left_out, memory, values, gradients = {}, {}, {}, {}
    for precision, dtype in PRECISIONS.items():
        inputs = batch(rows, dimension, dtype)
        for loss_name, loss in losses.items():
            name = f"{loss_name} {precision}"
            try:
                expected = expected_memory(loss, rows, dimension, dtype) if loss_name != OURS else 0
                if expected > MEMORY_LIMIT * 1024:
                    left_out[name] = f"needs about {expected / 1024:.1f} GiB by its growth at small sizes"
                    continue
                spent, values[name], gradients[name] = call(loss, *inputs)
                if spent > TIME_LIMIT:
                    left_out[name] = f"{spent:.0f} s a call"
                    continue
                memory[name] = round(peak_memory(loss, inputs), 2)
            except Exception as fault:
                left_out[name] = f"{type(fault).__name__}: {fault}"
                continue
            contestants[name] = lambda loss=loss, inputs=inputs: call(loss, *inputs)
    with Others() as others:
        times = rounds(contestants, seconds)
    truth, slope = values[f"{OURS} fp32"], gradients[f"{OURS} fp32"]
    return {
        "rows": rows,
        "dimension": dimension,
        "date": datetime.date.today().isoformat(),
        "processor_time_of_others": others.share,
        "median": {name: median(each) for name, each in times.items()},
        "quartiles": {name: [quantiles(each, n=4)[0], quantiles(each, n=4)[2]] for name, each in times.items()},
        "peak_MiB": memory,
        "relative_difference": {
            name: [abs(values[name] / truth - 1), float((gradients[name].float() - slope).norm() / slope.norm())]
            for name in times
        },
        "left_out": left_out,
        "ratios": ratios({name: median(each) for name, each in times.items()}, memory),
        "seconds": {name: [round(each, 6) for each in some] for name, some in times.items()},
    }


class Others:
    """The share of the processors' time that other processes took meanwhile, which says how far timings can be trusted; None if unknown."""

    share: float | None = None

    def __enter__(self) -> Others:
        self.start = self.times()
        return self

    def __exit__(self, *fault: object) -> None:
        busy, everything, mine = (after - before for after, before in zip(self.times(), self.start, strict=True))
        self.share = round(max(0.0, busy - mine) / everything, 3) if everything else None

    @staticmethod
    def times() -> tuple[float, float, float]:
        stat = Path("/proc/stat")
        ticks = [int(each) for each in stat.read_text().split("\n")[0].split()[1:9]] if stat.is_file() else [0] * 8
        rate = os.sysconf("SC_CLK_TCK")
        idle = ticks[3] + ticks[4]
        return (sum(ticks) - idle) / rate, sum(ticks) / rate, sum(os.times()[:2])


def rounds(contestants: dict[str, Callable[[], tuple]], seconds: float) -> dict[str, list[float]]:
    """Timings of calls in rounds; the first of each contestant, made before, warmed up."""
    names, times = list(contestants), {name: [] for name in contestants}
    gc.collect()
    gc.disable()
    start, turn = time.perf_counter(), 0
    while turn < 3 or (turn < 300 and time.perf_counter() - start < seconds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(contestants[name]()[0])
        turn += 1
    gc.enable()
    return times


def ratios(middle: dict[str, float], memory: dict[str, float]) -> dict[str, list]:
    """Ours against the fastest and the leanest peer: the ratio, and which peer that is."""
    found = {}
    for label, ours, theirs, measure in (
        (FP32, "fp32", "fp32", middle),
        (BF16, "bf16", "fp32", middle),
        (BOTH_BF16, "bf16", "bf16", middle),
        (M_FP32, "fp32", "fp32", memory),
        (M_BF16, "bf16", "fp32", memory),
        (M_BOTH_BF16, "bf16", "bf16", memory),
    ):
        peers = [name for name in middle if name.endswith(theirs) and not name.startswith((OURS, PLAIN))]
        if peers:
            best = min(peers, key=measure.get)
            found[label] = [round(measure[best] / measure[f"{OURS} {ours}"], 2), best]
    return found


def agreement(losses: dict[tuple[str, str], Loss]) -> list[dict]:
    """Which of our calls each loss of a peer equals, in float64 with eight rows a label: one name may stand for several losses."""
    inputs = batch(64, 16, torch.float64)
    first, second, labels = inputs
    alike = {"labels": labels, "temperature": TEMPERATURE}
    ours = {
        "info_nce(symmetric=True)": info_nce(first, second, temperature=TEMPERATURE, symmetric=True),
        "info_nce()": info_nce(first, second, temperature=TEMPERATURE),
        "nt_xent()": nt_xent(first, second, temperature=TEMPERATURE),
        "supervised()": supervised(first, **alike),
        'supervised(denominator="negatives")': supervised(first, denominator="negatives", **alike),
        'supervised(denominator="own", reduction="pairs")': supervised(
            first, denominator="own", reduction="pairs", **alike
        ),
    }
    found = []
    for (_, name), loss in losses.items():
        if name in (OURS, PLAIN):
            continue
        value = float(loss(*inputs))
        nearest = min(ours, key=lambda call: abs(float(ours[call]) - value))
        apart = abs(value / float(ours[nearest]) - 1)
        found.append({"peer": name, "value": value, "nearest": nearest, "relative_difference": apart})
        print(f"{name} {'=' if apart < SAME else 'is no loss of ours; nearest:'} {nearest} ({apart:.1e} apart)")
    return found


def large() -> dict:
    """Peak memory of symmetric InfoNCE at 65,536 rows, where one matrix of all pairs would take 16 GiB."""
    rows, dimension = LARGE
    inputs = batch(rows, dimension)
    start = time.perf_counter()
    found = {"loss": "info_nce", "rows": rows, "dimension": dimension, "precision": "fp32"}
    found["peak_MiB"] = round(peak_memory(LOSSES["info_nce", OURS], inputs), 1)
    found["seconds"] = round(time.perf_counter() - start, 1)
    print(f"{rows} x {dimension}: {found['peak_MiB']} MiB at the highest, {found['seconds']} s while watched")
    return found


def show(title: str, cell: dict) -> None:
    count, others = len(next(iter(cell["seconds"].values()))), cell["processor_time_of_others"]
    print(
        f"\n{title}: {count} rounds; other processes took {others if others is None else f'{others:.0%}'} of the processors"
    )
    print(f"{'':72}{'median ms':>10}{'quartiles':>20}{'peak MiB':>10}{'differs by':>20}")
    for name, middle in sorted(cell["median"].items(), key=lambda pair: pair[1]):
        low, high = cell["quartiles"][name]
        value, gradient = cell["relative_difference"][name]
        spread = f"{low * 1e3:.2f} – {high * 1e3:.2f}"
        print(f"{name:72}{middle * 1e3:10.2f}{spread:>20}{cell['peak_MiB'][name]:10.1f}{value:10.0e}{gradient:10.0e}")
    for name, why in cell["left_out"].items():
        print(f"{name:72}left out: {why}")
    print("; ".join(f"{label} {ratio}x" for label, (ratio, _) in cell["ratios"].items()), flush=True)


def bars(result: dict) -> list[str]:
    """What the objectives are to be, against the best peer of each size; the least over the sizes that were measured."""
    wanted = [
        ("info_nce", range(2048, 2**31), {FP32: 1.0, BF16: 2.0, BOTH_BF16: 2.0}),
        ("nt_xent", range(2048, 2**31), {FP32: 2.3, BF16: 4.0, BOTH_BF16: 4.0}),
        ("info_nce", range(2048), {FP32: 1.0, BF16: 1.0, BOTH_BF16: 1.0}),
        ("nt_xent", range(2048), {FP32: 1.0, BF16: 1.0, BOTH_BF16: 1.0}),
        *(
            (part, range(2048, 2**31), dict.fromkeys((M_FP32, M_BF16, M_BOTH_BF16), 4.0))
            for part in ("info_nce", "nt_xent")
        ),
    ]
    lines = []
    for part, sizes, labels in wanted:
        for label, bar in labels.items():
            found = {
                name: cell["ratios"][label][0]
                for name, cell in result["cells"].items()
                if name.startswith(part) and cell["rows"] in sizes and label in cell["ratios"]
            }
            if found:
                worst = min(found, key=found.get)
                verdict = "met" if found[worst] >= bar else "missed"
                lines.append(f"{verdict:7}{label}: {found[worst]} of {bar} wanted ({worst}, the least of {len(found)})")
    if "large" in result:
        peak = result["large"]["peak_MiB"]
        lines.append(f"{'met' if peak < 1024 else 'missed':7}info_nce at {LARGE[0]} x {LARGE[1]}: {peak} MiB of 1024")
    return lines


if __name__ == "__main__":
    main()

"""InfoNCE on a GPU: milliseconds of forward and backward, beside what the matrix products alone take; and the memory of a very large batch.

python benchmarks/gpu.py [--peers FOLDER] [--parts time memory]

time: symmetric InfoNCE of 32,768 pairs of 512 numbers in bfloat16, from embeddings as an encoder gives them (not normalised) to their
gradients, by CUDA events. Each round calls every contestant once, in an order that is turned by one:
  contrapose              through its Triton kernels
  contrapose, torch       the same tiles without the kernels
  plain torch             all logits in memory and two cross-entropies
  Inf-CL                  its kernels, which work in float32; FOLDER, or a folder in it, holds its package inf_cl (a checkout of Inf-CLIP)
  matrix products alone   the four that contrapose needs, of the same sizes and tiles in bfloat16: the ceiling
memory: the peak of torch's allocator over one forward and backward of 1,048,576 pairs, inputs and gradients included. 128 numbers each: inputs and
gradients take 1 GiB then, and their unit rows and sums in float32 twice that; at 512 it would be 4 and 8, more than the 8 GiB that are aimed at.

Writes results/gpu.json, a part at a time. Without a GPU it measures nothing, writes nothing and ends with 2.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib
import math
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measured import RESULTS, finished, spread, write
from torch import Tensor
from torch.nn import functional

from contrapose.objectives import info_nce

engine = importlib.import_module("contrapose.objectives._tiles.log_sum_exp")

TEMPERATURE = 0.05
SIDE = 8192  # of a tile of the products alone, as in the kernels
WARM_UP, LEAST, MOST = 3, 10, 200  # rounds
AIM_MS, AIM_TIMES, AIM_GIB = 10.0, 3.0, 8.0
OURS, BY_TORCH, PLAIN, INF_CL, PRODUCTS = (
    "contrapose", "contrapose, torch", "plain torch", "Inf-CL", "matrix products alone",
)  # fmt: skip
Step = Callable[[Tensor, Tensor], Tensor | None]  # of two leaves: the loss, whose backward pass is done; or nothing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a folder with the package inf_cl, or with a checkout that holds it")
    parser.add_argument("--parts", nargs="+", choices=("time", "memory"), default=("time", "memory"))
    parser.add_argument("--rows", type=int, default=32768, help="pairs of the part time (default 32,768)")
    parser.add_argument("--dimension", type=int, default=512, help="numbers of an embedding there (default 512)")
    parser.add_argument("--large", type=int, default=2**20, help="pairs of the part memory (default 1,048,576)")
    parser.add_argument("--large-dimension", type=int, default=128, help="numbers of an embedding there (default 128)")
    parser.add_argument("--seconds", type=float, default=20, help="of timed rounds (default 20)")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json", help="default: results/gpu.json")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(
            f"gpu.py measures on a GPU, and torch {torch.__version__} finds none: nothing was measured.",
            file=sys.stderr,
        )
        raise SystemExit(2)
    if not engine.has_kernels(batch(1, 1)[0].device):
        print(
            "gpu.py measures the Triton kernels, and they do not run on this GPU: nothing was measured.",
            file=sys.stderr,
        )
        raise SystemExit(2)

    result = finished(options.out)
    result.pop("pieces", None)
    result |= about()
    if "time" in options.parts:
        result["time"] = timed(options.rows, options.dimension, options.seconds, options.peers)
    if "memory" in options.parts:
        result["memory"] = large(options.large, options.large_dimension)
    result["bars"] = bars(result)
    write(options.out, result)
    print("\n".join([*result["bars"], f"Written: {options.out}"]))


def about() -> dict[str, Any]:
    """What it was measured on."""
    device = torch.cuda.get_device_properties(0)
    return {
        "date": datetime.date.today().isoformat(),
        "gpu": device.name,
        "compute capability": f"{device.major}.{device.minor}",
        "multiprocessors": device.multi_processor_count,
        "memory_GiB": round(device.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("contrapose", "torch", "triton")},
        "temperature": TEMPERATURE,
    }


def batch(rows: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Two views with cosine about 0.7, as leaves in bfloat16 on the GPU."""
    generator = torch.Generator("cuda").manual_seed(0)
    first, second = (
        torch.randn(rows, dimension, device="cuda", dtype=torch.bfloat16, generator=generator) for _ in range(2)
    )
    return first.requires_grad_(), second.add_(first.detach()).requires_grad_()


# -- contestants --------------------------------------------------------------------------------------------------


def contrapose(first: Tensor, second: Tensor) -> Tensor:
    loss = info_nce(first, second, temperature=TEMPERATURE, symmetric=True)
    loss.backward()
    return loss


def contrapose_by_torch(first: Tensor, second: Tensor) -> Tensor:
    kept, engine.has_kernels = engine.has_kernels, lambda device: False
    try:
        return contrapose(first, second)
    finally:
        engine.has_kernels = kept


def plain(first: Tensor, second: Tensor) -> Tensor:
    logits = functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T / TEMPERATURE
    own = torch.arange(len(logits), device=logits.device)
    loss = (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2
    loss.backward()
    return loss


def products_alone(first: Tensor, second: Tensor) -> None:
    """x y^T, once for the sums and once for the slopes, and the slopes' products with y and x."""
    x, y = first.detach(), second.detach()
    tile, into = (x.new_empty(min(SIDE, len(x)), size) for size in (min(SIDE, len(x)), x.shape[1]))
    for top in range(0, len(x), SIDE):
        for left in range(0, len(y), SIDE):
            rows, columns = x[top : top + SIDE], y[left : left + SIDE]
            each = tile[: len(rows), : len(columns)]
            for _ in range(2):
                torch.mm(rows, columns.T, out=each)
            torch.mm(each, columns, out=into[: len(rows)])
            torch.mm(each.T, rows, out=into[: len(columns)])


def inf_cl(folder: Path | None) -> Step | str:
    """Inf-CL's loss in both directions, or why there is none."""
    around = [] if folder is None or not folder.is_dir() else [folder, *sorted(folder.iterdir())]
    roots = [each for each in around if (each / "inf_cl").is_dir()]
    if not roots:
        return "no package inf_cl" + (f" in {folder}" if folder else "; give --peers FOLDER")
    sys.path.insert(0, str(roots[0].resolve()))
    try:
        cal_inf_loss = importlib.import_module("inf_cl").cal_inf_loss
    except Exception as fault:  # whatever it needs that is not here
        return f"{type(fault).__name__}: {fault}"
    finally:
        sys.path.pop(0)

    def both(first: Tensor, second: Tensor) -> Tensor:
        a, p = (functional.normalize(rows.float(), dim=-1) for rows in (first, second))
        loss = (cal_inf_loss(a / TEMPERATURE, p) + cal_inf_loss(p / TEMPERATURE, a)) / 2  # its `scale` wants processes
        loss.backward()
        return loss

    return both


# -- time ---------------------------------------------------------------------------------------------------------


def timed(rows: int, dimension: int, seconds: float, peers: Path | None) -> dict[str, Any]:
    steps: dict[str, Step] = {OURS: contrapose, BY_TORCH: contrapose_by_torch, PLAIN: plain, PRODUCTS: products_alone}
    peer = inf_cl(peers)
    left_out = {INF_CL: peer} if isinstance(peer, str) else {}
    steps |= {} if isinstance(peer, str) else {INF_CL: peer}
    leaves = batch(rows, dimension)
    memory, found = {}, {}
    for name, step in list(steps.items()):
        try:
            for _ in range(WARM_UP):
                memory[name] = round(peak(step, leaves) / 2**20, 1)
        except Exception as fault:
            left_out[name] = f"{type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}"
            memory.pop(name, None)
            del steps[name]
            continue
        finally:
            torch.cuda.empty_cache()
        if name != PRODUCTS:
            found[name] = float(once(step, leaves)[1]), leaves[0].grad.float()
    for name, why in left_out.items():
        print(f"left out  {name}: {why}", flush=True)
    if OURS not in steps:
        raise SystemExit(f"contrapose itself failed: {left_out[OURS]}")
    times = rounds(steps, leaves, seconds)
    value, slope = found[OURS]
    middle = {name: spread(each) for name, each in times.items()}
    for name, each in middle.items():
        print(f"{name:22} {each['median']:9.3f} ms  {memory[name]:10.1f} MiB", flush=True)
    return {
        "rows": rows,
        "dimension": dimension,
        "precision": "bfloat16",
        "milliseconds": middle,
        "peak_MiB_beyond_inputs": memory,
        "ceiling_fraction": round(middle[PRODUCTS]["median"] / middle[OURS]["median"], 3)
        if PRODUCTS in middle
        else None,
        "teraflops_of_products": round(8 * rows**2 * dimension / middle[PRODUCTS]["median"] / 1e9, 1)
        if PRODUCTS in middle
        else None,
        "relative_difference": {
            name: [abs(each / value - 1), float((gradient - slope).norm() / slope.norm())]
            for name, (each, gradient) in found.items()
        },
        "left_out": left_out,
        "rounds": {name: [round(each, 4) for each in some] for name, some in times.items()},
    }


def once(step: Step, leaves: tuple[Tensor, Tensor]) -> tuple[float, Tensor | None]:
    """Milliseconds of one step, and its loss."""
    for leaf in leaves:
        leaf.grad = None
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    loss = step(*leaves)
    stop.record()
    torch.cuda.synchronize()
    return start.elapsed_time(stop), None if loss is None else loss.detach()


def peak(step: Step, leaves: tuple[Tensor, Tensor]) -> int:
    """Bytes beyond what stood before, gradients of the inputs included."""
    for leaf in leaves:
        leaf.grad = None
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    once(step, leaves)
    return torch.cuda.max_memory_allocated() - before


def rounds(steps: dict[str, Step], leaves: tuple[Tensor, Tensor], seconds: float) -> dict[str, list[float]]:
    names, times = list(steps), {name: [] for name in steps}
    gc.collect()
    start, turn = time.perf_counter(), 0
    while turn < LEAST or (turn < MOST and time.perf_counter() - start < seconds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            times[name].append(once(steps[name], leaves)[0])
        turn += 1
    return times


# -- memory -------------------------------------------------------------------------------------------------------


def large(rows: int, dimension: int) -> dict[str, Any]:
    torch.cuda.empty_cache()
    leaves = batch(rows, dimension)
    inputs = torch.cuda.memory_allocated()
    once(contrapose, tuple(each[:256].detach().requires_grad_() for each in leaves))  # builds the kernels
    torch.cuda.reset_peak_memory_stats()
    spent, loss = once(contrapose, leaves)
    highest = torch.cuda.max_memory_allocated()
    print(f"{rows:,} x {dimension}: {highest / 2**30:.2f} GiB, {spent / 1000:.1f} s", flush=True)
    return {
        "rows": rows,
        "dimension": dimension,
        "precision": "bfloat16",
        "peak_GiB": round(highest / 2**30, 3),
        "of_it_inputs_GiB": round(inputs / 2**30, 3),
        "all_logits_would_take_GiB": round(rows**2 * 2 / 2**30, 1),
        "seconds": round(spent / 1000, 3),
        "loss": float(loss),
        "loss_at_chance": math.log(rows),
    }


def bars(result: dict[str, Any]) -> list[str]:
    """What is aimed at, and what was measured; the aims are for the default sizes."""
    lines = []

    def line(met: bool, said: str) -> None:
        lines.append(f"{'met' if met else 'missed':7}{said}")

    if "time" in result:
        part = result["time"]
        middle = {name: each["median"] for name, each in part["milliseconds"].items()}
        size = f"{part['rows']:,} x {part['dimension']} in bfloat16"
        line(middle[OURS] <= AIM_MS, f"forward and backward of {size}: {middle[OURS]:.2f} ms of {AIM_MS:g}")
        if part["ceiling_fraction"] is not None:
            lines.append(f"       {part['ceiling_fraction']:.2f} of the speed of its matrix products alone")
        if INF_CL in middle:
            times = middle[INF_CL] / middle[OURS]
            line(times >= AIM_TIMES, f"against Inf-CL's kernels: {times:.2f}x of {AIM_TIMES:g}x wanted")
    if "memory" in result:
        part = result["memory"]
        size = f"{part['rows']:,} x {part['dimension']} in bfloat16"
        line(part["peak_GiB"] < AIM_GIB, f"peak memory of {size}: {part['peak_GiB']:.2f} GiB of {AIM_GIB:g}")
    return lines


if __name__ == "__main__":
    main()

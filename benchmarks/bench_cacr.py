"""CACR's loss beside the released small-scale code: seconds of forward and backward, peak memory, and whether values and gradients agree.

python benchmarks/bench_cacr.py [--official losses/__init__.py] [--rows 256 1024] [--views 5] [--dimension 128] [--seconds 60]

"differences" is written here after the released code: a table of differences (b, b, d) for each pair of views. "products" is what plain torch can
do better: one matrix of products a pair. --official runs, in place of the first, the released file itself (small_scale_experiments/losses/__init__.py of
JegZheng/CACR-SSL), whose masks go to a GPU: `Tensor.cuda` stays where it is meanwhile. Rounds call every contestant once, in turn.
Writes results/cacr.json.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from statistics import median

import torch
from bench_objectives import Others, call, peak_memory, rounds
from measured import RESULTS, finished, machine, spread, write
from torch import Tensor
from torch.nn import functional

from contrapose.objectives import cacr

OURS, DIFFERENCES, PRODUCTS, OFFICIAL = "contrapose", "differences", "products", "released code"
T_POS, T_NEG = 1.0, 2.0
Contestant = Callable[[Tensor, Tensor, Tensor], Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, help="the released losses/__init__.py")
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--views", type=int, default=5)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)

    peer = {OFFICIAL: released(asked.official)} if asked.official else {DIFFERENCES: differences}
    contestants: dict[str, Contestant] = {OURS: ours, PRODUCTS: products, **peer}
    path = RESULTS / "cacr.json"
    result = finished(path)
    for rows in asked.rows:
        piece = measured(contestants, asked.views, rows, asked.dimension, asked.seconds)
        same = ("views", "rows", "dimension")
        result["pieces"] = [old for old in result["pieces"] if any(old[name] != piece[name] for name in same)] + [piece]
        show(piece)
    write(path, {"machine": machine(), "pieces": sorted(result["pieces"], key=lambda piece: piece["rows"])})


def ours(views: Tensor, _: Tensor, __: Tensor) -> Tensor:
    return cacr(functional.normalize(views, dim=-1).unbind(), t_pos=T_POS, t_neg=T_NEG, normalise=False)


def differences(views: Tensor, _: Tensor, __: Tensor) -> Tensor:
    z = functional.normalize(views, dim=-1)
    apart = ~torch.eye(z.shape[1], dtype=torch.bool)
    push = []
    for v, u in combinations(range(len(z)), 2):
        cost = (z[v][:, None] - z[u]).norm(dim=-1).square()[apart].view(len(apart), -1)
        push.append((cost * (-T_NEG * cost).softmax(1)).sum(1).mean())
    return attraction(z) - torch.stack(push).mean()


def products(views: Tensor, _: Tensor, __: Tensor) -> Tensor:
    z = functional.normalize(views, dim=-1)
    own = torch.eye(z.shape[1], dtype=torch.bool)
    push = []
    for v, u in combinations(range(len(z)), 2):
        cost = 2 - 2 * z[v] @ z[u].T
        push.append((cost * (-T_NEG * cost).masked_fill(own, -torch.inf).softmax(1)).sum(1).mean())
    return attraction(z) - torch.stack(push).mean()


def attraction(z: Tensor) -> Tensor:
    pull = []
    for v in range(len(z)):
        cost = torch.stack([(z[v] - z[u]).square().sum(-1) for u in range(len(z)) if u != v], dim=1)
        pull.append((cost * (T_POS * cost).softmax(1)).sum(1).mean())
    return torch.stack(pull).mean()


def released(file: Path) -> Contestant:
    specification = importlib.util.spec_from_file_location("released_losses", file)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    Tensor.cuda = lambda self, *given, **named: self

    def loss(views: Tensor, _: Tensor, __: Tensor) -> Tensor:
        z = list(functional.normalize(views, dim=-1).unbind())
        return module.our_loss1(z, tau_pos=T_POS)[0] + module.our_loss2(z, tau_neg=T_NEG)[0]

    return loss


def measured(contestants: dict[str, Contestant], views: int, rows: int, dimension: int, seconds: float) -> dict:
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(1, rows, dimension, generator=generator)
    inputs = (centre + torch.randn(views, rows, dimension, generator=generator), torch.empty(0), torch.empty(0))
    found = {name: call(loss, *inputs)[1:] for name, loss in contestants.items()}
    memory = {name: round(peak_memory(loss, inputs), 1) for name, loss in contestants.items()}
    with Others() as others:
        calls = {name: (lambda loss=loss: call(loss, *inputs)) for name, loss in contestants.items()}
        times = rounds(calls, seconds)
    value, gradient = found[OURS]
    return {
        "views": views,
        "rows": rows,
        "dimension": dimension,
        "seconds": {name: spread(each, 5) for name, each in times.items()},
        "rounds": len(times[OURS]),
        "peak_MiB": memory,
        "relative_difference": {
            name: [abs(other / value - 1), float((slope - gradient).norm() / gradient.norm())]
            for name, (other, slope) in found.items()
        },
        "times_as_fast": {name: round(median(each) / median(times[OURS]), 2) for name, each in times.items()},
        "times_the_memory": {name: round(each / memory[OURS], 2) for name, each in memory.items()},
        "share_of_others": others.share,
    }


def show(piece: dict) -> None:
    print(
        f"\n{piece['views']} views of {piece['rows']} x {piece['dimension']}, {piece['rounds']} rounds, others {piece['share_of_others']}"
    )
    for name, time in piece["seconds"].items():
        apart = ", ".join(f"{each:.0e}" for each in piece["relative_difference"][name])
        print(f"{name:16}{time['median'] * 1e3:10.1f} ms {piece['peak_MiB'][name]:10.1f} MiB   differs by {apart}")


if __name__ == "__main__":
    main()

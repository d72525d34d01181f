"""InfoNCE over several processes beside open_clip's and sentence-transformers' forms: seconds and traffic a step, and whose gradient it is.

python benchmarks/bench_processes.py --peers FOLDER [--processes 2 3] [--rows 2048 8192] [--dimension 512] [--seconds 20]

FOLDER: `pip install --no-deps --target FOLDER open_clip_torch`; sentence-transformers is installed with contrapose. All processes run here, one thread
each, over gloo. A step is the loss and its gradients of the rows of all processes, symmetric, in float32, from embeddings that are there already:
no encoder takes part. The forms take turns; what was measured replaces its own part of the result. Traffic is what went over the loopback device, counted once, so
it holds everything.

A gradient is compared with that of one process on all rows, after the averaging that DistributedDataParallel does: its size as a ratio and its
direction as a cosine, for the rows (what an encoder gets) and for the temperature. Exact is 1 and 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing
from measured import RESULTS, finished, machine, write
from peer_losses import find_module
from torch import Tensor
from torch.nn import functional

from contrapose import distributed
from contrapose.objectives import info_nce, info_nce_across

RESULT = RESULTS / "processes.json"
TEMPERATURE = 0.05
Form = Callable[[Tensor, Tensor, Tensor], Tensor]  # anchors and positives of one process, and the temperature


def gathered(a: Tensor, p: Tensor, t: Tensor) -> Tensor:
    """What contrapose's training loop does: both sides gathered, the pairs shared out."""
    whole = distributed.gather_rows(a), distributed.gather_rows(p)
    with distributed.shared_work():
        return info_nce(*whole, temperature=t, symmetric=True)


def one_sided(a: Tensor, p: Tensor, t: Tensor) -> Tensor:
    return info_nce_across(a, p, temperature=t, symmetric=True)


def open_clip(loss: ModuleType, **options: bool) -> Form:
    clip = loss.ClipLoss(rank=dist.get_rank(), world_size=dist.get_world_size(), **options)

    def form(a: Tensor, p: Tensor, t: Tensor) -> Tensor:
        return clip(functional.normalize(a, dim=-1), functional.normalize(p, dim=-1), 1 / t)

    return form


def sentence_transformers(losses: ModuleType) -> Form:
    def form(a: Tensor, p: Tensor, t: Tensor) -> Tensor:
        ranking = losses.MultipleNegativesRankingLoss(
            torch.nn.Identity(),
            scale=1 / t,
            gather_across_devices=True,
            directions=("query_to_doc", "doc_to_query"),
            partition_mode="per_direction",
        )
        return ranking.compute_loss_from_embeddings([a, p], None)

    return form


def forms(modules: dict[str, ModuleType]) -> dict[str, Form]:
    found: dict[str, Form] = {"contrapose, both sides gathered": gathered, "contrapose, one side travels": one_sided}
    if "open_clip" in modules:
        for name, options in {
            "as it stands": {},
            "gather_with_grad": {"gather_with_grad": True},
            "local_loss": {"local_loss": True},
            "local_loss, gather_with_grad": {"local_loss": True, "gather_with_grad": True},
        }.items():
            found[f"open_clip ClipLoss, {name}"] = open_clip(modules["open_clip"], **options)
    if "sentence-transformers" in modules:
        found["sentence-transformers MultipleNegativesRankingLoss, gather_across_devices"] = sentence_transformers(
            modules["sentence-transformers"]
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="a folder with the libraries that are not installed")
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 3])
    parser.add_argument("--rows", nargs="+", type=int, default=[2048, 8192], help="of all processes together")
    parser.add_argument("--dimension", type=int, default=512)
    parser.add_argument(
        "--seconds", type=float, default=20, help="of timed rounds for each number of processes and rows"
    )
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    cells = finished(options.out).get("cells", [])
    for world in options.processes:
        for rows in (asked - asked % world for asked in options.rows):  # the others' forms want shares of one size
            with tempfile.TemporaryDirectory() as folder:
                store, found = Path(folder) / "store", Path(folder) / "cell.json"
                cell = (world, rows, options.dimension, options.seconds, options.peers, str(store), str(found))
                torch.multiprocessing.spawn(process, args=cell, nprocs=world)
                new = json.loads(found.read_text(encoding="utf-8"))
            show(new)
            cells = [each for each in cells if (each["processes"], each["rows"]) != (world, rows)] + [new]
            write(options.out, {"what": __doc__.partition("\n")[0], **machine(), "cells": cells})


def process(
    rank: int, world: int, rows: int, dimension: int, seconds: float, peers: Path | None, store: str, out: str
) -> None:
    torch.set_num_threads(1)
    group = {"init_method": f"file://{store}", "timeout": datetime.timedelta(seconds=300)}
    dist.init_process_group("gloo", rank=rank, world_size=world, **group)
    peer = {name: find_module(name, peers) for name in ("open_clip", "sentence-transformers")}
    contestants = forms({name: module for name, (module, _) in peer.items() if module})
    generator = torch.Generator().manual_seed(0)
    anchors = torch.randn(rows, dimension, generator=generator)
    whole = anchors, anchors + torch.randn(rows, dimension, generator=generator)
    mine = [each.tensor_split(world)[rank] for each in whole]
    exact = gradients(lambda a, p, t: info_nce(a, p, temperature=t, symmetric=True), whole)
    own = exact[0].tensor_split(world)[rank]
    cell: dict[str, Any] = {"processes": world, "rows": rows, "dimension": dimension}
    cell["peers"] = {name: said for name, (_, said) in peer.items()}
    cell["forms"] = {name: compared(form, mine, own, exact[1], world) for name, form in contestants.items()}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    traffic: dict[str, list[int]] = {name: [] for name in contestants}
    until = time.perf_counter() + seconds
    while distributed.broadcast_object(len(times["contrapose, one side travels"]) < 3 or time.perf_counter() < until):
        for name, form in contestants.items():
            dist.barrier()
            sent, began = over_loopback(), time.perf_counter()
            gradients(form, mine)
            dist.barrier()
            times[name].append(time.perf_counter() - began)
            traffic[name].append(over_loopback() - sent)
    for name, figures in cell["forms"].items():
        low, _, high = quantiles(times[name], n=4)
        figures |= {"seconds": median(times[name]), "quartiles": [low, high], "rounds": len(times[name])}
        figures["MB"] = round(median(traffic[name]) / 1e6, 2)
        figures["all seconds"] = [round(each, 5) for each in times[name]]
    if rank == 0:
        Path(out).write_text(json.dumps(cell), encoding="utf-8")
    dist.barrier()
    dist.destroy_process_group()


def gradients(form: Form, rows: tuple[Tensor, Tensor] | list[Tensor]) -> tuple[Tensor, Tensor]:
    """Of both sides, (n, 2, d), and of the temperature, as this process has them."""
    leaves = [each.detach().clone().requires_grad_() for each in rows]
    temperature = torch.tensor(TEMPERATURE, requires_grad=True)
    form(*leaves, temperature).backward()
    return torch.stack([each.grad for each in leaves], 1), temperature.grad


def compared(form: Form, mine: list[Tensor], exact: Tensor, exact_temperature: Tensor, world: int) -> dict[str, float]:
    """Against one process on all rows, over all processes: sizes as ratios, and the cosine of the rows' gradients."""
    rows, temperature = gradients(form, mine)
    rows, temperature = rows / world, temperature / world  # DistributedDataParallel's mean
    sums = torch.stack([(rows * exact).sum(), rows.square().sum(), exact.square().sum(), temperature])
    dist.all_reduce(sums)
    along, square, exact_square, temperature = sums.tolist()
    return {
        "size of the rows' gradient": round(math.sqrt(square / exact_square), 6),
        "cosine of the rows' gradient": round(along / math.sqrt(square * exact_square), 6),
        "temperature's gradient": round(temperature / float(exact_temperature), 6),
    }


def over_loopback() -> int:
    """Bytes that the loopback device has passed on; what is sent over it is received by it, and counted once."""
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, counts = line.partition(":")
        if name.strip() == "lo":
            return int(counts.split()[0])
    return 0


def show(cell: dict[str, Any]) -> None:
    print(f"\n{cell['processes']} processes, {cell['rows']} rows x {cell['dimension']}")
    print(f"{'':78}{'ms':>9}{'MB':>9}{'rows: size':>12}{'cosine':>9}{'temperature':>13}")
    for name, figures in sorted(cell["forms"].items(), key=lambda pair: pair[1]["seconds"]):
        size, cosine, temperature = list(figures.values())[:3]
        print(
            f"{name:78}{figures['seconds'] * 1e3:9.1f}{figures['MB']:9.1f}{size:12.4f}{cosine:9.4f}{temperature:13.4f}"
        )


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()

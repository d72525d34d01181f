"""A step of SimCLR beside lightly's: the same ResNet-18 on 64 x 64 images, batch 256, head, loss, AdamW. Writes results/simclr_speed.json.

python benchmarks/bench_simclr.py --lightly FOLDER [--rows 256] [--rounds 3] [--note WORDS]

FOLDER holds lightly unpacked (pip download lightly==1.6.0 --no-deps; unzip). lightly needs torchvision, which does not import beside this build of torch, so
this file hands it an empty torchvision: its `NTXentLoss` and `SimCLRProjectionHead` never call it. Its transforms, which do, are left out: views are made beforehand for
both sides, as floats, and ours are timed on their own. Pieces take turns, each round from another one on, one thread, float32; a first step is left out. Seconds are of the processor.
"""

from __future__ import annotations

import argparse
import copy
import importlib.machinery
import json
import sys
import time
import types
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch
from measured import RESULTS, machine, spread, write
from torch import nn

from contrapose.data.batches import Batch, Data, Facts, seeded
from contrapose.image.encoder import ImageEncoder
from contrapose.image.simclr import SimCLR
from contrapose.objectives import nt_xent

RESULT = RESULTS / "simclr_speed.json"
SIDE = 64


class Empty(importlib.machinery.SourceFileLoader):
    """Any module of torchvision, with nothing in it that does anything."""

    def __init__(self) -> None: ...

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.partition(".")[0] in ("torchvision", "pytorch_lightning"):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = types.ModuleType(spec.name)
        module.__getattr__ = lambda name: MagicMock() if not name.startswith("__") else _absent(name)
        return module

    def exec_module(self, module: types.ModuleType) -> None: ...


def _absent(name: str) -> Any:
    raise AttributeError(name)


def theirs(folder: Path) -> tuple[Any, Any]:
    """lightly's loss and head."""
    sys.path.insert(0, str(folder))
    stand_in = Empty()
    sys.meta_path.insert(0, stand_in)
    from lightly.loss.ntx_ent_loss import NTXentLoss
    from lightly.models.modules.heads import SimCLRProjectionHead

    sys.meta_path.remove(stand_in)
    return NTXentLoss, SimCLRProjectionHead


def timed(action: Any) -> float:
    began = time.process_time()
    action()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lightly", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--note", default="", help="what the result should say of the circumstances")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)

    encoder = ImageEncoder.open("resnet-18", size=SIDE)  # before lightly: transformers must not see the stand-in
    loss_of, head_of = theirs(given.lightly)
    pixels = torch.randint(0, 256, (given.rows, 3, SIDE, SIDE), dtype=torch.uint8)
    rows = torch.arange(given.rows)
    batch = Batch(Data({"image": pixels}, given.rows), rows, 0, seeded(0))
    views = [torch.rand(given.rows, 3, SIDE, SIDE) for _ in range(2)]

    model = SimCLR(SimCLR.Settings(batch_size=given.rows), copy.deepcopy(encoder))
    model.build(Facts(given.rows))
    model.train()
    peer = nn.ModuleDict({"encoder": copy.deepcopy(encoder), "head": head_of(encoder.dim, encoder.dim, 128)}).train()
    criterion = loss_of(temperature=0.5)
    optimisers = [torch.optim.AdamW(each.parameters(), lr=1e-3, fused=True) for each in (model, peer)]

    def our_step() -> None:
        optimisers[0].zero_grad()
        embedded = {name: model.encoder(view) for name, view in zip(("first", "second"), views, strict=True)}
        model.objective(embedded, batch)["nt_xent"].backward()
        optimisers[0].step()

    def their_step() -> None:
        optimisers[1].zero_grad()
        criterion(*(peer["head"](peer["encoder"](view)) for view in views)).backward()
        optimisers[1].step()

    first, second = (torch.randn(given.rows, 128, requires_grad=True) for _ in range(2))
    pieces = {
        "views, ours": lambda: model.views(batch),
        "step without views, contrapose": our_step,
        "step without views, lightly": their_step,
        "loss forward and backward, contrapose": lambda: nt_xent(first, second, temperature=0.5).backward(),
        "loss forward and backward, lightly": lambda: criterion(first, second).backward(),
    }
    found: dict[str, list[float]] = {name: [] for name in pieces}
    names = list(pieces)
    for turn in range(given.rounds + 1):
        first_now = turn % len(names)  # whoever comes after the views finds the caches cold
        for name in names[first_now:] + names[:first_now]:
            seconds = timed(pieces[name])
            if turn:
                found[name].append(seconds)
    apart = abs(float(nt_xent(first, second, temperature=0.5) - criterion(first, second)))
    result = {
        "what": "a step of SimCLR on a ResNet-18 at 64 x 64, processor seconds of one thread, float32; views apart",
        **machine(),
        "versions": {name: version(name) for name in ("contrapose", "torch", "transformers", "kornia")}
        | {"lightly": "1.6.0"},
        "note": given.note,
        "rows": given.rows,
        "rounds": given.rounds,
        "the two losses differ by": apart,
        "seconds": {name: spread(seconds, 4) for name, seconds in found.items()},
    }
    write(RESULT, result)
    print(json.dumps({"seconds": result["seconds"], "apart": apart}, indent=1))


if __name__ == "__main__":
    main()

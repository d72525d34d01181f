"""An epoch of MCLRec beside its official code: the same data, sizes, batches and updates. Writes results/mclrec_speed.json.

    python benchmarks/bench_mclrec.py --official FOLDER --data FOLDER/dataset/Amazon_Beauty/Amazon_Beauty.txt

FOLDER is a checkout of github.com/QinHsiu/MCLRec at bc8d622 (MIT). Its model, augmenters, the loop of its trainer and the augmentation of its data
loader run as they are; the rest of its framework (RecBole 0.2) is left out, and so is the making of its batches but for the augmentation. Ours runs
the whole training loop. Rounds of `--steps` steps alternate, in one thread; the processor's seconds a step, the median over the rounds, times the steps of an
epoch, for which every beginning of every sequence is a row. Both at 64 dimensions, two blocks, fifty items, dropout 0.5, batch 256, in float32.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import types
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measured import RESULTS, machine, write

from contrapose.data.batches import Data, seeded, shuffled_batches
from contrapose.sequence._next_item import beginnings_to_learn
from contrapose.sequence.data import open_data, read_data
from contrapose.sequence.encoder import SequenceEncoder, open_encoder
from contrapose.sequence.mclrec import MCLRec
from contrapose.training.loop import fit
from contrapose.training.run_folder import RunFolder

RESULT = RESULTS / "mclrec_speed.json"
BATCH = 256
WEIGHTS = {"lmd": 0.03, "beta": 0.1}
SIZES = {
    "n_layers": 2, "n_heads": 2, "hidden_size": 64, "inner_size": 256, "hidden_dropout_prob": 0.5, "attn_dropout_prob": 0.5, "hidden_act": "gelu",
    "layer_norm_eps": 1e-12, "initializer_range": 0.02, "loss_type": "CE",
}  # fmt: skip
AUGMENTATION = {"crop_ratio": 0.5, "mask_ratio": 0.5, "reorder_ratio": 0.8}
FIELDS = {"USER_ID_FIELD": "user", "ITEM_ID_FIELD": "item_id", "LIST_SUFFIX": "_list", "ITEM_LIST_LENGTH_FIELD": "item_length", "NEG_PREFIX": "neg_",
          "MAX_ITEM_LIST_LENGTH": 50, "device": torch.device("cpu")}  # fmt: skip


def import_official(folder: Path) -> types.SimpleNamespace:
    """What is run of the official code. Its logs, colours and searches are not installed, and names that NumPy has dropped are given back."""
    for name in ("colorlog", "colorama", "hyperopt", "matplotlib", "matplotlib.pyplot"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["colorama"].init = lambda *given, **named: None
    sys.modules["matplotlib"].pyplot = sys.modules["matplotlib.pyplot"]
    for name, kind in {"bool": bool, "float": float, "int": int, "object": object}.items():
        if name not in np.__dict__:
            setattr(np, name, kind)
    sys.path.insert(0, str(folder))
    from recbole.data.dataloader.sequential_dataloader import SequentialDataLoader
    from recbole.data.interaction import Interaction
    from recbole.model.extractors import Extractor
    from recbole.model.sequential_recommender.mclrec import MCLRec as OfficialMCLRec
    from recbole.trainer.trainer import Trainer

    return types.SimpleNamespace(
        loader=SequentialDataLoader, interaction=Interaction, augmenter=Extractor, model=OfficialMCLRec, trainer=Trainer
    )


class Official:
    """The official model, augmenters and optimisers, with the loop of its trainer over batches of ours."""

    def __init__(self, official: types.SimpleNamespace, items: int) -> None:
        config = {
            **FIELDS,
            **SIZES,
            **AUGMENTATION,
            **WEIGHTS,
            "train_batch_size": BATCH,
            "tau": 1.0,
            "sim": "dot",
            "use_rl": 1,
        }
        counts = {"user": 1, "item_id": items + 1}
        dataset = types.SimpleNamespace(num=counts.__getitem__)
        self.official, self.config = official, config
        self.held = types.SimpleNamespace(
            model=official.model(config, dataset),
            joint=0,
            device=torch.device("cpu"),
            clip_grad_norm=None,
            _check_nan=lambda loss: None,
        )
        self.held.aug_1, self.held.aug_2 = (official.augmenter([64, 32, 16, 64], "gelu", None) for _ in range(2))
        augmenters = [*self.held.aug_1.parameters(), *self.held.aug_2.parameters()]
        self.held.optimizer, self.held.optimizer_1 = (
            torch.optim.Adam(each, lr=1e-3) for each in (self.held.model.parameters(), augmenters)
        )

    def train(self, data: Data, batches: list[torch.Tensor]) -> None:
        self.official.trainer._train_epoch(self.held, self.batches(data, batches), 0)

    def batches(self, data: Data, batches: list[torch.Tensor]) -> Any:
        for rows in batches:
            sequence = data.columns["sequence"][rows]
            batch = self.official.interaction(
                {
                    "item_id_list": sequence["items"],
                    "item_length": sequence["lengths"],
                    "item_id": data.columns["next"][rows],
                }
            )
            self.official.loader.mclrec_aug(types.SimpleNamespace(config=self.config), batch)
            yield batch


def ours(data: Data, encoder: SequenceEncoder, steps: int, seed: int) -> float:
    """Seconds of so many steps of the whole loop, without the setting up."""
    settings = MCLRec.Settings(
        batch_size=BATCH, steps=steps, seed=seed, precision="fp32", log_every=10**6, checkpoint_every=10**6,
        stochastic_weight=WEIGHTS["lmd"], learned_weight=WEIGHTS["beta"],
    )  # fmt: skip
    began = []

    class Timed(MCLRec):
        def before_step(self, batch: Any) -> None:
            began.append(time.process_time())
            super().before_step(batch)

    with tempfile.TemporaryDirectory() as folder:
        fit(
            lambda kind, chosen: kind(chosen, encoder),
            Timed,
            settings,
            data,
            RunFolder.create(Path(folder) / "run", {}),
        )
    return (began[-1] - began[0]) / (len(began) - 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="checkout of QinHsiu/MCLRec")
    parser.add_argument("--data", type=Path, required=True, help="a user a line: its number and its items, by spaces")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    lines = [line.split() for line in asked.data.read_text().splitlines()]
    table = read_data({"user": [line[0] for line in lines], "item": [line[1:] for line in lines]})
    encoder = open_encoder(None, {}, table)
    data = open_data(table, MCLRec.card, encoder)
    learned = data.take(beginnings_to_learn(data, 2, None))
    peer = Official(import_official(asked.official), len(table.items))
    rounds: dict[str, list[float]] = {"official": [], "contrapose": []}
    for number in range(asked.rounds + 1):
        batches = shuffled_batches(len(learned), BATCH, seeded(number))[: asked.steps]
        began = time.process_time()
        peer.train(learned, batches)
        rounds["official"].append((time.process_time() - began) / len(batches))
        rounds["contrapose"].append(ours(data, encoder, asked.steps + 1, number))
        print({name: round(each[-1], 4) for name, each in rounds.items()}, flush=True)
    steps = -(-len(learned) // BATCH)
    seconds = {name: each[1:] for name, each in rounds.items()}  # the first round warms up
    found = {
        "what": __doc__.partition("\n")[0], **machine(),
        "data": asked.data.name, "users": len(table), "items": len(table.items), "beginnings": len(learned), "steps of an epoch": steps,
        "processor seconds a step": {name: [round(each, 4) for each in values] for name, values in seconds.items()},
        "processor seconds an epoch": {name: round(median(values) * steps, 1) for name, values in seconds.items()},
        "times faster": round(median(seconds["official"]) / median(seconds["contrapose"]), 2),
    }  # fmt: skip
    print(json.dumps(found, indent=2))
    write(RESULT, found)


if __name__ == "__main__":
    main()

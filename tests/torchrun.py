"""Two steps of a method in float64 without dropout, in as many processes as torchrun started; the weights go to a file.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.torchrun METHOD SAMPLE_FOLDER OUT_FOLDER

Plain SGD at rate 1 without clipping: the weights after two steps differ by the sum of two gradients, and by what the method keeps (queues,
averages). With 11 rows the second batch is smaller, and uneven over two processes.
"""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

from torch import nn

from contrapose.catalogue import find_method
from contrapose.data.batches import Data
from contrapose.opening import rooms_of
from contrapose.training.encoder import Encoder, Encoders
from contrapose.training.loop import fit
from contrapose.training.method import Method
from contrapose.training.run_folder import RunFolder
from contrapose.training.setup import make_fabric
from tests.tiny import Tiny, tiny

BATCH = 6
EXACT = {
    "optimiser": "sgd",
    "learning_rate": 1.0,
    "warmup_steps": 0,
    "schedule": "constant",
    "clip_norm": None,
    "steps": 2,
}


def main(name: str, sample: Path, out: Path) -> None:
    tiny_sample = tiny(name, sample)
    method, encoder, data = opened(name, tiny_sample)
    own: dict[str, Any] = {**EXACT, "batch_size": BATCH, **tiny_sample.settings, **tiny_sample.exact}
    settings = method.Settings(**own, precision="fp64", log_every=1)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    fabric = make_fabric(settings.precision)
    folder = RunFolder.create(out, {}) if fabric.is_global_zero else RunFolder(out)
    fabric.barrier()
    fit(lambda kind, chosen: kind(chosen, copy.deepcopy(encoder)), method, settings, data, folder, fabric=fabric)


def opened(name: str, sample: Tiny) -> tuple[type[Method], Encoder | Encoders, Data]:
    """A method, and the encoder and rows of its sample as the loop takes them."""
    method = find_method(name)
    rooms = rooms_of(method.card.modality)
    table = rooms.data.read_data(sample.data, needs=method.card.columns)
    encoder = rooms.encoder.open_encoder(sample.encoder, {}, table)
    return method, encoder, rooms.data.open_data(table, method.card, encoder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

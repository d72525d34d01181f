"""Two steps of a text method in float64 without dropout, in as many processes as torchrun started; the weights go to a file.

    python -m torch.distributed.run --nproc-per-node 2 -m tests.torchrun METHOD ENCODER_FOLDER OUT_FOLDER

Plain SGD at rate 1 without clipping: the weights after two steps differ by the sum of two gradients, and by what the method keeps (queues,
averages). The second batch is smaller, and uneven over two processes.
"""

from __future__ import annotations

import copy
import random
import sys
from pathlib import Path

from torch import nn

from contrapose.catalogue import find_method
from contrapose.data.columns import Column
from contrapose.data.readers import read
from contrapose.text.data import open_data
from contrapose.text.encoder import TextEncoder
from contrapose.training.loop import fit
from contrapose.training.run_folder import RunFolder
from contrapose.training.setup import make_fabric
from tests.conftest import WORDS

ROWS, BATCH = 11, 6
EXACT = {
    "optimiser": "sgd",
    "learning_rate": 1.0,
    "warmup_steps": 0,
    "schedule": "constant",
    "clip_norm": None,
    "steps": 2,
}
OWN = {
    "moe_embeddings": {"temperature": 0.5, "learning_rate": 0.1},
    "pairs": {"learn_temperature": True, "temperature": 0.5},
    "esimcse": {"queue_size": 8, "temperature": 0.5},
    "debcse": {
        "candidates": 6,
        "hard_negatives": 2,
        "most_negative": 1.0,
        "mask_false_negatives": True,
        "temperature": 0.5,
    },
    "multicsr": {
        "positive_line": 0.0,
        "require_gap": False,
        "phi": 0.9,
        "temperature": 0.5,
        "reference_learning_rate": 0.1,
    },
    "defsent_plus": {"isotropy": "normalise", "isotropy_rounds": "every", "isotropy_scale": 2.0, "learning_rate": 0.1},
    "whitenedcse": {"groups": 16, "temperature": 0.5, "grad_through_whitening": True},
    "dse": {
        "task": "regression",
        "pooling": "concat_top2_max",
        "dropout": 0.0,
        "learning_rate": 0.01,
        "teacher_learning_rate": 0.01,
    },
}


def main(name: str, encoder_folder: Path, out: Path) -> None:
    method = find_method(name)
    own = {**EXACT, **OWN.get(name, {})}
    settings = method.Settings(**own, batch_size=BATCH, precision="fp64", log_every=1)
    encoder = TextEncoder.open(str(encoder_folder), max_tokens=16)
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    data = open_data(read(rows(method), needs=method.card.columns), method.card, encoder)
    fabric = make_fabric(settings.precision)
    folder = RunFolder.create(out, {}) if fabric.is_global_zero else RunFolder(out)
    fabric.barrier()
    fit(lambda kind, chosen: kind(chosen, copy.deepcopy(encoder)), method, settings, data, folder, fabric=fabric)


def rows(method: type) -> list[dict[str, str]]:
    """Random texts, numbers and names in every column that the method asks for, and groups that repeat."""
    drawn = random.Random(0)

    def value(column: Column) -> str:
        if column.kind == "text":
            return " ".join(drawn.choices(WORDS, k=drawn.randint(1, 9)))
        return str(drawn.randint(0, 1)) if column.kind == "number" else str(drawn.randint(0, 2))

    texts = [{column.name: value(column) for column in method.card.columns} for _ in range(ROWS)]
    return [{**text, "group_id": str(number // 2)} for number, text in enumerate(texts)]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

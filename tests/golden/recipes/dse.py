"""DSE's poolings of the top layers, and its three losses through the head for pairs."""

from __future__ import annotations

import re

import torch

from contrapose.text.dse import PairHead, distillation_loss, reduce_logits, task_loss
from contrapose.text.encoder import pool
from tests.golden.pieces import Arrays, Made, gradients, leaf

TASKS = ("multiclass", "binary", "regression")
OF_TASK = ("W0", "b0", "W1", "b1", "u", "v", "teacher_logits", "y")
INPUTS = ("hidden", "mask", "num_top", "distillation_coeff", *(f"{task}_{name}" for task in TASKS for name in OF_TASK))

WAITS: dict[str, str] = {}
SCORES = "`PairHead(dim, outputs)`"
LOSS = f"`task_loss(scores, labels, task)` and `distillation_loss(scores, teacher)` of {SCORES}, the teacher by `reduce_logits(logits, task)`"
CALLS = {
    "pool_*": '`pool(hidden, mask, "concat_top4_mean")` and its like',
    "*_student": SCORES,
    "*_hard": f"`task_loss(scores, labels, task)` of {SCORES}",
    "*_soft": f"`distillation_loss(scores, teacher)` of {SCORES}, the teacher by `reduce_logits(logits, task)`",
    "*_loss": LOSS,
    "*_grad_?": LOSS,
}


def recompute(given: Arrays, due: list[str]) -> Made:
    made: Made = {}
    hidden, mask, top = (
        [torch.tensor(layer) for layer in given["hidden"]],
        torch.tensor(given["mask"]),
        int(given["num_top"]),
    )
    for name in due:
        if found := re.fullmatch(r"pool_(concat|mean)_top_(mean|sqrt_mean|max)(_with_cls)?", name):
            joined, over, first = found.groups()
            pooling = f"{joined}_top{top}_{over.removesuffix('_mean')}{'_cls' if first else ''}"
            made[name] = pool(hidden, mask, pooling)
    share = float(given["distillation_coeff"])
    for task in {name.removesuffix("_W0") for name in given if name.endswith("_W0")}:
        made |= of_task(given, task, share)
    return made


def of_task(given: Arrays, task: str, share: float) -> Made:
    weights = {
        f"layers.{place}.{kind}": torch.tensor(given[f"{task}_{letter}{number}"])
        for number, place in enumerate((0, 2))
        for letter, kind in (("W", "weight"), ("b", "bias"))
    }
    u, v = leaf(given[f"{task}_u"]), leaf(given[f"{task}_v"])
    outputs, hidden = given[f"{task}_W1"].shape
    head = PairHead(u.shape[1], outputs, hidden=hidden).double()
    head.load_state_dict(weights)
    scores = head(u, v)
    hard = task_loss(scores, torch.tensor(given[f"{task}_y"]), task)
    soft = distillation_loss(scores, reduce_logits(torch.tensor(given[f"{task}_teacher_logits"]), task))
    loss = (1 - share) * hard + share * soft
    made = {f"{task}_student": scores, f"{task}_hard": hard, f"{task}_soft": soft, f"{task}_loss": loss}
    return made | gradients(loss, **{f"{task}_grad_u": u, f"{task}_grad_v": v})

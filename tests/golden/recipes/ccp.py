"""CCP's loss of centre and context with a bank a language, whichever branch has batch statistics; the head's weights are given."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import batch_norm, linear, normalize

from contrapose.objectives import info_nce
from tests.golden.pieces import Arrays, Made, filled_queue, gradients, leaf

INPUTS = (
    "h_center", "h_context", "W1", "b1", "W2", "b2", "bn_gamma", "bn_beta", "bn_running_mean", "bn_running_var", "bn_eps", "bn_momentum",
    "bank", "bank_ptr", "language", "tau", "win_n", "win_w", "cal_x", "cal_y",
)  # fmt: skip
HEAD = "ccp, because its head with batch statistics by turns is no objective; the losses take it from the recipe"
CALIBRATION = "ccp, because its calibration by language comes after training"
WAITS = {
    "*_z_center": HEAD,
    "*_z_context": HEAD,
    "*_running_*_after": HEAD,
    "win_pairs": "ccp, because its windows of sentences are a sampler",
    "cal_x_*": CALIBRATION,
    "cal_y_*": CALIBRATION,
    "cal_acc_*": CALIBRATION,
}
BANK = "`info_nce(centre, context, queue=bank, in_batch=False)`, and context before centre"
BATCH = "`info_nce(centre, context, queue=bank)`, and context before centre"
CALLS = {
    "*_loss_bank": BANK,
    "*_loss_bank_batch": BATCH,
    "*_grad_h_*": BATCH,
    "bank_after": "`Queue(…)` of the batch's language",
    "ptr_after": "`Queue(…)` of the batch's language",
}
MODES = {"A": (True, False), "B": (False, True), "sym": (True, True)}  # batch statistics for centre, for context


def recompute(given: Arrays, due: list[str]) -> Made:
    language = int(given["language"])
    queue = filled_queue(given["bank"][language], int(given["bank_ptr"][language]))
    made: Made = {}
    for mode in MODES:
        made |= losses(given, mode, queue.vectors.clone())
    queue.enqueue(head(torch.tensor(given["h_context"]), given, batch_statistics=MODES["A"][1]))
    bank, pointers = torch.tensor(given["bank"]), torch.tensor(given["bank_ptr"])
    bank[language], pointers[language] = queue.vectors, queue.pointer
    return made | {"bank_after": bank, "ptr_after": pointers}


def losses(given: Arrays, mode: str, bank: Tensor) -> Made:
    branches = {"center": leaf(given["h_center"]), "context": leaf(given["h_context"])}
    of_batch = dict(zip(branches, MODES[mode], strict=True))
    centre, context = (head(h, given, of_batch[name]) for name, h in branches.items())
    options = {"queue": bank, "temperature": float(given["tau"]), "similarity": "dot"}
    alone, both = (
        info_nce(centre, context, in_batch=in_batch, **options)
        + info_nce(context, centre, in_batch=in_batch, **options)
        for in_batch in (False, True)
    )
    made = {f"{mode}_loss_bank": alone, f"{mode}_loss_bank_batch": both}
    return made | gradients(both, **{f"{mode}_grad_h_{name}": h for name, h in branches.items()})


def head(h: Tensor, given: Arrays, batch_statistics: bool) -> Tensor:
    """Linear, BatchNorm, linear, unit length; the running statistics stand still."""
    w1, b1, w2, b2 = (torch.tensor(given[name]) for name in ("W1", "b1", "W2", "b2"))
    mean, variance, gamma, beta = (
        torch.tensor(given[f"bn_{name}"]) for name in ("running_mean", "running_var", "gamma", "beta")
    )
    options = {"weight": gamma, "bias": beta, "training": batch_statistics, "eps": float(given["bn_eps"])}
    return normalize(linear(batch_norm(linear(h, w1, b1), mean, variance, **options), w2, b2), dim=1)

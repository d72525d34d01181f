"""DirectPred: the running correlation of features, its predictor in every form, and the loss with its gradients."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from contrapose.image.directpred import Correlation, byol_loss, predictor_weights
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = ("f1_step*", "f2_step*", "target1", "target2", "rho", "eps")
WAITS: dict[str, str] = {}
CALLS = {
    "corr_step*": "`Correlation(dim, rho)`, updated with both views of each step",
    "W_official_step*": "`predictor_weights(correlation, eps=…)`",
    "W_paper_step*": '`predictor_weights(correlation, form="paper", eps=…)`',
    "W_official_eps_inside": '`predictor_weights(correlation, form="official_inside", eps=…)`',
    "W_official_directcopy": '`predictor_weights(correlation, form="directcopy", eps=…)`',
    "W_directcopy_frobenius": '`predictor_weights(correlation, form="directcopy_norm", eps=…)`',
    "byol_loss": "`byol_loss(predictions, targets)` of the last step's features through its predictor",
    "grad_f*": "`byol_loss(predictions, targets)`",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    eps, made = float(given["eps"]), {}
    correlation = Correlation(given["f1_step0"].shape[1], float(given["rho"])).double()
    steps = sorted(int(found[1]) for name in given if (found := re.fullmatch(r"f1_step(\d+)", name)))
    for step in steps:
        correlation.update(*(torch.tensor(given[f"f{view}_step{step}"]) for view in (1, 2)))
        last = correlation.matrix().clone()
        made |= {
            f"corr_step{step}": last,
            f"W_official_step{step}": predictor_weights(last, eps=eps),
            f"W_paper_step{step}": predictor_weights(last, form="paper", eps=eps),
        }
    made |= {
        "W_official_eps_inside": predictor_weights(last, form="official_inside", eps=eps),
        "W_official_directcopy": predictor_weights(last, form="directcopy", eps=eps),
        "W_directcopy_frobenius": predictor_weights(last, form="directcopy_norm", eps=eps),
    }
    return made | loss(given, made[f"W_official_step{steps[-1]}"], steps[-1])


def loss(given: Arrays, weights: Tensor, step: int) -> Made:
    first, second = leaf(given[f"f1_step{step}"]), leaf(given[f"f2_step{step}"])
    targets = torch.tensor(given["target1"]), torch.tensor(given["target2"])
    value = byol_loss((first @ weights.T, second @ weights.T), targets)
    return {"byol_loss": value} | gradients(value, grad_f1=first, grad_f2=second)

"""SimCSE's losses and poolings, and the aggregations of STS."""

from __future__ import annotations

import numpy as np
import torch

from contrapose.evaluation.similarity import pair_cosines, sts
from contrapose.objectives import info_nce
from contrapose.text.encoder import pool
from contrapose.text.simcse import logits

INPUTS = (
    "unsup_z",
    "sup_z",
    "temp",
    "hard_negative_weight",
    "pool_hidden",
    "pool_mask",
    "sts_e1",
    "sts_e2",
    "sts_gold",
    "sts_subset",
)

WAITS: dict[str, str] = {}
LOSS = "`info_nce(first, second)`, with negatives and their log-weight where it is supervised"
CALLS = {
    "*sup*_loss": LOSS,
    "*sup*_grad": LOSS,
    "*sup*_logits": "`logits(first, second, …)` of SimCSE",
    "pool_*": "`pool(hidden, mask, pooling)`",
    "sts_cos": "`pair_cosines(first, second)`",
    "sts_spearman_*": "`sts(cosines, gold, subset)`",
}


def recompute(given: dict[str, np.ndarray], due: list[str]) -> dict[str, np.ndarray]:
    temperature, weight = float(given["temp"]), float(given["hard_negative_weight"])
    made = {}
    for name, z, log_weight in (("unsup", "unsup_z", 0.0), ("sup", "sup_z", 0.0), ("supw", "sup_z", weight)):
        views = torch.tensor(given[z], requires_grad=True)
        anchors, positives, *negatives = views.unbind(1)
        options = {
            "temperature": temperature,
            "negatives": negatives[0] if negatives else None,
            "negative_log_weight": log_weight,
        }
        loss = info_nce(anchors, positives, **options)
        loss.backward()
        made[f"{name}_loss"], made[f"{name}_grad"] = loss.detach().numpy(), views.grad.numpy()
        made[f"{name}_logits"] = logits(anchors, positives, **options).detach().numpy()
    hidden, mask = torch.tensor(given["pool_hidden"]), torch.tensor(given["pool_mask"])
    for pooling in ("cls_before_pooler", "avg", "avg_first_last", "avg_top2"):
        made[f"pool_{pooling}"] = pool(list(hidden), mask, pooling).numpy()
    made["sts_cos"] = pair_cosines(given["sts_e1"], given["sts_e2"])
    figures = sts(made["sts_cos"], given["sts_gold"], given["sts_subset"])
    return made | {f"sts_spearman_{name}": np.array(value) for name, value in figures.items()}

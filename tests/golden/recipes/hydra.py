"""Hydra's loss over positives of any two classes, in the subspace that a gate opens for them; the gate is given."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from contrapose.objectives import supervised
from tests.golden.pieces import Arrays, Made, each_case, gradients, leaf, one_hot_columns

INPUTS = ("?_z", "?_k", "?_y1", "?_y2", "?_gate", "?_gatenet_*", "?_temperature")
WAITS = {
    "?_gate_eval_mode": "hydra, because the network that makes gates of two labels is its own",
    "?_logits_cosine": "hydra, because the gated cosine is its own; the loss takes it from the recipe",
    "?_pos_mask": "hydra, because the loss is told labels and never shows a mask",
    "?_neg_mask": "hydra, because the loss is told labels and never shows a mask",
}
OWN = 'denominator="own", ignored_labels=y1'
CALLS = {
    "?_*_cosine_pairmean": f'`supervised(gated cosines, one-hot columns, similarity="dot", {OWN}, reduction="pairs")`',
    "?_*_cosine_rowmean": f'`supervised(gated cosines, one-hot columns, similarity="dot", {OWN}, reduction="none")`',
    "?_loss_gate2dot_pairmean": f'`supervised(gate² z, k, similarity="dot", {OWN}, reduction="pairs")`',
    "?_loss_gate2dot_rowmean*": f'`supervised((gate² - alpha) z, k, similarity="dot", {OWN}, reduction="none")`',
}
TOLERANCES = {"?_loss_*_rowmean*": 1e-6}  # the official divisor is float32


def recompute(given: Arrays, due: list[str]) -> Made:
    return each_case(one_case, given, due)


def one_case(given: Arrays, due: list[str]) -> Made:
    z, gate = leaf(given["z"]), leaf(given["gate"])
    k = z if np.array_equal(given["z"], given["k"]) else leaf(given["k"])  # one view: each row is query and key
    first, second = torch.tensor(given["y1"]), torch.tensor(given["y2"])
    options = {
        "labels": second, "candidate_labels": first, "ignored_labels": first, "temperature": float(given["temperature"]),
        "denominator": "own", "similarity": "dot",
    }  # fmt: skip
    positives = (second[:, None] == first).sum(1)

    def row_mean(anchors: Tensor, candidates: Tensor) -> Tensor:
        rows = supervised(anchors, candidates, reduction="none", **options)
        return (rows * positives / (positives + 1e-6)).mean()

    gated = gated_cosines(z, k, gate)
    columns = one_hot_columns(gated)
    pair_mean = supervised(gated, columns, reduction="pairs", **options)
    unit, keys = normalize(z, dim=1), normalize(k, dim=1)
    made = {
        "loss_cosine_pairmean": pair_mean,
        "loss_cosine_rowmean": row_mean(gated, columns),
        "loss_gate2dot_pairmean": supervised(gate.square() * unit, keys, reduction="pairs", **options),
    }
    leaves = {"grad_z_cosine_pairmean": z, "grad_gate_cosine_pairmean": gate}
    made |= gradients(pair_mean, **leaves, **({} if k is z else {"grad_k_cosine_pairmean": k}))
    for name in due:
        if found := re.fullmatch(r"loss_gate2dot_rowmean(?:_alpha(.+))?", name):
            made[name] = row_mean((gate.square() - float(found[1] or 0)) * unit, keys)
    return made


def gated_cosines(z: Tensor, k: Tensor, gate: Tensor) -> Tensor:
    """(n, m): the cosine of an anchor and a key after both went through the anchor's gate."""
    return torch.einsum("nd,nmd->nm", normalize(gate * z, dim=1), normalize(gate[:, None] * k, dim=2))

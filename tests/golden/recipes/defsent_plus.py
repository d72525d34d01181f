"""DefSent+'s vectors of entries, its cross-entropy over all of them through both heads, and entries made isotropic by ICA."""

from __future__ import annotations

import re

import numpy as np
import torch

from contrapose.geometry import mean_cosine
from contrapose.text.defsent_plus import EntryHead, entry_cross_entropy, entry_vectors, isotropised
from contrapose.text.encoder import pool
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = ("def_hidden", "def_mask", "def_entry", "head_W", "head_b", "ce_x", "ce_y", "ica_in", "ica_sources", "sklearn_version")  # fmt: skip
WAITS: dict[str, str] = {}
LOSS = "`entry_cross_entropy(head, entries, index)` of `EntryHead(dim, activation)`"
ICA = '`isotropised(entries, "ica")`'
CALLS = {
    "entry_ac": '`entry_vectors(states, entry, entries)` of `pool(hidden, mask, "cls_before_pooler")`',
    "entry_amp": '`entry_vectors(states, entry, entries)` of `pool(hidden, mask, "avg")`',
    "ce_*_loss": LOSS,
    "ce_*_grad": LOSS,
    "ica_out": ICA,
    "ica_meancos_before": "`mean_cosine(entries)`",
    "ica_meancos_after": f"`mean_cosine(entries)` of {ICA}",
    "ica_cov_over_1e4": f"the covariance of {ICA} over 1e4",
}
POOLINGS = {"ac": "cls_before_pooler", "amp": "avg"}
# FastICA stops at a tolerance of 1e-4, so that the last digits of its sums reach the components.
TOLERANCES = {"ica_out": 1e-6}


def recompute(given: Arrays, due: list[str]) -> Made:
    made: Made = {}
    owner = torch.tensor(given["def_entry"])
    for name, pooling in POOLINGS.items():
        states = pool([torch.tensor(given["def_hidden"])], torch.tensor(given["def_mask"]), pooling)
        made[f"entry_{name}"] = entry_vectors(states, owner, int(owner.max()) + 1)
    index = torch.tensor(given["ce_y"])
    for name in due:
        if not (found := re.fullmatch(r"ce_(tanh|gelu)_(ac|amp)_loss", name)):
            continue
        activation, kind = found.groups()
        head = EntryHead(given["head_W"].shape[1], activation).double()
        head.load_state_dict({"0.weight": torch.tensor(given["head_W"]), "0.bias": torch.tensor(given["head_b"])})
        pooled = leaf(given["ce_x"])
        loss = entry_cross_entropy(head(pooled), made[f"entry_{kind}"], index)
        made |= {name: loss} | gradients(loss, **{f"ce_{activation}_{kind}_grad": pooled})
    return made | isotropic(torch.tensor(given["ica_in"]))


def isotropic(entries: torch.Tensor) -> Made:
    out, _ = isotropised(entries, "ica")
    return {
        "ica_out": out,
        "ica_meancos_before": mean_cosine(entries),
        "ica_meancos_after": mean_cosine(out),
        "ica_cov_over_1e4": np.cov(out.numpy().T, bias=True) / 1e4,
    }

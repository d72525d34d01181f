"""Shuffled group whitening with and without gradient through its roots, and WhitenedCSE's loss in both layouts of rows."""

from __future__ import annotations

import torch
from torch import Tensor

from contrapose.objectives import info_nce
from contrapose.text.encoder import Head
from contrapose.text.whitenedcse import shuffled_group_whitening, whitened_views
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = ("x", "perms", "num_groups", "cotangent", "head_W", "head_b", "temp")
WAITS: dict[str, str] = {}
SGW = "`shuffled_group_whitening(rows, orders, groups)`"
LOSS = "`whitened_views(views, orders, groups, layout=…)`, `Head(dim)` and `info_nce(first, other)`"
CALLS = {
    "y_official": SGW,
    "y_float64": SGW,
    "y_noshuffle_official": f"{SGW} with the channels as they stand",
    "grad_x_official": SGW,
    "grad_x_stopgrad": SGW,
    "grad_x_full": "`shuffled_group_whitening(rows, orders, groups, gradient=True)`",
    "loss_*": LOSS,
    "grad_loss_*_stopgrad": LOSS,
    "grad_loss_*_full": f"{LOSS}, with gradient=True",
}
# The official layer computes in float32.
TOLERANCES = dict.fromkeys(("y_official", "y_noshuffle_official", "grad_x_official"), 1e-5)


def recompute(given: Arrays, due: list[str]) -> Made:
    return layer(given) | losses(given)


def layer(given: Arrays) -> Made:
    x, orders, groups = leaf(given["x"]), torch.tensor(given["perms"]), int(given["num_groups"])
    made = {"y_noshuffle_official": shuffled_group_whitening(x, torch.arange(x.shape[1]).expand_as(orders), groups)}
    for name, gradient in (("stopgrad", False), ("full", True)):
        white = shuffled_group_whitening(x, orders, groups, gradient=gradient)
        made["y_official"] = made["y_float64"] = white
        made |= gradients((white * torch.tensor(given["cotangent"])).sum(), **{f"grad_x_{name}": x})
    return made | {"grad_x_official": made["grad_x_stopgrad"]}


def losses(given: Arrays) -> Made:
    x, made = leaf(given["x"]), {}
    v = len(given["perms"])
    stacked = {"per_view": x.unflatten(0, (v, -1)), "interleaved_official": x.unflatten(0, (-1, v)).transpose(0, 1)}
    for name, views in stacked.items():
        for kind, gradient in (("stopgrad", False), ("full", True)):
            terms = loss_terms(given, views, "official" if "official" in name else "paper", gradient)
            made |= {f"loss_terms_{name}": terms, f"loss_{name}": terms.sum()}
            made |= gradients(terms.sum(), **{f"grad_loss_{name}_{kind}": x})
    return made


def loss_terms(given: Arrays, views: Tensor, layout: str, gradient: bool) -> Tensor:
    """(v - 1,): the first view against each other one."""
    head = Head(views.shape[-1]).double()
    head.load_state_dict({"0.weight": torch.tensor(given["head_W"]), "0.bias": torch.tensor(given["head_b"])})
    orders, groups = torch.tensor(given["perms"]), int(given["num_groups"])
    first, *others = head(whitened_views(views, orders, groups, layout=layout, gradient=gradient)).unbind()
    return torch.stack([info_nce(first, other, temperature=float(given["temp"])) for other in others])

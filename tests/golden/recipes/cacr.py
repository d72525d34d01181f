"""CACR's attraction, repulsion and weights, its named variants, and the two forms with a momentum encoder."""

from __future__ import annotations

import torch
from torch import Tensor

from contrapose.objectives import (
    attraction_weights,
    cacr,
    cacr_attraction,
    cacr_euclidean,
    cacr_rbf,
    cacr_repulsion,
    repulsion_weights,
)
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = ("z", "alpha", "beta", "tau_pos", "tau_neg", "tau_plus", "T", "q_raw", "k_raw")
WAITS: dict[str, str] = {}
CALLS = {
    "attraction": "`cacr_attraction(views, t_pos=…, alpha=…)`",
    "repulsion": "`cacr_repulsion(views, t_neg=…, beta=…)`",
    "loss": "`cacr(views, …)`",
    "grad_z": "`cacr(views, normalise=False)`",
    "grad_z_detached_weights": "`cacr(views, detach_weights=True, normalise=False)`",
    "loss_uniform_*": '`cacr(views, variant="uniform")`, or "uniform_pos", "uniform_neg"',
    "repulsion_debiased": "`cacr_repulsion(views, tau_plus=…)`",
    "w_pos_last_query": "`attraction_weights(costs, t_pos)`",
    "w_neg_last_pair": "`repulsion_weights(first, second, t_neg)`",
    "rbf_*": "`cacr_rbf(queries, keys, temperature=T)`",
    "euclid_asym_*": '`cacr_euclidean(queries, keys, temperature=T, reduction="sum")`',
}


def recompute(given: Arrays, due: list[str]) -> Made:
    z = leaf(given["z"])
    t_pos, t_neg, alpha, beta = (float(given[name]) for name in ("tau_pos", "tau_neg", "alpha", "beta"))
    options = {"t_pos": t_pos, "t_neg": t_neg, "alpha": alpha, "beta": beta, "normalise": False}
    views = z.unbind()

    def variant(name: str) -> Tensor:
        return cacr(views, variant=name, **options)

    *others, last = views
    costs = torch.stack([(last - other).square().sum(1) for other in others], dim=1)
    made = {
        "attraction": cacr_attraction(views, t_pos=t_pos, alpha=alpha),
        "repulsion": cacr_repulsion(views, t_neg=t_neg, beta=beta),
        "loss": cacr(views, **options),
        "loss_uniform_both": variant("uniform"),
        "loss_uniform_pos": variant("uniform_pos"),
        "loss_uniform_neg": variant("uniform_neg"),
        "repulsion_debiased": cacr_repulsion(views, t_neg=t_neg, beta=beta, tau_plus=float(given["tau_plus"])),
        "w_pos_last_query": attraction_weights(costs, t_pos),
        "w_neg_last_pair": repulsion_weights(views[-2], views[-1], t_neg),
    }
    made |= gradients(made["loss"], grad_z=z)
    made |= gradients(cacr(views, detach_weights=True, **options), grad_z_detached_weights=z)
    return made | asymmetric(given)


def asymmetric(given: Arrays) -> Made:
    queries, keys, t = leaf(given["q_raw"]), torch.tensor(given["k_raw"]), float(given["T"])
    made = {
        "rbf_loss": cacr_rbf(queries.unbind(), keys, temperature=t),
        "euclid_asym_official_sum": cacr_euclidean(queries.unbind(), keys, temperature=t, reduction="sum"),
    }
    made |= gradients(made["rbf_loss"], rbf_grad_q=queries)
    return made | gradients(made["euclid_asym_official_sum"], euclid_asym_grad_q=queries)

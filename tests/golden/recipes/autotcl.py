"""AutoTCL's learned view, its two levels of contrast, and what the augmentation network minimises."""

from __future__ import annotations

import torch
from torch import Tensor

from contrapose.objectives import info_nce
from contrapose.series.autotcl import (
    augmented,
    concrete_mask,
    expected_mask,
    kept_share,
    local_contrast,
    mean_discrepancy,
    official_smoothness,
    over_budget,
    pooled,
    total_variation,
)
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = (
    "x", "h", "g", "uniform_noise", "gumbel_bias", "gamma_zeta", "z1", "z2", "temperature", "local_k",
    "smooth_idx?", "reg_threshold", "reg_weight", "smooth_weight",
)  # fmt: skip
WAITS: dict[str, str] = {}
VIEW = "`augmented(x, concrete_mask(h, noise, bias=…, stretch=…), g)`"
GLOBAL = "`info_nce(pooled(z1), pooled(z2), temperature=…)`"
LOCAL = "`local_contrast(z1, local_k)`"
CALLS = {
    "soft_mask": "`concrete_mask(h, noise, bias=…, stretch=…, hard=False)`",
    "hard_mask": "`concrete_mask(h, noise, bias=…, stretch=…)`",
    "soft_mask_logit_variant": "`concrete_mask(logit of h, noise, bias=…, stretch=…, hard=False)`",
    "x_aug": VIEW,
    "grad_?_of_sumsq": VIEW,
    "eval_mask": "`expected_mask(h, stretch=…)`",
    "global_nce": GLOBAL,
    "grad_z?_global": GLOBAL,
    "local_nce_per_series": LOCAL,
    "local_nce_batch_mean": f"{LOCAL}, its mean",
    "local_nce_official_first_series_only": f"{LOCAL}, its first",
    "mmd": "`mean_discrepancy(pooled(z1), pooled(z2))`",
    "grad_z?_mmd": "`mean_discrepancy(pooled(z1), pooled(z2))`",
    "smooth_official": "`official_smoothness(h, first, second)`, its mean",
    "total_variation_of_h": "`total_variation(h)`, its mean",
    "reg_relu": "`over_budget(kept_share(h), threshold)`",
    "aug_loss_official": "`mean_discrepancy(…)`, `over_budget(…)` and `official_smoothness(…)`, weighted",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return view(given) | contrasts(given) | augmentation_loss(given)


def view(given: Arrays) -> Made:
    x, noise, h, g = torch.tensor(given["x"]), torch.tensor(given["uniform_noise"]), leaf(given["h"]), leaf(given["g"])
    widths = {"bias": float(given["gumbel_bias"]), "stretch": float(given["gamma_zeta"])}
    mask = concrete_mask(h, noise, **widths)
    made = augmented(x, mask, g)
    return {
        "soft_mask": concrete_mask(h, noise, **widths, hard=False),
        "hard_mask": mask,
        "soft_mask_logit_variant": concrete_mask(h.logit(), noise, **widths, hard=False),
        "x_aug": made,
        "eval_mask": expected_mask(h, stretch=widths["stretch"]),
        **gradients(made.square().sum(), grad_h_of_sumsq=h, grad_g_of_sumsq=g),
    }


def contrasts(given: Arrays) -> Made:
    z1, z2 = leaf(given["z1"]), leaf(given["z2"])
    whole = info_nce(pooled(z1), pooled(z2), temperature=float(given["temperature"]))
    local = local_contrast(z1, int(given["local_k"]))
    return {
        "global_nce": whole,
        **gradients(whole, grad_z1_global=z1, grad_z2_global=z2),
        "local_nce_per_series": local,
        "local_nce_batch_mean": local.mean(),
        "local_nce_official_first_series_only": local[0],
    }


def augmentation_loss(given: Arrays) -> Made:
    z1, z2, h = leaf(given["z1"]), leaf(given["z2"]), torch.tensor(given["h"])
    discrepancy = mean_discrepancy(pooled(z1), pooled(z2))
    budget = over_budget(kept_share(h), float(given["reg_threshold"]))
    smoothness: Tensor = official_smoothness(
        h, torch.tensor(given["smooth_idx0"]), torch.tensor(given["smooth_idx1"])
    ).mean()
    return {
        "mmd": discrepancy,
        **gradients(discrepancy, grad_z1_mmd=z1, grad_z2_mmd=z2),
        "smooth_official": smoothness,
        "total_variation_of_h": total_variation(h).mean(),
        "reg_relu": budget,
        "aug_loss_official": discrepancy
        + float(given["reg_weight"]) * budget
        + float(given["smooth_weight"]) * smoothness,
    }

"""The losses that temperature and hard negatives make of InfoNCE, as released and as in the paper; their limits; the meters."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from contrapose.evaluation.retrieval import retrieval_by_score
from contrapose.geometry import tolerance, uniformity
from contrapose.hardness import penalty_entropy, relative_penalties, temperature_for_entropy
from contrapose.objectives import (
    decoupled,
    hard_contrastive,
    info_nce,
    log_partition,
    nearest_negative,
    released,
    simple_contrastive,
)
from tests.golden.pieces import Arrays, Made, gradients, leaf, one_hot_columns

INPUTS = (
    "points", "bank", "index", "temperature", "hard_temperature", "n_background", "n_background_small", "n_hard_negatives_paper",
    "limit_small_tau", "limit_large_tau", "target_entropy", "ut_features", "ut_labels",
)  # fmt: skip
WAITS: dict[str, str] = {}
CALLS = {
    "infonce_*_official": "`released(info_nce(points, bank, index=…))`",
    "hard_*_official": "`released(hard_contrastive(…, hardest=K, positive_kept=False))`",
    "hardsmallk_*_official": "`released(hard_contrastive(…, hardest=4, positive_kept=False))`, with the file's small K",
    "simple_*_official": "`simple_contrastive(…, positive_in_sum=True)`",
    "hardsimple_*_official": "`simple_contrastive(…, hardest=K, positive_in_sum=True)`",
    "ratio_*_official": "`released(decoupled(points, bank, index=…))`",
    "nearest_*_official": "`nearest_negative(points, bank, index=…)`",
    "infonce_loss_paper": "`info_nce(points, bank, index=…)`",
    "hard_loss_paper": "`hard_contrastive(…, hardest=K - 1)`",
    "hardsmallk_loss_paper": "`hard_contrastive(…, hardest=3)`, one less than the file's small K",
    "simple_loss_paper_sum_lambda1": "`simple_contrastive(…, weight=1.0)`",
    "simple_loss_paper_mean": "`simple_contrastive(…)`",
    "hardsimple_loss_paper_mean": "`simple_contrastive(…, hardest=K - 1)`",
    "sim": "plain algebra: products of unit rows",
    "neg_sims": "plain algebra: `sim` without each anchor's positive",
    "rank_of_positive": "`retrieval_by_score(…)`: 1 / mrr - 1",
    "P": "`log_partition(points, bank)`: the exponential of a logit less the partition",
    "dL_dspos": '`info_nce(sim, one-hot columns, similarity="dot")`: its gradient at the positive',
    "dL_dsneg": '`info_nce(sim, one-hot columns, similarity="dot")`: its gradient elsewhere',
    "r_tau*": "`relative_penalties(neg_sims, temperature=…)`",
    "entropy_tau*": "`penalty_entropy(neg_sims, temperature=…)`",
    "entropy_search_tau_official": "`temperature_for_entropy(neg_sims, H, halvings=13)`",
    "entropy_search_entropy_official": "`relative_penalties(neg_sims, …)` at the temperatures of `temperature_for_entropy(…)`, with the official 1e-7 in the logarithm",
    "limit_small_tau_times_loss": '`info_nce(…, reduction="none")` times a small temperature',
    "limit_triplet": '`nearest_negative(…, reduction="none")`',
    "limit_large_tau_value": '`info_nce(…, reduction="none")` at a large temperature, less log(n + 1)',
    "limit_simple": '`simple_contrastive(…, reduction="none")` n / (n + 1)',
    "uniformity_t2": "`uniformity(features)`",
    "tolerance_paper_all_pairs": "`tolerance(features, labels)`",
    "tolerance_same_class_mean": '`tolerance(features, labels, mean_over="same_label")`',
    "tolerance_paper_all_ordered_incl_self": "`tolerance(features, labels)`, with each row's pair with itself added",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return losses(given) | similarities(given) | limits(given) | hardness(given, due) | meters(given)


def losses(given: Arrays) -> Made:
    bank, index = torch.tensor(given["bank"]), torch.tensor(given["index"])
    t, hard_t = float(given["temperature"]), float(given["hard_temperature"])
    k, small_k = int(given["n_background"]), int(given["n_background_small"])
    fewer = int(given["n_hard_negatives_paper"])
    points = leaf(given["points"])
    columns = {"index": index, "reduction": "none"}

    def hard(hardest: int, positive_kept: bool = True) -> Tensor:
        return hard_contrastive(
            points, bank, temperature=hard_t, hardest=hardest, positive_kept=positive_kept, **columns
        )

    official = {
        "infonce": released(info_nce(points, bank, temperature=t, **columns)),
        "hard": released(hard(k, positive_kept=False)),
        "hardsmallk": released(hard(small_k, positive_kept=False)),
        "simple": simple_contrastive(points, bank, positive_in_sum=True, **columns),
        "hardsimple": simple_contrastive(points, bank, hardest=k, positive_in_sum=True, **columns),
        "ratio": released(decoupled(points, bank, temperature=t, **columns)),
        "nearest": nearest_negative(points, bank, **columns),
    }
    paper = {
        "infonce_loss_paper": info_nce(points, bank, temperature=t, **columns),
        "hard_loss_paper": hard(fewer),
        "hardsmallk_loss_paper": hard(small_k - 1),
        "simple_loss_paper_sum_lambda1": simple_contrastive(points, bank, weight=1.0, **columns),
        "simple_loss_paper_mean": simple_contrastive(points, bank, **columns),
        "hardsimple_loss_paper_mean": simple_contrastive(points, bank, hardest=fewer, **columns),
    }
    made: Made = {name: each.mean() for name, each in paper.items()}
    for name, each in official.items():
        made |= {f"{name}_loss_official": each.mean()} | gradients(each.mean(), **{f"{name}_grad_official": points})
    return made


def similarities(given: Arrays) -> Made:
    points, bank = normalize(torch.tensor(given["points"]), dim=1), torch.tensor(given["bank"])
    index, t = torch.tensor(given["index"]), float(given["temperature"])
    sim = (points @ normalize(bank, dim=1).T).requires_grad_()
    ranked = retrieval_by_score(lambda rows: sim.detach().numpy()[rows], *sim.shape, given["index"][:, None])
    logs = sim / t - log_partition(points, bank, temperature=t)[:, None]
    loss = info_nce(sim, one_hot_columns(sim), index=index, temperature=t, similarity="dot", reduction="sum")
    (slope,) = torch.autograd.grad(loss, sim)
    return {
        "sim": sim,
        "neg_sims": without(sim, index),
        "rank_of_positive": np.rint(1 / ranked["mrr"]).astype(int) - 1,
        "P": logs.exp(),
        "dL_dspos": slope.gather(1, index[:, None])[:, 0],
        "dL_dsneg": without(slope, index),
    }


def limits(given: Arrays) -> Made:
    points, bank = torch.tensor(given["points"]), torch.tensor(given["bank"])
    columns = {"index": torch.tensor(given["index"]), "reduction": "none"}
    small, large, m = float(given["limit_small_tau"]), float(given["limit_large_tau"]), len(bank)
    return {
        "limit_small_tau_times_loss": small * info_nce(points, bank, temperature=small, **columns),
        "limit_triplet": nearest_negative(points, bank, **columns),
        "limit_large_tau_value": large * (info_nce(points, bank, temperature=large, **columns) - np.log(m)),
        "limit_simple": simple_contrastive(points, bank, **columns) * (m - 1) / m,
    }


def hardness(given: Arrays, due: list[str]) -> Made:
    points, bank = normalize(torch.tensor(given["points"]), dim=1), normalize(torch.tensor(given["bank"]), dim=1)
    negatives = without(points @ bank.T, torch.tensor(given["index"]))
    made: Made = {}
    for name in due:
        kind, found, temperature = name.partition("_tau")
        if found and kind in ("r", "entropy"):
            figure = relative_penalties if kind == "r" else penalty_entropy
            made[name] = figure(negatives, temperature=float(temperature))
    searched = temperature_for_entropy(negatives, float(given["target_entropy"]), halvings=13)
    penalties = relative_penalties(negatives, temperature=searched)
    return made | {
        "entropy_search_tau_official": searched,
        "entropy_search_entropy_official": -(penalties * (penalties + 1e-7).log()).sum(1),
    }


def meters(given: Arrays) -> Made:
    features, labels = torch.tensor(given["ut_features"]), torch.tensor(given["ut_labels"])
    all_pairs, n = tolerance(features, labels), len(features)
    return {
        "uniformity_t2": uniformity(features),
        "tolerance_paper_all_pairs": all_pairs,
        "tolerance_same_class_mean": tolerance(features, labels, mean_over="same_label"),
        "tolerance_paper_all_ordered_incl_self": ((n - 1) * all_pairs + 1) / n,
    }


def without(scores: Tensor, index: Tensor) -> Tensor:
    """(b, m) to (b, m - 1): each row without its positive."""
    apart = torch.ones_like(scores, dtype=torch.bool).scatter(1, index[:, None], False)
    return scores[apart].view(len(scores), -1)

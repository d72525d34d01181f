"""SupReMix's loss and its ablations over mixtures that the recipe makes from given shares."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from contrapose.objectives import log_partition, supervised
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = ("z_view?", "y", "lam", "tau", "window", "beta_params")
MIXING = "supremix, because how it mixes is its own; the losses take the mixtures from the recipe"
WAITS = {"n_*": MIXING, "example_*": MIXING}
PARTITION = '`log_partition(z, real and mixed, pair=log weights, similarity="dot")` less the mean over positives'
TWICE = "`log_partition(…)` of real columns and of mixed ones, each shifted by its own maximum, less the mean over positives"
CALLS = {
    "loss": PARTITION,
    "per_anchor": PARTITION,
    "grad_z": PARTITION,
    "loss_no_weight": PARTITION,
    "loss_mix_*": PARTITION,
    "loss_no_mix": PARTITION,
    "loss_supcon": '`supervised(z, labels=y, similarity="dot")`',
    "*_released_code_separate_max": TWICE,
}


class Columns(NamedTuple):
    """What the anchors are told from: vectors (c, d), which of them are an anchor's own and which its positives, and weights, (n, c)."""

    vectors: Tensor
    kept: Tensor
    positive: Tensor
    weight: Tensor


def recompute(given: Arrays, due: list[str]) -> Made:
    z = leaf(torch.cat([torch.tensor(given[f"z_view{view}"]) for view in (1, 2)]).numpy())
    y, t = torch.tensor(given["y"]).repeat(2), float(given["tau"])
    real, negatives, positives = real_columns(z, y), mixed_negatives(z, y, given), mixed_positives(z, y, given)
    both = [real, negatives, positives]
    each = per_anchor(z, both, t)
    released = separate_maxima(z, real, joined([negatives, positives]), t)
    made = {
        "loss": each.mean(),
        "per_anchor": each,
        "loss_no_weight": per_anchor(z, both, t, weighted=False).mean(),
        "loss_mix_neg_only": per_anchor(z, [real, negatives], t).mean(),
        "loss_mix_pos_only": per_anchor(z, [real, positives], t).mean(),
        "loss_no_mix": per_anchor(z, [real], t).mean(),
        "loss_supcon": supervised(z, labels=y.unique(return_inverse=True)[1], temperature=t, similarity="dot"),
        "loss_released_code_separate_max": released,
    }
    return made | gradients(each.mean(), grad_z=z) | gradients(released, grad_z_released_code_separate_max=z)


def per_anchor(z: Tensor, columns: list[Columns], t: float, weighted: bool = True) -> Tensor:
    """(n,): the partition over all of an anchor's columns, less the mean logit of its positives."""
    over = joined(columns)
    return partition(z, over, t, weighted) - mean_positive(z, over, t)


def partition(z: Tensor, over: Columns, t: float, weighted: bool = True) -> Tensor:
    log_weight = (over.weight.log() if weighted else torch.zeros_like(over.weight)).masked_fill(~over.kept, -math.inf)
    return log_partition(z, over.vectors, temperature=t, pair=log_weight, similarity="dot")


def mean_positive(z: Tensor, over: Columns, t: float) -> Tensor:
    share = over.positive.to(z) / over.positive.sum(1, keepdim=True)
    return (z * (share @ over.vectors)).sum(1) / t


def separate_maxima(z: Tensor, real: Columns, mixed: Columns, t: float) -> Tensor:
    """The released code shifts real logits (an anchor's with itself among them) and mixed ones by maxima of their own, which changes the loss."""
    with torch.no_grad():
        shifts = [(z @ z.T / t).amax(1), (z @ mixed.vectors.T / t).masked_fill(~mixed.kept, -math.inf).amax(1)]
    parts = [partition(z, columns, t) - shift for columns, shift in zip((real, mixed), shifts, strict=True)]
    number = [columns.positive.sum(1) for columns in (real, mixed)]
    shifted = sum(n * shift for n, shift in zip(number, shifts, strict=True)) / sum(number)
    return (torch.stack(parts).logsumexp(0) - mean_positive(z, joined([real, mixed]), t) + shifted).mean()


def real_columns(z: Tensor, y: Tensor) -> Columns:
    others = ~torch.eye(len(z), dtype=torch.bool)
    return Columns(z, others, others & (y[:, None] == y), 1 + (y[:, None] - y).abs())


def mixed_negatives(z: Tensor, y: Tensor, given: Arrays) -> Columns:
    """One for every other label in the batch: the anchor with a share of that view. No gradient, and not normalised."""
    i, k = (y[:, None] != y).nonzero(as_tuple=True)
    share = torch.tensor(given["lam"])[i, k]
    vectors = (share[:, None] * z[i] + (1 - share[:, None]) * z[k]).detach()
    apart = (y[i] - (share * y[i] + (1 - share) * y[k])).abs()
    return own(len(z), i, vectors, torch.zeros_like(i, dtype=torch.bool), 1 + apart)


def mixed_positives(z: Tensor, y: Tensor, given: Arrays) -> Columns:
    """One for every pair of views on both sides of the anchor's label and near it, mixed so that the label is the anchor's."""
    below, above = (y[:, None] - y)[:, :, None], (y - y[:, None])[:, None]
    window = float(given["window"])
    i, j, k = ((below > 0) & (below < window) & (above > 0) & (above < window)).nonzero(as_tuple=True)
    share = ((y[k] - y[i]) / (y[k] - y[j]))[:, None]
    vectors = (share * z[j] + (1 - share) * z[k]).detach()
    return own(len(z), i, vectors, torch.ones_like(i, dtype=torch.bool), torch.ones(len(i), dtype=z.dtype))


def own(n: int, anchor: Tensor, vectors: Tensor, positive: Tensor, weight: Tensor) -> Columns:
    """Columns that one anchor each has."""
    kept = torch.arange(n)[:, None] == anchor
    return Columns(vectors, kept, kept & positive, weight.expand(n, -1))


def joined(columns: list[Columns]) -> Columns:
    return Columns(
        torch.cat([each.vectors for each in columns]),
        *(torch.cat(each, 1) for each in list(zip(*columns, strict=True))[1:]),
    )

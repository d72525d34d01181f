"""How hard a contrastive loss is on each negative, and how temperature sets that: figures of similarities; torch alone.

After "Understanding the Behaviour of Contrastive Loss" (Wang & Liu, CVPR 2021). All take `negatives`, (..., m): for each
anchor (any leading shape) its similarities with m negatives, the positive not among them; cosines, or temperature and
length say the same thing twice. -inf leaves a negative out, so that anchors may have different numbers of them. Half
precision is computed in float32; no graph is built. Memory is a few times that of `negatives`: a sample of anchors will
do. `temperature` is a number, or a tensor (...) with one for each anchor.

All raise NonFinite for NaN or +inf, NoNegatives where an anchor has none, TemperatureInvalid, ShapesDiffer.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer, TemperatureInvalid


@torch.no_grad()
def relative_penalties(negatives: Tensor, *, temperature: float | Tensor) -> Tensor:
    """Each negative's share of the force that pushes an anchor away: r_ij = exp(s_ij / t) / sum_k exp(s_ik / t), (..., m).

    This is |dL / ds_ij| / |dL / ds_ii| of InfoNCE, whose gradients on the negatives sum to that on the positive: shares from 0 to 1 that sum to 1 for an anchor, whatever its positive is. At chance (equal
    similarities), or for t to infinity, 1 / m each; for t to 0 all on the hardest negative, as in the triplet loss.
    """
    negatives = _checked(negatives)
    below_hardest = negatives - negatives.amax(dim=-1, keepdim=True)  # before the division, which then cannot overflow
    return (below_hardest / _per_anchor(temperature, negatives)).softmax(dim=-1)


@torch.no_grad()
def penalty_entropy(negatives: Tensor, *, temperature: float | Tensor) -> Tensor:
    """H(r_i) = -sum_j r_ij log r_ij of the `relative_penalties`, in nats: (...).

    From 0 (one negative bears it all) to log m (all alike, the value at chance). Never falls as the temperature rises.
    The official code adds 1e-7 inside the logarithm, about m 1e-7 less; here 0 log 0 is 0.
    """
    return torch.special.entr(relative_penalties(negatives, temperature=temperature)).sum(dim=-1)


@torch.no_grad()
def effective_negatives(negatives: Tensor, *, temperature: float | Tensor) -> Tensor:
    """How many negatives an anchor is really pushed from: exp(H(r_i)) of `penalty_entropy`, from 1 to m (chance): (...)."""
    return penalty_entropy(negatives, temperature=temperature).exp()


@torch.no_grad()
def hardest_penalty(negatives: Tensor, *, temperature: float | Tensor, share: float = 0.01) -> Tensor:
    """The share of the force that the hardest negatives bear: the sum of their `relative_penalties`, (...).

    The hardest are the ceil(share x m) most similar, m an anchor's own number of negatives. From their share (at chance,
    or for t to infinity) to 1 (t to 0). Raises ArgumentInvalid for a share outside (0, 1].
    """
    penalties = relative_penalties(negatives, temperature=temperature)
    kept = _hardest(_checked(negatives), share)
    return penalties.sort(dim=-1, descending=True).values.cumsum(dim=-1).gather(-1, kept[..., None] - 1)[..., 0]


@torch.no_grad()
def hardest_same_label(negatives: Tensor, same_label: Tensor, *, share: float = 0.01) -> Tensor:
    """How many of the hardest negatives are none: the fraction that shares the anchor's label, from 0 to 1, (...).

    same_label: (..., m) booleans. The hardest are those of `hardest_penalty`. At chance the fraction of all negatives
    that share the label; above it, a lower temperature pushes apart what belongs together. Of negatives equally
    similar, any may count. Raises ArgumentInvalid for a share outside (0, 1] or labels in place of booleans.
    """
    negatives = _checked(negatives)
    if same_label.shape != negatives.shape:
        raise ShapesDiffer(
            f"same_label must say of each negative, {tuple(negatives.shape)}, whether it shares the anchor's label;"
            f" got shape {tuple(same_label.shape)}."
        )
    if same_label.dtype != torch.bool:
        raise ArgumentInvalid(f"same_label must hold booleans, labels == label of the anchor; got {same_label.dtype}.")
    kept = _hardest(negatives, share)
    hardest_first = same_label.gather(-1, negatives.argsort(dim=-1, descending=True)).to(negatives.dtype)
    return hardest_first.cumsum(dim=-1).gather(-1, kept[..., None] - 1)[..., 0] / kept


@torch.no_grad()
def temperature_for_entropy(negatives: Tensor, entropy: float, *, highest: float = 10.0, halvings: int = 50) -> Tensor:
    """For each anchor the temperature at which its `penalty_entropy` is `entropy` nats: (...).

    By bisection of (0, highest), which the entropy's monotony allows; exact to highest / 2^(halvings + 1), or to rounding.
    `halvings=13` is the search of the official code (one temperature an anchor, for a loss of fixed entropy).

    Raises ArgumentInvalid where an anchor cannot reach it: an entropy of log m or more, which no temperature gives; one
    that takes a temperature above `highest`; one at or below log(number of its hardest negatives that are equal), the
    limit for t to 0. The official search ends at the bound without a word.
    """
    negatives = _checked(negatives)
    if not (math.isfinite(highest) and highest > 0):
        raise TemperatureInvalid(f"highest must be a positive number, the end of the search; got {highest}.")
    if halvings < 1:
        raise ArgumentInvalid(f"halvings must be at least 1; got {halvings}.")
    _check_reachable(negatives, entropy, highest)
    low = negatives.new_zeros(negatives.shape[:-1])
    high = low + highest
    for _ in range(halvings):
        middle = (low + high) / 2
        below = penalty_entropy(negatives, temperature=middle) < entropy
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _check_reachable(negatives: Tensor, entropy: float, highest: float) -> None:
    equal = (negatives == negatives.amax(dim=-1, keepdim=True)).sum(dim=-1)
    least, most = float(equal.max().log()), float(penalty_entropy(negatives, temperature=highest).min())
    if least < entropy <= most:
        return
    fewest = int((negatives > -math.inf).sum(dim=-1).min())
    raise ArgumentInvalid(
        f"an entropy of {entropy} nats is not reached by every anchor: between temperatures 0 and {highest} all of them go"
        f" through entropies above {least:.4g} and up to {most:.4g} only. With {fewest} negatives none can be above"
        f" log({fewest}) = {math.log(fewest):.4g}. Ask for one between, or raise `highest`."
    )


def _checked(negatives: Tensor) -> Tensor:
    if negatives.ndim == 0 or negatives.numel() == 0:
        raise NoNegatives(
            f"negatives must be (..., m), the similarities of each anchor with its m negatives; got shape {tuple(negatives.shape)}."
        )
    negatives = negatives.to(torch.promote_types(negatives.dtype, torch.float32))
    broken = negatives.isnan() | (negatives == math.inf)
    if bool(broken.any()):
        found = "NaN" if bool(negatives.isnan().any()) else "infinity"
        raise NonFinite(f"negatives hold {found} in {int(broken.sum())} of {broken.numel()} similarities.")
    without = (negatives == -math.inf).all(dim=-1)
    if bool(without.any()):
        raise NoNegatives(f"{int(without.sum())} of {without.numel()} anchors have no negative: all theirs are -inf.")
    return negatives


def _per_anchor(temperature: float | Tensor, negatives: Tensor) -> Tensor:
    """The temperature as (..., 1) or (1,), beside negatives (..., m)."""
    temperature = torch.as_tensor(temperature, dtype=negatives.dtype, device=negatives.device)
    anchors = negatives.shape[:-1]
    if temperature.numel() != 1 and temperature.shape != anchors:
        raise ShapesDiffer(
            f"temperature must be one number, or one for each anchor, {tuple(anchors)}; got shape {tuple(temperature.shape)}."
        )
    if not bool((torch.isfinite(temperature) & (temperature > 0)).all()):
        raise TemperatureInvalid(
            f"temperature must be positive and finite, since similarities are divided by it; got {float(temperature.min())}."
        )
    return temperature.reshape(1) if temperature.numel() == 1 else temperature[..., None]


def _hardest(negatives: Tensor, share: float) -> Tensor:
    """How many negatives of each anchor are its hardest: (...), at least 1."""
    if not 0 < share <= 1:
        raise ArgumentInvalid(f"share is the part of the negatives to look at, above 0 and at most 1; got {share}.")
    number = (negatives > -math.inf).sum(dim=-1)
    kept = (number.cpu().double() * share - 1e-9).ceil().clamp_min(1)  # 0.07 x 100 is a little more than 7
    return kept.long().to(number.device)

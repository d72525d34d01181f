"""How embeddings lie on the sphere, in figures; torch alone.

Each function normalises the rows itself and builds no graph.
Rows are (n, d) of any float dtype; half precision is computed in float32. A zero row stays zero.
All raise ArgumentInvalid for fewer than two rows and NonFinite for NaN or infinity.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer

TILE = 2048  # rows and columns of the pairs that stand in memory at once: 16 MiB of float32


@torch.no_grad()
def alignment(x: Tensor, y: Tensor) -> float:
    """How far apart positives are: the mean of |x_i - y_i|² (Wang & Isola, 2020, with their default power of 2).

    x and y are (n, d); row i of one belongs to row i of the other. From 0 (equal directions) to 4 (opposite); 2 where
    they have nothing to do with each other. Equals 2 - 2 x the mean cosine of the pairs. Raises ShapesDiffer.
    """
    if x.shape != y.shape:
        raise ShapesDiffer(f"alignment compares row i with row i; got shapes {tuple(x.shape)} and {tuple(y.shape)}.")
    return float((_unit(x) - _unit(y)).square().sum(dim=1).mean())


@torch.no_grad()
def uniformity(x: Tensor, t: float = 2.0) -> float:
    """How evenly rows cover the sphere: log of the mean of exp(-t |x_i - x_j|²), i < j (Wang & Isola, 2020).

    0 where all rows are equal; lower is more even: about -2t for random directions in many dimensions, -3.9 at t = 2
    and d = 128. In tiles, so that n may be large; the work is n² d.
    """
    unit = _unit(x)
    n = len(unit)
    total = unit.new_tensor(-math.inf)
    for top in range(0, n, TILE):
        rows = unit[top : top + TILE]
        for left in range(top, n, TILE):
            with torch.autocast(unit.device.type, enabled=False):
                cosine = rows @ unit[left : left + TILE].T
            exponent = -t * (2 - 2 * cosine).clamp_min(0)
            if left == top:  # each pair once, and no row with itself
                exponent = exponent.masked_fill(torch.ones_like(exponent, dtype=torch.bool).tril(), -math.inf)
            total = torch.logaddexp(total, exponent.flatten().logsumexp(dim=0))
    return float(total) - math.log(n * (n - 1) / 2)


@torch.no_grad()
def effective_rank(x: Tensor) -> float:
    """Over how many dimensions the rows spread: exp of the entropy of the shares of variance along the principal axes.

    This is the effective rank of Roy & Vetterli (2007), exp(-sum_k p_k log p_k) with p_k = s_k / sum_l s_l, of the
    COVARIANCE matrix of the normalised rows, whose singular values s_k are the variances. Centred, because an untuned
    pretrained encoder puts one large mean on every row; without centring that mean alone would read as a collapse to
    one dimension, though the rows still differ in many.
    From 1 (all rows equal up to rounding, or on one line) to min(n - 1, d), where all axes have the same variance.
    """
    unit = _unit(x)
    variance = torch.linalg.svdvals(unit - unit.mean(dim=0)).square()
    rounding = len(unit) * (32 * torch.finfo(unit.dtype).eps) ** 2  # what equal rows keep after centring
    if float(variance.sum()) <= rounding:
        return 1.0
    return float(torch.special.entr(variance / variance.sum()).sum().exp())


@torch.no_grad()
def mean_cosine(x: Tensor) -> float:
    """The mean cosine of all pairs i ≠ j: the anisotropy of Ethayarajh (2019).

    About 0 for directions spread evenly, 1 where all are equal, at least -1 / (n - 1). Costs n d:
    (|sum_i x_i|² - sum_i |x_i|²) / (n (n - 1)).
    """
    unit = _unit(x)
    n = len(unit)
    return float((unit.sum(dim=0).square().sum() - unit.square().sum()) / (n * (n - 1)))


@torch.no_grad()
def spread(x: Tensor) -> Tensor:
    """The standard deviation of each dimension of the normalised rows, times sqrt(d): (d,).

    About 1 in every dimension for directions spread evenly, 0 in a dimension that is dead; the mean square over the
    dimensions is at most 1. The figure by which SimSiam (Chen & He, 2021) tells a collapse.
    """
    unit = _unit(x)
    return unit.std(dim=0, correction=0) * math.sqrt(unit.shape[1])


def _unit(x: Tensor) -> Tensor:
    if x.ndim != 2 or len(x) < 2:
        raise ArgumentInvalid(f"a figure of geometry needs (n, d) with at least two rows; got shape {tuple(x.shape)}.")
    if not bool(torch.isfinite(x).all()):
        raise NonFinite(f"embeddings of shape {tuple(x.shape)} hold NaN or infinity, so their geometry says nothing.")
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    with torch.autocast(x.device.type, enabled=False):
        return functional.normalize(x, dim=1)

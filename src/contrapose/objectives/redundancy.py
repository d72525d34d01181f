"""Losses without negatives: dimensions are kept apart instead of rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from contrapose.errors import NoNegatives, ShapesDiffer
from contrapose.objectives._arguments import (
    Reduction,
    check_choice,
    check_number,
    check_rows,
    operands,
    reduced,
    row_products,
)


def barlow_twins(
    first: Tensor, second: Tensor, *, off_diagonal: float = 5e-3, standardise: bool = True, epsilon: float = 1e-5
) -> Tensor:
    r"""Barlow Twins (Zbontar et al., ICML 2021, equation 1): the cross-correlation of two views, pulled towards the identity.

        sum_i (1 - C_ii)² + w sum_(i≠j) C_ij²,     C = first' second / b

    Args:
        first: (b, d), one view of each row.
        second: (b, d), another view of the same rows.
        off_diagonal: w. The paper's lambda, 5e-3.
        standardise: bring each dimension to mean 0 and variance 1 over the batch (biased variance plus `epsilon`, as the official code's
            BatchNorm does). False where the projector ends in a BatchNorm of its own (BarLIP).

    Returns:
        At least 0; about d at chance. d² memory, whatever b is. float32 for half-precision inputs.

    Raises NonFinite, ShapesDiffer, ArgumentInvalid; NoNegatives for fewer than two rows, of which no correlation can be taken.
    """
    check_number("off_diagonal", off_diagonal, 0)
    a, b = _views(first, second)
    with torch.autocast(a.device.type, enabled=False):
        if standardise:
            a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + epsilon).sqrt() for z in (a, b))
        correlation = a.T @ b / len(a)
        square = correlation.square()
        diagonal = (1 - correlation.diagonal()).square().sum()
        return diagonal + off_diagonal * (square.sum() - square.diagonal().sum())


def vicreg(
    first: Tensor,
    second: Tensor,
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    epsilon: float = 1e-4,
) -> Tensor:
    r"""VICReg (Bardes et al., ICLR 2022, equations 1 to 6): rows agree, dimensions vary, and vary apart.

        invariance mean (first - second)² + variance (v(first) + v(second)) / 2 + covariance (c(first) + c(second)),

        v(z) = mean_j max(0, 1 - sqrt(Var_j + epsilon)),     c(z) = sum_(i≠j) Cov_ij² / d

    Args:
        first: (b, d), one view of each row, not normalised.
        second: (b, d), another view of the same rows. The weights and epsilon are the paper's; the halving of v is the official code's,
            where the paper's equation 6 adds the two.

    Returns:
        At least 0; 0 only for equal views whose dimensions are uncorrelated with deviation of 1 or more. At a collapse to one point the
        variance term is variance (1 - sqrt(epsilon)). Variances are unbiased. float32 for half-precision inputs.

    Raises NonFinite, ShapesDiffer, ArgumentInvalid; NoNegatives for fewer than two rows.
    """
    for name, value in (("invariance", invariance), ("variance", variance), ("covariance", covariance)):
        check_number(name, value, 0)
    a, b = _views(first, second)
    with torch.autocast(a.device.type, enabled=False):
        spread = sum(functional.relu(1 - (z.var(0) + epsilon).sqrt()).mean() for z in (a, b)) / 2
        together = 0
        for z in (a, b):
            centred = z - z.mean(0)
            square = (centred.T @ centred / (len(z) - 1)).square()
            together = together + (square.sum() - square.diagonal().sum()) / z.shape[1]
        return invariance * functional.mse_loss(a, b) + variance * spread + covariance * together


def negative_cosine(
    predictions: Tensor, targets: Tensor, *, stop_gradient: bool = True, reduction: Reduction = "mean"
) -> Tensor:
    r"""-cos(p_i, z_i), with no gradient through the targets (BYOL: Grill et al., 2020; SimSiam: Chen and He, 2021, equation 1).

    `predictions` and `targets` are (b, d). From -1 to 1; 0 at chance. BYOL's own loss is 2 + 2 times it. Over the two directions SimSiam averages:
    (negative_cosine(p1, z2) + negative_cosine(p2, z1)) / 2. A zero vector has cosine 0. `stop_gradient=False` lets the gradient through the targets
    too, which is there to show that it collapses. Raises NonFinite, ShapesDiffer, ArgumentInvalid.
    """
    check_choice("reduction", reduction, ("mean", "sum", "none"))
    check_rows("predictions", predictions, ("b", "d"))
    check_rows("targets", targets, tuple(predictions.shape))
    if not len(predictions):
        raise ShapesDiffer("0 rows have no cosine; give one at least.")
    targets = targets.detach() if stop_gradient else targets
    rows = operands({"predictions": predictions, "targets": targets}, "cosine").rows
    return reduced(-row_products(rows["predictions"], rows["targets"]), reduction)


def _views(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    check_rows("first", first, ("b", "d"))
    check_rows("second", second, tuple(first.shape))
    if len(first) < 2:
        raise NoNegatives(f"{len(first)} row(s): statistics of dimensions need at least two rows.")
    rows = operands({"first": first, "second": second}, "dot").rows
    return rows["first"], rows["second"]

"""What non-contrastive learning does to a linear network, step by step: the theory from which DirectPred's predictor follows."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from contrapose.errors import ArgumentInvalid
from contrapose.image._predictor import eigenspace_alignment
from contrapose.objectives._arguments import check_choice, check_number

Predictor = Literal["trained", "identity"]


class Trajectory(NamedTuple):
    """What was seen at each time, each (t,): the largest and smallest |eigenvalue| of the feature correlation F = W X W', how far the
    predictor's eigenspace agrees with it, and |W W' - W_p' W_p / alpha| over the norm of W W', which weight decay drives to 0."""

    time: Tensor
    largest: Tensor
    smallest: Tensor
    alignment: Tensor
    imbalance: Tensor


@torch.no_grad()
def linear_dynamics(
    *,
    dim: int = 8,
    inputs: int = 16,
    noise: float = 0.2,
    predictor: Predictor = "trained",
    stop_gradient: bool = True,
    weight_decay: float = 0.05,
    predictor_rate: float = 1.0,
    target_rate: float = 0.5,
    duration: float = 100.0,
    step: float = 0.02,
    generator: torch.Generator | None = None,
) -> Trajectory:
    r"""Gradient flow of BYOL with linear networks (Tian et al., ICML 2021, Lemma 1): encoder W, predictor W_p, target W_a.

        dW_p/dt = a (-W_p W (X + X') + W_a X) W' - eta W_p
        dW/dt   = W_p' (-W_p W (X + X') + W_a X) - eta W
        dW_a/dt = r (W - W_a)

    with the inputs' covariance X = I and that of the augmentations X' = noise I, from a symmetric W_p without negative eigenvalues. With a trained
    predictor and the stop-gradient, directions of W survive; without either all of them die. Weight decay brings W W' and W_p' W_p / a together
    and with them their eigenspaces; too much of it kills all directions.

    Args:
        dim: d, of the features.
        inputs: n, at least d.
        noise: at least 0.
        predictor: "identity" holds W_p = I.
        stop_gradient: False lets the gradient through the target, which then is the encoder itself.
        weight_decay: eta, at least 0.
        predictor_rate: a, the predictor's learning rate over the encoder's; positive.
        target_rate: r; positive.
        duration: t at the end.
        step: of Euler's method.
        generator: draws the first weights; None: one seeded with 0.

    Returns:
        A hundred times, or as many as there are steps, in float64.

    Raises ArgumentInvalid for a value outside its range.
    """
    check_choice("predictor", predictor, ("trained", "identity"))
    for name, value in (("noise", noise), ("weight_decay", weight_decay)):
        check_number(name, value, 0)
    for name, value in (
        ("predictor_rate", predictor_rate),
        ("target_rate", target_rate),
        ("duration", duration),
        ("step", step),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ArgumentInvalid(f"{name} must be a positive number; got {value}.")
    if not 1 <= dim <= inputs:
        raise ArgumentInvalid(f"dim must be from 1 to inputs={inputs}; got {dim}.")
    generator = generator or torch.Generator().manual_seed(0)
    w = torch.randn(dim, inputs, generator=generator, dtype=torch.float64) / math.sqrt(inputs)
    wp = torch.randn(dim, dim, generator=generator, dtype=torch.float64) / math.sqrt(dim)
    wp = torch.eye(dim, dtype=torch.float64) if predictor == "identity" else wp @ wp.T
    wa = w.clone()
    steps = max(1, round(duration / step))
    seen = {round(share * steps / 100) for share in range(1, 101)}
    rows = []
    for number in range(1, steps + 1):
        target = wa if stop_gradient else w
        error = target - (1 + noise) * wp @ w
        slope = wp.T @ error
        if not stop_gradient:
            slope = slope + wp @ w - (1 + noise) * w
        change = predictor_rate * error @ w.T - weight_decay * wp
        w, wa = w + step * (slope - weight_decay * w), wa + step * target_rate * (w - wa)
        if predictor == "trained":
            wp = wp + step * change
        if number in seen:
            rows.append((number * step, *_seen(w, wp, predictor_rate)))
    return Trajectory(*torch.tensor(rows, dtype=torch.float64).T)


def _seen(w: Tensor, wp: Tensor, predictor_rate: float) -> tuple[float, float, float, float]:
    correlation = w @ w.T
    values = torch.linalg.eigvalsh(correlation)
    imbalance = (correlation - wp.T @ wp / predictor_rate).norm() / correlation.norm().clamp_min(1e-300)
    return float(values[-1]), float(values[0]), eigenspace_alignment(wp, correlation), float(imbalance)

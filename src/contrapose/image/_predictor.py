"""A linear predictor in closed form: the running correlation of features, the weights that follow from it, and whether eigenspaces agree."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer
from contrapose.objectives import negative_cosine
from contrapose.objectives._arguments import check_choice, check_number, check_rows

Form = Literal["official", "official_inside", "paper", "directcopy", "directcopy_norm"]
FORMS = ("official", "official_inside", "paper", "directcopy", "directcopy_norm")


def predictor_weights(
    correlation: Tensor,
    *,
    form: Form = "official",
    eps: float = 0.1,
    root: float = 2.0,
    least: float = 1e-4,
    strict: bool = True,
) -> Tensor:
    r"""The predictor that belongs to a feature correlation C = U diag(s) U' (Tian et al., ICML 2021, section 4, equations 18 and 19).

    Args:
        correlation: (d, d), symmetric up to rounding; its symmetric part is taken. Eigenvalues of rounding, below 0 or just above it, count as 0.
        form: "official": U diag((s / max s)^(1/root) + eps) U', the released code's "boost_scale", the same whatever the features' scale.
            "official_inside": U diag((s / max s + eps)^(1/root)) U', its `dyn_eps_inside`. "paper": U diag(s^(1/root) + eps max s) U', the
            equations; relative to the other directions its eps grows with the features. "directcopy": C + eps I, without an
            eigendecomposition. "directcopy_norm": C / |C| + eps I with the Frobenius norm, as the later DirectSet paper has it.
        eps: what directions without variance get. 0 lets them die.
        root: 2 is the square root that the theory gives. Not of the directcopy forms.
        least: floor of the eigenvalues in the official forms (inside: before the root), as in the code.
        strict: False allows an eps below 0, which the code bears by that floor.

    Returns:
        (d, d), symmetric, float32 or, for a float64 correlation, float64; without gradient. It is a function of C alone, also where eigenvalues
        coincide and eigenvectors are arbitrary.

    Raises:
        ShapesDiffer: the correlation is not square.
        NonFinite: it holds NaN or infinity.
        ArgumentInvalid: an unknown form, an eps below 0 while strict, a root or floor that is not positive.
    """
    check_choice("form", form, FORMS)
    check_number("eps", eps, 0 if strict else -math.inf)
    for name, value in (("root", root), ("least", least)):
        if not (math.isfinite(value) and value > 0):
            raise ArgumentInvalid(f"{name} must be a positive number; got {value}.")
    if correlation.ndim != 2 or correlation.shape[0] != correlation.shape[1] or not len(correlation):
        raise ShapesDiffer(f"a correlation is a square matrix; got {tuple(correlation.shape)}.")
    with torch.no_grad(), torch.autocast(correlation.device.type, enabled=False):
        correlation = correlation.to(torch.promote_types(correlation.dtype, torch.float32))
        if not bool(torch.isfinite(correlation).all()):
            raise NonFinite("the feature correlation holds NaN or infinity, and has no predictor.")
        correlation = (correlation + correlation.T) / 2
        identity = torch.eye(len(correlation), dtype=correlation.dtype, device=correlation.device)
        if form == "directcopy":
            return correlation + eps * identity
        if form == "directcopy_norm":
            return correlation / _above_zero(correlation.norm()) + eps * identity
        values, vectors = torch.linalg.eigh(correlation)
        # below this an eigenvalue is rounding, of either sign, and a root would blow it up
        rounding = len(values) * torch.finfo(values.dtype).eps * values.max()
        s = torch.where(values > rounding, values, 0)
        if form == "paper":
            p = s.pow(1 / root) + eps * s.max()
        elif form == "official":
            p = ((s / _above_zero(s.max())).pow(1 / root) + eps).clamp_min(least)
        else:
            p = (s / _above_zero(s.max()) + eps).clamp_min(least).pow(1 / root)
        return (vectors * p) @ vectors.T


def _above_zero(value: Tensor) -> Tensor:
    """A divisor: features that are all 0 have a correlation of 0, not of NaN."""
    return value.clamp_min(torch.finfo(value.dtype).tiny)


class Correlation(nn.Module):
    """The running correlation of features, as buffers of a checkpoint: C ← rho C + (1 - rho) mean(f f'), from the first batch's own.

    `rho` in [0, 1) is the weight of the past; None: the average of all batches since the start. A few features are enough for a
    step because they are averaged; nothing here has a gradient. float32, or float64 after `.double()`.
    """

    def __init__(self, dim: int, rho: float | None = 0.3) -> None:
        """Raises ArgumentInvalid for a rho outside [0, 1)."""
        super().__init__()
        if rho is not None:
            check_number("rho", rho, 0, 1)
            if rho == 1:
                raise ArgumentInvalid("rho must be below 1: with 1 the first batch alone would ever count.")
        self.rho = rho
        self.register_buffer("moment", torch.zeros(dim, dim))
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def update(self, *features: Tensor) -> None:
        """Take in a batch: each of `features` is (b, d), one for each view, and their rows count alike.

        Raises ShapesDiffer, also for no row at all; NonFinite.
        """
        if not features or not len(features[0]):
            raise ShapesDiffer("a batch without rows has no correlation; give one row at least.")
        for number, rows in enumerate(features, 1):
            check_rows(f"the features of view {number}", rows, (len(features[0]), len(self.mean)))
        with torch.autocast(self.mean.device.type, enabled=False):
            rows = torch.cat(features).to(self.moment)
            fresh = rows.T @ rows / len(rows), rows.mean(dim=0)
        seen = int(self.batches)
        past = (seen / (seen + 1) if self.rho is None else self.rho) if seen else 0.0
        for kept, new in zip((self.moment, self.mean), fresh, strict=True):
            kept.mul_(past).add_(new, alpha=1 - past)
        self.batches += 1

    def matrix(self, *, centred: bool = False) -> Tensor:
        """(d, d): the correlation; `centred` takes off m m' with the running mean m, as the code's `dyn_zero_mean`."""
        return self.moment - torch.outer(self.mean, self.mean) if centred else self.moment


def byol_loss(
    predictions: tuple[Tensor, Tensor], targets: tuple[Tensor, Tensor], *, stop_gradient: bool = True
) -> Tensor:
    """Mean of D(p1, t2) + D(p2, t1) with D(p, t) = -2 cos(p, t), from -4 to 4; 0 at chance.

    `predictions` are those of views 1 and 2, each (b, d), `targets` those of views 1 and 2. BYOL's |p - t|² of unit vectors is 2 more
    a direction, and the released code leaves the constant out. Targets get no gradient, unless `stop_gradient=False` says so.
    Raises NonFinite, ShapesDiffer, also for no row at all.
    """
    for number, rows in enumerate((predictions[1], *targets)):
        check_rows(
            ("the predictions of view 2", "the targets of view 1", "the targets of view 2")[number],
            rows,
            tuple(predictions[0].shape),
        )
    sides = ((predictions[0], targets[1]), (predictions[1], targets[0]))
    return 2 * sum(negative_cosine(one, other, stop_gradient=stop_gradient) for one, other in sides)


@torch.no_grad()
def eigenspace_alignment(weights: Tensor, correlation: Tensor) -> float:
    """How far the predictor's eigenvectors are eigenvectors of the correlation too: the mean |cos| of C v and v (the paper's figure 3).

    Both (d, d); the symmetric part of `weights` has the eigenvectors v. 1 where the eigenspaces agree. A v that C maps to 0 counts as
    an eigenvector. Raises ShapesDiffer, NonFinite.
    """
    if weights.shape != correlation.shape or weights.ndim != 2 or weights.shape[0] != weights.shape[1]:
        raise ShapesDiffer(
            f"predictor and correlation are square and of one size; got {tuple(weights.shape)} and {tuple(correlation.shape)}."
        )
    check_rows("the predictor", weights, tuple(weights.shape))
    check_rows("the correlation", correlation, tuple(weights.shape))
    weights, correlation = weights.double(), correlation.double()
    _, vectors = torch.linalg.eigh((weights + weights.T) / 2)
    mapped = correlation @ vectors
    lengths = mapped.norm(dim=0)
    cosines = (mapped * vectors).sum(dim=0).abs() / lengths.clamp_min(torch.finfo(lengths.dtype).tiny)
    rounding = lengths <= 1e-12 * lengths.max()
    return float(torch.where(rounding, torch.ones_like(cosines), cosines).mean())

"""MCLRec's learned views of a sequence's vector, and the regulariser that keeps their contrast hard."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer

Scope = Literal["row", "batch"]
SCORES = 2**22  # dot products that stand in memory at once


class Augmenter(nn.Module):
    """A small perceptron on sequence vectors, (b, d) to unit vectors (b, d): linear layers with exact GELU between them, then x / |x|.

    Raises ShapesDiffer for vectors of other dimensions, and when the last layer does not give back d of them.
    """

    def __init__(self, dim: int, widths: Sequence[int] = (32, 16), out: int | None = None) -> None:
        """`widths`: of the hidden layers; 32 and 16 are the official code's. `out`: of the last one; None: `dim`, all that is allowed."""
        super().__init__()
        if out not in (None, dim):
            raise ShapesDiffer(
                f"An augmenter's vectors are compared with those it starts from, of {dim} dimensions; its last layer gives {out}."
            )
        self.dim = dim
        sizes = [dim, *widths, dim]
        self.layers = nn.ModuleList(nn.Linear(m, n) for m, n in pairwise(sizes))

    def forward(self, vectors: Tensor) -> Tensor:
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ShapesDiffer(
                f"An augmenter of {self.dim} dimensions takes (b, {self.dim}); got {tuple(vectors.shape)}."
            )
        *hidden, last = self.layers
        for layer in hidden:
            vectors = functional.gelu(layer(vectors))
        return functional.normalize(last(vectors).float() if vectors.dtype == torch.bfloat16 else last(vectors), dim=-1)


def contrast_regulariser(
    first: Tensor, second: Tensor, *, scope: Scope = "row", group: LongTensor | None = None
) -> Tensor:
    r"""What keeps a contrast from becoming easy: positives above the hardest negative, and negatives far below it, cost (MCLRec, equations 12 and 13).

    Of the 2b views z = [first; second], with $\sigma^+_r$ the dot product of view r with its partner and $\sigma^-_{rj}$ those with the 2b - 2 others:

        R = mean_r relu(s+_r - lo) + mean_rj relu(hi - s-_rj),     lo = min(s+, max s-),  hi = max(s+, max s-)

    Args:
        first: (b, d), one view of each row; not normalised here.
        second: (b, d), the other view.
        scope: "row": each view has extremes of its own (the official code). "batch": the whole batch has one smallest positive and one
            largest negative (the paper's equations).
        group: (b,) integers; views of rows of one group are never each other's negatives. Below 0: no group. None: no groups.

    Returns:
        A scalar, at least 0; 0 where all products are equal. Memory grows with b alone. float32 for half-precision inputs.

    Raises ShapesDiffer, NonFinite, ArgumentInvalid; NoNegatives for fewer than two rows.
    """
    if scope not in ("row", "batch"):
        raise ArgumentInvalid(f"scope is 'row' or 'batch'; got {scope!r}.")
    if first.ndim != 2 or first.shape != second.shape:
        raise ShapesDiffer(
            f"Both views must have one shape (b, d); got {tuple(first.shape)} and {tuple(second.shape)}."
        )
    b = len(first)
    if b < 2:
        raise NoNegatives(
            f"{b} row(s): a view has the views of other rows as negatives, so at least two rows are needed."
        )
    if group is not None and group.shape != (b,):
        raise ShapesDiffer(f"group must hold one integer for each of the {b} rows; got shape {tuple(group.shape)}.")
    with torch.autocast(first.device.type, enabled=False):
        z = torch.cat([first, second])
        z = z if z.dtype == torch.float64 else z.float()
        if not torch.isfinite(z.detach().sum()):
            raise NonFinite("The views hold NaN or infinity.")
        own = torch.arange(b, device=z.device) if group is None else _numbered_groups(group.to(z.device))
        hardest, has = hardest_negatives(z, own)
        if not has.any():
            return z.sum() * 0
        positive = (z * z.roll(b, dims=0)).sum(dim=1)[has]
        most_alike = (z[has] * z[hardest[has]]).sum(dim=1)
        # No negative is above the hardest one, so that the second relu never cuts; and the mean of all products costs no table of them.
        together = z.new_zeros(b, z.shape[1]).index_add(0, own.repeat(2), z)
        sizes = 2.0 * torch.bincount(own)
        mean = (z.sum(dim=0).square().sum() - together.square().sum()) / ((2 * b) ** 2 - sizes.square().sum())
        least, most = (positive, most_alike) if scope == "row" else (positive.min(), most_alike.max())
        high = torch.maximum(least, most).expand(len(positive))
        negatives = (2 * b - sizes[own].repeat(2)[has]).to(z)
        return (
            functional.relu(positive - torch.minimum(least, most)).mean()
            + (high * negatives).sum() / negatives.sum()
            - mean
        )


@torch.no_grad()
def hardest_negatives(z: Tensor, group: LongTensor) -> tuple[LongTensor, Tensor]:
    """For 2b views (2b, d) of b rows with groups (b,): the view of another group with the largest dot product, (2b,), and whether there is one.

    In blocks of rows.
    """
    labels, found, has = group.repeat(2), [], []
    for rows in torch.arange(len(z), device=z.device).split(max(1, SCORES // len(z))):
        best = (z[rows] @ z.T).masked_fill(labels[rows, None] == labels, -torch.inf).max(dim=1)
        found.append(best.indices)
        has.append(best.values > -torch.inf)
    return torch.cat(found), torch.cat(has)


def _numbered_groups(group: LongTensor) -> LongTensor:
    """Groups from 0 without gaps; each number below 0 a group alone."""
    alone = group.max() + 1 + torch.arange(len(group), device=group.device)
    return torch.unique(torch.where(group < 0, alone, group), return_inverse=True)[1]

"""MCLRec's learned views of a sequence's vector, and the regulariser that keeps their contrast hard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer

Scope = Literal["row", "batch"]


class Augmenter(nn.Module):
    """A small perceptron on sequence vectors, (b, d) to unit vectors (b, d): linear layers with exact GELU between them, then x / |x|.

    Raises ShapesDiffer when the last layer does not give back d dimensions.
    """

    def __init__(self, dim: int, widths: Sequence[int] = (32, 16), out: int | None = None) -> None:
        """`widths`: of the hidden layers; 32 and 16 are the official code's. `out`: of the last one; None: `dim`, all that is allowed."""
        super().__init__()
        if out not in (None, dim):
            raise ShapesDiffer(
                f"An augmenter's vectors are compared with those it starts from, of {dim} dimensions; its last layer gives {out}."
            )
        sizes = [dim, *widths, dim]
        self.layers = nn.ModuleList(nn.Linear(m, n) for m, n in zip(sizes, sizes[1:], strict=False))

    def forward(self, vectors: Tensor) -> Tensor:
        *hidden, last = self.layers
        for layer in hidden:
            vectors = functional.gelu(layer(vectors))
        return functional.normalize(last(vectors).float() if vectors.dtype == torch.bfloat16 else last(vectors), dim=-1)


def contrast_regulariser(first: Tensor, second: Tensor, *, scope: Scope = "row") -> Tensor:
    r"""What keeps a contrast from becoming easy: positives above the hardest negative, and negatives far below it, cost (MCLRec, equations 12 and 13).

    Of the 2b views z = [first; second], with $\sigma^+_r$ the dot product of view r with its partner and $\sigma^-_{rj}$ those with the 2b - 2 others:

        R = mean_r relu(s+_r - lo) + mean_rj relu(hi - s-_rj),     lo = min(s+, max s-),  hi = max(s+, max s-)

    Args:
        first: (b, d), one view of each row; not normalised here.
        second: (b, d), the other view.
        scope: "row": each view has extremes of its own (the official code). "batch": the whole batch has one smallest positive and one
            largest negative (the paper's equations).

    Returns:
        A scalar, at least 0; 0 where all products are equal. (2b, 2b) in memory. float32 for half-precision inputs.

    Raises ShapesDiffer, NonFinite, ArgumentInvalid; NoNegatives for fewer than two rows.
    """
    if scope not in ("row", "batch"):
        raise ArgumentInvalid(f"scope is 'row' or 'batch'; got {scope!r}.")
    if first.ndim != 2 or first.shape != second.shape:
        raise ShapesDiffer(f"Both views must have one shape (b, d); got {tuple(first.shape)} and {tuple(second.shape)}.")
    b = len(first)
    if b < 2:
        raise NoNegatives(f"{b} row(s): a view has the views of other rows as negatives, so at least two rows are needed.")
    with torch.autocast(first.device.type, enabled=False):
        z = torch.cat([first, second])
        z = z if z.dtype == torch.float64 else z.float()
        if not torch.isfinite(z.detach().sum()):
            raise NonFinite("The views hold NaN or infinity.")
        positive = (z * z.roll(b, dims=0)).sum(dim=1)
        rows = torch.arange(2 * b, device=z.device)
        left_out = torch.zeros(2 * b, 2 * b, dtype=torch.bool, device=z.device)
        left_out[rows, rows] = left_out[rows, rows.roll(b)] = True
        scores = z @ z.T
        hardest = scores.masked_fill(left_out, -torch.inf).amax(dim=1)
        least, most = (positive, hardest) if scope == "row" else (positive.min(), hardest.max())
        low, high = torch.minimum(least, most), torch.maximum(least, most)
        above = functional.relu(positive - low).mean()
        below = functional.relu(high.expand(2 * b)[:, None] - scores).masked_fill(left_out, 0.0)
        return above + below.sum() / (2 * b * (2 * b - 2))

"""Gradients of x, y and weights, collected from tiles of dL/dS."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from contrapose.errors import DoubleBackward
from contrapose.objectives._tiles.pairs import PairWeight, Tile


class Gradient:
    """Collects dL/dx, dL/dy and the gradients of weights from tiles of dL/dS.

    `x` and `y` are the operands in the dtype of the products; without `y` x is both. Sums are in `dtype`. S = scale x · y and what is added to
    it. `wanted`: which of dL/dx and dL/dy; the other stays None.
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor | None,
        dtype: torch.dtype,
        tensors: list[Tensor],
        scale: float = 1.0,
        wanted: tuple[bool, bool] = (True, True),
    ) -> None:
        self.operands, self.scale = (x, y), scale
        self.x = torch.zeros_like(x, dtype=dtype) if wanted[0] else None
        self.y = torch.zeros_like(y, dtype=dtype) if y is not None and wanted[1] else None
        self.tensors = [torch.zeros_like(tensor) for tensor in tensors]

    def all(self) -> list[Tensor]:
        """What is collected, to be added up over processes."""
        return [each for each in (self.x, self.y, *self.tensors) if each is not None]

    def add(self, tile: Tile, each: Tensor) -> None:
        """`each` (r, c): dL/dS of a tile; of both (i, j) and (j, i) where y is None, so that a tile on the diagonal counts once."""
        x, y = self.operands
        if self.x is not None:
            self.x = _added(self.x, tile.rows, each, (x if y is None else y)[tile.columns], self.scale)
        if self.y is not None:
            self.y = _added(self.y, tile.columns, each.T, x[tile.rows], self.scale)
        elif y is None and self.x is not None and not tile.on_diagonal:
            self.x = _added(self.x, tile.columns, each.T, x[tile.rows], self.scale)

    def add_weights(self, tile: Tile, each: Tensor, weight: PairWeight | None) -> None:
        """The gradients of what the weights are learned from, from the same `each`."""
        if weight is None or not any(tensor.requires_grad for tensor in weight.tensors):
            return
        if self.operands[1] is None and tile.on_diagonal:
            each = each / 2
        with torch.enable_grad():
            leaves = [tensor.detach().requires_grad_(tensor.is_floating_point()) for tensor in weight.tensors]
            between = weight.function(*tile, *leaves)
        learned = [number for number, leaf in enumerate(leaves) if leaf.requires_grad]
        found = torch.autograd.grad(
            between, [leaves[number] for number in learned], each.to(between.dtype), allow_unused=True
        )
        for number, gradient in zip(learned, found, strict=True):
            if gradient is not None:
                self.tensors[number] += gradient


def _added(into: Tensor, rows: slice, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """`into` with scale left @ right added to some of its rows, in the dtype of `into`.

    In place, but where torch maps the backward pass over many losses: what is added to is no batch then.
    """
    if is_batched(left):
        product = (left @ right).to(into.dtype) * scale
        return into + functional.pad(product, (0, 0, rows.start, len(into) - rows.stop))
    if left.dtype == into.dtype:
        into[rows].addmm_(left, right, alpha=scale)
    else:
        into[rows].add_(left @ right, alpha=scale)
    return into


def is_batched(gradient: Tensor) -> bool:
    """Whether torch maps the backward pass over many losses at once (is_grads_batched), which no work in place bears."""
    return torch._C._functorch.is_legacy_batchedtensor(gradient)


def refuse_second_derivative() -> None:
    """Raises DoubleBackward when the graph of a gradient is asked for."""
    if torch.is_grad_enabled():
        raise DoubleBackward(
            "the objectives have first derivatives only; leave out create_graph=True, or write the term in plain torch."
        )

"""Gradients of x, y and weights, collected from tiles of dL/dS."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from contrapose.errors import DoubleBackward
from contrapose.objectives._tiles.pairs import PairWeight, Tile


class Gradient:
    """Collects dL/dx, dL/dy and the gradients of weights from tiles of dL/dS."""

    def __init__(self, x: Tensor, y: Tensor | None, products: torch.dtype, tensors: list[Tensor]) -> None:
        self.operands = (x.to(products), None if y is None else y.to(products))
        self.x, self.y = torch.zeros_like(x), None if y is None else torch.zeros_like(y)
        self.tensors = [torch.zeros_like(tensor) for tensor in tensors]

    def all(self) -> list[Tensor]:
        """What is collected, to be added up over processes."""
        return [each for each in (self.x, self.y, *self.tensors) if each is not None]

    def add(self, tile: Tile, each: Tensor, weight: PairWeight | None) -> None:
        """`each` (r, c): dL/dS of a tile; of both (i, j) and (j, i) where y is None, so that a tile on the diagonal counts once."""
        x, y = self.operands
        self.x = _added(self.x, tile.rows, each, (x if y is None else y)[tile.columns])
        if y is not None:
            self.y = _added(self.y, tile.columns, each.T, x[tile.rows])
        elif not tile.on_diagonal:
            self.x = _added(self.x, tile.columns, each.T, x[tile.rows])
        if weight is not None and any(tensor.requires_grad for tensor in weight.tensors):
            self.add_weights(tile, each if y is not None or not tile.on_diagonal else each / 2, weight)

    def add_weights(self, tile: Tile, each: Tensor, weight: PairWeight) -> None:
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


def _added(into: Tensor, rows: slice, left: Tensor, right: Tensor) -> Tensor:
    """`into` with left @ right added to some of its rows, in the dtype of `into`.

    In place, but where torch maps the backward pass over many losses (is_grads_batched): what is added to is no batch then.
    """
    if torch._C._functorch.is_legacy_batchedtensor(left):
        return into + functional.pad(left @ right, (0, 0, rows.start, len(into) - rows.stop))
    if left.dtype == into.dtype:
        into[rows].addmm_(left, right)
    else:
        into[rows] += left @ right
    return into


def refuse_second_derivative() -> None:
    """Raises DoubleBackward when the graph of a gradient is asked for."""
    if torch.is_grad_enabled():
        raise DoubleBackward(
            "the objectives have first derivatives only; leave out create_graph=True, or write the term in plain torch."
        )

"""Rows of unit length, with a gradient that keeps nothing but the rows as they were given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from contrapose.objectives._tiles.gradient import refuse_second_derivative

LEAST = 1e-12  # of a norm that is divided by, as in torch's normalize: a zero row stays one


@torch.compiler.disable
def unit_rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x / |x| along the last dimension, in `dtype`. (..., d), any floating point."""
    return _UnitRows.apply(x, dtype)


class _UnitRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        norms = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=dtype).clamp_min_(LEAST)
        ctx.save_for_backward(x, norms)
        return x / norms

    @staticmethod
    def backward(ctx: Any, up: Tensor) -> tuple[Tensor, None]:
        """(up - u (u · up)) / |x|."""
        refuse_second_derivative()
        x, norms = ctx.saved_tensors
        with torch.autocast(x.device.type, enabled=False):
            unit = x / norms
            along = (unit * up).sum(dim=-1, keepdim=True)
            return torch.addcmul(up, unit, along, value=-1).div_(norms).to(x.dtype), None

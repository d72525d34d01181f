"""Dropout whose masks are cheap on a processor; they are a sixth of the time of a small transformer's step otherwise."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 2**15  # a probability is a whole number of these parts
INTEGER = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # of as many bytes as an element


def dropout(x: Tensor, p: float) -> Tensor:
    """Each element is 0 with probability p and divided by 1 − p otherwise; random numbers from torch's default generator.

    torch draws a number an element on a processor, one after another. Here elements share the 64 bits of a draw, four of them in half
    precision, and p is rounded to a multiple of 2^-15 (0.1 becomes 0.100006) and the divisor with it: the mean stays exact. Elsewhere it
    is torch's own.
    """
    if x.device.type != "cpu" or p == 0:
        return nn.functional.dropout(x, p)
    return _Kept.apply(x, draw(x.numel(), p, x.dtype).view(x.shape), scale_of(p))


def scale_of(p: float) -> float:
    """What the kept elements are multiplied with, so that the mean stays."""
    kept = LEVELS - round(p * LEVELS)
    return LEVELS / kept if kept else 0.0


def draw(count: int, p: float, dtype: torch.dtype) -> Tensor:
    """A mask for `keep`, (count,) integers as wide as `dtype`: all bits set with probability 1 − p, none otherwise.

    Without a comparison, which takes ten times as long as sums and shifts of integers do.
    """
    bits = 8 * dtype.itemsize
    draws = torch.empty(math.ceil(count * bits / 64), dtype=torch.int64).random_(-(2**63), None)
    draws = draws.view(INTEGER[dtype.itemsize])[:count]
    kept = LEVELS - round(p * LEVELS)  # of all levels, the lowest; half of them are below zero
    return draws.bitwise_right_shift_(1).sub_((kept - LEVELS // 2) << (bits - 16)).bitwise_right_shift_(bits - 1)


def keep(x: Tensor, mask: Tensor, scale: float) -> Tensor:
    """x times `scale` where the mask has its bits set, 0 elsewhere; without a gradient."""
    return x.view(mask.dtype).bitwise_and(mask).view(x.dtype).mul_(scale)


class _Kept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(mask)
        ctx.scale = scale
        return keep(x, mask, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Kept.apply(gradient, ctx.saved_tensors[0], ctx.scale), None, None


class Dropout(nn.Dropout):
    """`nn.Dropout` through the function above."""

    def forward(self, states: Tensor) -> Tensor:
        return dropout(states, self.p) if self.training else states


def use_cheap_dropout(model: nn.Module) -> None:
    """Replace every `nn.Dropout` in a model; parameters and state dict stay as they are."""
    for module in model.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p).train(child.training))

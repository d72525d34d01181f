"""The plain mean of an encoder's weights over the steps of a training."""

from __future__ import annotations

import torch
from torch import nn

from contrapose.negatives import MomentumCopy


class MeanOfWeights(nn.Module):
    """A frozen copy of a module that holds the mean of its weights over all steps so far, in evaluation mode.

    The random start counts as one step, as in the official code. With `start` above 0 neither it nor the first `start` steps count: until then
    the copy is what the module is.
    """

    def __init__(self, online: nn.Module, start: int = 0) -> None:
        super().__init__()
        self.copy = MomentumCopy(online)
        self.start = start
        self.register_buffer("count", torch.tensor(0 if start else 1))

    @property
    def module(self) -> nn.Module:
        return self.copy.module

    def follow(self, online: nn.Module, step: int) -> None:
        """Take in the weights that a step, counted from 0, left."""
        count = int(self.count) if step >= self.start else 0
        self.copy.update(online, count / (count + 1))
        if step >= self.start:
            self.count += 1

"""Evaluation mode for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from contrapose.training.precision import Precision, takes_bf16


@contextlib.contextmanager
def evaluating(module: nn.Module, device: torch.device, precision: Precision = "float32") -> Iterator[None]:
    """Evaluation mode without gradient in one precision; afterwards every module is as it was."""
    bf16 = takes_bf16(precision, device.type)
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            yield
    finally:
        for part in training:
            part.training = True

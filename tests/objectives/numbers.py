"""Numbers for tests of objectives."""

from __future__ import annotations

import torch
from torch import Tensor

EXACT = {"rtol": 0, "atol": 1e-12}


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Standard normal numbers, the same for the same shape and seed."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def gradients(outputs: list[Tensor], inputs: list[Tensor], seed: int = 9) -> list[Tensor]:
    """Of a random combination of the outputs, -inf left out."""
    total = sum(
        (torch.where(torch.isfinite(out), out, 0) * normal(*out.shape, seed=seed + n).to(out)).sum()
        for n, out in enumerate(outputs)
    )
    return list(torch.autograd.grad(total, inputs))

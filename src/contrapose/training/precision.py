"""In which precision matrices are multiplied."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from contrapose.errors import UsageInvalid, nearest

Precision = Literal["auto", "float32", "bfloat16"]


def has_bf16(device: str) -> bool:
    """Whether this machine multiplies bf16 matrices in hardware, on a "cpu" or "cuda" device."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def takes_bf16(precision: Precision, device: str) -> bool:
    """Whether `precision` means bf16 on a device; "auto" does where the hardware has it. Raises UsageInvalid for an unknown precision."""
    if precision not in get_args(Precision):
        raise UsageInvalid(f"There is no precision '{precision}'; {nearest(str(precision), get_args(Precision))}")
    return precision == "bfloat16" or (precision == "auto" and has_bf16(device))

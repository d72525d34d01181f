"""A sparse matrix that multiplies dense rows, with its gradient, on the processor and on a GPU."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

PARTS = ("starts", "columns", "values", "back_starts", "back_columns", "back_values")


class Sparse(nn.Module):
    """A constant (n, m) matrix: `matrix(x)` is its product with x (m, d), (n, d), differentiable in x.

    Its parts are buffers, so that they go where the encoder goes, and are left out of checkpoints, as they never change; copies share them.
    The transposed matrix is kept beside it for the gradient, once where the two are one.
    """

    def __init__(self, shape: tuple[int, int], parts: dict[str, Tensor]) -> None:
        super().__init__()
        self.shape = shape
        for name in PARTS:
            self.register_buffer(name, parts[name], persistent=False)

    @classmethod
    def of(cls, matrix: csr_matrix) -> Sparse:
        """From SciPy's; values in float32."""
        matrix = csr_matrix(matrix)
        matrix.sort_indices()
        back = csr_matrix(matrix.T)
        back.sort_indices()
        arrays = [matrix.indptr, matrix.indices, matrix.data, back.indptr, back.indices, back.data]
        same = all(len(a) == len(b) and (a == b).all() for a, b in zip(arrays[:3], arrays[3:], strict=True))
        kinds = [np.int32, np.int32, np.float32] * 2
        parts = [torch.from_numpy(array.astype(kind)) for array, kind in zip(arrays, kinds, strict=True)]
        parts = parts[:3] * 2 if same else parts
        return cls(matrix.shape, dict(zip(PARTS, parts, strict=True)))

    @property
    def symmetric(self) -> bool:
        return self.values is self.back_values

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self.shape, *(getattr(self, name) for name in PARTS))

    def __deepcopy__(self, memo: dict[int, Any]) -> Sparse:
        return Sparse(self.shape, {name: getattr(self, name) for name in PARTS})

    def extra_repr(self) -> str:
        return f"{self.shape[0]:,} x {self.shape[1]:,}, {len(self.values):,} entries"


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shape: tuple[int, int], *parts: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = shape, x.dtype
        ctx.save_for_backward(*parts[3:])
        return _csr(parts[:3], shape, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _csr(ctx.saved_tensors, ctx.shape[::-1], gradient).to(ctx.dtype), *[None] * 7


def _csr(parts: tuple[Tensor, ...], shape: tuple[int, int], x: Tensor) -> Tensor:
    """The product, in the precision of the values whatever autocast says."""
    with warnings.catch_warnings(), torch.autocast(x.device.type, enabled=False):
        warnings.filterwarnings("ignore", "Sparse CSR tensor support")
        matrix = torch.sparse_csr_tensor(*parts, size=shape, check_invariants=False)
        return matrix @ x.to(matrix.dtype).contiguous()

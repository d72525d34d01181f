"""Sparse matrices that multiply dense rows, with their gradient, on the processor and on a GPU: any, and a graph's normalised adjacency."""

from __future__ import annotations

import warnings
from collections import Counter
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, vstack
from torch import LongTensor, Tensor, nn

from contrapose.graph.views import Orientation, row_sums

ROWS = 512  # of a difference at a time
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

    @property
    def T(self) -> Sparse:  # noqa: N802 (as of every matrix)
        """The transposed matrix, of the same parts."""
        return Sparse(
            self.shape[::-1],
            {name: getattr(self, other) for name, other in zip(PARTS, PARTS[3:] + PARTS[:3], strict=True)},
        )

    def forward(self, x: Tensor) -> Tensor:
        return _Product.apply(x, self.shape, *(getattr(self, name) for name in PARTS))

    def __deepcopy__(self, memo: dict[int, Any]) -> Sparse:
        return Sparse(self.shape, {name: getattr(self, name) for name in PARTS})

    def extra_repr(self) -> str:
        return f"{self.shape[0]:,} x {self.shape[1]:,}, {len(self.values):,} entries"


class Adjacency(nn.Module):
    """A normalised adjacency D^-1/2 A D^-1/2 of n nodes, or of A^T: `adjacency(x)` is its product with x (n, d), (n, d).

    Nodes with one and the same subject, venue or place have the same neighbours. Equal rows of A, each node's own entry left out where that
    makes them equal, are kept once: A = shared[which] + diag(own) + rest, where `rest` is None if nothing is left. Where few rows are equal,
    it is all of A, and `shared` None.
    """

    def __init__(
        self,
        scale: Tensor,
        rest: Sparse | None,
        shared: Sparse | None = None,
        which: LongTensor | None = None,
        own: Tensor | None = None,
        *,
        orientation: Orientation,
    ) -> None:
        """scale: (n,), D^-1/2. shared: (u, n); which: (n,) int64, the row of each node; own: (n,). All of A^T for "transposed"."""
        super().__init__()
        self.rest, self.shared, self.transposed = rest, shared, orientation == "transposed"
        for name, part in {"scale": scale, "which": which, "own": own}.items():
            self.register_buffer(name, part, persistent=False)

    @classmethod
    def of(cls, counts: csr_matrix, orientation: Orientation, like: csr_matrix | None = None) -> Adjacency:
        """From A, (n, n). like: a matrix with many equal rows of which `counts` lacks some entries, so that none of its own are equal.

        Raises AdjacencyInvalid for a row whose sum is not positive.
        """
        scale = torch.from_numpy(row_sums(counts) ** -0.5).float()
        unique, which, own = equal_rows(counts if like is None else like)
        rest = None if like is None else difference(counts, unique, which, own)
        if unique.nnz + (0 if rest is None else rest.nnz) > counts.nnz / 2:
            whole = Sparse.of(counts)
            return cls(scale, whole.T if orientation == "transposed" else whole, orientation=orientation)
        shared, rest = Sparse.of(unique), None if rest is None else Sparse.of(rest)
        if orientation == "transposed":
            shared, rest = shared.T, None if rest is None else rest.T
        return cls(scale, rest, shared, torch.from_numpy(which), torch.from_numpy(own).float(), orientation=orientation)

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.scale.dtype) * self.scale[:, None]
        found = 0 if self.rest is None else self.rest(x)
        if self.shared is not None:
            if self.transposed:
                sums = x.new_zeros(self.shared.shape[1], x.shape[1]).index_add(0, self.which, x)
                found = found + self.shared(sums)
            else:
                found = found + self.shared(x)[self.which]
            found = found + self.own[:, None] * x
        return found * self.scale[:, None]


def equal_rows(matrix: csr_matrix) -> tuple[csr_matrix, np.ndarray, np.ndarray]:
    """The different rows of a square matrix (u, n), which of them each row is (n,) int64, and its own entry (n,) where that stands apart.

    matrix = unique[which] + diag(own). A row's own entry stands apart where more rows are equal without it.
    """
    matrix = csr_matrix(matrix)
    matrix = matrix if matrix.has_sorted_indices else matrix.sorted_indices()  # the caller's stays as it is
    whole, others = [], []
    for row, (start, stop) in enumerate(zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)):
        columns, values = matrix.indices[start:stop], matrix.data[start:stop]
        elsewhere = columns != row
        whole.append(_digest(columns, values))
        others.append(_digest(columns[elsewhere], values[elsewhere]))
    as_whole, as_others = Counter(whole), Counter(others)
    apart = np.array([as_others[b] > as_whole[a] for a, b in zip(whole, others, strict=True)])
    numbers: dict[bytes, int] = {}
    kept = [b if alone else a for a, b, alone in zip(whole, others, apart, strict=True)]
    which = np.array([numbers.setdefault(each, len(numbers)) for each in kept])
    _, first = np.unique(which, return_index=True)
    own = np.where(apart, matrix.diagonal(), 0)
    unique = csr_matrix(
        matrix[first] - csr_matrix((own[first], (np.arange(len(first)), first)), (len(first), len(own)))
    )
    unique.eliminate_zeros()
    return unique, which, own


def difference(matrix: csr_matrix, unique: csr_matrix, which: np.ndarray, own: np.ndarray) -> csr_matrix:
    """matrix - unique[which] - diag(own), some rows at a time: repeated rows may be many more than what is left."""
    blocks, n = [], len(which)
    for start in range(0, n, ROWS):
        rows = slice(start, min(start + ROWS, n))
        here = np.arange(rows.stop - start)
        diagonal = csr_matrix((own[rows].astype(matrix.dtype), (here, here + start)), shape=(len(here), n))
        block = csr_matrix(matrix[rows] - unique[which[rows]] - diagonal)
        block.eliminate_zeros()
        blocks.append(block)
    return csr_matrix(vstack(blocks))


def _digest(columns: np.ndarray, values: np.ndarray) -> bytes:
    return blake2b(columns.tobytes() + values.tobytes(), digest_size=16).digest()


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

"""What a meta-path sees: who is similar over it, the strongest of these, and the adjacency that a graph convolution takes.

All matrices are SciPy's, sparse, between the N nodes of the target type; nothing of N x N is ever made whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix, diags, eye, vstack
from scipy.sparse import issparse as is_sparse

from contrapose.errors import AdjacencyInvalid, ArgumentInvalid
from contrapose.graph._graph import Graph, MetaPath
from contrapose.training.bar import Bar

Orientation = Literal["transposed", "straight"]
BLOCK = 2**24  # entries of a block of rows while path counts are made: about a gigabyte with what sorting them takes


def pathsim(adjacency: csr_matrix | ArrayLike) -> csr_matrix:
    """PathSim (Sun et al., VLDB 2011): 2 A_ij / (A_ii + A_jj) for every pair that the path joins, (N, N) float64, sparse.

    adjacency: (N, N) counts of path instances, a node's own on the diagonal. From 0 to 1; 1 on the diagonal.
    Raises AdjacencyInvalid unless it is square with a positive diagonal.
    """
    counts = _square(adjacency)
    own = counts.diagonal()
    if (own <= 0).any():
        node = int(np.argmax(own <= 0))
        raise AdjacencyInvalid(
            f"node {node} has {own[node]:g} on the diagonal ({int((own <= 0).sum()):,} such nodes), and PathSim divides by it; "
            "count a node's paths to itself, at least 1."
        )
    return _similar(counts, own, 0)


def strongest(adjacency: csr_matrix | ArrayLike, k: int) -> csr_matrix:
    """The adjacency with the k entries of each row that are most similar by `pathsim`, (N, N), sparse and in general not symmetric.

    A node itself is the first; of equally similar ones those with larger numbers come first, as in the official code. Counts stay as they are.
    Raises ArgumentInvalid unless 1 <= k <= N, and as `pathsim` does.
    """
    counts = _square(adjacency)
    _check_k(k, counts.shape[0])
    return _strongest(counts, pathsim(counts), k, 0)


def normalised(adjacency: csr_matrix | ArrayLike, orientation: Orientation = "transposed") -> csr_matrix:
    """D^-1/2 A^T D^-1/2 with D the row sums of A, (N, N) float64, sparse; "straight": D^-1/2 A D^-1/2.

    The official code transposes on the way; for a symmetric A the two are one. After `strongest` they are not: in the transposed form node
    i gathers from those that chose i, in the straight one from those that i chose.
    Raises AdjacencyInvalid for a matrix that is not square, and for a row whose sum is not positive.
    """
    counts = _square(adjacency)
    if orientation not in ("transposed", "straight"):
        raise ArgumentInvalid(f"orientation is 'transposed' or 'straight'; got {orientation!r}.")
    scale = diags(row_sums(counts) ** -0.5)
    return csr_matrix(scale @ (counts.T if orientation == "transposed" else counts) @ scale)


def row_sums(counts: csr_matrix) -> np.ndarray:
    """(N,) float64, what `normalised` divides by. Raises AdjacencyInvalid for a row whose sum is not positive."""
    sums = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    if (sums <= 0).any():
        node = int(np.argmax(sums <= 0))
        raise AdjacencyInvalid(
            f"row {node} sums to {sums[node]:g}, and the normalisation divides by it; keep at least the node itself."
        )
    return sums


def without_edges(adjacency: csr_matrix, rate: float, draw: np.random.Generator) -> csr_matrix:
    """The masked copy of an adjacency: a share `rate` of its edges dropped, those left of weight 1, and each node joined to itself."""
    n, masked = adjacency.shape[0], csr_matrix(adjacency)
    row = np.repeat(np.arange(n, dtype=np.int32), np.diff(masked.indptr))
    others = np.flatnonzero(row != masked.indices).astype(np.int32)
    left = np.zeros(masked.nnz, dtype=np.float32)
    left[draw.permutation(others)[int(rate * len(others)) :]] = 1
    masked = csr_matrix((left, masked.indices.copy(), masked.indptr.copy()), shape=masked.shape)
    masked.eliminate_zeros()
    return masked + eye(n, dtype=np.float32, format="csr")


def without_features(features: csr_matrix, rate: float, draw: np.random.Generator) -> csr_matrix:
    """The masked copy of features: a share `rate` of their non-zero entries set to 0. The original is left as it is."""
    masked = features.copy()
    masked.data[draw.permutation(len(masked.data))[: int(rate * len(masked.data))]] = 0
    return masked


def neighbours(graph: Graph, path: MetaPath, k: int, *, progress: bool = True) -> csr_matrix:
    """The k most similar nodes of each target node over a meta-path, with their counts of path instances: (N, N), sparse.

    The counts are made some rows at a time and only the strongest kept, so that hubs cost time and no memory. A node that the path does not
    reach stands alone, with 1 on the diagonal.
    """
    half = graph.half(path)
    middle = half if path.centre is None else csr_matrix(half @ graph.incidence(*path.centre))
    own = np.asarray(middle.multiply(half).sum(axis=1)).ravel()
    alone = own == 0
    own[alone] = 1
    n, back, kept = half.shape[0], csr_matrix(half.T), []
    k = min(k, n)
    work = np.asarray(csr_matrix(middle.astype(bool)) @ np.diff(back.indptr)).ravel() + 1
    with Bar(f"Neighbours over {path}", n, shown=progress) as bar:
        for rows in _blocks(work):
            counts = csr_matrix(middle[rows] @ back)
            counts = csr_matrix(counts + _own(alone, own, counts, rows))
            counts.sort_indices()
            kept.append(_strongest(counts, _similar(counts, own, rows.start), k, rows.start))
            bar.advance(rows.stop - rows.start)
    return csr_matrix(vstack(kept))


def most_alike(scores: csr_matrix, k: int) -> csr_matrix:
    """The k largest entries of each row of a square sparse matrix, a node itself first; ties as in `strongest`."""
    scores = _square(scores)
    return _strongest(scores, scores, k, 0)


def _own(alone: np.ndarray, own: np.ndarray, counts: csr_matrix, rows: slice) -> csr_matrix:
    """What the diagonal of some rows lacks of what it should hold: 1 for nodes that stand alone, and nothing for the others."""
    row = np.flatnonzero(alone[rows])
    return csr_matrix((np.ones(len(row)), (row, row + rows.start)), shape=counts.shape)


def _blocks(work: np.ndarray) -> Iterator[slice]:
    """Neighbouring rows whose work adds up to about BLOCK."""
    start, total = 0, 0
    for row, amount in enumerate(work):
        if total + amount > BLOCK and row > start:
            yield slice(start, row)
            start, total = row, 0
        total += amount
    yield slice(start, len(work))


def _similar(counts: csr_matrix, own: np.ndarray, first: int) -> csr_matrix:
    """PathSim of some rows, the first of which is row `first` of all."""
    row = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)) + first
    values = 2 * counts.data / (own[row] + own[counts.indices])
    return csr_matrix((values, counts.indices, counts.indptr), shape=counts.shape)


def _strongest(counts: csr_matrix, similarity: csr_matrix, k: int, first: int) -> csr_matrix:
    """The k entries of each row with the largest similarity."""
    sizes = np.diff(counts.indptr)
    if sizes.max(initial=0) <= k:
        return counts
    row = np.repeat(np.arange(counts.shape[0]), sizes)
    value = np.where(row + first == counts.indices, np.inf, similarity.data)
    back = np.arange(len(row))[::-1]  # columns ascend within a row: turned about, a stable sort puts the larger first
    order = back[np.lexsort((-value[back], row[back]))]
    rank = np.arange(len(row)) - np.repeat(counts.indptr[:-1], sizes)
    kept = np.sort(order[rank < k])
    return csr_matrix((counts.data[kept], (row[kept], counts.indices[kept])), shape=counts.shape)


def _square(adjacency: csr_matrix | ArrayLike) -> csr_matrix:
    matrix = csr_matrix(adjacency if is_sparse(adjacency) else np.asarray(adjacency), dtype=np.float64)
    if matrix.shape[0] != matrix.shape[1]:
        raise AdjacencyInvalid(f"an adjacency has shape (N, N), a row and a column for each node; got {matrix.shape}.")
    if not np.isfinite(matrix.data).all() or (matrix.data < 0).any():
        raise AdjacencyInvalid("an adjacency holds counts; this one has negative values, NaN or infinity.")
    matrix.sum_duplicates()
    matrix.sort_indices()
    return matrix


def _check_k(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ArgumentInvalid(f"k, the entries kept of each row, is from 1 to the {n} nodes; got {k}.")

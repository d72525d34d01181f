"""A graph of typed nodes in memory: features by type, edges between types, and meta-paths over them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from contrapose.errors import GraphInvalid, MetaPathInvalid, nearest

SEPARATOR = "-"


@dataclass(frozen=True)
class MetaPath:
    """A walk over node types that reads the same both ways: paper-author-paper.

    A path with a type in its middle is a half and that half turned about. One with an edge in its middle (paper-paper, or
    author-paper-paper-author) has that edge, between two nodes of the type `centre`, as well.
    """

    types: tuple[str, ...]

    @classmethod
    def parse(cls, said: str) -> MetaPath:
        """From "paper-author-paper". Raises MetaPathInvalid for what is no such walk."""
        types = tuple(part.strip() for part in said.split(SEPARATOR))
        if len(types) < 2 or not all(types) or types != types[::-1]:
            raise MetaPathInvalid(
                f"meta-path '{said}' does not read the same both ways; name one from the target type back to it, such as "
                "paper-author-paper."
            )
        return cls(types)

    @property
    def half(self) -> tuple[str, ...]:
        """The types of the first half, the one in the middle included."""
        return self.types[: (len(self.types) + 1) // 2]

    @property
    def centre(self) -> tuple[str, str] | None:
        """The two types of the edge in the middle; None where a type stands there."""
        return (self.half[-1], self.half[-1]) if len(self.types) % 2 == 0 else None

    @property
    def contexts(self) -> list[tuple[str, ...]]:
        """The walks from the start to each intermediate node; of a path of one edge, to its other end."""
        return [self.types[: stop + 1] for stop in range(1, max(2, len(self.types) - 1))]

    def __str__(self) -> str:
        return SEPARATOR.join(self.types)


@dataclass(frozen=True, eq=False)
class Graph:
    """counts: nodes of each type. features: (n, f) sparse float64 by type; a type without has one-hot ones. edges: (2, e) int64 by pair of types.

    target: the type whose nodes are embedded. source: names the graph in messages. paths: the meta-paths that its description names.
    """

    counts: Mapping[str, int]
    features: Mapping[str, csr_matrix]
    edges: Mapping[tuple[str, str], np.ndarray]
    target: str
    source: str = "the graph"
    paths: tuple[str, ...] = ()
    files: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.target not in self.counts:
            raise GraphInvalid(
                f"{self.source} has no nodes of the type '{self.target}'; {nearest(self.target, self.counts)}"
            )
        for name in self.counts:
            if not name.replace("_", "").isalnum():
                raise GraphInvalid(
                    f"{self.source}: the node type '{name}' has other signs than letters, digits and _; meta-paths are written with "
                    "- between types, so rename it."
                )
        if not any(edges.shape[1] for edges in self.edges.values()):
            raise GraphInvalid(
                f"{self.source} has no edges, so no node has a neighbour; give at least one file of them."
            )
        for pair, edges in self.edges.items():
            self._check_edges(pair, edges)
        for name, features in self.features.items():
            if features.shape[0] != self.counts[name]:
                raise GraphInvalid(
                    f"{self.source}: {features.shape[0]:,} rows of features for {self.counts[name]:,} nodes of type '{name}'."
                )
            if not np.isfinite(features.data).all():
                row = int(np.searchsorted(features.indptr, np.flatnonzero(~np.isfinite(features.data))[0], "right") - 1)
                raise GraphInvalid(f"{self.source}: the features of {name} {row} hold NaN or infinity; mend that row.")

    def _check_edges(self, pair: tuple[str, str], edges: np.ndarray) -> None:
        for side, name in enumerate(pair):
            if name not in self.counts:
                raise GraphInvalid(f"{self.source}: edges {'-'.join(pair)} name a type without nodes, '{name}'.")
            wrong = (edges[side] < 0) | (edges[side] >= self.counts[name])
            if wrong.any():
                place = int(wrong.argmax())
                where = (
                    f"{self.files[pair]}, line {place + 2}"
                    if pair in self.files
                    else f"edge {place} of {'-'.join(pair)}"
                )
                raise GraphInvalid(
                    f"{where}: there is no {name} {edges[side, place]} ({int(wrong.sum()):,} such edges); nodes of this type "
                    f"are numbered 0 to {self.counts[name] - 1}."
                )

    def incidence(self, first: str, second: str) -> csr_matrix:
        """(n of first, n of second) float64, sparse: 1 where an edge joins two nodes, in either direction. Raises MetaPathInvalid."""
        found = [self.edges[pair] if pair == (first, second) else self.edges[pair][::-1]
                 for pair in dict.fromkeys([(first, second), (second, first)]) if pair in self.edges]  # fmt: skip
        if not found:
            there = {f"{a}-{b}" for a, b in self.edges}
            raise MetaPathInvalid(
                f"{self.source} has no edges between '{first}' and '{second}'; it has {', '.join(sorted(there))}."
            )
        if first == second:
            found += [edges[::-1] for edges in found]
        row, column = np.concatenate(found, axis=1)
        joined = csr_matrix((np.ones(len(row)), (row, column)), shape=(self.counts[first], self.counts[second]))
        joined.data[:] = 1  # an edge counts once, however often it is listed
        return joined

    def half(self, path: MetaPath) -> csr_matrix:
        """(N, nodes of the type in the middle): how many ways lead from a target node to each of them."""
        types = path.half
        if len(types) == 1:
            n = self.counts[self.target]
            return csr_matrix((np.ones(n), (np.arange(n), np.arange(n))), shape=(n, n))
        walked = self.incidence(types[0], types[1])
        for first, second in itertools.pairwise(types[1:]):
            walked = csr_matrix(walked @ self.incidence(first, second))
        return walked

    def metapaths(self, said: Sequence[str] = ()) -> list[MetaPath]:
        """Those that are asked for, else those that the graph names, else over each type with edges to the target: target-type-target.

        Raises MetaPathInvalid for one that does not start at the target, or goes over edges that are not there.
        """
        around = {(set(pair) - {self.target} or {self.target}).pop() for pair in self.edges if self.target in pair}
        paths = [MetaPath.parse(each) for each in said or self.paths or [f"{self.target}-{other}-{self.target}" for other in sorted(around)]]  # fmt: skip
        if not paths:
            raise MetaPathInvalid(f"{self.source} has no edges at '{self.target}', so there is no meta-path.")
        for path in paths:
            if path.types[0] != self.target:
                raise MetaPathInvalid(
                    f"meta-path '{path}' starts at '{path.types[0]}'; it must start at the target, '{self.target}'."
                )
            for pair in zip(path.types, path.types[1:], strict=False):
                self.incidence(*pair)
        return paths

    def __deepcopy__(self, memo: dict) -> Graph:
        return self  # nothing of it ever changes

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex of nodes, features and edges."""
        digest = hashlib.sha256(repr((self.target, sorted(self.counts.items()))).encode())
        for name, features in sorted(self.features.items()):
            digest.update(repr((name, features.shape)).encode())
            for part in (features.indptr.astype(np.int64), features.indices.astype(np.int64), features.data):
                digest.update(np.ascontiguousarray(part).tobytes())
        for pair, edges in sorted(self.edges.items()):
            digest.update(repr(pair).encode())
            digest.update(np.ascontiguousarray(edges).tobytes())
        return digest.hexdigest()

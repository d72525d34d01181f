"""What counting says of the next item: how popular items are, and what follows what."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse


@dataclass(frozen=True)
class Counts:
    """`popularity` (n,): interactions of each item. `successors` (n, n): how often the column's item came right after the row's."""

    popularity: np.ndarray
    successors: sparse.csr_array

    @classmethod
    def of(cls, numbers: np.ndarray, starts: np.ndarray, items: int, held_out: int) -> Counts:
        """Of sequences, item numbers from 1 of which user i has those from `starts[i]` to `starts[i + 1]`, without each user's last `held_out`."""
        kept = np.repeat(np.maximum(starts[1:] - held_out, starts[:-1]), np.diff(starts)) > np.arange(len(numbers))
        owner = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[kept]
        codes = numbers[kept] - 1
        popularity = np.bincount(codes, minlength=items).astype(np.float64)
        pair = owner[1:] == owner[:-1]
        ones = np.ones(int(pair.sum()))
        successors = sparse.coo_array((ones, (codes[:-1][pair], codes[1:][pair])), shape=(items, items)).tocsr()
        return cls(popularity, successors)

    def after(self, last: np.ndarray) -> np.ndarray:
        """(m, n) scores of what follows each of m items: how often it did, and among equals how popular it is."""
        return self.successors[last].toarray() + self.popularity / (1 + self.popularity.sum())

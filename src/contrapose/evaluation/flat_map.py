"""Vectors on a page: two dimensions to look at."""

from __future__ import annotations

import numpy as np


def flat_map(vectors: np.ndarray, seed: int = 0) -> np.ndarray:
    """(n, d) vectors to (n, 2) by t-SNE on cosine distance (van der Maaten & Hinton, 2008); the same for the same seed.

    Neighbours stay neighbours; distances between far groups and the axes mean nothing. Fewer than four rows are laid on a line.
    """
    if len(vectors) < 4:
        return np.stack([np.arange(len(vectors), dtype=float), np.zeros(len(vectors))], axis=1)
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(vectors) - 1) / 3)
    drawn = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=seed).fit_transform(vectors)
    return np.round(drawn.astype(float), 3)

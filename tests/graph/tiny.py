"""A graph of three types whose classes stand in the contexts of its meta-paths alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from contrapose.graph.data import Graph
from tests.tiny import Tiny

PROCESSES = False  # a graph is encoded whole
CLASSES = 4
NUMBERS = {
    "meow": {"clusters": (3, 5), "batch_size": 1000},
    "adameow": {"batch_size": 1000},
    "heco": {"batch_size": 1000},
}


def tiny(method: str, folder: Path) -> Tiny:
    return Tiny(planted(targets=60)[0], {"name": "metapaths", "dim": 16, "top_k": "8"}, NUMBERS[method], [0, 3, 59])


def planted(targets: int = 300, seed: int = 0) -> tuple[Graph, np.ndarray]:
    """Items of four classes whose own features and whose neighbours over every meta-path say nothing of the class; only what stands along a path does.

    Each item has three makers of its own, whose features show the item's class; so over makers no item has a neighbour. Tags are drawn at random. An
    item's own features are noise. The graph, and the class of each item.
    """
    draw = np.random.default_rng(seed)
    classes = np.arange(targets) % CLASSES
    makers, tags = targets * 3, 20
    maker_of = np.stack([np.repeat(np.arange(targets), 3), draw.permutation(makers)])  # each maker has one item
    maker_class = np.empty(makers, int)
    maker_class[maker_of[1]] = classes[maker_of[0]]
    maker_features = np.eye(CLASSES)[maker_class] + draw.uniform(0, 0.5, (makers, CLASSES))
    tag_of = np.stack([np.repeat(np.arange(targets), 2), draw.integers(tags, size=2 * targets)])
    graph = Graph(
        {"item": targets, "maker": makers, "tag": tags},
        {"item": csr_matrix(draw.uniform(0, 1, (targets, 2))), "maker": csr_matrix(maker_features)},
        {("item", "maker"): maker_of, ("item", "tag"): tag_of},
        "item",
        "a planted graph",
    )
    return graph, classes

"""Contrastive objectives: pure functions of embeddings, exact, in tiles."""

from contrapose.objectives._tiles import PairWeight, tile_bytes
from contrapose.objectives.across import info_nce_across
from contrapose.objectives.align_uniform import alignment, uniformity
from contrapose.objectives.cacr import (
    attraction_weights,
    cacr,
    cacr_attraction,
    cacr_euclidean,
    cacr_queue,
    cacr_rbf,
    cacr_repulsion,
    repulsion_weights,
)
from contrapose.objectives.hard import hard_contrastive, nearest_negative, released, simple_contrastive
from contrapose.objectives.info_nce import decoupled, info_nce
from contrapose.objectives.nt_xent import nt_xent
from contrapose.objectives.partition import log_partition
from contrapose.objectives.redundancy import barlow_twins, negative_cosine, vicreg
from contrapose.objectives.sigmoid import sigmoid
from contrapose.objectives.supervised import supervised
from contrapose.objectives.symile import pairwise_clip, symile, symile_scores

__all__ = [
    "PairWeight",
    "alignment",
    "attraction_weights",
    "barlow_twins",
    "cacr",
    "cacr_attraction",
    "cacr_euclidean",
    "cacr_queue",
    "cacr_rbf",
    "cacr_repulsion",
    "decoupled",
    "hard_contrastive",
    "info_nce",
    "info_nce_across",
    "log_partition",
    "nearest_negative",
    "negative_cosine",
    "nt_xent",
    "pairwise_clip",
    "released",
    "repulsion_weights",
    "sigmoid",
    "simple_contrastive",
    "supervised",
    "symile",
    "symile_scores",
    "tile_bytes",
    "uniformity",
    "vicreg",
]

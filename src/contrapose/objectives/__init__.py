"""Contrastive objectives: pure functions of embeddings."""

from contrapose.objectives.info_nce import info_nce

__all__ = ["info_nce"]

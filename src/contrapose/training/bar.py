"""The bar of every modality, under the name that text has for it."""

from contrapose.training.bar import Bar

__all__ = ["Bar"]

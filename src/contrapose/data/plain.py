"""Columns that need no encoder: labels, domains and numbers as tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from contrapose.data.columns import Column

if TYPE_CHECKING:
    from torch import Tensor

    from contrapose.data.table import Table

NUMBERS = ("number", "score")


def plain_columns(
    table: Table | Mapping[str, Sequence[object]], columns: Sequence[Column]
) -> tuple[dict[str, Tensor], dict[str, tuple[str, ...]]]:
    """Those of the columns that are there, (n,) each, and the categories of those that have some.

    Numbers and scores are float32; of other kinds the values, as text, are int64 codes by their place among the sorted distinct ones.
    """
    import torch

    tensors: dict[str, Tensor] = {}
    categories: dict[str, tuple[str, ...]] = {}
    for column in columns:
        if column.name not in table:
            continue
        if column.kind in NUMBERS:
            tensors[column.name] = torch.tensor(list(table[column.name]), dtype=torch.float32)
            continue
        values = [str(value) for value in table[column.name]]
        categories[column.name] = tuple(sorted(set(values)))
        code = {value: number for number, value in enumerate(categories[column.name])}
        tensors[column.name] = torch.tensor([code[value] for value in values])
    return tensors, categories

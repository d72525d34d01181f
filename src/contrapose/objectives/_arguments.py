"""What every objective checks of its arguments, and how embeddings become the operands of the tile engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer, TemperatureInvalid, nearest
from contrapose.objectives._tiles import PairWeight, unit_rows

Similarity = Literal["cosine", "dot"]
Reduction = Literal["mean", "sum", "none"]
Pair = Callable[[slice, slice], Tensor] | PairWeight | Tensor


class Operands(NamedTuple):
    """Embeddings in one precision of at least float32, unit rows for cosines; `products`: the dtype to multiply in."""

    rows: dict[str, Tensor]
    products: torch.dtype


def operands(embeddings: Mapping[str, Tensor | None], similarity: str) -> Operands:
    """Rows in one precision, normalised for "cosine". Where all of them are bfloat16, products are too, with sums in float32."""
    given = {name: rows for name, rows in embeddings.items() if rows is not None}
    precision = reduce(torch.promote_types, (rows.dtype for rows in given.values()), torch.float32)
    products = torch.bfloat16 if all(rows.dtype == torch.bfloat16 for rows in given.values()) else precision
    with torch.autocast(next(iter(given.values())).device.type, enabled=False):
        alter = unit_rows if similarity == "cosine" else torch.Tensor.to
        wide = {name: alter(rows, precision) for name, rows in given.items()}
    return Operands(wide, products)


def divided(rows: Tensor, temperature: float | Tensor) -> Tensor:
    """Rows over the temperature, in the rows' precision whatever the temperature's is."""
    return rows / (temperature.reshape(()) if isinstance(temperature, Tensor) else temperature)


def inverse(temperature: float | Tensor) -> float | Tensor:
    """What logits are multiplied by."""
    return 1 / (temperature.reshape(()) if isinstance(temperature, Tensor) else temperature)


def greatest(similarity: str) -> float | None:
    """What no similarity exceeds; None where that depends on the rows."""
    return 1.0 if similarity == "cosine" else None


def row_products(x: Tensor, y: Tensor) -> Tensor:
    """(n, d) and (n, d) to the n products x_i · y_i."""
    return (x * y).sum(dim=-1)


def reduced(losses: Tensor, reduction: str) -> Tensor:
    """(n,) to its mean or sum, or as it is."""
    return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()


def check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ArgumentInvalid(f"{name} {value!r} is not known; {nearest(str(value), known)}")


def check_common(similarity: str, reduction: str) -> None:
    check_choice("similarity", similarity, ("cosine", "dot"))
    check_choice("reduction", reduction, ("mean", "sum", "none"))


def check_temperature(temperature: float | Tensor, name: str = "temperature") -> None:
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise TemperatureInvalid(f"{name} must be one number; got a tensor of shape {tuple(temperature.shape)}.")
    value = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
    if not (math.isfinite(value) and value > 0):
        raise TemperatureInvalid(
            f"{name} must be a positive number, since similarities are divided by it; got {value}. 0.05 is usual."
        )


def check_number(name: str, value: float, least: float = -math.inf, most: float = math.inf) -> None:
    """Raises ArgumentInvalid outside [least, most]."""
    if not (math.isfinite(value) and least <= value <= most):
        raise ArgumentInvalid(f"{name} must be a number from {least:g} to {most:g}; got {value}.")


def check_rows(name: str, rows: Tensor, shape: tuple[int | str, ...]) -> None:
    """Raises ShapesDiffer unless `rows` has that shape, where a letter stands for any size, and NonFinite for NaN or infinity."""
    fits = rows.ndim == len(shape) and all(
        isinstance(wanted, str) or wanted == size for wanted, size in zip(shape, rows.shape, strict=True)
    )
    if not fits:
        raise ShapesDiffer(f"{name} must have shape ({', '.join(map(str, shape))}); got {tuple(rows.shape)}.")
    if rows.ndim > 1 and rows.shape[-1] == 0:
        raise ShapesDiffer(f"{name} must have one dimension or more; got shape {tuple(rows.shape)}.")
    check_finite(name, rows)


def check_finite(name: str, rows: Tensor) -> None:
    """Raises NonFinite, naming the first row that holds NaN or infinity."""
    if not rows.is_floating_point():
        raise ArgumentInvalid(f"{name} must hold floating-point embeddings; got {rows.dtype}.")
    if math.isfinite(float(rows.detach().sum())):
        return  # one NaN or infinity would have reached the sum; a sum may overflow without one
    broken = ~torch.isfinite(rows).flatten(start_dim=1).all(dim=1)
    if bool(broken.any()):
        first = int(broken.nonzero()[0])
        found = "NaN" if bool(rows[first].isnan().any()) else "infinity"
        raise NonFinite(f"{name} hold {found} in {int(broken.sum())} of {len(rows)} rows (first: row {first}).")


def check_directions(name: str, rows: Tensor) -> None:
    """Raises ArgumentInvalid, naming the first, for rows of zeros, which have a cosine with nothing."""
    zero = ~rows.detach().any(dim=-1)
    if bool(zero.any()):
        raise ArgumentInvalid(
            f"{name} hold zeros alone in {int(zero.sum())} of {len(rows)} rows (first: row {int(zero.nonzero()[0])}), which have no direction and "
            "so no cosine; look at what gave them, or leave them out."
        )


def check_integers(name: str, numbers: Tensor, rows: int, of: str) -> None:
    """Raises ShapesDiffer or ArgumentInvalid unless `numbers` holds one integer for each of the rows of `of`."""
    if numbers.shape != (rows,):
        raise ShapesDiffer(
            f"{name} must hold one integer for each of the {rows} rows of {of}; got shape {tuple(numbers.shape)}."
        )
    if numbers.is_floating_point():
        raise ArgumentInvalid(f"{name} must hold integers; got {numbers.dtype}.")


def pair_weight(pair: Pair | None, n: int, m: int) -> PairWeight | None:
    """What a user gives as `pair` for n rows and m columns. A tensor that requires a gradient gets one."""
    if pair is None or isinstance(pair, PairWeight):
        return pair
    if not isinstance(pair, Tensor):
        return PairWeight(pair)
    if pair.shape != (n, m):
        raise ShapesDiffer(
            f"pair must have shape ({n}, {m}), a value for each anchor and column; got {tuple(pair.shape)}."
        )
    return PairWeight(lambda rows, columns, dense: dense[rows, columns], (pair,))


def both(first: PairWeight | None, second: PairWeight | None) -> PairWeight | None:
    """Pairs that both keep, with the sum of their log-weights."""
    if first is None or second is None:
        return first or second
    count = len(first.tensors)

    def function(rows: slice, columns: slice, *tensors: Tensor) -> Tensor:
        tiles = first.function(rows, columns, *tensors[:count]), second.function(rows, columns, *tensors[count:])
        kept = [tile for tile in tiles if tile.dtype == torch.bool]
        if len(kept) == 2:
            return kept[0] & kept[1]
        weights = [tile for tile in tiles if tile.dtype != torch.bool]
        return weights[0].masked_fill(~kept[0], -math.inf) if kept else weights[0] + weights[1]

    return PairWeight(function, (*first.tensors, *second.tensors), first.symmetric and second.symmetric)


def groups_apart(
    row_group: LongTensor, column_group: LongTensor, row_of_column: LongTensor | None = None
) -> PairWeight:
    """Keeps pairs of different groups, of no group (a number below 0), and the columns that belong to the row itself."""

    def function(rows: slice, columns: slice) -> Tensor:
        mine, theirs = row_group[rows, None], column_group[columns]
        kept = (mine != theirs) | (mine < 0)
        if row_of_column is None:
            return kept
        numbers = torch.arange(rows.start, rows.stop, device=kept.device)
        return kept | (numbers[:, None] == row_of_column[columns])

    labels = (row_group, column_group) if row_of_column is None else None
    return PairWeight(function, symmetric=row_of_column is None and row_group is column_group, labels=labels)

"""Other views of a sequence of items: cropped, masked, reordered. Numbers come from outside, so a row's views are the same on any number of processes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid, SequenceInvalid, ShapesDiffer

OPERATORS = 3


class Sequences(NamedTuple):
    """Items (b, t), int64, 1 to n, filled with 0 on the right; and how many each row has, (b,), int64, at least 1."""

    items: LongTensor
    lengths: LongTensor

    def inputs(self) -> dict[str, Tensor]:
        """As the encoder takes them."""
        return {"items": self.items, "lengths": self.lengths}


def crop(sequences: Sequences, uniform: Tensor, *, ratio: float = 0.5) -> Sequences:
    """floor(n (1 - ratio)) neighbouring items of each sequence of n, at least one, moved to the front.

    Args:
        sequences: items (b, t) and lengths (b,).
        uniform: (b,) numbers in [0, 1): where the crop begins.
        ratio: in [0, 1), the share that is cut off; 0.5 in MCLRec's code.

    Raises ArgumentInvalid, ShapesDiffer, SequenceInvalid.
    """
    items, lengths = _checked(sequences, ratio, uniform, 0)
    kept = (lengths * (1 - ratio)).floor().long().clamp(min=1)
    start = (uniform * (lengths - kept + 1)).floor().long()
    places = torch.arange(items.shape[1], device=items.device)
    moved = items.gather(1, (start[:, None] + places).clamp(max=items.shape[1] - 1))
    return Sequences(moved.masked_fill(places >= kept[:, None], 0), kept)


def mask(sequences: Sequences, uniform: Tensor, *, ratio: float = 0.5) -> Sequences:
    """floor(n ratio) items of each sequence of n replaced by 0, the padding; the length stays.

    Nothing attends to a masked place, and a masked last place has the state of an empty one: MCLRec's code has no token for masks.

    Args:
        sequences: items (b, t) and lengths (b,).
        uniform: (b, t) numbers in [0, 1): the places with the smallest are masked.
        ratio: in [0, 1); 0.5 in MCLRec's code.

    Raises ArgumentInvalid, ShapesDiffer, SequenceInvalid.
    """
    items, lengths = _checked(sequences, ratio, uniform, 1)
    count = (lengths * ratio).floor().long()
    outside = torch.arange(items.shape[1], device=items.device) >= lengths[:, None]
    order = uniform.masked_fill(outside, 2.0).argsort(dim=1, stable=True)
    rank = order.argsort(dim=1)
    return Sequences(items.masked_fill(rank < count[:, None], 0), lengths)


def reorder(sequences: Sequences, uniform: Tensor, *, ratio: float = 0.8) -> Sequences:
    """A window of floor(n ratio) neighbouring items of each sequence of n in random order; the rest and the length stay.

    Args:
        sequences: items (b, t) and lengths (b,).
        uniform: (b, 1 + t) numbers in [0, 1): where the window begins, and the order within.
        ratio: in [0, 1); 0.8 in MCLRec's code.

    Raises ArgumentInvalid, ShapesDiffer, SequenceInvalid.
    """
    items, lengths = _checked(sequences, ratio, uniform, 2)
    window = (lengths * ratio).floor().long()[:, None]
    start = (uniform[:, :1] * (lengths[:, None] - window + 1)).floor().long()
    places = torch.arange(items.shape[1], device=items.device)
    inside = (places >= start) & (places < start + window)
    keys = torch.where(inside, start + uniform[:, 1:] * window, places.to(uniform))  # within the window's own range
    return Sequences(items.gather(1, keys.argsort(dim=1, stable=True)), lengths)


def numbers_for_two(t: int) -> int:
    """How many uniform numbers a row needs for `two_views`: which operators, and what each of the two asks for."""
    return 2 + 2 * (1 + t)


def two_views(
    sequences: Sequences,
    uniform: Tensor,
    *,
    crop_ratio: float = 0.5,
    mask_ratio: float = 0.5,
    reorder_ratio: float = 0.8,
) -> tuple[Sequences, Sequences]:
    """Two views of each sequence by two different operators of crop, mask and reorder; of a single item, twice itself.

    Args:
        sequences: items (b, t) and lengths (b,).
        uniform: (b, numbers_for_two(t)) in [0, 1).
        crop_ratio: as for `crop`.
        mask_ratio: as for `mask`.
        reorder_ratio: as for `reorder`.

    Each ordered pair of operators is as likely as any other (MCLRec's and CL4SRec's code: `random.sample(range(3), k=2)`).
    Raises ArgumentInvalid, ShapesDiffer, SequenceInvalid.
    """
    t = sequences.items.shape[1]
    if uniform.shape != (len(sequences.items), numbers_for_two(t)):
        raise ShapesDiffer(
            f"uniform must have shape {(len(sequences.items), numbers_for_two(t))} for items {tuple(sequences.items.shape)}; got {tuple(uniform.shape)}."
        )
    places = torch.arange(t, device=sequences.items.device)
    empty = (sequences.items < 1) & (places < sequences.lengths[:, None])
    if empty.any():
        row, place = empty.nonzero()[0].tolist()
        raise SequenceInvalid(
            f"Sequence {row} holds {int(sequences.items[row, place])} at place {place}; items are numbered from 1, and 0 stands behind the last one alone."
        )
    first = (uniform[:, 0] * OPERATORS).floor().long()
    second = (first + 1 + (uniform[:, 1] * (OPERATORS - 1)).floor().long()) % OPERATORS
    ratios = {"crop_ratio": crop_ratio, "mask_ratio": mask_ratio, "reorder_ratio": reorder_ratio}
    one, other = uniform[:, 2:].split(1 + t, dim=1)
    return _by(first, sequences, one, **ratios), _by(second, sequences, other, **ratios)


def _by(
    operator: LongTensor,
    sequences: Sequences,
    uniform: Tensor,
    crop_ratio: float,
    mask_ratio: float,
    reorder_ratio: float,
) -> Sequences:
    """Each row by its operator: 0 crop, 1 mask, 2 reorder."""
    made = (
        crop(sequences, uniform[:, 0], ratio=crop_ratio),
        mask(sequences, uniform[:, 1:], ratio=mask_ratio),
        reorder(sequences, uniform, ratio=reorder_ratio),
    )
    operator = operator.masked_fill(sequences.lengths == 1, OPERATORS)  # such a row stays as it is
    items, lengths = sequences
    for number, view in enumerate(made):
        chosen = operator == number
        items = torch.where(chosen[:, None], view.items, items)
        lengths = torch.where(chosen, view.lengths, lengths)
    return Sequences(items, lengths)


def _checked(sequences: Sequences, ratio: float, uniform: Tensor, kind: int) -> Sequences:
    """The sequences as they are. Raises ArgumentInvalid for a ratio outside [0, 1), ShapesDiffer for numbers of another shape, SequenceInvalid for lengths."""
    if not 0 <= ratio < 1:
        raise ArgumentInvalid(f"The share of a sequence that a view changes must be from 0 to below 1; got {ratio}.")
    b, t = sequences.items.shape
    wanted = ((b,), (b, t), (b, 1 + t))[kind]
    if uniform.shape != wanted or sequences.lengths.shape != (b,):
        raise ShapesDiffer(
            f"Items {(b, t)} need lengths {(b,)} and numbers {wanted}; got {tuple(sequences.lengths.shape)} and {tuple(uniform.shape)}."
        )
    if b and not 1 <= int(sequences.lengths.min()) <= int(sequences.lengths.max()) <= t:
        raise SequenceInvalid(
            f"Sequences in {t} places have from 1 to {t} items; got lengths from {int(sequences.lengths.min())} to {int(sequences.lengths.max())}."
        )
    return sequences

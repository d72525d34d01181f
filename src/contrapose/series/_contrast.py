"""Two levels of contrast on representations of time steps: whole series against each other, windows of one series among themselves."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor, nn

from contrapose.errors import ArgumentInvalid, ShapesDiffer
from contrapose.objectives._arguments import check_temperature

LEAST_WINDOWS = 4  # with three, a window at an end has no negative left


def pooled(steps: Tensor, inside: Tensor | None = None) -> Tensor:
    """The largest value over time of each dimension: (b, t, d) to (b, d).

    `inside`: bool (b, t), True on steps that belong to the series; None: all. A gradient goes to the first step that has the largest value.
    """
    if steps.ndim != 3 or not steps.shape[1]:
        raise ShapesDiffer(f"representations of steps have shape (b, t, d); got {tuple(steps.shape)}.")
    if inside is not None:
        steps = steps.masked_fill(~inside.unsqueeze(-1), -torch.inf)
    return steps.max(dim=1).values


def window_sizes(lengths: LongTensor, count: int) -> LongTensor:
    """Steps of each of `count` equal windows in series of these lengths, (b,); 0 where a series is shorter than that."""
    return lengths // count


def window_vectors(
    steps: Tensor, count: int, start: LongTensor | None = None, lengths: LongTensor | None = None
) -> Tensor:
    """`count` neighbouring windows of each series: unit steps, their largest values over each window. (b, t, d) to (b, count, d).

    `start` (b,): the first step of the first window; None: 0. A window has length // count steps, so that at most count - 1 are left over.
    `lengths` (b,): steps of each series; None: t. A series shorter than `count` has no windows: its rows are zero.
    """
    b, t, d = steps.shape
    unit = nn.functional.normalize(steps, dim=-1)
    start = torch.zeros(b, dtype=torch.long, device=steps.device) if start is None else start
    lengths = torch.full_like(start, t) if lengths is None else lengths
    sizes = window_sizes(lengths, count)
    found = steps.new_zeros(b, count, d)
    for size in sizes.unique().tolist():
        if size == 0:
            continue
        rows = (sizes == size).nonzero().squeeze(1)
        places = start[rows, None] + torch.arange(count * size, device=steps.device)
        cut = unit[rows[:, None], places].view(len(rows), count, size, d)
        found = found.index_copy(0, rows, cut.max(dim=2).values)
    return found


def neighbour_contrast(windows: Tensor, *, temperature: float = 1.0) -> Tensor:
    r"""The local loss of each series: a window picks the next one out of all that are not near it. (b, k, d) to (b,).

    The positive of window i is i + 1, of the last one the last but one. Negatives are all windows but i itself, its neighbours, and at the two
    ends the second neighbour too, so that each has k - 3. Products, not cosines: windows are the maxima of unit steps.
    With z the products / temperature, the loss is the mean over i of log(e^z+ + sum of e^z-) - z+; log(k - 2) where all products are equal.
    Raises ArgumentInvalid for fewer than four windows, TemperatureInvalid.
    """
    check_temperature(temperature)
    k = windows.shape[1]
    if k < LEAST_WINDOWS:
        raise ArgumentInvalid(
            f"a window needs negatives that are not its neighbours: {LEAST_WINDOWS} windows or more; got {k}."
        )
    place = torch.arange(k, device=windows.device)
    near = (place[:, None] - place).abs() <= 1
    near[0, 2] = near[-1, -3] = True
    following = torch.where(place < k - 1, place + 1, k - 2)
    products = windows @ windows.transpose(1, 2) / temperature
    positive = products.gather(2, following.expand(len(windows), k).unsqueeze(-1))
    among = torch.cat([positive, products.masked_fill(near, -torch.inf)], dim=-1)
    return (among.logsumexp(dim=-1) - positive.squeeze(-1)).mean(dim=-1)


def local_contrast(
    steps: Tensor,
    count: int,
    *,
    temperature: float = 1.0,
    start: LongTensor | None = None,
    lengths: LongTensor | None = None,
) -> Tensor:
    """`neighbour_contrast` of `window_vectors`: (b, t, d) to (b,), 0 for a series that is shorter than `count` steps."""
    losses = neighbour_contrast(window_vectors(steps, count, start, lengths), temperature=temperature)
    if lengths is None:
        return losses if steps.shape[1] >= count else losses * 0
    return losses * (lengths >= count)


def random_start(uniform: Tensor, lengths: LongTensor, count: int) -> LongTensor:
    """Where the first of `count` windows begins, from uniform numbers (b,): any place that leaves room for all of them."""
    left_over = lengths - count * window_sizes(lengths, count)
    return (uniform * (left_over + 1)).floor().long()

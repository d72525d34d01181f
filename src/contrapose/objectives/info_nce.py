"""InfoNCE: pick the positive of an anchor out of all columns; and its form without the positive in the denominator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer
from contrapose.objectives._arguments import (
    Pair,
    Reduction,
    Similarity,
    both,
    check_common,
    check_finite,
    check_integers,
    check_number,
    check_temperature,
    greatest,
    groups_apart,
    inverse,
    operands,
    pair_weight,
    reduced,
    row_products,
)
from contrapose.objectives._tiles import PairWeight, log_sum_exp, own_and_log_sum_exp


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    index: LongTensor | None = None,
    negatives: Tensor | None = None,
    negative_log_weight: float = 0.0,
    queue: Tensor | None = None,
    group: LongTensor | None = None,
    queue_group: LongTensor | None = None,
    pair: Pair | None = None,
    in_batch: bool = True,
    symmetric: bool = False,
    label_smoothing: float = 0.0,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""InfoNCE (van den Oord et al., 2018) with in-batch negatives, and optionally hard negatives and a queue.

    With s(x, y) the similarity and t the temperature, the loss of anchor i is

        -log  exp(s(a_i, p_i) / t)  /  ( exp(s(a_i, p_i) / t) + N_i ),

        N_i = sum_(j≠i) exp(s(a_i, p_j) / t) + sum_jc exp(s(a_i, n_jc) / t + w [i = j]) + sum_m exp(s(a_i, q_m) / t),

    where the sums leave out whatever shares a group with row i, but never n_ic, which belongs to row i itself. It is computed as
    softplus(log N_i - s(a_i, p_i) / t), which keeps its last digits where the loss is near 0, and in tiles, so that no (b, b) matrix is made.

    Args:
        anchors: (b, d). Row i belongs to row i of `positives`. Not normalised: "cosine" does that.
        positives: (b, d), or (m, d) with `index`; every other row is a negative of anchor i.
        temperature: a positive number, or a tensor holding one, which then receives a gradient.
        index: (b,), the row of `positives` that belongs to each anchor (a memory bank, captions); None: row i.
        negatives: (b, d) or (b, k, d), the hard negatives of each row; columns for every anchor.
        negative_log_weight: w, added to the logit of an anchor's own hard negatives alone; 0 weighs them like the rest.
        queue: (q, d), columns for every anchor; used without gradient. Empty, it counts as None.
        group: (b,) integers. Rows of one group are never each other's negatives, nor are their hard negatives.
            A number below 0 stands for "no group": the row is a negative of all others.
        queue_group: (q,) integers, compared with `group` in the same way.
        pair: what stands between anchor i and column j of positives, negatives, queue in this order, b + b k + q columns: a tensor (b, n)
            or a function of two slices that gives a tile of it, or a `PairWeight`. Floats are log-weights of exp(s / t), which may be
            learned; booleans keep. An anchor's own positive always counts whole.
        in_batch: False leaves out other rows' positives and negatives: an anchor has its own hard negatives and the queue.
        symmetric: average with the other direction, in which p_i picks a_i out of all anchors. Hard negatives and queue
            stand in the first direction alone.
        label_smoothing: e in [0, 1): the target is 1 - e + e/n for the positive and e/n for each other of the n columns.
        similarity: "cosine" (a zero vector has similarity 0 with everything) or "dot".
        reduction: "mean" or "sum" over the b anchors, or "none" for their losses, (b,).

    Returns:
        A scalar, or (b,). float32 for half-precision inputs, under autocast too; float64 inputs stay float64. Where all inputs are bfloat16
        the products are taken in it, and summed in float32: twice as fast, with losses within about 1 % of the exact ones.
        At least 0; with cosines at most log(1 + (n - 1) exp(2 / t + max(w, 0))) for n = b + b k + q columns. At chance
        (all similarities equal, w = 0, nothing masked) log(n), or with `symmetric` (log(n) + log(b)) / 2.
        An anchor whose every negative is masked adds exactly 0 to the loss and to every gradient.

    Equals, at t = temperature:
        SimCSE's unsupervised loss as it stands, its supervised one with `negatives` (its `hard_negative_weight` is w);
        sentence-transformers' MultipleNegativesRankingLoss with scale 1 / t; ESimCSE's with `queue`; MoCo's with `queue, in_batch=False`;
        CLIP's with `symmetric=True` and logit scale 1 / t, and half of ALIGN's with `label_smoothing` as well. For t to infinity it
        tends to log(n); for t to 0, t times the loss tends to the triplet loss of margin 0 with the hardest negative,
        max(0, max_j s_ij - s_ii).

    Raises:
        TemperatureInvalid: the temperature is not a positive finite number.
        NonFinite: an argument, which is named, holds NaN or infinity.
        ShapesDiffer: rows or dimensions do not fit.
        NoNegatives: there is one column or none, so that the loss would be 0 whatever the embeddings are.
        ArgumentInvalid: an unknown choice, or arguments that exclude each other; the message names them.
        DoubleBackward: a second derivative is asked for.
    """
    check_number("label_smoothing", label_smoothing, 0, 1)
    if label_smoothing and (group is not None or pair is not None or label_smoothing == 1):
        raise ArgumentInvalid(
            "label_smoothing must be below 1, and goes with neither group nor pair: it gives every column a share of the target."
        )
    found = contrast(
        anchors, positives, temperature=temperature, index=index, negatives=negatives, negative_log_weight=negative_log_weight,
        queue=queue, group=group, queue_group=queue_group, pair=pair, in_batch=in_batch, symmetric=symmetric,
        similarity=similarity, reduction=reduction, smoothed=bool(label_smoothing),
    )  # fmt: skip
    losses = _smoothed(found.positive, found.negative, found.mean_column, label_smoothing)
    if symmetric:
        losses = (losses + _smoothed(found.positive, found.back, found.mean_anchor, label_smoothing)) / 2
    return reduced(losses, reduction)


def decoupled(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    index: LongTensor | None = None,
    negatives: Tensor | None = None,
    queue: Tensor | None = None,
    group: LongTensor | None = None,
    queue_group: LongTensor | None = None,
    pair: Pair | None = None,
    symmetric: bool = False,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""InfoNCE without the positive in the denominator (DCL: Yeh et al., ECCV 2022).

        -log  exp(s(a_i, p_i) / t)  /  N_i        with N_i as in `info_nce`.

    Its gradient is not scaled down by how well the positive stands out already, which helps small batches. It may be negative: from
    -2 / t + log(n - 1) to 2 / t + log(n - 1) with cosines and n - 1 negatives; log(n - 1) at chance.

    Arguments, precision and errors are those of `info_nce`. Raises NoNegatives also when the groups leave an anchor without a negative,
    since the log of an empty sum is no loss.

    Equals info_nce where the positive is far below the negatives. With `pair` the log of MEOW's weights (Yu et al., 2023) it is their loss.
    """
    found = contrast(
        anchors, positives, temperature=temperature, index=index, negatives=negatives, queue=queue, group=group,
        queue_group=queue_group, pair=pair, symmetric=symmetric, similarity=similarity, reduction=reduction,
    )  # fmt: skip
    ways = [found.negative] if found.back is None else [found.negative, found.back]
    if any(bool(torch.isneginf(way).any()) for way in ways):
        row = int(torch.isneginf(torch.stack(ways)).any(0).nonzero()[0])
        raise NoNegatives(
            f"row {row} has no negative left after group and pair; without its positive in the denominator it has no loss."
        )
    return reduced(sum(way - found.positive for way in ways) / len(ways), reduction)


class Contrast(NamedTuple):
    """Logits of positives, logs of the sums over negatives by anchor and by positive, and the mean logits of each (for smoothing)."""

    positive: Tensor  # (b,)
    negative: Tensor  # (b,)
    back: Tensor | None  # (b,)
    mean_column: Tensor | None  # (b,), where they are asked for
    mean_anchor: Tensor | None


def contrast(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    index: LongTensor | None = None,
    negatives: Tensor | None = None,
    negative_log_weight: float = 0.0,
    queue: Tensor | None = None,
    group: LongTensor | None = None,
    queue_group: LongTensor | None = None,
    pair: Pair | None = None,
    in_batch: bool = True,
    symmetric: bool = False,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
    smoothed: bool = False,
) -> Contrast:
    """What `info_nce` and `decoupled` share: each anchor's positive, and all that it is told from."""
    check_common(similarity, reduction)
    check_temperature(temperature)
    check_number("negative_log_weight", negative_log_weight)
    given = {"anchors": anchors, "positives": positives, "negatives": negatives, "queue": queue}
    given = {name: rows for name, rows in given.items() if rows is not None}
    _check_embeddings(given, index, in_batch)
    _check_groups(group, queue_group, given)
    _check_together(index=index, negatives=negatives, group=group, pair=pair, in_batch=in_batch, symmetric=symmetric)

    rows, products = operands(given, similarity)
    a, p, scale, bound = rows["anchors"], rows["positives"], inverse(temperature), greatest(similarity)
    hard = rows.get("negatives", a.new_empty(len(a), 0, a.shape[1])).reshape(len(a), -1, a.shape[1])
    stored = rows.get("queue", a.new_empty(0, a.shape[1])).detach()
    with torch.autocast(a.device.type, enabled=False):
        if not in_batch:
            positive = row_products(a, p if index is None else p[index]) * scale
            apart = _queue_apart(group, queue_group)
            queued, _ = log_sum_exp(a, stored, scale=scale, weight=apart, bound=bound, products=products)
            mine = torch.einsum("bd,bkd->bk", a, hard) * scale + negative_log_weight
            negative = torch.logaddexp(queued, mine.logsumexp(1)) if hard.shape[1] else queued
            mean = (positive + mine.sum(1) + (a @ stored.T).sum(1) * scale) / (1 + hard.shape[1] + len(stored))
            return Contrast(positive, negative, None, mean, None)
        columns = torch.cat([p, hard.flatten(0, 1), stored]) if len(given) > 2 else p
        weight = both(
            pair_weight(pair, len(a), len(columns)),
            both(
                _apart(group, queue_group, hard.shape[1], len(stored)),
                _own_negatives(negative_log_weight, p, hard.shape[1]),
            ),
        )
        own = (0,) if index is None else index
        positive, negative, back = own_and_log_sum_exp(
            a, columns, own=own, scale=scale, weight=weight, by_column=symmetric, bound=bound, products=products
        )
        if symmetric and columns is not p:
            back = back[: len(p)]
        if not smoothed:
            return Contrast(positive, negative, back, None, None)
        means = row_products(a, columns.mean(0)) * scale, row_products(p, a.mean(0)) * scale
    return Contrast(positive, negative, back, *means)


def _smoothed(positive: Tensor, negative: Tensor, mean: Tensor | None, smoothing: float) -> Tensor:
    """Cross-entropy with a smoothed target; without smoothing softplus keeps the digits of small losses."""
    if not smoothing:
        return functional.softplus(negative - positive, threshold=40)
    return torch.logaddexp(negative, positive) - (1 - smoothing) * positive - smoothing * mean


def _apart(group: LongTensor | None, queue_group: LongTensor | None, k: int, q: int) -> PairWeight | None:
    """Keeps columns of other groups; columns are positives, hard negatives by row, queue."""
    if group is None:
        return None
    row = torch.arange(len(group), device=group.device)
    nobody = row.new_full((q,), -1)
    columns = torch.cat([group, group.repeat_interleave(k), nobody if queue_group is None else queue_group])
    return groups_apart(group, columns, torch.cat([row, row.repeat_interleave(k), nobody]) if k else None)


def _queue_apart(group: LongTensor | None, queue_group: LongTensor | None) -> PairWeight | None:
    return None if queue_group is None else groups_apart(group, queue_group)


def _own_negatives(log_weight: float, positives: Tensor, k: int) -> PairWeight | None:
    """The log-weight of an anchor's own k hard negatives, whose columns follow the positives'."""
    if not log_weight or not k:
        return None

    def function(rows: slice, columns: slice) -> Tensor:
        row, column = (torch.arange(each.start, each.stop, device=positives.device) for each in (rows, columns))
        behind = column - len(positives)
        own = torch.where(behind >= 0, torch.div(behind, k, rounding_mode="floor"), -1)
        return (row[:, None] == own).to(positives.dtype) * log_weight

    return PairWeight(function)


def _check_embeddings(given: Mapping[str, Tensor], index: LongTensor | None, in_batch: bool) -> None:
    anchors = given["anchors"]
    if anchors.ndim != 2:
        raise ShapesDiffer(f"anchors must have shape (b, d); got {tuple(anchors.shape)}.")
    b, d = anchors.shape
    if d == 0:
        raise ShapesDiffer(f"anchors must have one dimension or more; got shape {tuple(anchors.shape)}.")
    for name, rows in given.items():
        fits = rows.ndim == 2 or (rows.ndim == 3 and name == "negatives")
        free = name == "queue" or (name == "positives" and index is not None)
        if not fits or rows.shape[-1] != d or (not free and len(rows) != b):
            wanted = f"(b, {d}), b = {b}" if not free else f"(any, {d})"
            wanted = f"({b}, {d}) or ({b}, k, {d})" if name == "negatives" else wanted
            raise ShapesDiffer(
                f"{name} must have shape {wanted} to go with anchors of shape ({b}, {d}); got {tuple(rows.shape)}."
            )
        check_finite(name, rows)
    others = sum(rows.numel() // d for name, rows in given.items() if name != "anchors")
    if not in_batch:
        others = 1 + sum(given[name].shape[-2] if name == "negatives" and given[name].ndim == 3 else len(given[name]) and 1
                         for name in ("negatives", "queue") if name in given)  # fmt: skip
    if b == 0 or others < 2:
        raise NoNegatives(
            f"{b} anchor(s) with {others} column(s) to choose from: no anchor has a negative and the loss is 0 whatever"
            " the embeddings are. Give at least two rows, hard negatives or a queue that is not empty."
        )
    if index is not None:
        check_integers("index", index, b, "anchors")
        if not bool(((index >= 0) & (index < len(given["positives"]))).all()):
            raise ArgumentInvalid(
                f"index must name rows of positives, 0 to {len(given['positives']) - 1}; got {int(index.min())} to {int(index.max())}."
            )


def _check_groups(group: LongTensor | None, queue_group: LongTensor | None, given: Mapping[str, Tensor]) -> None:
    if queue_group is not None and (group is None or "queue" not in given):
        raise ArgumentInvalid(
            "queue_group needs both queue and group: it says which of the queue's vectors to leave out."
        )
    for name, numbers, rows in (("group", group, "anchors"), ("queue_group", queue_group, "queue")):
        if numbers is not None:
            check_integers(name, numbers, len(given[rows]), rows)


def _check_together(
    *,
    index: LongTensor | None,
    negatives: Tensor | None,
    group: LongTensor | None,
    pair: Pair | None,
    in_batch: bool,
    symmetric: bool,
) -> None:
    if index is not None and (symmetric or negatives is not None or group is not None):
        raise ArgumentInvalid(
            "index goes with neither symmetric, negatives nor group: these need row i of anchors and positives to belong together."
        )
    if not in_batch and (symmetric or pair is not None):
        raise ArgumentInvalid(
            "in_batch=False goes with neither symmetric nor pair: without other rows there is no other direction."
        )

"""InfoNCE: pick the positive of an anchor out of all columns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import reduce
from typing import Literal

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer, TemperatureInvalid, nearest


def info_nce(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    negatives: Tensor | None = None,
    negative_log_weight: float = 0.0,
    queue: Tensor | None = None,
    group: LongTensor | None = None,
    queue_group: LongTensor | None = None,
    symmetric: bool = False,
    similarity: Literal["cosine", "dot"] = "cosine",
    reduction: Literal["mean", "sum", "none"] = "mean",
) -> Tensor:
    r"""InfoNCE (van den Oord et al., 2018) with in-batch negatives, and optionally hard negatives and a queue.

    With s(x, y) the similarity and t the temperature, the loss of anchor i is

        -log  exp(s(a_i, p_i) / t)  /  ( sum_j exp(s(a_i, p_j) / t)
                                       + sum_jc exp(s(a_i, n_jc) / t + w [i = j])
                                       + sum_m exp(s(a_i, q_m) / t) )

    where the sums leave out whatever shares a group with row i, but never p_i and n_ic, which belong to row i itself.

    Args:
        anchors: (b, d). Row i belongs to row i of `positives`. Not normalised: "cosine" does that.
        positives: (b, d); every other row is a negative of anchor i.
        temperature: a positive number, or a tensor holding one, which then receives a gradient.
        negatives: (b, d) or (b, k, d), the hard negatives of each row; columns for every anchor.
        negative_log_weight: w, added to the logit of an anchor's own hard negatives alone; 0 weighs them like the rest.
        queue: (q, d), columns for every anchor; used without gradient. Empty, it counts as None.
        group: (b,) integers. Rows of one group are never each other's negatives, nor are their hard negatives.
            A number below 0 stands for "no group": the row is a negative of all others.
        queue_group: (q,) integers, compared with `group` in the same way.
        symmetric: average with the other direction, in which p_i picks a_i out of all anchors. Hard negatives and queue
            stand in the first direction alone.
        similarity: "cosine" (a zero vector has similarity 0 with everything) or "dot".
        reduction: "mean" or "sum" over the b anchors, or "none" for their losses, (b,).

    Returns:
        A scalar, or (b,). float32 for half-precision inputs, under autocast too; float64 inputs stay float64.
        At least 0; with cosines at most log(1 + (n - 1) exp(2 / t + max(w, 0))) for n = b + b k + q columns. At chance
        (all similarities equal, w = 0, nothing masked) log(n), or with `symmetric` (log(n) + log(b)) / 2.
        An anchor whose every negative is masked adds exactly 0 to the loss and to every gradient.

    Equals, at t = temperature:
        SimCSE's unsupervised loss as it stands, its supervised one with `negatives` (its `hard_negative_weight` is w);
        sentence-transformers' MultipleNegativesRankingLoss with scale 1 / t; ESimCSE's with `queue`;
        CLIP's with `symmetric=True` and logit scale 1 / t. For t to infinity it tends to log(n); for t to 0, t times
        the loss tends to the triplet loss of margin 0 with the hardest negative, max(0, max_j s_ij - s_ii).

    Raises:
        TemperatureInvalid: the temperature is not a positive finite number.
        NonFinite: an argument, which is named, holds NaN or infinity.
        ShapesDiffer: rows or dimensions do not fit.
        NoNegatives: there is one column or none, so that the loss would be 0 whatever the embeddings are.
        ArgumentInvalid: an unknown `similarity` or `reduction`, or a `queue_group` that nothing is compared with.
    """
    _check_choice("similarity", similarity, ("cosine", "dot"))
    _check_choice("reduction", reduction, ("mean", "sum", "none"))
    _check_temperature(temperature)
    embeddings = {"anchors": anchors, "positives": positives, "negatives": negatives, "queue": queue}
    embeddings = {name: rows for name, rows in embeddings.items() if rows is not None}
    _check_embeddings(embeddings)
    _check_groups(group, queue_group, embeddings)
    if not math.isfinite(negative_log_weight):
        raise ArgumentInvalid(f"negative_log_weight must be a finite number; got {negative_log_weight}.")

    with torch.autocast(anchors.device.type, enabled=False):  # exponentials of s / t need more than 8 bits
        anchors, columns, owner, column_group = _columns(embeddings, group, queue_group)
        if similarity == "cosine":
            anchors, columns = functional.normalize(anchors, dim=-1), functional.normalize(columns, dim=-1)
        scale = temperature.reshape(()) if isinstance(temperature, Tensor) else temperature
        logits = anchors @ columns.T / scale  # (b, b + b k + q)

        b = len(anchors)
        row = torch.arange(b, device=logits.device)
        own = row[:, None] == owner
        if negative_log_weight:
            logits = logits + negative_log_weight * own.index_fill(1, row, False).to(logits.dtype)
        if group is not None:
            alike = (group[:, None] == column_group) & (group[:, None] >= 0)
            logits = logits.masked_fill(alike & ~own, -math.inf)

        loss = functional.cross_entropy(logits, row, reduction="none")
        if symmetric:
            loss = (loss + functional.cross_entropy(logits[:, :b].T, row, reduction="none")) / 2
    return {"mean": torch.mean, "sum": torch.sum, "none": torch.clone}[reduction](loss)


def _columns(
    embeddings: Mapping[str, Tensor], group: LongTensor | None, queue_group: LongTensor | None
) -> tuple[Tensor, Tensor, LongTensor, LongTensor]:
    """Anchors (b, d) and columns (n, d) in one precision; for each column its row and its group, or -1."""
    anchors, positives = embeddings["anchors"], embeddings["positives"]
    b, d = anchors.shape
    hard = embeddings.get("negatives", anchors.new_empty(b, 0, d)).reshape(b, -1, d)
    queue = embeddings.get("queue", anchors.new_empty(0, d)).detach()
    k, q = hard.shape[1], len(queue)

    precision = reduce(torch.promote_types, (rows.dtype for rows in embeddings.values()), torch.float32)
    columns = torch.cat([positives.to(precision), hard.reshape(b * k, d).to(precision), queue.to(precision)])
    row = torch.arange(b, device=anchors.device)
    nobody = row.new_full((q,), -1)
    owner = torch.cat([row, row.repeat_interleave(k), nobody])
    grouped = row if group is None else group
    column_group = torch.cat([grouped, grouped.repeat_interleave(k), nobody if queue_group is None else queue_group])
    return anchors.to(precision), columns, owner, column_group


def _check_choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ArgumentInvalid(f"{name} {value!r} is not known; {nearest(str(value), known)}")


def _check_temperature(temperature: float | Tensor) -> None:
    if isinstance(temperature, Tensor) and temperature.numel() != 1:
        raise TemperatureInvalid(f"temperature must be one number; got a tensor of shape {tuple(temperature.shape)}.")
    value = float(temperature.detach() if isinstance(temperature, Tensor) else temperature)
    if not (math.isfinite(value) and value > 0):
        raise TemperatureInvalid(
            f"temperature must be a positive number, since similarities are divided by it; got {value}. 0.05 is usual."
        )


def _check_embeddings(embeddings: Mapping[str, Tensor]) -> None:
    anchors = embeddings["anchors"]
    if anchors.ndim != 2:
        raise ShapesDiffer(f"anchors must have shape (b, d); got {tuple(anchors.shape)}.")
    b, d = anchors.shape
    for name, rows in embeddings.items():
        fits = rows.ndim == 2 or (rows.ndim == 3 and name == "negatives")
        if not fits or rows.shape[-1] != d or (name != "queue" and len(rows) != b):
            wanted = {"queue": f"(q, {d})", "negatives": f"({b}, {d}) or ({b}, k, {d})"}.get(name, f"({b}, {d})")
            raise ShapesDiffer(
                f"{name} must have shape {wanted} to go with anchors of shape ({b}, {d}); got {tuple(rows.shape)}."
            )
        broken = ~torch.isfinite(rows).flatten(start_dim=1).all(dim=1)
        if bool(broken.any()):
            first = int(broken.nonzero()[0])
            found = "NaN" if bool(rows[first].isnan().any()) else "infinity"
            raise NonFinite(f"{name} hold {found} in {int(broken.sum())} of {len(rows)} rows (first: row {first}).")
    others = sum(rows.numel() // d for name, rows in embeddings.items() if name != "anchors")
    if b == 0 or others < 2:
        raise NoNegatives(
            f"{b} anchor(s) with {others} column(s) to choose from: no anchor has a negative and the loss is 0 whatever"
            " the embeddings are. Give at least two rows, hard negatives or a queue that is not empty."
        )


def _check_groups(group: LongTensor | None, queue_group: LongTensor | None, embeddings: Mapping[str, Tensor]) -> None:
    if queue_group is not None and (group is None or "queue" not in embeddings):
        raise ArgumentInvalid(
            "queue_group needs both queue and group: it says which of the queue's vectors to leave out."
        )
    for name, numbers, rows in (("group", group, "anchors"), ("queue_group", queue_group, "queue")):
        if numbers is None:
            continue
        if numbers.shape != embeddings[rows].shape[:1]:
            wanted, got = len(embeddings[rows]), tuple(numbers.shape)
            raise ShapesDiffer(
                f"{name} must hold one integer for each of the {wanted} rows of {rows}; got shape {got}."
            )
        if numbers.is_floating_point():
            raise ArgumentInvalid(f"{name} must hold integers; got {numbers.dtype}.")

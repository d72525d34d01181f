"""Supervised contrastive losses: every row with an anchor's label is a positive."""

from __future__ import annotations

from typing import Literal

import torch
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid, NoNegatives, NoPositives
from contrapose.objectives._arguments import (
    Similarity,
    check_choice,
    check_integers,
    check_rows,
    check_temperature,
    divided,
    operands,
    row_products,
)
from contrapose.objectives._tiles import PairWeight, log_sum_exp, softplus_sum

Denominator = Literal["all", "negatives", "own"]


def supervised(
    anchors: Tensor,
    candidates: Tensor | None = None,
    *,
    labels: LongTensor,
    candidate_labels: LongTensor | None = None,
    ignored_labels: LongTensor | None = None,
    temperature: float | Tensor,
    denominator: Denominator = "all",
    similarity: Similarity = "cosine",
    reduction: Literal["mean", "sum", "none", "pairs"] = "mean",
) -> Tensor:
    r"""The supervised contrastive loss (SupCon: Khosla et al., NeurIPS 2020, equation 2, the form with the log outside).

    With P_i the candidates that have anchor i's label,

        l_i = -1/|P_i| sum_(p in P_i) log  exp(s_ip / t)  /  D_ip,

    and D_ip by `denominator`: "all" sums over all candidates (SupCon); "negatives" over those with another label; "own" over those and the
    positive p alone, so that positives do not compete (Hydra; also "multi-positive InfoNCE").

    Args:
        anchors: (n, d).
        candidates: (m, d); None: the anchors themselves, each without itself.
        labels: (n,) integers. candidate_labels: (m,), needed with candidates.
        ignored_labels: (n,); candidates with this label are neither positives nor negatives of anchor i (unless it is its own label).
        temperature: a positive number, or a tensor holding one, which then receives a gradient.
        similarity: "cosine" or "dot".
        reduction: "mean" or "sum" over the anchors that have a positive; "none", (n,), 0 for those without; "pairs", the mean over all
            pairs of an anchor and a positive.

    Returns:
        At chance log(m') for m' columns in the denominator. "all": at least log|P_i|, and at least 0. "own": at least 0.
        Precision as for `info_nce`. Positives are summed by label, so nothing of size n x m is made.

    Equals `nt_xent` for two views with row numbers as labels; `info_nce` for candidates with the labels 0 … n - 1 in order.

    Raises TemperatureInvalid, NonFinite, ShapesDiffer, ArgumentInvalid, DoubleBackward; NoPositives when no anchor has a positive;
    NoNegatives when an anchor with a positive has an empty denominator.
    """
    check_choice("similarity", similarity, ("cosine", "dot"))
    check_choice("reduction", reduction, ("mean", "sum", "none", "pairs"))
    check_choice("denominator", denominator, ("all", "negatives", "own"))
    check_temperature(temperature)
    check_rows("anchors", anchors, ("n", "d"))
    check_integers("labels", labels, len(anchors), "anchors")
    same = candidates is None
    if same != (candidate_labels is None):
        raise ArgumentInvalid(
            "candidates and candidate_labels belong together; give both, or neither for the anchors themselves."
        )
    if not same:
        check_rows("candidates", candidates, ("m", anchors.shape[1]))
        check_integers("candidate_labels", candidate_labels, len(candidates), "candidates")
    if ignored_labels is not None:
        check_integers("ignored_labels", ignored_labels, len(anchors), "anchors")

    rows, products = operands({"anchors": anchors, "candidates": candidates}, similarity)
    a = divided(rows["anchors"], temperature)
    c = rows["anchors"] if same else rows["candidates"]
    theirs = labels if same else candidate_labels
    own = torch.arange(len(a), device=a.device)[:, None] if same else None
    with torch.autocast(a.device.type, enabled=False):
        total, number = _sums_of_positives(a, c, labels, theirs)
        if same:
            total, number = total - row_products(a, c), number - 1
        if not bool((number > 0).any()):
            raise NoPositives("no anchor has a candidate with its label, so there is nothing to pull together.")
        kept = _kept(labels, theirs, ignored_labels, positives=denominator == "all")
        partition, _ = log_sum_exp(a, c, skip=own, weight=kept, products=products)
        _check_denominators(partition, number, denominator)
        if denominator == "own":
            alike = PairWeight(lambda rows, columns: _alike(rows, columns, labels, theirs, own is not None))
            finite = torch.where(torch.isfinite(partition), partition, 0)
            summed = softplus_sum(-a, c, finite, weight=alike, products=products)
        else:
            summed = torch.where(number > 0, number * torch.where(number > 0, partition, 0) - total, 0)
        return _reduced(summed, number, reduction)


def _sums_of_positives(a: Tensor, c: Tensor, labels: LongTensor, theirs: LongTensor) -> tuple[Tensor, Tensor]:
    """Each anchor's sum of logits over the candidates with its label, (n,), and their number."""
    known, place = torch.cat([labels, theirs]).unique(return_inverse=True)
    mine, their = place[: len(labels)], place[len(labels) :]
    by_label = c.new_zeros(len(known), c.shape[1]).index_add(0, their, c)
    number = torch.bincount(their, minlength=len(known))
    return row_products(a, by_label[mine]), number[mine]


def _kept(labels: LongTensor, theirs: LongTensor, ignored: LongTensor | None, positives: bool) -> PairWeight | None:
    """Which candidates stand in the denominator: positives or not, and never ignored ones."""
    if positives and ignored is None:
        return None

    def function(rows: slice, columns: slice) -> Tensor:
        alike = labels[rows, None] == theirs[columns]
        kept = torch.ones_like(alike) if positives else ~alike
        return kept if ignored is None else kept & (alike | (ignored[rows, None] != theirs[columns]))

    return PairWeight(function)


def _alike(rows: slice, columns: slice, labels: LongTensor, theirs: LongTensor, not_itself: bool) -> Tensor:
    alike = labels[rows, None] == theirs[columns]
    if not_itself:
        row, column = (torch.arange(each.start, each.stop, device=labels.device) for each in (rows, columns))
        alike &= row[:, None] != column
    return alike


def _check_denominators(partition: Tensor, number: Tensor, denominator: Denominator) -> None:
    empty = torch.isneginf(partition) & (number > 0)
    if denominator != "own" and bool(empty.any()):
        raise NoNegatives(
            f"row {int(empty.nonzero()[0])} has no candidate in its denominator; a batch needs at least two labels."
        )


def _reduced(summed: Tensor, number: Tensor, reduction: str) -> Tensor:
    if reduction == "pairs":
        return summed.sum() / number.sum()
    each = summed / number.clamp_min(1)
    if reduction == "none":
        return each
    return each.sum() / (number > 0).sum() if reduction == "mean" else each.sum()

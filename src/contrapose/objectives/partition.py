"""The building block of a loss of one's own: logs of sums of exponentials over candidates."""

from __future__ import annotations

import torch
from torch import Tensor

from contrapose.errors import ArgumentInvalid
from contrapose.objectives._arguments import (
    Pair,
    Similarity,
    check_choice,
    check_rows,
    check_temperature,
    divided,
    operands,
    pair_weight,
)
from contrapose.objectives._tiles import log_sum_exp


def log_partition(
    anchors: Tensor,
    candidates: Tensor | None = None,
    *,
    temperature: float | Tensor,
    pair: Pair | None = None,
    not_itself: bool = False,
    similarity: Similarity = "cosine",
) -> Tensor:
    r"""log sum_j exp(s(a_i, c_j) / t + w_ij), (n,): what a contrastive loss divides by.

    Exact, differentiable and in tiles, for any n and m. A loss is a partition less the logits of positives, which cost n d:

        (log_partition(a, c, temperature=t) - (a_unit * p_unit).sum(1) / t).mean()

    Args:
        anchors: (n, d). candidates: (m, d); None: the anchors themselves.
        temperature: a positive number, or a tensor holding one, which then receives a gradient.
        pair: w: a tensor (n, m), a function of two slices that gives a tile of it, or a `PairWeight`. Floats are log-weights, booleans keep.
        not_itself: leave candidate i out of anchor i's sum.
        similarity: "cosine" or "dot".

    Returns:
        (n,); -inf, without gradient, where nothing is left. log(m) + s/t where all similarities are s. Precision as for `info_nce`.

    Raises TemperatureInvalid, NonFinite, ShapesDiffer, ArgumentInvalid, DoubleBackward.
    """
    check_choice("similarity", similarity, ("cosine", "dot"))
    check_temperature(temperature)
    check_rows("anchors", anchors, ("n", "d"))
    if candidates is not None:
        check_rows("candidates", candidates, ("m", anchors.shape[1]))
    rows, products = operands({"anchors": anchors, "candidates": candidates}, similarity)
    a, c = divided(rows["anchors"], temperature), rows["anchors" if candidates is None else "candidates"]
    if not_itself and len(a) > len(c):
        raise ArgumentInvalid(
            f"not_itself needs a candidate i for every anchor i; got {len(a)} anchors and {len(c)} candidates."
        )
    own = torch.arange(len(a), device=a.device)[:, None] if not_itself else None
    with torch.autocast(a.device.type, enabled=False):
        return log_sum_exp(a, c, skip=own, weight=pair_weight(pair, len(a), len(c)), products=products)[0]

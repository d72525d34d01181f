"""The sigmoid loss: every pair is a yes-or-no question of its own."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor

from contrapose.errors import NoNegatives
from contrapose.objectives._arguments import (
    Reduction,
    Similarity,
    check_common,
    check_integers,
    check_rows,
    check_temperature,
    divided,
    groups_apart,
    operands,
    reduced,
    row_products,
)
from contrapose.objectives._tiles import softplus_sum


def sigmoid(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    bias: float | Tensor = 0.0,
    group: LongTensor | None = None,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The sigmoid loss of SigLIP (Zhai et al., ICCV 2023, section 3.2).

    With z_ij = s(a_i, p_j) / t + bias, the loss of anchor i is

        l_i = softplus(-z_ii) + sum_(j≠i) softplus(z_ij).

    No normalisation over the batch: a pair counts whatever the other pairs are. Both directions are in it at once.

    Args:
        anchors: (b, d).
        positives: (b, d); row i belongs to row i of the anchors.
        temperature: a positive number, or a tensor holding one. SigLIP learns it from 1/10 on (its t' is log 10).
        bias: a number or a tensor holding one, added to every logit; SigLIP learns it from -10 on, since nearly all pairs are negatives.
        group: (b,) integers; rows of one group are not each other's negatives. Below 0: no group.
        similarity: "cosine" or "dot".
        reduction: "mean" or "sum" over the b anchors, or "none", (b,).

    Returns:
        At least 0. b log 2 where all logits are 0. Precision as for `info_nce`.

    Raises TemperatureInvalid, NonFinite, ShapesDiffer, ArgumentInvalid, DoubleBackward; NoNegatives for fewer than two rows.
    """
    check_common(similarity, reduction)
    check_temperature(temperature)
    check_rows("anchors", anchors, ("b", "d"))
    check_rows("positives", positives, tuple(anchors.shape))
    if len(anchors) < 2:
        raise NoNegatives(
            f"{len(anchors)} row(s): the negatives of an anchor are the other rows, so at least two are needed."
        )
    if group is not None:
        check_integers("group", group, len(anchors), "anchors")
    rows, products = operands({"anchors": anchors, "positives": positives}, similarity)
    a, p = divided(rows["anchors"], temperature), rows["positives"]
    offset = torch.as_tensor(bias, dtype=a.dtype, device=a.device).reshape(()).expand(len(a))
    row = torch.arange(len(a), device=a.device)
    weight = None if group is None else groups_apart(group, group, row)
    with torch.autocast(a.device.type, enabled=False):
        # softplus(-z) = softplus(z) - z: the sum over all pairs, less the logits of the positives
        losses = softplus_sum(a, p, offset, weight=weight, products=products) - row_products(a, p) - offset
    return reduced(losses, reduction)

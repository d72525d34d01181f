"""NT-Xent: both views of a row are anchors, and all other views are negatives."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.errors import NoNegatives
from contrapose.objectives._arguments import (
    Reduction,
    Similarity,
    check_common,
    check_integers,
    check_rows,
    check_temperature,
    greatest,
    groups_apart,
    inverse,
    operands,
    reduced,
)
from contrapose.objectives._tiles import own_and_log_sum_exp


def nt_xent(
    first: Tensor,
    second: Tensor,
    *,
    temperature: float | Tensor,
    group: LongTensor | None = None,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The normalised temperature-scaled cross-entropy of SimCLR (Chen et al., ICML 2020, equation 1).

    The 2b views z = [first; second] are all anchors. The positive of a view is the other view of its row, its negatives are the 2b - 2
    views of other rows, of either side:

        l_i = -log  exp(s(z_i, z_i') / t)  /  sum_(k≠i) exp(s(z_i, z_k) / t).

    In `info_nce` an anchor meets only the other side; the two are different losses, though both are called InfoNCE.

    Args:
        first: (b, d), one view of each row.
        second: (b, d), another view of the same rows.
        temperature: a positive number, or a tensor holding one, which then receives a gradient.
        group: (b,) integers; views of rows of one group are never each other's negatives. Below 0: no group.
        similarity: "cosine" (SimCLR) or "dot".
        reduction: "mean" or "sum" over the 2b views, or "none", (2b,), first's before second's.

    Returns:
        At least 0; log(2b - 1) at chance; at most log(1 + (2b - 2) exp(2 / t)) with cosines. Precision as for `info_nce`.
        A view whose every negative is masked adds exactly 0.

    Equals `supervised` on z with row numbers as labels. The similarities are symmetric, so each is computed once for both its views.

    Raises TemperatureInvalid, NonFinite, ShapesDiffer, ArgumentInvalid, DoubleBackward; NoNegatives for fewer than two rows.
    """
    check_common(similarity, reduction)
    check_temperature(temperature)
    check_rows("first", first, ("b", "d"))
    check_rows("second", second, tuple(first.shape))
    b = len(first)
    if b < 2:
        raise NoNegatives(
            f"{b} row(s): a view has the views of other rows as negatives, so at least two rows are needed."
        )
    if group is not None:
        check_integers("group", group, b, "first")

    rows, products = operands({"first": first, "second": second}, similarity)
    z = torch.cat([rows.pop("first"), rows.pop("second")])  # which frees them
    twice = None if group is None else group.repeat(2)
    weight = None if twice is None else groups_apart(twice, twice)
    with torch.autocast(z.device.type, enabled=False):
        positive, negative, _ = own_and_log_sum_exp(
            z,
            own=(b, -b),
            scale=inverse(temperature),
            skip=(0,),
            weight=weight,
            bound=greatest(similarity),
            products=products,
        )
        return reduced(functional.softplus(negative - positive, threshold=40), reduction)

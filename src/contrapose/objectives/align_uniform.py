"""Alignment and uniformity as terms to minimise (Wang and Isola, ICML 2020); as figures they stand in `contrapose.geometry`."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from contrapose.errors import NoNegatives
from contrapose.objectives._arguments import check_number, check_rows, operands, row_products
from contrapose.objectives._tiles import log_sum_exp


def alignment(anchors: Tensor, positives: Tensor, *, power: float = 2.0) -> Tensor:
    r"""mean_i |a_i - p_i|^power of unit vectors (Wang and Isola, 2020, section 4.1).

    `anchors` and `positives` are (b, d), row i with row i. From 0 to 2^power; 2 at chance for power 2, where it equals 2 - 2 mean cosine.
    Raises NonFinite, ShapesDiffer, ArgumentInvalid.
    """
    check_number("power", power, 0)
    check_rows("anchors", anchors, ("b", "d"))
    check_rows("positives", positives, tuple(anchors.shape))
    rows = operands({"anchors": anchors, "positives": positives}, "cosine").rows
    square = (rows["anchors"] - rows["positives"]).square().sum(1)
    return (square if power == 2 else square.clamp_min(torch.finfo(square.dtype).tiny).pow(power / 2)).mean()


def uniformity(embeddings: Tensor, *, t: float = 2.0) -> Tensor:
    r"""log of the mean over pairs i < j of exp(-t |z_i - z_j|²) of unit vectors (Wang and Isola, 2020, section 4.1).

    `embeddings` is (b, d). At most 0 (all equal); about -2t for directions spread evenly in many dimensions. In tiles, over the upper triangle:
    the logarithm of the sum over pairs is that of the partitions of z / sqrt(1 / 2t) with itself.
    Raises NonFinite, ShapesDiffer, ArgumentInvalid, DoubleBackward; NoNegatives for fewer than two rows.
    """
    check_number("t", t, 0)
    check_rows("embeddings", embeddings, ("b", "d"))
    b = len(embeddings)
    if b < 2:
        raise NoNegatives(f"{b} row(s): uniformity is about pairs of rows, so at least two are needed.")
    rows, products = operands({"embeddings": embeddings}, "cosine")
    z = rows["embeddings"]
    # |z_i - z_j|² = |z_i|² + |z_j|² - 2 z_i · z_j; the squares are 1 but for a zero row, and constant in any case
    square = row_products(z, z).detach()
    itself = torch.arange(b, device=z.device)[:, None]
    with torch.autocast(z.device.type, enabled=False):
        partition, _ = log_sum_exp(z * math.sqrt(2 * t), skip=itself, products=products)
        return (partition - 2 * t * square.mean()).logsumexp(0) - math.log(b * (b - 1))

"""Which negatives a loss listens to: all, the hardest, or the hardest alone (Wang and Liu, CVPR 2021)."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer
from contrapose.objectives._arguments import (
    Reduction,
    Similarity,
    check_common,
    check_directions,
    check_integers,
    check_number,
    check_rows,
    check_temperature,
    operands,
    reduced,
    row_products,
)

CHUNK = 2**22  # similarities in memory at once: 16 MiB of float32
FAR = -1e30  # a logit that adds nothing to a sum of exponentials, nor NaN to its gradient as -inf would


def hard_contrastive(
    anchors: Tensor,
    positives: Tensor,
    *,
    temperature: float | Tensor,
    hardest: int | float,
    index: LongTensor | None = None,
    pair: Tensor | None = None,
    positive_kept: bool = True,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""InfoNCE over the hardest negatives of each anchor alone (Wang and Liu, CVPR 2021, section 3.3).

        -log  exp(s_ii / t)  /  ( exp(s_ii / t) + sum_(k in H_i) exp(s_ik / t) ),    H_i: the hardest negatives of anchor i.

    Args:
        anchors: (b, d). positives: (b, d), or (m, d) with `index`, (b,), naming each anchor's own row.
        temperature: a positive number, or a tensor holding one, which then receives a gradient.
        hardest: how many negatives are kept, 1 to m - 1; or, as a float in (0, 1], their share, rounded down to at least one (the paper's
            alpha: the upper quantile). The choice itself has no gradient.
        pair: (b, m) booleans, False where a column is no negative of an anchor: the anchor itself, a row of its group. Its own positive always
            counts. Of an anchor with fewer negatives than `hardest` all are kept; one with none adds 0.
        positive_kept: False follows the released code, in which the positive competes for one of the `hardest` places and has none in the
            denominator where it is less similar than all of them; the loss of such an anchor may be negative.
        similarity: "cosine" (a row of zeros has none, and is refused) or "dot".
        reduction: as for `info_nce`.

    Returns:
        At least 0 (with `positive_kept`); log(1 + hardest) at chance. Equals `info_nce` where all negatives are kept.

    Raises TemperatureInvalid, NonFinite, ShapesDiffer, NoNegatives, and ArgumentInvalid for a `hardest` or `index` out of range and for a row of zeros.
    """
    check_temperature(temperature)
    own, negative, kept = _similarities(
        anchors, positives, hardest, index, pair, similarity, reduction, places_for_all=not positive_kept
    )
    scale = temperature.reshape(()) if isinstance(temperature, Tensor) else temperature
    partition = (negative / scale).masked_fill(~kept, FAR).logsumexp(1)
    if positive_kept:
        return reduced(functional.softplus(partition - own / scale, threshold=40), reduction)
    return reduced(partition - own / scale, reduction)


def simple_contrastive(
    anchors: Tensor,
    positives: Tensor,
    *,
    weight: float | None = None,
    hardest: int | float | None = None,
    index: LongTensor | None = None,
    pair: Tensor | None = None,
    positive_in_sum: bool = False,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The loss that InfoNCE tends to at high temperature: pull the positive, push every negative alike (Wang and Liu, equation 7).

        l_i = -s_ii + w sum_(k≠i) s_ik

    Args:
        anchors: as for `hard_contrastive`.
        positives: as for `hard_contrastive`.
        index: as for `hard_contrastive`.
        pair: as for `hard_contrastive`.
        weight: w; None: 1 over the number of summed similarities, so that their mean is pushed.
        hardest: keep so many of the most similar negatives (or such a share of them): the "hard simple" loss; None: all.
        positive_in_sum: the released code's sum runs over all columns, the positive too (and with `hardest`, over the most similar columns
            whichever they are).
        similarity: as for `hard_contrastive`.
        reduction: as for `info_nce`.

    Returns:
        0 at chance with the default weight. From -2 to 2 with cosines. Without `hardest` and `pair` it costs n d: the sum of similarities
        is the similarity with the sum.

    Raises NonFinite, ShapesDiffer, NoNegatives, ArgumentInvalid.
    """
    if hardest is None:
        rows, own_row, columns = _rows(anchors, positives, index, pair, similarity, reduction, positive_in_sum)
        a, p = rows["anchors"], rows["positives"]
        own = row_products(a, p[own_row])
        if columns is None:
            summed, number = a @ p.sum(0), len(p)
            summed, number = (summed, number) if positive_in_sum else (summed - own, number - 1)
        else:
            summed, number = row_products(a, columns.to(a) @ p), columns.sum(1).clamp_min(1).to(a)
    else:
        own, negative, kept = _similarities(
            anchors, positives, hardest, index, pair, similarity, reduction, places_for_all=positive_in_sum
        )
        summed, number = (negative * kept).sum(1), kept.sum(1).clamp_min(1).to(own)
    check_number("weight", 1.0 if weight is None else weight)
    return reduced((1 / number if weight is None else weight) * summed - own, reduction)


def nearest_negative(
    anchors: Tensor,
    positives: Tensor,
    *,
    index: LongTensor | None = None,
    pair: Tensor | None = None,
    similarity: Similarity = "cosine",
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The loss that t times InfoNCE tends to at low temperature: max(0, max_(k≠i) s_ik - s_ii), the hardest triplet without a margin.

    Arguments and errors as for `simple_contrastive`. At least 0; 0 where every positive is nearest.
    """
    own, negative, kept = _similarities(anchors, positives, 1, index, pair, similarity, reduction, places_for_all=False)
    return reduced((negative.masked_fill(~kept, FAR)[:, 0] - own).clamp_min(0), reduction)


def released(losses: Tensor, offset: float = 1e-7) -> Tensor:
    """(b,) losses -log(q) as the code released with the paper writes them: -log(q + offset). For comparison; the offset bends small q."""
    return -(torch.exp(-losses) + offset).log()


def _rows(
    anchors: Tensor,
    positives: Tensor,
    index: LongTensor | None,
    pair: Tensor | None,
    similarity: str,
    reduction: str,
    places_for_all: bool,
) -> tuple[dict[str, Tensor], LongTensor, Tensor | None]:
    """Checked rows, each anchor's own row, and what columns compete, (b, m) booleans; None: all but, or all with, the own."""
    check_common(similarity, reduction)
    check_rows("anchors", anchors, ("b", "d"))
    wanted = "m" if index is not None else len(anchors)
    check_rows("positives", positives, (wanted, anchors.shape[1]))
    if index is not None:
        check_integers("index", index, len(anchors), "anchors")
        if not bool(((index >= 0) & (index < len(positives))).all()):
            raise ArgumentInvalid(
                f"index must name rows of positives, 0 to {len(positives) - 1}; got {int(index.min())} to {int(index.max())}."
            )
    if len(positives) < 2:
        raise NoNegatives(f"{len(positives)} column(s): besides its positive an anchor needs at least one.")
    if similarity == "cosine":
        for name, rows in (("anchors", anchors), ("positives", positives)):
            check_directions(name, rows)
    own = torch.arange(len(anchors), device=anchors.device) if index is None else index
    if pair is not None:
        if pair.shape != (len(anchors), len(positives)) or pair.dtype != torch.bool:
            raise ShapesDiffer(
                f"pair must hold booleans of shape {(len(anchors), len(positives))}, one for each anchor and column; "
                f"got {pair.dtype} of shape {tuple(pair.shape)}."
            )
        pair = pair.scatter(1, own[:, None], places_for_all)
    return operands({"anchors": anchors, "positives": positives}, similarity).rows, own, pair


def _similarities(
    anchors: Tensor,
    positives: Tensor,
    hardest: int | float,
    index: LongTensor | None,
    pair: Tensor | None,
    similarity: str,
    reduction: str,
    places_for_all: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Similarities with the positive, (b,), and with the hardest columns, (b, k): negatives, or any where there are places for all.

    The third, (b, k): which of these an anchor has, for with `pair` some have fewer.
    """
    rows, own, columns = _rows(anchors, positives, index, pair, similarity, reduction, places_for_all)
    a, p = rows["anchors"], rows["positives"]
    available = len(p) if places_for_all else len(p) - 1
    share = isinstance(hardest, float)
    if not (0 < hardest <= 1 if share else 1 <= hardest <= available):
        raise ArgumentInvalid(
            f"hardest must be a number of negatives from 1 to {available}, or a share of them in (0, 1] with a decimal point; got {hardest}."
        )
    theirs = torch.full((len(a), 1), available, device=a.device) if columns is None else columns.sum(1, keepdim=True)
    counts = (hardest * theirs.double()).long().clamp_min(1) if share else theirs.new_tensor(hardest)
    counts = torch.minimum(counts, theirs)
    count = max(1, int(counts.max()))
    parts = []
    for top in range(0, len(a), step := max(1, CHUNK // max(len(p), count * p.shape[1]))):
        part = slice(top, top + step)
        with torch.no_grad():
            similar = a[part] @ p.T
            if columns is not None:
                similar.masked_fill_(~columns[part], -torch.inf)
            elif not places_for_all:
                similar[torch.arange(len(similar), device=a.device), own[part]] = -torch.inf
            chosen = similar.topk(count, dim=1).indices
        parts.append(checkpoint(_chosen_products, a[part], p, chosen, use_reentrant=False))
    kept = torch.arange(count, device=a.device) < counts
    return row_products(a, p[own]), torch.cat(parts), kept


def _chosen_products(a: Tensor, p: Tensor, chosen: LongTensor) -> Tensor:
    return torch.einsum("bd,bkd->bk", a, p[chosen])

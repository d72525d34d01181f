"""Contrastive attraction and contrastive repulsion: far positives pull more, near negatives push more (Zheng et al., TMLR 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer
from contrapose.objectives._arguments import (
    Reduction,
    check_choice,
    check_integers,
    check_number,
    check_rows,
    check_temperature,
    divided,
    groups_apart,
    operands,
    reduced,
    row_products,
)
from contrapose.objectives._tiles import log_sum_exp, softmax_mean

Variant = Literal["cacr", "uniform_pos", "uniform_neg", "uniform"]


def cacr(
    views: Sequence[Tensor],
    *,
    t_pos: float = 1.0,
    t_neg: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    variant: Variant = "cacr",
    tau_plus: float = 0.0,
    detach_weights: bool = False,
    symmetric: bool = False,
    group: LongTensor | None = None,
    normalise: bool = True,
) -> Tensor:
    r"""The sum of `cacr_attraction` and `cacr_repulsion` of V >= 2 views, each (b, d), row i with row i.

    With the cost c(x, y) = |x - y|² of unit vectors: every positive pulls by its cost, weighted over a row's V - 1 positives by
    softmax(t_pos c); every negative pushes by its cost, weighted over a row's negatives by softmax(-t_neg c). Pull and push are told apart, where
    InfoNCE ties the pull to the number of negatives.

    Args:
        views: embeddings of the same rows, not normalised unless `normalise=False` says so.
        t_pos: at least 0; it multiplies the cost of positives, so that 0 weighs alike.
        t_neg: the same for negatives.
        alpha: weight of the attraction. It scales the cost, and not the exponent.
        beta: weight of the repulsion, in the same way.
        variant: "uniform_pos" or "uniform_neg" leave out one kind of weights, "uniform" both (for one positive: alignment and a linear push).
        tau_plus: 0, or the share of false negatives that the debiased repulsion takes off; in [0, 1).
        detach_weights: no gradient through the weights, as in the official large-scale recipes; the small-scale code keeps it.
        symmetric: repulsion in both directions of each pair of views; the official code anchors in the first view of a pair alone.
        group: (b,) integers; rows of one group are never each other's negatives. Below 0: no group. A row that has no negative left is not pushed.
        normalise: False takes unit rows as they stand, as the official code does, whose encoder ends in a normalisation. The loss is the same; the
            gradient keeps its part along each row, which a normalisation before it takes out.

    Returns:
        A scalar, usually negative: at least -4 beta, and at most 4 alpha. About 2 alpha - 2 beta at chance. Never stop early on its sign.

    Raises NonFinite, ShapesDiffer, ArgumentInvalid (also for rows of another length than 1 with `normalise=False`, with which the repulsion has no
    bound), DoubleBackward; NoNegatives for fewer than two rows.
    """
    check_choice("variant", variant, ("cacr", "uniform_pos", "uniform_neg", "uniform"))
    pull = cacr_attraction(
        views,
        t_pos=0.0 if variant in ("uniform_pos", "uniform") else t_pos,
        alpha=alpha,
        detach_weights=detach_weights,
        normalise=normalise,
    )
    push = cacr_repulsion(
        views,
        t_neg=0.0 if variant in ("uniform_neg", "uniform") else t_neg,
        beta=beta,
        tau_plus=tau_plus,
        detach_weights=detach_weights,
        symmetric=symmetric,
        group=group,
        normalise=normalise,
    )
    return pull + push


def cacr_attraction(
    views: Sequence[Tensor],
    *,
    t_pos: float = 1.0,
    alpha: float = 1.0,
    detach_weights: bool = False,
    normalise: bool = True,
) -> Tensor:
    r"""alpha times the mean over views v and rows i of sum_(u≠v) w_u c(z_v,i, z_u,i), with w = softmax over u of t_pos c. Arguments: `cacr`."""
    for name, value in (("t_pos", t_pos), ("alpha", alpha)):
        check_number(name, value, 0)
    rows, _ = _unit_views(views, normalise)
    pulled = []
    for number, query in enumerate(rows):
        cost = torch.stack([_cost(query, other) for place, other in enumerate(rows) if place != number], dim=1)
        weights = attraction_weights(cost, t_pos)
        pulled.append(((weights.detach() if detach_weights else weights) * cost).sum(1).mean())
    return alpha * torch.stack(pulled).mean()


def cacr_repulsion(
    views: Sequence[Tensor],
    *,
    t_neg: float = 2.0,
    beta: float = 1.0,
    tau_plus: float = 0.0,
    detach_weights: bool = False,
    symmetric: bool = False,
    group: LongTensor | None = None,
    normalise: bool = True,
) -> Tensor:
    r"""-beta times the mean over pairs of views v < u and rows i of sum_(j≠i) w_ij c(z_v,i, z_u,j), with w = softmax over j of -t_neg c.

    With `tau_plus` the push P of a row becomes (P - tau_plus c(z_v,i, z_u,i)) / (1 - tau_plus), with the signs of the official code, whose P is
    negative already. In tiles: no (b, b) matrix is made. Other arguments: `cacr`.
    """
    for name, value in (("t_neg", t_neg), ("beta", beta)):
        check_number(name, value, 0)
    check_number("tau_plus", tau_plus, 0, 1)
    if tau_plus == 1:
        raise ArgumentInvalid("tau_plus must be below 1: it is the share of negatives that are false.")
    rows, products = _unit_views(views, normalise)
    labels = _column_groups(group, None, _at_least_two(rows[0]), 0)
    pushed = []
    for first, second in combinations(rows, 2):
        for anchors, others in ((first, second), (second, first))[: 2 if symmetric else 1]:
            push = -beta * _mean_cost_of_negatives(
                anchors, others, t_neg, detach_weights, products, normalise, True, group, labels
            )
            if tau_plus:
                push = (push - tau_plus * _cost(anchors, others)) / (1 - tau_plus)
            pushed.append(push.mean())
    return torch.stack(pushed).mean()


def attraction_weights(cost: Tensor, t_pos: float = 1.0) -> Tensor:
    """(b, k) costs of a row's positives to their weights, which sum to 1: the further, the more. Raises ArgumentInvalid, ShapesDiffer, NonFinite."""
    check_number("t_pos", t_pos, 0)
    check_rows("cost", cost, ("b", "k"))
    return (t_pos * cost).softmax(dim=1)


def repulsion_weights(anchors: Tensor, others: Tensor, t_neg: float = 2.0) -> Tensor:
    """(b, b - 1) weights of each anchor's negatives among the rows j ≠ i of `others`: the nearer, the more. All of them at once, to look at.

    Raises ArgumentInvalid, ShapesDiffer, NonFinite; NoNegatives for fewer than two rows.
    """
    check_number("t_neg", t_neg, 0)
    rows, _ = _unit_views([anchors, others])
    b = _at_least_two(rows[0])
    logits = 2 * t_neg * rows[0] @ rows[1].T
    apart = ~torch.eye(b, dtype=torch.bool, device=logits.device)
    return logits[apart].view(b, b - 1).softmax(dim=1)


def cacr_rbf(
    queries: Sequence[Tensor],
    keys: Tensor,
    *,
    temperature: float | Tensor = 1.0,
    group: LongTensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The asymmetric form with cross-entropy (RBF; the official ImageNet recipe): several queries against the keys of a momentum encoder.

        sum_l p_li CE_i(q_l K' / t) 2t,     p_li = softmax over l of |q_li - k_i|² / t, without gradient

    `queries`: L views, each (b, d), through encoder and predictor; `keys`: (b, d). Both are normalised here. The recipe loops over its two global
    keys, leaves out the query of the same crop, and averages. Keys receive no gradient. At chance 2t log b. `group` as for `cacr`.
    Raises TemperatureInvalid, NonFinite, ShapesDiffer, ArgumentInvalid, NoNegatives, DoubleBackward.
    """
    check_temperature(temperature)
    check_choice("reduction", reduction, ("mean", "sum", "none"))
    rows, products = _unit_views([*queries, keys.detach()])
    *queries, keys = rows
    if len(keys) < 2:
        raise NoNegatives(
            f"{len(keys)} row(s): the negatives of a query are the other keys, so at least two are needed."
        )
    scale = temperature.reshape(()) if isinstance(temperature, Tensor) else temperature
    cost = torch.stack([_cost(query, keys) for query in queries])
    weights = (cost / scale).softmax(dim=0).detach()
    own = torch.arange(len(keys), device=keys.device)[:, None]
    labels = _column_groups(group, None, len(keys), 0)
    apart = None if group is None else groups_apart(group, labels)
    losses = []
    for query in queries:
        query = divided(query, temperature)
        positive = row_products(query, keys)
        negative, _ = log_sum_exp(query, keys, skip=own, weight=apart, products=products)
        losses.append(torch.nn.functional.softplus(negative - positive, threshold=40))
    return reduced((weights * torch.stack(losses)).sum(0) * 2 * scale, reduction)


def cacr_euclidean(
    queries: Sequence[Tensor],
    keys: Tensor,
    *,
    temperature: float = 1.0,
    queue: Tensor | None = None,
    group: LongTensor | None = None,
    queue_group: LongTensor | None = None,
    reduction: Reduction = "mean",
) -> Tensor:
    r"""The asymmetric form with costs: queries are pulled to their own key and pushed from the others, and from a queue.

        sum_l p_li ( c(q_li, k_i) - sum_(j≠i) w_lij c(q_li, k_j) ),     c = 1 - cos,

    p = softmax over l of |q_li - k_i|² / t and w = softmax over j of -c / t, both without gradient. `queue` (q, d) adds negatives; `queue_group` (q,)
    is compared with `group`. The official code sums over the batch (`reduction="sum"`), where its RBF form averages. Arguments and errors otherwise as for `cacr_rbf`.
    """
    check_temperature(temperature)
    check_choice("reduction", reduction, ("mean", "sum", "none"))
    stored = [] if queue is None else [queue.detach()]
    rows, products = _unit_views([*queries, keys.detach()])
    *queries, keys = rows
    for each in stored:
        check_rows("queue", each, ("q", keys.shape[1]))
    columns = torch.cat([keys, *(operands({"queue": each}, "cosine").rows["queue"].to(keys) for each in stored)])
    if len(columns) < 2:
        raise NoNegatives("1 key: a query has no negative; give two rows at least, or a queue.")
    squared = torch.stack([_cost(query, keys) for query in queries])
    weights = (squared / temperature).softmax(dim=0).detach()
    labels = _column_groups(group, queue_group, len(keys), len(columns) - len(keys))
    pushes = [
        _mean_cost_of_negatives(query, columns, 1 / (2 * temperature), True, products, True, True, group, labels) / 2
        for query in queries
    ]
    return reduced((weights * (squared / 2 - torch.stack(pushes))).sum(0), reduction)


def cacr_queue(
    queries: Sequence[Tensor],
    keys: Sequence[Tensor],
    *,
    queue: Tensor | None = None,
    t_pos: float = 1.0,
    t_neg: float = 2.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    in_batch: bool = True,
    group: LongTensor | None = None,
    queue_group: LongTensor | None = None,
) -> Tensor:
    r"""The form with a queue of stored keys (the official MoCo v2 recipe): each of V views is a query, the keys of the others its positives.

        1/V sum_v 1/b sum_i ( alpha sum_(u≠v) w+_u c(q_v,i, k_u,i) - beta sum_n w-_n c(q_v,i, n) ),     c(x, y) = |x - y|²,

    with w+ = softmax over u of t_pos c and w- = softmax over n of -t_neg c, both without gradient. The negatives n of a query are the stored keys and,
    `in_batch`, the other queries of its own view, which get a gradient of their push too. (In the code the weights of these alone keep
    their gradient, though nothing says that they should.)

    Args:
        queries: V >= 2 views, each (b, d), from the online encoder.
        keys: the same views from the momentum encoder, each (b, d); they get no gradient.
        queue: (q, d) stored keys of earlier batches; None or empty for none.
        in_batch: False leaves the other queries of the view out.
        group: (b,) integers, as for `cacr`.
        queue_group: (q,) integers, compared with `group` in the same way.

    All are normalised here; the other arguments are as for `cacr`. At least -4 beta; about 2 alpha - 2 beta at chance.
    Raises ShapesDiffer, NonFinite, ArgumentInvalid, DoubleBackward; NoNegatives where neither the batch nor the queue has one.
    """
    for name, value in (("t_pos", t_pos), ("t_neg", t_neg), ("alpha", alpha), ("beta", beta)):
        check_number(name, value, 0)
    if len(queries) != len(keys):
        raise ShapesDiffer(f"each view has a query and a key; got {len(queries)} queries and {len(keys)} keys.")
    rows, products = _unit_views([*queries, *(key.detach() for key in keys)])
    queries, keys = rows[: len(queries)], rows[len(queries) :]
    stored = keys[0].new_zeros(0, keys[0].shape[1])
    if queue is not None and len(queue):
        check_rows("queue", queue, ("q", keys[0].shape[1]))
        stored = operands({"queue": queue.detach()}, "cosine").rows["queue"].to(keys[0])
    labels = _column_groups(group, queue_group, len(queries[0]), len(stored))
    labels = labels if labels is None or in_batch else labels[len(queries[0]) :]
    negatives = len(stored) + (len(queries[0]) - 1 if in_batch else 0)
    if negatives < 1:
        raise NoNegatives("a query has neither a stored key nor another row of the batch as negative; give one.")
    losses = []
    for number, query in enumerate(queries):
        cost = torch.stack([_cost(query, key) for place, key in enumerate(keys) if place != number], dim=1)
        pull = (attraction_weights(cost, t_pos).detach() * cost).sum(1)
        columns = torch.cat([query, stored]) if in_batch else stored
        push = _mean_cost_of_negatives(query, columns, t_neg, True, products, True, in_batch, group, labels)
        losses.append((alpha * pull - beta * push).mean())
    return torch.stack(losses).mean()


def _at_least_two(rows: Tensor) -> int:
    if len(rows) < 2:
        raise NoNegatives(f"{len(rows)} row(s): the negatives of a row are the other rows, so at least two are needed.")
    return len(rows)


def _unit_views(views: Sequence[Tensor], normalise: bool = True) -> tuple[list[Tensor], torch.dtype]:
    if len(views) < 2:
        raise ShapesDiffer(f"at least two views are needed, so that a row has a positive; got {len(views)}.")
    check_rows("view 0", views[0], ("b", "d"))
    for number, view in enumerate(views[1:], 1):
        check_rows(f"view {number}", view, tuple(views[0].shape))
    rows, products = operands(
        {str(number): view for number, view in enumerate(views)}, "cosine" if normalise else "dot"
    )
    if not normalise:
        for number, view in rows.items():
            _check_unit(number, view.detach())
    return list(rows.values()), products


def _check_unit(number: str, view: Tensor) -> None:
    length = view.norm(dim=1)
    off = (length - 1).abs() > 1e-2
    if bool(off.any()):
        row = int(off.nonzero()[0])
        raise ArgumentInvalid(
            f"view {number} has rows of other lengths than 1 (first: row {row}, {float(length[row]):.3g}), and with normalise=False nothing makes "
            "them unit rows; leave it out."
        )


def _column_groups(
    group: LongTensor | None, queue_group: LongTensor | None, rows: int, stored: int
) -> LongTensor | None:
    """The groups of a batch's columns and of the stored ones after them, where the batch has groups; checked."""
    if group is None:
        return None
    check_integers("group", group, rows, "the batch")
    queue_group = group.new_full((stored,), -1) if queue_group is None else queue_group
    check_integers("queue_group", queue_group, stored, "the queue")
    return torch.cat([group, queue_group])


def _cost(x: Tensor, y: Tensor) -> Tensor:
    """(b,): |x_i - y_i|²; by differences, whose gradient at equal rows is 0."""
    return (x - y).square().sum(1)


def _mean_cost_of_negatives(
    anchors: Tensor,
    others: Tensor,
    t_neg: float,
    detach_weights: bool,
    products: torch.dtype,
    normalise: bool,
    own: bool,
    group: LongTensor | None,
    others_group: LongTensor | None,
) -> Tensor:
    """(b,): sum_(j≠i) w_ij c_ij; 0 for a row without negatives. With c_ij = |a_i|² + |b_j|² - 2 a_i · b_j the weights are the softmax of
    t (2 a_i · b_j - |b_j|²), so the mean is one of logits. Squares are 1 where the rows were normalised here, and their gradient, along the rows,
    would be taken out again. `others` may have more rows than `anchors`; `own`: its first ones are the anchors' own, and left out."""
    mine, theirs = (z.new_ones(len(z)) if normalise else row_products(z, z) for z in (anchors, others))
    n = len(anchors)
    left = _sum_of_negatives(others.new_ones(len(others), 1), n, own, group, others_group)[:, 0]  # how many
    if t_neg == 0:
        squares, sums = (_sum_of_negatives(rows, n, own, group, others_group) for rows in (theirs[:, None], others))
        mean = mine + (squares[:, 0] - 2 * row_products(anchors, sums)) / left.clamp_min(1)
        return torch.where(left > 0, mean, 0)
    x = 2 * t_neg * anchors
    if not normalise:
        x, others = torch.cat([x, x.new_full((len(x), 1), -t_neg)], 1), torch.cat([others, theirs[:, None]], 1)
    skip = torch.arange(n, device=anchors.device)[:, None] if own else None
    keep = None if group is None else groups_apart(group, others_group)
    with torch.autocast(anchors.device.type, enabled=False):
        mean = softmax_mean(x, others, skip=skip, keep=keep, detach_weights=detach_weights, products=products)
    return torch.where(left > 0, (2 if normalise else mine) - mean / t_neg, 0)


def _sum_of_negatives(
    rows: Tensor, n: int, own: bool, group: LongTensor | None, others_group: LongTensor | None
) -> Tensor:
    """(m, d) to (n, d): for each anchor the sum of the rows that are its negatives, without a table of pairs."""
    total = rows.sum(0) - (rows[:n] if own else torch.zeros_like(rows[:1]))
    total = total.expand(n, -1)
    if group is None:
        return total
    labels, places = torch.cat([group, others_group]).unique(return_inverse=True)
    alike = rows.new_zeros(len(labels), rows.shape[1]).index_add(0, places[n:], rows)[places[:n]]
    alike = alike - rows[:n] if own else alike  # taken off already
    return total - torch.where((group >= 0)[:, None], alike, 0)

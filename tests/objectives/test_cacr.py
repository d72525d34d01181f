from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer
from contrapose.objectives import (
    attraction_weights,
    cacr,
    cacr_attraction,
    cacr_euclidean,
    cacr_queue,
    cacr_rbf,
    cacr_repulsion,
    repulsion_weights,
)
from contrapose.objectives._tiles import pairs
from tests.objectives.numbers import EXACT, normal


def views(count: int = 3, b: int = 6, d: int = 5) -> list[torch.Tensor]:
    return [normal(b, d, seed=seed) for seed in range(count)]


def unit(rows: torch.Tensor) -> torch.Tensor:
    return functional.normalize(rows, dim=1)


def cost(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (unit(x)[:, None] - unit(y)[None]).square().sum(-1)


def pushed(z, t_neg, detached=False, ways=((0, 1), (0, 2), (1, 2))):
    """The repulsion by rows of each pair of views, from the cost of every pair."""
    own = torch.eye(len(z[0]), dtype=torch.bool)
    rows = []
    for v, u in ways:
        each = cost(z[v], z[u])
        weights = (-t_neg * each).masked_fill(own, -torch.inf).softmax(1)
        rows.append(-((weights.detach() if detached else weights) * each).sum(1))
    return torch.stack(rows)


@pytest.mark.parametrize("tile", [2048, 4])
@pytest.mark.parametrize("t_neg", [0.0, 0.9, 30.0])
def test_repulsion_follows_the_formula(tile, t_neg, monkeypatch):
    monkeypatch.setattr(pairs, "ROWS", tile)
    monkeypatch.setattr(pairs, "COLUMNS", tile)
    torch.testing.assert_close(cacr_repulsion(views(), t_neg=t_neg), pushed(views(), t_neg).mean(), **EXACT)


def test_symmetric_repulsion_averages_both_directions_of_each_pair():
    every = [(v, u) for v in range(3) for u in range(3) if v != u]
    expected = pushed(views(), 2.0, ways=every).mean()
    torch.testing.assert_close(cacr_repulsion(views(), symmetric=True), expected, **EXACT)


def test_attraction_of_one_positive_is_alignment():
    first, second = views(2)
    expected = (unit(first) - unit(second)).square().sum(1).mean()
    torch.testing.assert_close(cacr_attraction([first, second]), expected, **EXACT)


def test_attraction_tends_to_the_furthest_positive():
    z = views(4)
    far = torch.stack([torch.stack([cost(x, y).diagonal() for y in z]).amax(0).mean() for x in z]).mean()
    assert float(cacr_attraction(z, t_pos=1e4)) == pytest.approx(float(far), abs=1e-3)


def test_repulsion_tends_to_the_nearest_negative():
    own = torch.eye(6, dtype=torch.bool)
    near = cost(*views(2)).masked_fill(own, torch.inf).amin(1).mean()
    assert float(cacr_repulsion(views(2), t_neg=1e5)) == pytest.approx(-float(near), abs=1e-3)


def test_weights_sum_to_1_and_are_larger_for_the_nearer():
    first, second = views(2)
    weights = repulsion_weights(first, second, 2.0)
    costs = cost(first, second)[~torch.eye(6, dtype=torch.bool)].view(6, 5)
    torch.testing.assert_close(weights.sum(1), torch.ones(6, dtype=torch.float64), **EXACT)
    assert torch.equal(weights.argsort(1), costs.argsort(1, descending=True))


@pytest.mark.parametrize(
    "options", [{}, {"detach_weights": False, "tau_plus": 0.1}, {"symmetric": True}, {"variant": "uniform"}]
)
def test_gradients(options):
    z = [view.requires_grad_() for view in views()]
    assert torch.autograd.gradcheck(lambda *z: cacr(z, **options), z)


@pytest.mark.parametrize("t_neg", [0.0, 0.9])
@pytest.mark.parametrize("detached", [False, True])
def test_unit_rows_as_they_stand_have_the_gradients_of_squared_distances(t_neg, detached):
    def plain(z: list[torch.Tensor]) -> torch.Tensor:
        each = (z[0][:, None] - z[1][None]).square().sum(-1)
        weights = (-t_neg * each).masked_fill(torch.eye(6, dtype=torch.bool), -torch.inf).softmax(1)
        return -((weights.detach() if detached else weights) * each).sum(1).mean()

    z = [unit(view).requires_grad_() for view in views(2)]
    found = cacr_repulsion(z, t_neg=t_neg, detach_weights=detached, normalise=False)
    torch.testing.assert_close(found, cacr_repulsion(z, t_neg=t_neg, detach_weights=detached), **EXACT)
    for ours, expected in zip(torch.autograd.grad(found, z), torch.autograd.grad(plain(z), z), strict=True):
        torch.testing.assert_close(ours, expected, **EXACT)


def test_rows_that_are_no_unit_rows_do_not_stand_as_they_are():
    z = [unit(view) for view in views(2)]
    z[1][3] *= 1.5
    with pytest.raises(ArgumentInvalid, match=r"view 1 has rows of other lengths than 1 \(first: row 3, 1.5\)"):
        cacr(z, normalise=False)


def test_detached_weights_have_no_gradient():
    z = [view.requires_grad_() for view in views(2)]
    found = torch.autograd.grad(cacr_repulsion(z, detach_weights=True), z)
    expected = torch.autograd.grad(pushed(z, 2.0, detached=True, ways=[(0, 1)]).mean(), z)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, **EXACT)


def test_equal_views_have_finite_gradients():
    z = [normal(4, 3).requires_grad_(), normal(4, 3).requires_grad_()]
    assert all(torch.isfinite(each).all() for each in torch.autograd.grad(cacr(z), z))


def test_queue_joins_the_negatives_of_the_euclidean_form():
    query, keys, queue = normal(3, 4), normal(3, 4, seed=1), normal(5, 4, seed=2)
    columns = torch.cat([keys, queue])
    each = cost(query, columns) / 2
    own = torch.eye(3, 8, dtype=torch.bool)
    weights = (-each / 0.3).masked_fill(own, -torch.inf).softmax(1)
    expected = (each.diagonal() - (weights * each).sum(1)).mean()
    torch.testing.assert_close(cacr_euclidean([query], keys, temperature=0.3, queue=queue), expected, **EXACT)


def test_the_query_further_from_its_key_counts_more_in_the_euclidean_form():
    queries, keys = views(2, b=4), normal(4, 5, seed=7)
    each = torch.stack([cost(query, keys) / 2 for query in queries])
    own = torch.eye(4, dtype=torch.bool)
    weights = (-each / 0.3).masked_fill(own, -torch.inf).softmax(2)
    pull = each.diagonal(dim1=1, dim2=2)
    share = (2 * pull / 0.3).softmax(0)  # of a query in both its pull and its push
    expected = (share * (pull - (weights * each).sum(2))).sum(0)
    found = cacr_euclidean(queries, keys, temperature=0.3, reduction="none")
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("t_neg", [0.0, 2.0])
@pytest.mark.parametrize("in_batch", [True, False])
def test_the_form_with_a_queue_follows_the_formula(t_neg, in_batch):
    z = [view.requires_grad_() for view in views(3, b=4)]
    keys, queue = [normal(4, 5, seed=10 + view) for view in range(3)], normal(7, 5, seed=20)
    losses = []
    for v, query in enumerate(z):
        pull = torch.stack([cost(query, keys[u]).diagonal() for u in range(3) if u != v], 1)
        pull = ((1.5 * pull).softmax(1).detach() * pull).sum(1)
        columns = torch.cat([query, queue]) if in_batch else queue
        each = cost(query, columns)
        own = torch.eye(*each.shape, dtype=torch.bool) & torch.tensor(in_batch)
        weights = (-t_neg * each).masked_fill(own, -torch.inf).softmax(1).detach()
        losses.append((2 * pull - 3 * (weights * each).sum(1)).mean())
    expected = torch.stack(losses).mean()
    found = cacr_queue(z, keys, queue=queue, t_pos=1.5, t_neg=t_neg, alpha=2.0, beta=3.0, in_batch=in_batch)
    torch.testing.assert_close(found, expected, **EXACT)
    for ours, plain in zip(torch.autograd.grad(found, z), torch.autograd.grad(expected, z), strict=True):
        torch.testing.assert_close(ours, plain, **EXACT)


@pytest.mark.parametrize("t_neg", [0.0, 2.0])
def test_rows_of_a_group_do_not_push_each_other(t_neg):
    z, group = [view.requires_grad_() for view in views(2)], torch.tensor([3, -1, 3, 5, -1, 5])
    same = (group[:, None] == group) & (group[:, None] >= 0) | torch.eye(6, dtype=torch.bool)
    each = cost(*z)
    weights = (-t_neg * each).masked_fill(same, -torch.inf).softmax(1)
    expected = -(weights * each).sum(1).mean()
    found = cacr_repulsion(z, t_neg=t_neg, group=group)
    torch.testing.assert_close(found, expected, **EXACT)
    for ours, plain in zip(torch.autograd.grad(found, z), torch.autograd.grad(expected, z), strict=True):
        torch.testing.assert_close(ours, plain, **EXACT)


@pytest.mark.parametrize("t_neg", [0.0, 2.0])
def test_a_row_without_negatives_is_not_pushed(t_neg):
    group = torch.zeros(6, dtype=torch.long)
    assert float(cacr_repulsion(views(2), t_neg=t_neg, group=group)) == 0


@pytest.mark.parametrize("t_neg", [0.0, 2.0])
def test_stored_keys_of_a_group_do_not_push_its_rows(t_neg):
    group, queue = torch.tensor([0, 1, 2, -1]), normal(3, 5, seed=20)
    found = cacr_queue(
        views(2, b=4), views(2, b=4), queue=queue, t_neg=t_neg, group=group, queue_group=torch.tensor([0, 7, -1])
    )
    pull = cacr_queue(views(2, b=4), views(2, b=4), queue=queue, beta=0.0)
    pushes = []
    for query in views(2, b=4):
        each = cost(query, torch.cat([query, queue]))
        out = torch.eye(4, 7, dtype=torch.bool)
        out[0, 4] = True
        weights = (-t_neg * each).masked_fill(out, -torch.inf).softmax(1)
        pushes.append((weights * each).sum(1).mean())
    torch.testing.assert_close(found, pull - torch.stack(pushes).mean(), **EXACT)


def test_keys_of_a_group_push_no_query_of_it_in_the_asymmetric_forms():
    queries, keys, group = views(2, b=4), normal(4, 5, seed=7), torch.tensor([0, 1, 0, -1])
    other = keys.clone()
    other[2] = normal(1, 5, seed=8)[0]  # row 0 must not see it, row 1 must
    for loss in (cacr_rbf, cacr_euclidean):
        one, two = (loss(queries, each, group=group, reduction="none") for each in (keys, other))
        assert one[0] == pytest.approx(float(two[0]))
        assert one[1] != pytest.approx(float(two[1]))


def test_the_form_with_a_queue_wants_a_key_a_view_and_a_negative():
    with pytest.raises(ShapesDiffer, match="2 queries and 1 keys"):
        cacr_queue(views(2), views(1))
    with pytest.raises(NoNegatives):
        cacr_queue(views(2), views(2), in_batch=False)


def test_rbf_of_one_query_is_cross_entropy_times_two_temperatures():
    query, keys = normal(4, 3), normal(4, 3, seed=1)
    expected = functional.cross_entropy(unit(query) @ unit(keys).T / 0.4, torch.arange(4)) * 0.8
    torch.testing.assert_close(cacr_rbf([query], keys, temperature=0.4), expected, **EXACT)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ((views(1), {}), ShapesDiffer),
        (([normal(4, 3), normal(4, 2)], {}), ShapesDiffer),
        (([normal(1, 3), normal(1, 3)], {}), NoNegatives),
        ((views(2), {"t_neg": -1.0}), ArgumentInvalid),
        ((views(2), {"tau_plus": 1.0}), ArgumentInvalid),
        ((views(2), {"alpha": -1.0}), ArgumentInvalid),
        ((views(2), {"beta": math.nan}), ArgumentInvalid),
        (([normal(4, 0), normal(4, 0)], {}), ShapesDiffer),
        ((views(2), {"variant": "uniform_both"}), ArgumentInvalid),
    ],
)
def test_what_makes_no_sense_is_refused(given, error):
    with pytest.raises(error):
        cacr(given[0], **given[1])


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda: cacr_queue(views(2), views(2), beta=math.inf), ArgumentInvalid),
        (lambda: cacr_euclidean(views(1), views(2)[1], queue=normal(3, 7)), ShapesDiffer),
        (lambda: cacr_euclidean(views(1), views(2)[1], queue=views(1)[0] * math.nan), NonFinite),
        (lambda: attraction_weights(torch.rand(3, 2), -1.0), ArgumentInvalid),
        (lambda: attraction_weights(torch.full((3, 2), math.nan)), NonFinite),
        (lambda: repulsion_weights(*views(2), -1.0), ArgumentInvalid),
        (lambda: repulsion_weights(normal(1, 3), normal(1, 3)), NoNegatives),
    ],
)
def test_what_the_other_forms_and_the_weights_refuse(call, error):
    with pytest.raises(error):
        call()

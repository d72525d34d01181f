from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer, TemperatureInvalid
from contrapose.objectives import decoupled, info_nce
from tests.objectives.numbers import EXACT, normal

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


def by_hand(a, p, *, temperature, hard=None, weight=0.0, queue=None, group=None, queue_group=None) -> Tensor:
    """The losses of one direction, from the formula in the docstring, one exponential at a time."""
    a, p = functional.normalize(a, dim=-1), functional.normalize(p, dim=-1)
    b = len(a)
    group = list(range(b)) if group is None else group.tolist()

    def alike(left: int, right: int) -> bool:
        return left == right and left >= 0

    losses = []
    for i in range(b):
        terms = [torch.exp(a[i] @ p[j] / temperature) for j in range(b) if j == i or not alike(group[i], group[j])]
        for j in range(b if hard is not None else 0):
            for negative in functional.normalize(hard[j], dim=-1):
                if j == i or not alike(group[i], group[j]):
                    terms.append(torch.exp(a[i] @ negative / temperature + (weight if i == j else 0.0)))
        for m in range(0 if queue is None else len(queue)):
            if queue_group is None or not alike(group[i], int(queue_group[m])):
                terms.append(torch.exp(a[i] @ functional.normalize(queue[m], dim=0) / temperature))
        losses.append(-torch.log(torch.exp(a[i] @ p[i] / temperature) / torch.stack(terms).sum()))
    return torch.stack(losses)


# -- golden values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["unsup", "sup", "supw"])
def test_golden_simcse(case):
    arrays = golden("simcse_base")
    z = torch.tensor(arrays["unsup_z" if case == "unsup" else "sup_z"], requires_grad=True)
    loss = info_nce(
        z[:, 0],
        z[:, 1],
        negatives=None if case == "unsup" else z[:, 2],
        negative_log_weight=float(arrays["hard_negative_weight"]) if case == "supw" else 0.0,
        temperature=float(arrays["temp"]),
    )
    loss.backward()
    np.testing.assert_allclose(loss.detach(), arrays[f"{case}_loss"], **EXACT)
    np.testing.assert_allclose(z.grad, arrays[f"{case}_grad"], **EXACT)


@pytest.mark.parametrize("case", ["", "_empty_queue"])
def test_golden_esimcse(case):
    arrays = golden("esimcse")
    z = torch.tensor(arrays["z"], requires_grad=True)
    queue = torch.tensor(arrays["queue"])
    loss = info_nce(z[:, 0], z[:, 1], queue=queue[:0] if case else queue, temperature=float(arrays["temp"]))
    loss.backward()
    np.testing.assert_allclose(loss.detach(), arrays[f"loss{case}"], **EXACT)
    np.testing.assert_allclose(z.grad, arrays[f"grad_z{case}"], **EXACT)


# -- the formula --------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(1, 7),
    k=st.integers(1, 3),
    q=st.integers(1, 6),
    temperature=st.floats(0.05, 10),
    weight=st.floats(-3, 3),
    seed=st.integers(0, 2**16),
)
def test_everything_at_once_follows_the_formula(b, k, q, temperature, weight, seed):
    a, p, hard, queue = (normal(*shape, seed=seed + n) for n, shape in enumerate([(b, 5), (b, 5), (b, k, 5), (q, 5)]))
    generator = torch.Generator().manual_seed(seed)
    group = torch.randint(-1, 3, (b,), generator=generator)
    queue_group = torch.randint(-1, 3, (q,), generator=generator)
    losses = info_nce(
        a,
        p,
        temperature=temperature,
        negatives=hard,
        negative_log_weight=weight,
        queue=queue,
        group=group,
        queue_group=queue_group,
        reduction="none",
    )
    expected = by_hand(
        a, p, temperature=temperature, hard=hard, weight=weight, queue=queue, group=group, queue_group=queue_group
    )
    torch.testing.assert_close(losses, expected, rtol=1e-12, atol=1e-12)


def test_symmetric_averages_both_directions():
    a, p, hard, queue = normal(6, 4), normal(6, 4, seed=1), normal(6, 2, 4, seed=2), normal(3, 4, seed=3)
    group = torch.tensor([0, 0, 1, 2, 2, -1])
    both = info_nce(a, p, temperature=0.3, negatives=hard, queue=queue, group=group, symmetric=True, reduction="none")
    there = by_hand(a, p, temperature=0.3, hard=hard, queue=queue, group=group)
    back = by_hand(p, a, temperature=0.3, group=group)
    torch.testing.assert_close(both, (there + back) / 2, **EXACT)


def test_dot_products_are_not_normalised():
    a, p = normal(4, 3), normal(4, 3, seed=1)
    expected = functional.cross_entropy(a @ p.T / 0.7, torch.arange(4))
    torch.testing.assert_close(info_nce(a, p, temperature=0.7, similarity="dot"), expected, **EXACT)


def test_reductions_agree():
    a, p = normal(5, 4), normal(5, 4, seed=1)
    each = info_nce(a, p, temperature=0.1, reduction="none")
    assert each.shape == (5,)
    torch.testing.assert_close(info_nce(a, p, temperature=0.1), each.mean(), **EXACT)
    torch.testing.assert_close(info_nce(a, p, temperature=0.1, reduction="sum"), each.sum(), **EXACT)


def test_gradients_of_embeddings_and_temperature():
    inputs = [normal(4, 3), normal(4, 3, seed=1), normal(4, 2, 3, seed=2), torch.tensor(0.4, dtype=torch.float64)]
    group = torch.tensor([0, 0, 1, 2])

    def loss(a, p, hard, temperature):
        return info_nce(a, p, temperature=temperature, negatives=hard, group=group, symmetric=True)

    assert torch.autograd.gradcheck(loss, [each.requires_grad_() for each in inputs])


def test_queue_gets_no_gradient():
    queue = normal(3, 4, seed=2).requires_grad_()
    info_nce(normal(2, 4).requires_grad_(), normal(2, 4, seed=1), temperature=0.1, queue=queue).backward()
    assert queue.grad is None


# -- value at chance, range, limits -------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_value_at_chance_is_the_log_of_the_columns(symmetric):
    same = torch.ones(6, 4, dtype=torch.float64)
    loss = info_nce(same, same, temperature=0.05, negatives=same, queue=same[:3], symmetric=symmetric)
    assert float(loss) == pytest.approx((math.log(15) + math.log(6)) / 2 if symmetric else math.log(15), abs=1e-12)


def test_upper_bound_is_reached_by_opposite_positives():
    anchors = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    losses = info_nce(
        anchors, -anchors, temperature=0.5, negatives=anchors[:, None].expand(1, 4, 2), negative_log_weight=0.3
    )
    assert float(losses) == pytest.approx(math.log(1 + 4 * math.exp(2 / 0.5 + 0.3)), abs=1e-12)


def test_high_temperature_tends_to_chance():
    loss = info_nce(normal(8, 5), normal(8, 5, seed=1), temperature=1e9, queue=normal(3, 5, seed=2))
    assert float(loss) == pytest.approx(math.log(11), abs=1e-8)


def test_low_temperature_tends_to_the_hardest_triplet():
    a, p = functional.normalize(normal(8, 5), dim=1), functional.normalize(normal(8, 5, seed=1), dim=1)
    cosine = a @ p.T
    hardest = cosine.masked_fill(torch.eye(8, dtype=torch.bool), -2).amax(1)
    losses = 1e-5 * info_nce(a, p, temperature=1e-5, reduction="none")
    torch.testing.assert_close(losses, (hardest - cosine.diag()).clamp_min(0), rtol=0, atol=1e-5)


# -- groups -------------------------------------------------------------------------------------------------------


def test_distinct_groups_change_nothing():
    a, p, hard = normal(5, 4), normal(5, 4, seed=1), normal(5, 4, seed=2)
    plain = info_nce(a, p, temperature=0.1, negatives=hard)
    torch.testing.assert_close(info_nce(a, p, temperature=0.1, negatives=hard, group=torch.arange(5)), plain, **EXACT)


def test_numbers_below_zero_are_no_group():
    a, p = normal(5, 4), normal(5, 4, seed=1)
    none = torch.full((5,), -1)
    torch.testing.assert_close(info_nce(a, p, temperature=0.1, group=none), info_nce(a, p, temperature=0.1), **EXACT)


@pytest.mark.parametrize("symmetric", [False, True])
def test_an_anchor_without_a_negative_adds_exactly_nothing(symmetric):
    a, p, queue = normal(3, 4).requires_grad_(), normal(3, 4, seed=1).requires_grad_(), normal(2, 4, seed=2)
    losses = info_nce(
        a,
        p,
        temperature=0.05,
        queue=queue,
        group=torch.zeros(3, dtype=torch.int64),
        queue_group=torch.zeros(2, dtype=torch.int64),
        symmetric=symmetric,
        reduction="none",
    )
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0]
    assert a.grad.abs().max() == 0
    assert p.grad.abs().max() == 0


def test_own_hard_negative_stays_when_the_group_is_masked():
    a, p, hard = normal(2, 4), normal(2, 4, seed=1), normal(2, 4, seed=2)
    grouped = info_nce(a, p, temperature=0.2, negatives=hard, group=torch.tensor([3, 3]), reduction="none")
    alone = [info_nce(a[[i]], p[[i]], temperature=0.2, negatives=hard[[i]]) for i in range(2)]
    torch.testing.assert_close(grouped, torch.stack(alone), **EXACT)


# -- precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_float16_is_computed_in_float32(dtype):
    a, p = normal(6, 8, dtype=dtype), normal(6, 8, seed=1, dtype=dtype)
    loss = info_nce(a, p, temperature=0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(info_nce(a.double(), p.double(), temperature=0.05)), rel=1e-5)


def test_bfloat16_at_a_temperature_whose_sums_leave_the_range_has_the_gradient_of_float32():
    a, p = (normal(30, 16, seed=seed, dtype=torch.bfloat16) for seed in (0, 1))
    wide, narrow = (a.to(dtype).requires_grad_() for dtype in (torch.float32, torch.bfloat16))
    for rows in (wide, narrow):
        info_nce(rows, p.to(rows.dtype), temperature=0.004, symmetric=True).backward()
    torch.testing.assert_close(narrow.grad.float(), wide.grad, rtol=0.01, atol=0.01 * float(wide.grad.abs().max()))


def test_bfloat16_is_multiplied_in_bfloat16_and_summed_in_float32():
    a, p = normal(300, 32, dtype=torch.bfloat16), normal(300, 32, seed=1, dtype=torch.bfloat16)
    loss, exact = info_nce(a, p, temperature=0.05), info_nce(a.double(), p.double(), temperature=0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(exact), rel=1e-3)
    assert float(loss) != pytest.approx(float(exact), rel=1e-7)


def test_autocast_does_not_lower_the_precision():
    a, p = normal(6, 8, dtype=torch.float32), normal(6, 8, seed=1, dtype=torch.float32)
    plain = info_nce(a, p, temperature=0.05)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(info_nce(a, p, temperature=0.05), plain)


def test_a_float32_temperature_keeps_float64():
    temperature = torch.nn.Parameter(torch.tensor([0.05]))
    loss = info_nce(normal(3, 4), normal(3, 4, seed=1), temperature=temperature)
    loss.backward()
    assert loss.dtype == torch.float64
    assert temperature.grad.shape == (1,)


def test_a_zero_vector_has_similarity_zero():
    a, p = normal(3, 4), normal(3, 4, seed=1)
    a[1] = 0
    assert float(info_nce(a, p, temperature=0.05, reduction="none")[1]) == pytest.approx(math.log(3))


# -- index, pair weights, smoothing, without the batch ------------------------------------------------------------


def test_an_index_names_the_positive_of_each_anchor():
    a, bank, index = normal(4, 3), normal(9, 3, seed=1), torch.tensor([7, 0, 7, 2])
    cosines = functional.normalize(a, dim=1) @ functional.normalize(bank, dim=1).T
    expected = functional.cross_entropy(cosines / 0.2, index)
    torch.testing.assert_close(info_nce(a, bank, temperature=0.2, index=index), expected, **EXACT)


@pytest.mark.parametrize("kind", ["tensor", "function", "mask"])
def test_pair_weights_enter_the_denominator_and_leave_the_positive_whole(kind):
    a, p, queue, w = normal(4, 3), normal(4, 3, seed=1), normal(2, 3, seed=2), normal(4, 6, seed=3)
    w = w > 0 if kind == "mask" else w
    given = (lambda rows, columns: w[rows, columns]) if kind == "function" else w
    columns = functional.normalize(torch.cat([p, queue]), dim=1)
    logits = functional.normalize(a, dim=1) @ columns.T / 0.2
    weighted = logits.masked_fill(~w, -math.inf) if kind == "mask" else logits + w
    own = torch.eye(4, 6, dtype=torch.bool)
    expected = functional.cross_entropy(torch.where(own, logits, weighted), torch.arange(4))
    torch.testing.assert_close(info_nce(a, p, temperature=0.2, queue=queue, pair=given), expected, **EXACT)


def test_a_tensor_of_pair_weights_can_be_learned():
    a, p, w = normal(4, 3), normal(4, 3, seed=1), normal(4, 4, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda w: info_nce(a, p, temperature=0.2, pair=w), (w,))


@pytest.mark.parametrize("symmetric", [False, True])
def test_label_smoothing_is_that_of_torch(symmetric):
    a, p = normal(5, 4), normal(5, 4, seed=1)
    logits = functional.normalize(a, dim=1) @ functional.normalize(p, dim=1).T / 0.3
    ways = [logits, logits.T][: 1 + symmetric]
    expected = sum(functional.cross_entropy(way, torch.arange(5), label_smoothing=0.2) for way in ways) / len(ways)
    found = info_nce(a, p, temperature=0.3, label_smoothing=0.2, symmetric=symmetric)
    torch.testing.assert_close(found, expected, **EXACT)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_the_batch_an_anchor_meets_its_own_columns_and_the_queue(smoothing):
    a, p, hard, queue = normal(3, 4), normal(3, 4, seed=1), normal(3, 2, 4, seed=2), normal(5, 4, seed=3)
    columns = [torch.cat([p[[i]], hard[i], queue]) for i in range(3)]
    expected = [
        functional.cross_entropy(a[i] @ columns[i].T / 0.7, torch.tensor(0), label_smoothing=smoothing)
        for i in range(3)
    ]
    found = info_nce(
        a, p, temperature=0.7, negatives=hard, queue=queue, in_batch=False, label_smoothing=smoothing, similarity="dot"
    )
    torch.testing.assert_close(found, torch.stack(expected).mean(), **EXACT)


def test_small_losses_keep_their_digits():
    a = torch.eye(3, dtype=torch.float32)
    loss = info_nce(a, a, temperature=0.02)
    assert float(loss) == pytest.approx(
        math.log1p(2 * math.exp(-50)), rel=1e-5
    )  # 4e-22: 0 for a difference of logarithms


# -- without the positive in the denominator ----------------------------------------------------------------------


@pytest.mark.parametrize("symmetric", [False, True])
def test_decoupled_leaves_the_positive_out(symmetric):
    a, p, queue = normal(5, 4), normal(5, 4, seed=1), normal(3, 4, seed=2)
    logits = functional.normalize(a, dim=1) @ functional.normalize(torch.cat([p, queue]), dim=1).T / 0.3
    without = logits.masked_fill(torch.eye(5, 8, dtype=torch.bool), -math.inf)
    expected = without.logsumexp(1) - logits.diagonal()
    if symmetric:
        expected = (expected + without[:, :5].logsumexp(0) - logits.diagonal()) / 2
    found = decoupled(a, p, temperature=0.3, queue=queue, symmetric=symmetric, reduction="none")
    torch.testing.assert_close(found, expected, **EXACT)


def test_decoupled_refuses_an_anchor_without_negatives():
    with pytest.raises(NoNegatives, match="row 0 has no negative left"):
        decoupled(normal(2, 3), normal(2, 3, seed=1), temperature=0.1, group=torch.zeros(2, dtype=torch.int64))


# -- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, torch.tensor(-1.0), torch.tensor([0.1, 0.2])])
def test_temperature_must_be_a_positive_number(value):
    with pytest.raises(TemperatureInvalid, match="temperature"):
        info_nce(normal(3, 4), normal(3, 4), temperature=value)


@pytest.mark.parametrize("name", ["anchors", "positives", "negatives", "queue"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_embeddings_are_named(name, value):
    given = {"anchors": normal(3, 4), "positives": normal(3, 4), "negatives": normal(3, 2, 4), "queue": normal(3, 4)}
    given[name][1].view(-1)[0] = value
    anchors, positives = given.pop("anchors"), given.pop("positives")
    with pytest.raises(NonFinite, match=rf"{name} hold .* \(first: row 1\)"):
        info_nce(anchors, positives, temperature=0.1, **given)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("positives", (2, 4)),
        ("positives", (3, 5)),
        ("negatives", (2, 4)),
        ("negatives", (3, 2, 5)),
        ("queue", (7, 3)),
        ("queue", (7, 1, 4)),
    ],
)
def test_shapes_must_fit(name, shape):
    given = {"positives": normal(3, 4), name: normal(*shape)}
    with pytest.raises(ShapesDiffer, match=name):
        info_nce(normal(3, 4), given.pop("positives"), temperature=0.1, **given)


@pytest.mark.parametrize("name", ["group", "queue_group"])
def test_groups_need_one_number_a_row(name):
    given = {"group": torch.arange(3), "queue_group": torch.arange(5), name: torch.arange(2)}
    with pytest.raises(ShapesDiffer, match=name):
        info_nce(normal(3, 4), normal(3, 4), temperature=0.1, queue=normal(5, 4), **given)


@pytest.mark.parametrize("b", [0, 1])
@pytest.mark.parametrize("symmetric", [False, True])
def test_a_single_row_without_other_negatives_is_refused(b, symmetric):
    with pytest.raises(NoNegatives):
        info_nce(normal(b, 4), normal(b, 4), temperature=0.1, queue=normal(0, 4), symmetric=symmetric)


def test_a_single_row_with_a_queue_is_not_refused():
    assert float(info_nce(normal(1, 4), normal(1, 4, seed=1), temperature=0.1, queue=normal(1, 4, seed=2))) > 0


@pytest.mark.parametrize(
    "choice",
    [{"similarity": "cos"}, {"reduction": "avg"}, {"negative_log_weight": math.nan}, {"label_smoothing": 1.5}],
)
def test_unknown_choices_are_named(choice):
    with pytest.raises(ArgumentInvalid, match=next(iter(choice))):
        info_nce(normal(3, 4), normal(3, 4), temperature=0.1, **choice)


@pytest.mark.parametrize(
    ("together", "named"),
    [
        ({"index": torch.arange(3), "symmetric": True}, "index goes with neither"),
        ({"index": torch.tensor([0, 1, 3])}, "index must name rows of positives, 0 to 2"),
        ({"in_batch": False, "queue": normal(2, 4), "symmetric": True}, "in_batch=False goes with neither"),
        ({"label_smoothing": 0.1, "group": torch.arange(3)}, "label_smoothing must be below 1, and goes with neither"),
    ],
)
def test_arguments_that_exclude_each_other_are_refused(together, named):
    with pytest.raises(ArgumentInvalid, match=named):
        info_nce(normal(3, 4), normal(3, 4), temperature=0.1, **together)


def test_a_queue_group_needs_a_group():
    with pytest.raises(ArgumentInvalid, match="queue_group needs"):
        info_nce(normal(3, 4), normal(3, 4), temperature=0.1, queue=normal(2, 4), queue_group=torch.arange(2))

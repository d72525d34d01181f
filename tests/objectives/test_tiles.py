"""The tile engine against all pairs at once: values, gradients, extremes, precision, and how much memory it takes."""

from __future__ import annotations

import math
import sys
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.checkpoint import checkpoint

from contrapose.errors import DoubleBackward
from contrapose.objectives import PairWeight, info_nce
from contrapose.objectives._tiles import (
    log_sum_exp,
    own_and_log_sum_exp,
    pairs,
    plain_log_sum_exp,
    softmax_mean,
    softplus_sum,
    unit_rows,
)
from contrapose.objectives._tiles.log_sum_exp import plain_logits
from tests.objectives.numbers import gradients, normal

engine_module = sys.modules[log_sum_exp.__module__]


@pytest.fixture(params=["one tile", "odd tiles", "odd tiles, nothing kept"])
def tiles(request, monkeypatch):
    if request.param != "one tile":
        monkeypatch.setattr(pairs, "ROWS", 5)
        monkeypatch.setattr(pairs, "COLUMNS", 3)
    if "nothing" in request.param:
        monkeypatch.setattr(engine_module, "KEPT_BYTES", {False: 0, True: 0})


def assert_equal_to_plain(x, y, tolerance, **options) -> None:
    leaves = [each.detach().clone().requires_grad_() for each in (x, y)]
    found, expected = log_sum_exp(*leaves, by_column=True, **options), plain_log_sum_exp(*leaves, **options)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)
    for ours, plain in zip(gradients(found, leaves), gradients(expected, leaves), strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance * max(1.0, float(plain.abs().max())))


# -- equal to all pairs at once -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("weighted", ["no", "mask", "log-weights"])
@pytest.mark.parametrize("skipped", [0, 1, 2])
def test_rows_and_columns_are_those_of_all_pairs(weighted, skipped):
    x, y, dense = normal(11, 4), normal(8, 4, seed=1), normal(11, 8, seed=2)
    dense = dense > 0 if weighted == "mask" else dense
    weight = None if weighted == "no" else PairWeight(lambda rows, columns: dense[rows, columns])
    skip = torch.arange(11 * skipped).view(11, skipped) % 8 if skipped else None
    assert_equal_to_plain(x, y, 1e-12, weight=weight, skip=skip)


@pytest.mark.usefixtures("tiles")
def test_one_set_against_itself_is_the_full_square():
    x = normal(13, 4).requires_grad_()
    skip = torch.stack([torch.arange(13), torch.arange(13).roll(0)], 1)
    group = torch.arange(13) % 4
    weight = PairWeight(lambda rows, columns: group[rows, None] != group[columns], symmetric=True)
    found, expected = log_sum_exp(x, skip=skip, weight=weight)[0], plain_log_sum_exp(x, x, skip, weight)[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients([found], [x])[0], gradients([expected], [x])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("same", [False, True])
def test_learned_weights_get_their_gradient(same):
    x, y = normal(11, 4).requires_grad_(), normal(11, 4, seed=1).requires_grad_()
    u = normal(11, seed=2).requires_grad_()
    weight = PairWeight(lambda rows, columns, u: u[rows, None] * u[columns], (u,), symmetric=True)
    skip = torch.arange(11)[:, None]
    found = log_sum_exp(x, skip=skip, weight=weight)[0] if same else log_sum_exp(x, y, skip=skip, weight=weight)[0]
    expected = (
        (plain_logits(x, x if same else y, weight=PairWeight(lambda r, c: u[r, None] * u[c])))
        .scatter(1, skip, -math.inf)
        .logsumexp(1)
    )
    inputs = [x, u] if same else [x, y, u]
    for ours, plain in zip(gradients([found], inputs), gradients([expected], inputs), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 517),
    m=st.integers(1, 517),
    d=st.integers(1, 33),
    log_temperature=st.floats(math.log(0.005), math.log(10)),
    strided=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_float32_is_exact_to_its_rounding_for_any_size_and_temperature(n, m, d, log_temperature, strided, seed):
    temperature = math.exp(log_temperature)
    x, y = normal(n, 2 * d, seed=seed), normal(m, 2 * d, seed=seed + 1)
    x, y = (each[:, ::2] if strided else each[:, :d] for each in (x, y))
    x, y = functional.normalize(x, dim=1) / temperature, functional.normalize(y, dim=1)
    leaves = [each.float().requires_grad_() for each in (x, y)]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    found, expected = log_sum_exp(*leaves, by_column=True), plain_log_sum_exp(*exact)
    # a logit of 1 / t is rounded by 1 / t times 2^-24, d times over
    tolerance = 1e-6 * max(1.0, 1 / temperature)
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), plain, rtol=0, atol=tolerance)
    for ours, plain in zip(gradients(found, leaves), gradients(expected, exact), strict=True):
        size = max(math.sqrt(n + m), float(plain.abs().max()))  # sums of so many rounded terms, which may cancel
        torch.testing.assert_close(ours.double(), plain, rtol=0, atol=4 * tolerance * size)


# -- extremes -----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [1.0, 1e2, 1e4])
def test_logits_of_any_size_stay_finite_and_right(dtype, size):
    x, y = normal(9, 3, dtype=dtype) * size, normal(7, 3, seed=1, dtype=dtype)
    assert_equal_to_plain(x, y, 1e-12 * size if dtype == torch.float64 else 1e-6 * size)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("same", [False, True])
def test_sums_too_small_for_the_shift_are_found_and_done_again(same):
    """Two clusters: within the bound of the first one's logits, the second's exponentials are 0."""
    x = torch.cat(
        [normal(4, 3, dtype=torch.float32) * 40, normal(4, 3, seed=1, dtype=torch.float32) / 40]
    ).requires_grad_()
    skip = torch.arange(8)[:, None]
    found = log_sum_exp(x, skip=skip)[0] if same else log_sum_exp(x, x, skip=skip)[0]
    expected = plain_log_sum_exp(x.double(), x.double(), skip)[0]
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        gradients([found], [x])[0].double(), gradients([expected], [x])[0].double(), rtol=1e-4, atol=1e-3
    )


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_a_row_without_pairs_gives_minus_infinity_and_no_gradient(scale):
    x, y = (normal(7, 3) * scale).requires_grad_(), normal(7, 3, seed=1).requires_grad_()
    weight = PairWeight(
        lambda rows, columns: torch.arange(rows.start, rows.stop)[:, None].expand(-1, columns.stop - columns.start) != 2
    )
    rows, columns = log_sum_exp(x, y, weight=weight, by_column=True)
    assert torch.isneginf(rows).nonzero().flatten().tolist() == [2]
    x_gradient, y_gradient = gradients([rows, columns], [x, y])
    assert torch.isfinite(x_gradient).all()
    assert torch.isfinite(y_gradient).all()
    assert x_gradient[2].abs().max() == 0


def test_equal_rows_give_the_log_of_their_number():
    x = torch.ones(600, 3)
    assert log_sum_exp(x, x, skip=torch.arange(600)[:, None])[0].sub(3 + math.log(599)).abs().max() < 1e-5


# -- precision ----------------------------------------------------------------------------------------------------


def test_bfloat16_products_are_summed_in_float32():
    x, y = (
        functional.normalize(normal(2100, 64), dim=1).float() * 20,
        functional.normalize(normal(2100, 64, seed=1), dim=1).float(),
    )
    found = log_sum_exp(x, y, products=torch.bfloat16)[0]
    assert found.dtype == torch.float32
    error = found - plain_log_sum_exp(x.double(), y.double())[0]
    # products rounded to 8 bits are off by a hundredth and average out; a sum of 2,100 terms in bfloat16 stands still at 256 of them
    assert error.abs().max() < 0.05
    assert error.mean().abs() < 1e-3


@pytest.mark.usefixtures("tiles")
def test_gradients_in_bfloat16_are_near_the_exact_ones():
    x, y = (functional.normalize(normal(40, 16, seed=n), dim=1).float().requires_grad_() for n in (0, 1))
    found = log_sum_exp(x * 20, y, products=torch.bfloat16, by_column=True)
    expected = plain_log_sum_exp(x * 20, y)
    for ours, exact in zip(gradients(found, [x, y]), gradients(expected, [x, y]), strict=True):
        assert (ours - exact).norm() < 0.02 * exact.norm()


def test_gradients_pass_gradcheck():
    x, y = normal(4, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: log_sum_exp(x, y, by_column=True), (x, y))


@pytest.mark.usefixtures("tiles")
def test_runs_are_equal_bit_for_bit():
    def once() -> list[Tensor]:
        x, y = (
            normal(31, 5, dtype=torch.float32).requires_grad_(),
            normal(17, 5, seed=1, dtype=torch.float32).requires_grad_(),
        )
        out = log_sum_exp(x, y, by_column=True)
        return [*out, *gradients(out, [x, y])]

    assert all(torch.equal(first, second) for first, second in zip(once(), once(), strict=True))


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("same", [False, True])
def test_a_second_backward_through_the_same_graph_gives_the_same(same):
    """The first writes over the exponentials that were kept."""
    x, y = normal(11, 4).requires_grad_(), normal(8, 4, seed=1).requires_grad_()
    total = log_sum_exp(x)[0].sum() if same else sum(each.sum() for each in log_sum_exp(x, y, by_column=True))
    inputs = [x] if same else [x, y]
    first = torch.autograd.grad(total, inputs, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(total, inputs), strict=True))


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("weighted", ["no", "mask", "learned"])
@pytest.mark.parametrize("how", ["a diagonal", "numbers", "halves of one set"])
@pytest.mark.parametrize("size", [1.0, 300.0])
def test_own_logits_stand_apart_from_the_sums_and_scale_has_a_gradient(weighted, how, size):
    x, y, scale = (
        (normal(12, 4) * size).requires_grad_(),
        normal(12, 4, seed=1).requires_grad_(),
        torch.tensor(1.7, dtype=torch.float64, requires_grad=True),
    )
    same = how == "halves of one set"
    other = x if same else y
    own = {
        "a diagonal": torch.arange(12),
        "numbers": torch.arange(12) * 5 % 12,
        "halves of one set": torch.arange(12).roll(6),
    }
    own, skip = own[how], torch.arange(12)[:, None] if same else None
    dense = normal(12, 12, seed=2)
    dense = ((dense + dense.T) > 0) if weighted == "mask" else (dense + dense.T).requires_grad_()
    weight = None
    if weighted != "no":
        tensors = (dense,) if weighted == "learned" else ()
        weight = PairWeight(lambda rows, columns, *_: (_ or (dense,))[0][rows, columns], tensors, symmetric=True)
    found = own_and_log_sum_exp(
        x,
        None if same else y,
        own={"a diagonal": (0,)}.get(how, own),
        scale=scale,
        skip=skip,
        weight=weight,
        by_column=True,
    )
    logits = scale * x @ other.T
    places = own[:, None] if skip is None else torch.cat([own[:, None], skip], 1)
    if weighted != "no":
        left = logits.masked_fill(~dense, -math.inf) if weighted == "mask" else logits + dense
    else:
        left = logits
    left = left.scatter(1, places, -math.inf)
    expected = [logits.gather(1, own[:, None])[:, 0], left.logsumexp(1), left.logsumexp(0)]
    if same:
        found, expected = found[:2], expected[:2]
    inputs = [x, scale, *([] if same else [y]), *([dense] if weighted == "learned" else [])]
    for ours, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11)
    for ours, plain in zip(gradients(list(found), inputs), gradients(expected, inputs), strict=True):
        if weighted == "learned" and same and plain.shape == (12, 12):
            ours, plain = ours + ours.T, plain + plain.T  # a symmetric weight may have its gradient on either side
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9 * size)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3)])
def test_unit_rows_have_the_gradient_of_a_division_by_the_norm(shape):
    x = normal(*shape)
    x[0] = 0
    x.requires_grad_()
    found, expected = unit_rows(x, x.dtype), functional.normalize(x, dim=-1)
    torch.testing.assert_close(found, expected, rtol=1e-15, atol=1e-15)
    for ours, plain in zip(gradients([found], [x]), gradients([expected], [x]), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)


def test_unit_rows_of_bfloat16_are_made_in_float32():
    x = normal(5, 64, dtype=torch.bfloat16).requires_grad_()
    found = unit_rows(x, torch.float32)
    torch.testing.assert_close(found, functional.normalize(x.float(), dim=-1), rtol=1e-6, atol=1e-6)
    assert gradients([found], [x])[0].dtype == torch.bfloat16


# -- in other people's graphs -------------------------------------------------------------------------------------


def loss_of(a: Tensor, p: Tensor) -> Tensor:
    return info_nce(a.tanh(), p.tanh(), temperature=0.1, symmetric=True)


def test_activation_checkpointing_changes_nothing():
    a, p = normal(9, 4).requires_grad_(), normal(9, 4, seed=1).requires_grad_()
    plain = torch.autograd.grad(loss_of(a, p), [a, p])
    again = torch.autograd.grad(checkpoint(loss_of, a, p, use_reentrant=False), [a, p])
    assert all(torch.equal(first, second) for first, second in zip(plain, again, strict=True))


def test_autocast_in_forward_and_backward_changes_nothing():
    a, p = (normal(9, 4, seed=n, dtype=torch.float32).requires_grad_() for n in (0, 1))
    plain = torch.autograd.grad(info_nce(a, p, temperature=0.1), [a, p])
    with torch.autocast("cpu", torch.bfloat16):
        again = torch.autograd.grad(info_nce(a, p, temperature=0.1), [a, p])
    assert all(torch.equal(first, second) for first, second in zip(plain, again, strict=True))


def test_a_compiled_function_around_it_gives_the_same():
    a, p = normal(9, 4).requires_grad_(), normal(9, 4, seed=1).requires_grad_()
    compiled = torch.compile(
        loss_of, backend="aot_eager"
    )  # graphs and graph breaks as with any backend, without a C++ compiler
    plain, again = (torch.autograd.grad(function(a, p), [a, p]) for function in (loss_of, compiled))
    for first, second in zip(plain, again, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: log_sum_exp(x, x)[0],
        lambda x: softplus_sum(x, x, x[:, 0]),
        lambda x: softmax_mean(x, x),
    ],
)
def test_a_second_derivative_is_refused(function):
    x = normal(4, 3).requires_grad_()
    with pytest.raises(DoubleBackward, match="first derivatives only"):
        torch.autograd.grad(function(x).sum(), x, create_graph=True)


def test_gradients_of_many_losses_at_once_are_those_of_one_after_the_other():
    """Per-sample gradients, as rules on gradients take them: torch maps the backward pass over the rows."""
    a, p = normal(9, 4).requires_grad_(), normal(9, 4, seed=1).requires_grad_()
    losses = info_nce(a, p, temperature=0.1, symmetric=True, reduction="none")
    each = torch.eye(9, dtype=torch.float64)
    together = torch.autograd.grad(losses, [a, p], each, is_grads_batched=True, retain_graph=True)
    for row in range(9):
        alone = torch.autograd.grad(losses, [a, p], each[row], retain_graph=True)
        for ours, plain in zip(together, alone, strict=True):
            torch.testing.assert_close(ours[row], plain, rtol=1e-12, atol=1e-12)


# -- sums of other functions --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_softplus_sums_are_those_of_all_pairs(masked, size):
    x, y, offset = (
        (normal(11, 4) * size).requires_grad_(),
        normal(8, 4, seed=1).requires_grad_(),
        normal(11, seed=2).requires_grad_(),
    )
    keep = normal(11, 8, seed=3) > 0
    weight = PairWeight(lambda rows, columns: keep[rows, columns]) if masked else None
    found = softplus_sum(x, y, offset, weight=weight)
    each = torch.logaddexp(x @ y.T + offset[:, None], torch.zeros((), dtype=torch.float64))
    expected = (each * keep if masked else each).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    for ours, plain in zip(gradients([found], [x, y, offset]), gradients([expected], [x, y, offset]), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-11, atol=1e-11 * size)


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("detached", [False, True])
@pytest.mark.parametrize("size", [1.0, 1e3])
def test_softmax_means_are_those_of_all_pairs(detached, size):
    x, y = (normal(11, 4) * size).requires_grad_(), normal(8, 4, seed=1).requires_grad_()
    skip = torch.arange(11)[:, None] % 8
    found = softmax_mean(x, y, skip=skip, detach_weights=detached)
    weights = plain_logits(x, y, skip).softmax(1)
    expected = ((weights.detach() if detached else weights) * (x @ y.T)).sum(1)
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)
    for ours, plain in zip(gradients([found], [x, y]), gradients([expected], [x, y]), strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-9, atol=1e-9 * size)


# -- memory -------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The bytes of all live tensors that were made inside, at their highest."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in tree_flatten(made)[0]:
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage.data_ptr() not in self.live and storage.nbytes():
                    self.live[storage.data_ptr()] = storage.nbytes()
                    weakref.finalize(storage, self.live.pop, storage.data_ptr(), None)
        self.peak = max(self.peak, sum(self.live.values()))
        return made


@pytest.mark.parametrize("same", [False, True])
def test_no_tensor_of_all_pairs_is_made(same, monkeypatch):
    monkeypatch.setattr(engine_module, "KEPT_BYTES", {False: 0, True: 0})
    n = 4096
    x, y = (functional.normalize(normal(n, 8, seed=s), dim=1).float().requires_grad_() for s in (0, 1))
    with Largest() as memory:
        out = log_sum_exp(x)[0] if same else sum(log_sum_exp(x, y, by_column=True))
        out.sum().backward()
    assert memory.peak < n * n * 4 / 2  # all pairs in float32 are 64 MiB; a tile is 4

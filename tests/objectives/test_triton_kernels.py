"""The Triton kernels against all pairs at once: as built for a GPU where there is one, else through Triton's interpreter."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from contrapose.objectives import PairWeight, info_nce, nt_xent
from contrapose.objectives._arguments import groups_apart
from contrapose.objectives._tiles import log_sum_exp, own_and_log_sum_exp, plain_log_sum_exp
from contrapose.objectives._tiles import triton_kernels as kernels
from contrapose.objectives._tiles.log_sum_exp import Exponentials, plain_logits
from contrapose.objectives._tiles.pairs import Pairs
from tests.objectives.numbers import gradients, normal

engine = sys.modules[log_sum_exp.__module__]
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SCALE = 7.0


@pytest.fixture
def called(monkeypatch) -> list[str]:
    """The kernels do the sums on this device, whatever it is; the names of their calls."""
    names: list[str] = []

    def counted(name: str):
        real = getattr(kernels, name)

        def call(*given, **named):
            names.append(name)
            return real(*given, **named)

        return call

    for name in ("sums", "slopes"):
        monkeypatch.setattr(kernels, name, counted(name))
    monkeypatch.setattr(engine, "has_kernels", lambda device: True)
    return names


@pytest.fixture(params=["one tile", "small tiles"])
def tiles(request, monkeypatch):
    if request.param == "small tiles":
        monkeypatch.setattr(kernels, "SIDE", 48)
        monkeypatch.setattr(kernels, "BLOCKS", dict.fromkeys(kernels.BLOCKS, kernels.Block(32, 16, 4, 2)))


def unit(n: int, d: int, seed: int = 0) -> Tensor:
    return functional.normalize(normal(n, d, seed=seed), dim=1).float().to(DEVICE)


def leaves(*rows: Tensor) -> list[Tensor]:
    return [each.detach().clone().requires_grad_() for each in rows]


def exact(*rows: Tensor) -> list[Tensor]:
    return [each.detach().double().requires_grad_() for each in rows]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float = 2e-5) -> None:
    for ours, plain in zip(found, expected, strict=True):
        size = float(plain.detach().nan_to_num(posinf=0, neginf=0).abs().max())
        atol = tolerance * max(1.0, size)
        torch.testing.assert_close(ours.double(), plain, rtol=tolerance, atol=atol)


# -- equal to all pairs at once -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize(
    ("n", "m", "d"), [(1, 1, 1), (1, 130, 3), (2, 1, 17), (64, 65, 33), (128, 48, 64), (130, 129, 7)]
)
def test_rows_and_columns_are_those_of_all_pairs(called, n, m, d):
    x, y = unit(n, d), unit(m, d, seed=1)
    ours, plain = leaves(x, y), exact(x, y)
    found = log_sum_exp(*ours, scale=SCALE, by_column=True)
    expected = plain_log_sum_exp(SCALE * plain[0], plain[1])
    assert_near(found, expected)
    assert_near(gradients(found, ours), gradients(expected, plain))
    assert called == ["sums", "slopes"]


@pytest.mark.usefixtures("tiles")
def test_rows_alone_need_no_columns(called):
    x, y = unit(70, 5), unit(33, 5, seed=1)
    ours, plain = leaves(x, y), exact(x, y)
    found, none = log_sum_exp(*ours, scale=SCALE)
    expected = plain_log_sum_exp(SCALE * plain[0], plain[1])[0]
    assert none is None
    assert_near([found], [expected])
    assert_near(gradients([found], ours), gradients([expected], plain))
    assert called == ["sums", "slopes"]


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("half", [1, 2, 35, 65])
@pytest.mark.parametrize("grouped", [False, True])
def test_one_set_against_itself_is_the_full_square(called, half, grouped):
    """Two views of each row, as in NT-Xent: the other view is a row's own logit, the row itself is left out."""
    z = unit(2 * half, 9)
    (x,), (plain,) = leaves(z), exact(z)
    group = torch.arange(half, device=DEVICE).repeat(2) % 3 - 1  # a third of them belong to no group
    apart = groups_apart(group, group) if grouped else None
    scale = torch.tensor(SCALE, device=DEVICE, requires_grad=True)
    found = own_and_log_sum_exp(x, own=(half, -half), skip=(0,), scale=scale, weight=apart, bound=1.0)[:2]
    sharp = scale.detach().double().requires_grad_()
    other = torch.arange(2 * half, device=DEVICE).roll(half)
    logits = plain_logits(sharp * plain, plain, weight=apart)
    left = logits.scatter(1, torch.stack([torch.arange(2 * half, device=DEVICE), other], 1), -math.inf)
    expected = [(sharp * plain @ plain.T).gather(1, other[:, None])[:, 0], left.logsumexp(1)]
    assert_near(found, expected)
    assert_near(gradients(list(found), [x, scale]), gradients(expected, [plain, sharp]))
    assert called == ["sums", "slopes"]


@pytest.mark.usefixtures("tiles")
def test_a_set_that_keeps_its_diagonal_counts_it_once(called):
    z = unit(77, 5)
    (x,), (plain,) = leaves(z), exact(z)
    found, expected = log_sum_exp(x, scale=SCALE)[0], plain_log_sum_exp(SCALE * plain, plain)[0]
    assert_near([found], [expected])
    assert_near(gradients([found], [x]), gradients([expected], [plain]))
    assert called == ["sums", "slopes"]


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("grouped", [False, True])
def test_own_logits_stand_apart_and_scale_has_a_gradient(called, grouped):
    x, y = unit(90, 6), unit(101, 6, seed=1)
    row_group, column_group = torch.arange(90, device=DEVICE) % 4 - 1, torch.arange(101, device=DEVICE) % 5 - 1
    apart = groups_apart(row_group, column_group) if grouped else None
    scale = torch.tensor(SCALE, device=DEVICE, requires_grad=True)
    ours, plain = leaves(x, y), exact(x, y)
    found = own_and_log_sum_exp(*ours, own=(3,), skip=(0, -2), scale=scale, weight=apart, by_column=True)
    sharp = scale.detach().double().requires_grad_()
    logits = sharp * plain[0] @ plain[1].T
    column_less_row = torch.arange(101, device=DEVICE) - torch.arange(90, device=DEVICE)[:, None]
    out = torch.isin(column_less_row, torch.tensor([3, 0, -2], device=DEVICE))
    if grouped:
        out = out | ((row_group[:, None] == column_group) & (row_group[:, None] >= 0))
    left = logits.masked_fill(out, -math.inf)
    expected = [logits.diagonal(3), left.logsumexp(1), left.logsumexp(0)]
    assert_near(found, expected)
    assert_near(gradients(list(found), [*ours, scale]), gradients(expected, [*plain, sharp]))
    assert called == ["sums", "slopes"]


@pytest.mark.usefixtures("tiles", "called")
def test_a_row_without_pairs_gives_minus_infinity_and_no_gradient():
    x, y = leaves(unit(7, 3), unit(9, 3, seed=1))
    rows, columns = torch.ones(7, dtype=torch.long, device=DEVICE), torch.ones(9, dtype=torch.long, device=DEVICE)
    rows[3], columns[8] = 2, 2
    found, _ = log_sum_exp(x, y, weight=groups_apart(rows, columns))
    assert torch.isfinite(found).nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6]
    alone = log_sum_exp(x, y, weight=groups_apart(rows, torch.ones_like(columns)))[0]
    assert torch.isfinite(alone).nonzero().flatten().tolist() == [3]
    gradient = gradients([alone], [x])[0]
    assert gradient[[0, 1, 2, 4, 5, 6]].abs().max() == 0
    assert gradient[3].abs().max() > 0


@pytest.mark.usefixtures("tiles")
def test_objectives_go_through_the_kernels(called):
    a, p = unit(67, 12), unit(67, 12, seed=1)
    group = torch.arange(67, device=DEVICE) // 2
    for objective in (
        lambda a, p: info_nce(a, p, temperature=0.1, symmetric=True, group=group),
        lambda a, p: nt_xent(a, p, temperature=0.1, group=group),
    ):
        ours, plain = leaves(a, p), exact(a, p)
        called.clear()
        found = objective(*ours)
        slopes = torch.autograd.grad(found, ours)
        assert called == ["sums", "slopes"]
        expected = objective(*plain)
        assert_near([found, *slopes], [expected, *torch.autograd.grad(expected, plain)])
        assert called == ["sums", "slopes"]


# -- precision ----------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("tiles")
def test_bfloat16_rounds_operands_of_products_and_nothing_else(called):
    x, y = unit(130, 33), unit(75, 33, seed=1)
    ours, plain = leaves(x, y), exact(x.bfloat16(), y.bfloat16())
    found = log_sum_exp(*ours, scale=SCALE, by_column=True, products=torch.bfloat16)
    expected = plain_log_sum_exp(SCALE * plain[0], plain[1])
    assert_near(found, expected)
    for slope, sharp in zip(gradients(found, ours), gradients(expected, plain), strict=True):
        assert slope.dtype == torch.float32
        assert (slope - sharp).norm() < 0.01 * sharp.norm()
    assert called == ["sums", "slopes"]


@pytest.mark.parametrize("size", [40.0, 400.0])
def test_sums_beyond_the_range_are_done_again_by_torch(called, size):
    x, y = size * normal(9, 3).float().to(DEVICE), normal(70, 3, seed=1).float().to(DEVICE)
    ours, plain = leaves(x, y), exact(x, y)
    found, expected = log_sum_exp(*ours, by_column=True), plain_log_sum_exp(*plain)
    assert_near(found, expected)
    assert_near(gradients(found, ours), gradients(expected, plain), 1e-4)
    assert called == ["sums"]


# -- the same each time, and in parts -----------------------------------------------------------------------------


@pytest.mark.usefixtures("tiles", "called")
@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_runs_are_equal_bit_for_bit(products):
    def once() -> list[Tensor]:
        ours = leaves(unit(131, 17), unit(70, 17, seed=1))
        found = log_sum_exp(*ours, scale=SCALE, by_column=True, products=products)
        return [*found, *gradients(found, ours)]

    assert all(torch.equal(first, second) for first, second in zip(once(), once(), strict=True))


@pytest.mark.usefixtures("tiles", "called")
def test_a_second_backward_through_the_same_graph_gives_the_same():
    ours = leaves(unit(31, 5), unit(70, 5, seed=1))
    total = sum(each.sum() for each in log_sum_exp(*ours, by_column=True))
    first = torch.autograd.grad(total, ours, retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(total, ours), strict=True))


@pytest.mark.usefixtures("tiles")
@pytest.mark.parametrize("same", [False, True])
def test_the_parts_of_processes_add_up_to_the_whole(same):
    x, y = unit(130, 5), unit(130, 5, seed=1)
    pairs = Pairs(130, 130, same, (0,), None)

    def of(pairs: Pairs) -> tuple[Tensor, Tensor]:
        return kernels.sums(Exponentials(x, x if same else y, SCALE, 0.0, pairs, torch.float32), by_column=not same)

    parts = [of(pairs._replace(part=part, parts=3)) for part in range(3)]
    for whole, *each in zip(of(pairs), *parts, strict=True):
        torch.testing.assert_close(sum(each), whole, rtol=1e-6, atol=0)


def test_gradients_of_many_losses_at_once_are_those_of_one_after_the_other(called):
    ours = leaves(unit(9, 4), unit(9, 4, seed=1))
    losses = info_nce(*ours, temperature=0.1, symmetric=True, reduction="none")
    each = torch.eye(9, device=DEVICE)
    together = torch.autograd.grad(losses, ours, each, is_grads_batched=True, retain_graph=True)
    assert called == ["sums"]
    for row in range(9):
        alone = torch.autograd.grad(losses, ours, each[row], retain_graph=True)
        for mapped, plain in zip(together, alone, strict=True):
            torch.testing.assert_close(mapped[row], plain, rtol=1e-4, atol=1e-5)


# -- whose they are not -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["a function", "columns by number", "float64"])
def test_what_the_kernels_cannot_tell_is_left_to_torch(called, why):
    x, y = unit(20, 4), unit(20, 4, seed=1)
    keep = normal(20, 20, seed=2).to(DEVICE) > -1
    dense = PairWeight(lambda rows, columns: keep[rows, columns])
    places = (torch.arange(20, device=DEVICE) * 7 % 20)[:, None]
    options = {"a function": {"weight": dense}, "columns by number": {"skip": places}, "float64": {}}[why]
    ours, plain = leaves(x, y) if why != "float64" else exact(x, y), exact(x, y)
    found, expected = log_sum_exp(*ours, by_column=True, **options), plain_log_sum_exp(*plain, **options)
    assert_near(found, expected)
    assert_near(gradients(found, ours), gradients(expected, plain))
    assert called == []


def test_a_processor_has_no_kernels_even_where_triton_is_installed():
    assert not engine.has_kernels(torch.device("cpu"))


def test_a_kernel_is_tried_out_before_it_is_relied_on():
    kernels.try_out(DEVICE)


# -- built for GPUs -----------------------------------------------------------------------------------------------


def test_kernels_compile_for_gpus_that_are_not_there(tmp_path):
    """To machine code, for compute capabilities 8.0 and 9.0; a program of its own, since here Triton may be its interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    run = subprocess.run(
        [sys.executable, "-m", "tests.objectives.compile_kernels", "80", "90"],
        cwd=Path(__file__).parents[2],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    built = [line.split() for line in run.stdout.splitlines()]
    assert len(built) == 2 * 2 * 2
    for capability, kernel, dtype, shared in built:
        # two programs at a time: 164 KiB of shared memory at 8.0 and 228 at 9.0
        assert 2 * int(shared) <= {"80": 164, "90": 228}[capability] * 1024, (kernel, dtype)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("products", [torch.float32, torch.bfloat16])
def test_on_a_gpu_values_are_those_of_torch_and_memory_is_less_than_all_pairs(products, monkeypatch):
    monkeypatch.setattr(kernels, "SIDE", 1024)
    n = 4096
    x, y = unit(n, 256), unit(n, 256, seed=1)

    def once() -> list[Tensor]:
        ours = leaves(x, y)
        found = own_and_log_sum_exp(*ours, own=(0,), scale=20.0, by_column=True, bound=1.0, products=products)
        return [*found, *gradients(list(found), ours)]

    assert engine.has_kernels(x.device)
    once()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ours = once()
    assert torch.cuda.max_memory_allocated() - before < n * n * 4 / 2  # all pairs in float32 are 64 MiB
    monkeypatch.setattr(engine, "has_kernels", lambda device: False)
    for found, plain in zip(ours, once(), strict=True):
        assert (found - plain).norm() < (1e-4 if products == torch.float32 else 0.02) * plain.norm()

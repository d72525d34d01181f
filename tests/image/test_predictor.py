"""The predictor in closed form: its formulas, what they survive, and the running correlation that they are taken of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer
from contrapose.image.directpred import Correlation, byol_loss, deviation, eigenspace_alignment, predictor_weights


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlation_of(values: list[float], seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix with these eigenvalues, and its eigenvectors."""
    vectors, _ = torch.linalg.qr(drawn(len(values), len(values), seed=seed))
    return (vectors * torch.tensor(values, dtype=torch.float64)) @ vectors.T, vectors


VALUES = [4.0, 1.0, 0.25, 0.0]
FORMS = {
    "official": ({}, [1.1, 0.6, 0.35, 0.1]),
    "official, cube root": ({"root": 3.0}, [1.1, 0.25 ** (1 / 3) + 0.1, 0.0625 ** (1 / 3) + 0.1, 0.1]),
    "official without eps": ({"eps": 0.0}, [1.0, 0.5, 0.25, 1e-4]),
    "inside": ({"form": "official_inside"}, [1.1**0.5, 0.35**0.5, 0.1625**0.5, 0.1**0.5]),
    "paper": ({"form": "paper"}, [2.4, 1.4, 0.9, 0.4]),
    "copy": ({"form": "directcopy"}, [4.1, 1.1, 0.35, 0.1]),
    "copy by its norm": ({"form": "directcopy_norm"}, [value / math.sqrt(17.0625) + 0.1 for value in VALUES]),
}


@pytest.mark.parametrize(("options", "expected"), FORMS.values(), ids=FORMS)
def test_eigenvalues_are_those_of_the_formula_and_eigenvectors_stay(options: dict, expected: list[float]) -> None:
    correlation, vectors = correlation_of(VALUES)
    weights = predictor_weights(correlation, **options)
    torch.testing.assert_close(weights, (vectors * torch.tensor(expected, dtype=torch.float64)) @ vectors.T)


@pytest.mark.parametrize("form", ["official", "official_inside"])
def test_the_official_forms_do_not_depend_on_the_scale_of_features(form: str) -> None:
    correlation, _ = correlation_of(VALUES)
    torch.testing.assert_close(
        predictor_weights(1e6 * correlation, form=form), predictor_weights(correlation, form=form)
    )


def test_equal_eigenvalues_give_one_predictor_whatever_their_eigenvectors() -> None:
    one, other = (predictor_weights(correlation_of([2.0, 2.0, 2.0, 2.0], seed)[0]) for seed in (0, 1))
    torch.testing.assert_close(one, 1.1 * torch.eye(4, dtype=torch.float64))
    torch.testing.assert_close(other, one)


def test_eigenvalues_below_0_count_as_0() -> None:
    correlation, vectors = correlation_of([1.0, 0.25, -1e-9])
    expected = (vectors * torch.tensor([1.1, 0.6, 0.1], dtype=torch.float64)) @ vectors.T
    torch.testing.assert_close(predictor_weights(correlation), expected)


@pytest.mark.parametrize("form", ["official", "official_inside", "paper", "directcopy", "directcopy_norm"])
def test_a_collapse_to_0_leaves_a_finite_predictor(form: str) -> None:
    assert torch.isfinite(predictor_weights(torch.zeros(3, 3), form=form)).all()


def test_an_eps_below_0_is_borne_where_it_is_asked_for() -> None:
    correlation, vectors = correlation_of(VALUES)
    weights = predictor_weights(correlation, eps=-0.4, strict=False)
    torch.testing.assert_close(
        weights, (vectors * torch.tensor([0.6, 0.1, 1e-4, 1e-4], dtype=torch.float64)) @ vectors.T
    )


def test_half_precision_is_float32_also_under_autocast() -> None:
    correlation = correlation_of(VALUES)[0].float()
    with torch.autocast("cpu", torch.bfloat16):
        weights = predictor_weights(correlation)
        halved = predictor_weights(correlation.bfloat16())
    assert weights.dtype == halved.dtype == torch.float32
    torch.testing.assert_close(weights, predictor_weights(correlation))


BAD = {
    "not square": (torch.zeros(3, 2), {}, ShapesDiffer, r"\(3, 2\)"),
    "NaN": (torch.full((2, 2), math.nan), {}, NonFinite, "NaN"),
    "a correlation of nothing": (torch.zeros(0, 0), {}, ShapesDiffer, "square"),
    "an unknown form": (torch.eye(2), {"form": "direct"}, ArgumentInvalid, "'direct'"),
    "an eps below 0": (torch.eye(2), {"eps": -0.1}, ArgumentInvalid, "-0.1"),
    "a root of 0": (torch.eye(2), {"root": 0.0}, ArgumentInvalid, "root"),
}


@pytest.mark.parametrize(("correlation", "options", "error", "says"), BAD.values(), ids=BAD)
def test_what_has_no_predictor(correlation: Tensor, options: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        predictor_weights(correlation, **options)


# -------------------------------------------------------------------------------------------------- the running correlation


def features(count: int) -> list[tuple[Tensor, Tensor]]:
    return [(drawn(6, 3, seed=2 * step), drawn(6, 3, seed=2 * step + 1) + 1) for step in range(count)]


def moments(pair: tuple[Tensor, Tensor]) -> Tensor:
    return sum(rows.T @ rows for rows in pair) / 12


def test_rho_is_the_weight_of_the_past() -> None:
    correlation, batches = Correlation(3, 0.3).double(), features(3)
    for pair in batches:
        correlation.update(*pair)
    first, second, third = map(moments, batches)
    torch.testing.assert_close(correlation.matrix(), 0.3 * (0.3 * first + 0.7 * second) + 0.7 * third)


def test_without_rho_all_batches_count_alike() -> None:
    correlation, batches = Correlation(3, None).double(), features(4)
    for pair in batches:
        correlation.update(*pair)
    torch.testing.assert_close(correlation.matrix(), sum(map(moments, batches)) / 4)


def test_centring_takes_off_the_running_mean() -> None:
    correlation, (first, second) = Correlation(3, 0.5).double(), features(2)
    correlation.update(*first)
    correlation.update(*second)
    mean = (torch.cat(first).mean(0) + torch.cat(second).mean(0)) / 2
    torch.testing.assert_close(
        correlation.matrix(centred=True), (moments(first) + moments(second)) / 2 - torch.outer(mean, mean)
    )


def test_the_correlation_goes_on_from_its_state() -> None:
    whole, first, batches = Correlation(3).double(), Correlation(3).double(), features(3)
    for pair in batches:
        whole.update(*pair)
    first.update(*batches[0])
    second = Correlation(3).double()
    second.load_state_dict(first.state_dict())
    for pair in batches[1:]:
        second.update(*pair)
    assert torch.equal(second.matrix(), whole.matrix())


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ((torch.zeros(4, 2), torch.zeros(4, 2)), ShapesDiffer, r"\(4, 2\)"),
        ((torch.zeros(4, 3), torch.zeros(5, 3)), ShapesDiffer, "view 2"),
        ((torch.zeros(0, 3), torch.zeros(0, 3)), ShapesDiffer, "without rows"),
        ((torch.zeros(4, 3), torch.full((4, 3), math.inf)), NonFinite, "view 2"),
    ],
)
def test_features_without_a_correlation(given: tuple, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Correlation(3).update(*given)


@pytest.mark.parametrize("rho", [1.0, -0.1, 2.0])
def test_rho_outside_its_range(rho: float) -> None:
    with pytest.raises(ArgumentInvalid, match="rho"):
        Correlation(3, rho)


# ---------------------------------------------------------------------------------------------------------- loss and meters


def test_the_loss_crosses_views_and_leaves_targets_alone() -> None:
    p1, p2, t1, t2 = (drawn(5, 4, seed=seed).requires_grad_() for seed in range(4))
    loss = byol_loss((p1, p2), (t1, t2))
    expected = -2 * (functional.cosine_similarity(p1, t2) + functional.cosine_similarity(p2, t1)).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert p1.grad is not None
    assert t1.grad is t2.grad is None


@pytest.mark.parametrize("sizes", [(0, 0), (5, 3)])
def test_a_loss_of_no_row_or_of_two_batches_is_refused(sizes: tuple[int, int]) -> None:
    first, second = (drawn(size, 4) for size in sizes)
    with pytest.raises(ShapesDiffer):
        byol_loss((first, second), (second, first))


def test_eigenspaces_of_what_is_not_finite_are_refused() -> None:
    with pytest.raises(NonFinite):
        eigenspace_alignment(torch.eye(2) * torch.nan, torch.eye(2))


def test_eigenspaces_agree_for_the_predictor_of_a_correlation_and_not_for_another() -> None:
    correlation, _ = correlation_of([4.0, 2.0, 1.0, 0.5])
    assert eigenspace_alignment(predictor_weights(correlation), correlation) == pytest.approx(1)
    other, _ = correlation_of([4.0, 2.0, 1.0, 0.5], seed=5)
    assert eigenspace_alignment(other, correlation) < 0.95
    with pytest.raises(ShapesDiffer):
        eigenspace_alignment(torch.eye(3), torch.eye(2))


def test_deviation_is_0_at_a_collapse_and_that_of_the_sphere_for_random_directions() -> None:
    assert deviation(torch.ones(10, 16)) == pytest.approx(0, abs=1e-6)
    assert deviation(drawn(4000, 16)) == pytest.approx(0.25, abs=0.005)

"""Shuffled group whitening: white groups in any order of channels; and the method's options through the real loop."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import LongTensor, Tensor, nn

from contrapose.data.batches import Batch, Data, Facts, seeded
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    CovarianceSingular,
    NonFinite,
    SettingInvalid,
    ShapesDiffer,
)
from contrapose.objectives import info_nce
from contrapose.text.encoder import TextEncoder
from contrapose.text.whitenedcse import WhitenedCSE, shuffled_group_whitening, whitened_views
from tests.training.children import started
from tests.training.toys import Toy


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def drawn_orders(v: int, d: int, seed: int = 0) -> LongTensor:
    return torch.rand(v, d, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)


def correlated(n: int, d: int, seed: int = 0) -> Tensor:
    return drawn(n, d, seed=seed) @ drawn(d, d, seed=seed + 1) + 5 * drawn(d, seed=seed + 2)


# ------------------------------------------------------------------------------------------------------------- the layer


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 1000))
def test_each_group_has_mean_0_and_covariance_1(v: int, groups: int, size: int, seed: int) -> None:
    n, d = 40, groups * size
    orders = drawn_orders(v, d, seed)
    white = shuffled_group_whitening(correlated(v * n, d, seed), orders, groups)
    for block, order in zip(white.split(n), orders, strict=True):
        for channels in order.split(size):
            group = block[:, channels]
            torch.testing.assert_close(group.mean(0), torch.zeros(size).double(), rtol=0, atol=1e-9)
            torch.testing.assert_close(group.T @ group / n, torch.eye(size).double(), rtol=0, atol=1e-7)


def test_a_white_group_stays_as_it_is() -> None:
    orders = drawn_orders(1, 6)
    white = shuffled_group_whitening(correlated(30, 6), orders, 2)
    torch.testing.assert_close(shuffled_group_whitening(white, orders, 2), white)


def test_other_orders_give_other_views_of_the_same_size() -> None:
    rows = correlated(50, 8)
    one, other = (shuffled_group_whitening(rows, drawn_orders(1, 8, seed), 4) for seed in (0, 1))
    assert (one - other).abs().max() > 0.1
    ratio = one.norm(dim=1) / other.norm(dim=1)
    assert 0.3 < ratio.min() < ratio.max() < 3


def test_one_group_is_plain_whitening_in_any_order() -> None:
    rows = correlated(50, 5)
    one, other = (shuffled_group_whitening(rows, drawn_orders(1, 5, seed), 1) for seed in (0, 1))
    torch.testing.assert_close(one, other)


def test_blocks_are_whitened_apart() -> None:
    rows, orders = correlated(40, 6), drawn_orders(2, 6)
    both = shuffled_group_whitening(rows, orders, 3)
    torch.testing.assert_close(both[20:], shuffled_group_whitening(rows[20:], orders[1:], 3))


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_the_gradient_through_the_root_is_the_derivative(epsilon: float) -> None:
    rows, orders = correlated(12, 4).requires_grad_(), drawn_orders(2, 4)
    assert torch.autograd.gradcheck(
        lambda x: shuffled_group_whitening(x, orders, 2, epsilon=epsilon, gradient=True), rows
    )


def test_the_gradient_through_the_root_is_finite_where_eigenvalues_are_equal() -> None:
    rows = torch.cat([torch.eye(2), -torch.eye(2)]).double().requires_grad_()
    shuffled_group_whitening(rows, torch.arange(2)[None], 1, gradient=True).pow(3).sum().backward()
    assert torch.isfinite(rows.grad).all()


def test_by_default_the_root_is_a_constant_to_the_gradient() -> None:
    rows, orders = correlated(12, 4).requires_grad_(), torch.arange(4)[None]
    direction = drawn(12, 4, seed=9)
    (shuffled_group_whitening(rows, orders, 1) * direction).sum().backward()
    centred = (rows - rows.mean(0)).detach()
    values, vectors = torch.linalg.eigh(centred.T @ centred / 12)
    expected = direction @ (vectors * values.rsqrt()) @ vectors.T
    torch.testing.assert_close(rows.grad, expected - expected.mean(0))


def test_epsilon_is_a_share_of_the_mean_eigenvalue() -> None:
    rows = correlated(30, 3)
    centred = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / 30)
    expected = centred @ (vectors * (values + 0.2 * values.mean()).rsqrt()) @ vectors.T
    torch.testing.assert_close(shuffled_group_whitening(rows, torch.arange(3)[None], 1, epsilon=0.2), expected)


def test_half_precision_is_whitened_in_float32() -> None:
    rows, orders = correlated(64, 4).bfloat16(), drawn_orders(1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        white = shuffled_group_whitening(rows, orders, 1)
    assert white.dtype == torch.float32
    torch.testing.assert_close(white.T @ white / 64, torch.eye(4), rtol=0, atol=1e-4)


def test_the_official_layout_whitens_neighbouring_sentences_with_all_their_views() -> None:
    views, orders = correlated(36, 4).unflatten(0, (3, 12)), drawn_orders(3, 4)
    white = whitened_views(views, orders, 2, layout="official")
    first = torch.stack([views[:, sentence] for sentence in range(4)]).flatten(0, 1)
    expected = shuffled_group_whitening(first, orders[:1], 2).unflatten(0, (4, 3)).transpose(0, 1)
    torch.testing.assert_close(white[:, :4], expected)


EYE = torch.arange(4)[None]
DEPENDENT = correlated(20, 4).index_copy(1, torch.tensor([3]), correlated(20, 4)[:, :1])
CONSTANT = correlated(20, 4).index_fill(1, torch.tensor([2]), 7.0)
BAD = {
    "groups that do not divide": (correlated(20, 4), EYE, 3, {}, ArgumentInvalid, "divide the 4 channels; got 3"),
    "no group": (correlated(20, 4), EYE, 0, {}, ArgumentInvalid, "got 0"),
    "rows that do not divide": (correlated(21, 4), EYE.expand(2, 4), 2, {}, ShapesDiffer, "21 rows .* 2 blocks"),
    "orders of another length": (correlated(20, 4), torch.arange(3)[None], 2, {}, ShapesDiffer, r"\(1, 3\)"),
    "no permutation": (correlated(20, 4), EYE * 0, 2, {}, ArgumentInvalid, "0 to 3 once"),
    "epsilon below 0": (correlated(20, 4), EYE, 2, {"epsilon": -1e-5}, ArgumentInvalid, "-1e-05"),
    "NaN": (correlated(20, 4).index_fill(0, torch.tensor([6]), math.nan), EYE, 2, {}, NonFinite, "row 6"),
    "too few rows": (correlated(4, 4), EYE, 1, {}, CovarianceSingular, "4 rows .* group of 4 channels"),
    "a constant channel": (CONSTANT, EYE, 2, {}, CovarianceSingular, "Channel 2 .* all 20 rows"),
    "a constant channel with epsilon and nothing beside it": (
        CONSTANT, EYE, 4, {"epsilon": 1e-5}, CovarianceSingular, "Channel 2",
    ),
    "a channel that repeats another": (DEPENDENT, EYE, 1, {}, CovarianceSingular, "Channels 0, 1, 2, 3 depend"),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "orders", "groups", "options", "error", "says"), BAD.values(), ids=BAD)
def test_what_cannot_be_whitened(
    rows: Tensor, orders: LongTensor, groups: int, options: dict, error: type[ContraposeError], says: str
) -> None:
    with pytest.raises(error, match=says):
        shuffled_group_whitening(rows, orders, groups, **options)


def test_an_unknown_layout() -> None:
    with pytest.raises(ArgumentInvalid, match="'rows'"):
        whitened_views(correlated(20, 4)[None], EYE, 2, layout="rows")


@pytest.mark.parametrize("rows", [CONSTANT, DEPENDENT], ids=["constant", "dependent"])
def test_epsilon_mends_a_singular_group(rows: Tensor) -> None:
    assert torch.isfinite(shuffled_group_whitening(rows, EYE, 1, epsilon=1e-5)).all()


# ------------------------------------------------------------------------------------------------------------ the method


def built(encoder: TextEncoder, rows: int = 100, **settings) -> WhitenedCSE:
    method = WhitenedCSE(WhitenedCSE.Settings(**{"groups": 8, **settings}), encoder)
    method.build(Facts(rows, ("text",)))
    return method.double()


def terms_of(method: WhitenedCSE, views: Tensor, seed: int = 3) -> dict[str, Tensor]:
    embeddings = {f"view_{number}": rows for number, rows in enumerate(views, 1)}
    return method.objective(embeddings, Batch(Data({}, views.shape[1]), torch.arange(views.shape[1]), 0, seeded(seed)))


def test_the_objective_is_the_formula(encoder: TextEncoder) -> None:
    method, views = built(encoder), correlated(90, 32).unflatten(0, (3, 30))
    terms = terms_of(method, views)
    orders = torch.rand(3, 32, generator=seeded(3)).argsort(dim=1)
    first, second, third = (
        method.head(shuffled_group_whitening(view, order[None], 8)) for view, order in zip(views, orders, strict=True)
    )
    assert list(terms) == ["info_nce_2", "info_nce_3"]
    torch.testing.assert_close(terms["info_nce_2"], info_nce(first, second, temperature=0.05))
    torch.testing.assert_close(terms["info_nce_3"], info_nce(first, third, temperature=0.05))


def test_the_mean_over_positives_halves_two_terms_and_their_chance(encoder: TextEncoder) -> None:
    views = correlated(90, 32).unflatten(0, (3, 30))
    added = built(encoder)
    averaged = WhitenedCSE(WhitenedCSE.Settings(groups=8, reduction="mean"), encoder)
    averaged.head = added.head
    for name, term in terms_of(added, views).items():
        torch.testing.assert_close(terms_of(averaged, views)[name], term / 2)
        batch = Batch(Data({}, 30), torch.arange(30), 0, seeded(0))
        assert averaged.chance(batch)[name] == pytest.approx(added.chance(batch)[name] / 2) == math.log(30) / 2


def test_the_value_at_chance(encoder: TextEncoder) -> None:
    method = built(encoder, whitening=False)
    nn.init.zeros_(method.head[0].weight)
    nn.init.ones_(method.head[0].bias)
    terms = terms_of(method, correlated(90, 32).unflatten(0, (3, 30)))
    assert [term.item() for term in terms.values()] == pytest.approx([math.log(30)] * 2)


def test_orders_are_drawn_anew_in_every_step_and_for_every_view_or_not_at_all(encoder: TextEncoder) -> None:
    method, fixed = built(encoder), built(encoder, shuffle=False)
    one, next_one = (method.draw_orders(Batch(Data({}, 4), torch.arange(4), step, seeded(step))) for step in (0, 1))
    assert not torch.equal(one, next_one)
    assert not torch.equal(one[0], one[1])
    assert torch.equal(
        fixed.draw_orders(Batch(Data({}, 4), torch.arange(4), 0, seeded(0))), torch.arange(32).expand(3, -1)
    )


def test_two_plain_views_are_simcse(encoder: TextEncoder) -> None:
    method, views = built(encoder, views=2, whitening=False), correlated(40, 32).unflatten(0, (2, 20))
    first, second = method.head(views)
    assert terms_of(method, views) == {"info_nce_2": info_nce(first, second, temperature=0.05)}


def test_rows_of_a_group_are_no_negatives_of_each_other(encoder: TextEncoder) -> None:
    method, views = built(encoder, views=2), correlated(40, 32).unflatten(0, (2, 20))
    groups = torch.arange(20) // 2
    batch = Batch(Data({}, 20, groups), torch.arange(20), 0, seeded(3))
    (term,) = method.objective({"view_1": views[0], "view_2": views[1]}, batch).values()
    assert term < terms_of(method, views)["info_nce_2"]


def test_a_last_batch_that_cannot_be_whitened_is_left_out(encoder: TextEncoder) -> None:
    def sizes(**settings) -> list[int]:
        method = built(encoder, batch_size=10, **settings)
        return [len(rows) for rows in method.batches(Data({}, 24), 0, seeded(0))]

    assert sizes() == [10, 10]  # groups of 4 channels
    assert sizes(groups=16) == sizes(epsilon=1e-5) == sizes(whitening=False) == [10, 10, 4]


UNFIT = {
    "groups that do not divide": ({"groups": 5}, "groups=5 .* 32 dimensions; take one of 1, 2, 4, 8, 16, 32"),
    "a batch as small as a group": ({"groups": 8, "batch_size": 4}, "4 rows .* 4 channels.* batch_size above 4"),
}


@pytest.mark.parametrize(("settings", "says"), UNFIT.values(), ids=UNFIT)
def test_settings_that_do_not_fit_the_encoder(encoder: TextEncoder, settings: dict, says: str) -> None:
    with pytest.raises(SettingInvalid, match=says):
        built(encoder, **settings)


def test_rows_as_few_as_the_channels_of_a_group(encoder: TextEncoder) -> None:
    with pytest.raises(SettingInvalid, match="A batch of 3 rows"):
        built(encoder, rows=3)


@pytest.mark.parametrize("settings", [{"views": 1}, {"temperature": 0.0}, {"epsilon": -1.0}, {"groups": 0}])
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        WhitenedCSE.Settings(**settings)


def test_the_user_keeps_the_encoder_without_whitening_and_head(encoder: TextEncoder) -> None:
    texts = ["the cat", "a dog", "the old house"]
    before = encoder.encode(texts)
    assert (built(copy.deepcopy(encoder)).float().eval().encoders()["encoder"].encode(texts) == before).all()


OPTIONS = {
    "defaults": {},
    "official": {"layout": "official"},
    "gradient": {"grad_through_whitening": True, "epsilon": 1e-5, "reduction": "mean", "views": 4},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_brings_the_views_of_a_sentence_together(options: dict, encoder: TextEncoder, tmp_path: Path) -> None:
    texts = [f"{size} {thing} {place}" for size in ("a small", "the very large", "an old") for thing in
             ("cat", "dog", "tree", "red house") for place in ("on the mat", "under it", "in the river", "")]  # fmt: skip
    data = Data({"text": encoder.open_column(texts)}, len(texts))
    settings = {"groups": 8, "batch_size": 24, "steps": 30, "learning_rate": 3e-3, "log_every": 1, "precision": "fp32"}
    folder = started(tmp_path / "run")
    Toy("whitenedcse", WhitenedCSE, lambda: data, lambda: encoder, settings | options).fit(folder)
    sums = [sum(line["terms"].values()) for line in folder.metrics()]
    assert sum(sums[-5:]) < 0.7 * sum(sums[:5])

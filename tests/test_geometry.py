from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contrapose import geometry
from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def axes(d: int, k: int) -> Tensor:
    """Both directions of the first k axes: 2 k rows with equal variance along k dimensions."""
    return torch.cat([torch.eye(d, dtype=torch.float64)[:k], -torch.eye(d, dtype=torch.float64)[:k]])


def labelled(n: int) -> Tensor:
    """Labels of uneven sizes in no order, one of them alone where n is odd; from four rows on, two rows share one."""
    return torch.tensor([(row * row) % 5 - 2 if row < n - n % 2 else 99 for row in range(n)])


# Every figure of one set of rows, as (n, d) -> number or tensor. Labels go with the rows.
FIGURES = {
    "alignment": lambda x, labels: geometry.alignment(x[:-1], x[1:]),
    "uniformity": lambda x, labels: geometry.uniformity(x),
    "uniformity of drawn pairs": lambda x, labels: geometry.uniformity(x, pairs=7),
    "tolerance": lambda x, labels: geometry.tolerance(x, labels),
    "tolerance of one label": lambda x, labels: geometry.tolerance(x, labels, mean_over="same_label"),
    "isotropy": lambda x, labels: geometry.isotropy(x, labels),
    "isotropy of one text": lambda x, labels: geometry.isotropy(x),
    "mean_cosine": lambda x, labels: geometry.mean_cosine(x),
    "spectrum": lambda x, labels: geometry.spectrum(x),
    "effective_rank": lambda x, labels: geometry.effective_rank(x),
    "isoscore": lambda x, labels: geometry.isoscore(x),
    "partition_isotropy": lambda x, labels: geometry.partition_isotropy(x),
    "spread": lambda x, labels: geometry.spread(x),
    "occurrences": lambda x, labels: geometry.occurrences(x, k=3),
    "hubness": lambda x, labels: geometry.hubness(x, k=3),
}
every_figure = pytest.mark.parametrize("figure", FIGURES.values(), ids=FIGURES)
ORDERED = {"alignment", "uniformity of drawn pairs"}  # depend on which row is which
DIRECTIONS = {"tolerance", "tolerance of one label", "isotropy", "isotropy of one text", "occurrences", "hubness"}
AXES_OF_ROWS = {"spread"}  # depend on the coordinates


def values(figure) -> Tensor:
    return torch.as_tensor(figure, dtype=torch.float64)


# -- the same figures from their definitions, a pair at a time -----------------------------------------------------


def unit(x: Tensor) -> np.ndarray:
    return (x / x.norm(dim=1, keepdim=True)).numpy()


def cosines(x: Tensor, labels: Tensor | None = None) -> list[float]:
    """Of all pairs i < j, or of those of one label."""
    u = unit(x)
    return [
        float(u[i] @ u[j])
        for j in range(len(u))
        for i in range(j)
        if labels is None or int(labels[i]) == int(labels[j])
    ]


def covariance_by_hand(x: Tensor) -> np.ndarray:
    return np.cov(unit(x).T, bias=True).reshape(x.shape[1], x.shape[1])


def effective_rank_by_hand(x: Tensor) -> float:
    shares = np.linalg.svd(covariance_by_hand(x), compute_uv=False)
    shares = shares[shares > 1e-14] / shares.sum()
    return math.exp(-float((shares * np.log(shares)).sum()))


def isoscore_by_hand(x: Tensor) -> float:
    """The steps of the paper's algorithm, from the variances on."""
    variances = np.linalg.eigvalsh(covariance_by_hand(x))
    d = len(variances)
    scaled = math.sqrt(d) * variances / np.linalg.norm(variances)
    defect = np.linalg.norm(scaled - 1) / math.sqrt(2 * (d - math.sqrt(d)))
    used = (d - defect**2 * (d - math.sqrt(d))) ** 2 / d**2
    return (d * used - 1) / (d - 1)


def partition_isotropy_by_hand(x: Tensor) -> float:
    u = unit(x)
    _, vectors = np.linalg.eigh(u.T @ u)
    z = [float(np.exp(u @ (sign * axis)).sum()) for axis in vectors.T for sign in (1, -1)]
    return min(z) / max(z)


def occurrences_by_hand(x: Tensor, k: int, queries: Tensor | None = None) -> list[int]:
    u, asked = unit(x), unit(x if queries is None else queries)
    counts = [0] * len(u)
    for number, query in enumerate(asked):
        others = [row for row in range(len(u)) if queries is not None or row != number]
        for row in sorted(others, key=lambda row: -float(u[row] @ query))[:k]:
            counts[row] += 1
    return counts


def hubness_by_hand(x: Tensor, k: int) -> tuple[float, float, int]:
    counts = occurrences_by_hand(x, k)
    return float(scipy.stats.skew(counts)), counts.count(0) / len(counts), max(counts)


BY_HAND = {
    "alignment": lambda x, labels: np.mean([((a - b) ** 2).sum() for a, b in zip(unit(x)[:-1], unit(x)[1:], strict=True)]),
    "uniformity": lambda x, labels: np.log(np.mean([math.exp(-2 * (2 - 2 * c)) for c in cosines(x)])),
    "tolerance": lambda x, labels: sum(cosines(x, labels)) / len(cosines(x)),
    "tolerance of one label": lambda x, labels: np.mean(cosines(x, labels)),
    "isotropy": lambda x, labels: 1 - np.mean(cosines(x, labels)),
    "isotropy of one text": lambda x, labels: 1 - np.mean(cosines(x)),
    "mean_cosine": lambda x, labels: np.mean(cosines(x)),
    "spectrum": lambda x, labels: np.linalg.svd(covariance_by_hand(x), compute_uv=False)[: min(x.shape)],
    "effective_rank": lambda x, labels: effective_rank_by_hand(x),
    "isoscore": lambda x, labels: isoscore_by_hand(x),
    "partition_isotropy": lambda x, labels: partition_isotropy_by_hand(x),
    "spread": lambda x, labels: np.sqrt(x.shape[1] * covariance_by_hand(x).diagonal()),
    "occurrences": lambda x, labels: occurrences_by_hand(x, 3),
    "hubness": lambda x, labels: hubness_by_hand(x, 3),
}  # fmt: skip


@pytest.mark.parametrize("tile", [1, 3, 10, 2048])
@pytest.mark.parametrize("shape", [(23, 5), (7, 11)], ids=str)
@pytest.mark.parametrize("name", BY_HAND)
def test_a_figure_follows_its_definition_in_tiles_of_any_size(monkeypatch, name, shape, tile):
    monkeypatch.setattr(geometry, "TILE", tile)
    x = normal(*shape) + 0.3
    labels = labelled(len(x))
    torch.testing.assert_close(
        values(FIGURES[name](x, labels)), values(BY_HAND[name](x, labels)), rtol=1e-10, atol=1e-12
    )


def test_every_figure_has_a_definition_to_be_held_to():
    assert set(FIGURES) - set(BY_HAND) == {"uniformity of drawn pairs"}  # held to the mean over pairs below


@pytest.mark.parametrize("t", [0.5, 500.0])
def test_uniformity_takes_any_t(t):
    exponents = torch.tensor([-t * (2 - 2 * cosine) for cosine in cosines(normal(11, 5))], dtype=torch.float64)
    assert geometry.uniformity(normal(11, 5), t) == pytest.approx(
        float(exponents.logsumexp(0)) - math.log(55), rel=1e-10
    )


def test_isotropy_of_padded_states_is_pooled_over_texts():
    states, lengths = normal(3, 6, 8), torch.tensor([6, 1, 4])
    mask = torch.arange(6) < lengths[:, None]
    summed, pairs = 0.0, 0
    for tokens, length in zip(states, lengths.tolist(), strict=True):
        u = unit(tokens[:length])
        summed, pairs = summed + (u @ u.T).sum() - length, pairs + length * (length - 1)
    assert geometry.isotropy(states[mask], mask.nonzero()[:, 0]) == pytest.approx(1 - summed / pairs, abs=1e-12)


@pytest.mark.parametrize("tile", [2, 5, 2048])
def test_occurrences_among_the_neighbours_of_queries(monkeypatch, tile):
    monkeypatch.setattr(geometry, "TILE", tile)
    x, queries = normal(13, 4), normal(9, 4, seed=1)
    assert geometry.occurrences(x, 4, queries).tolist() == occurrences_by_hand(x, 4, queries)
    assert geometry.occurrences(x.float(), 4, queries).sum() == 4 * 9  # precisions may differ


@pytest.mark.parametrize("k", [1, 12])
def test_one_neighbour_or_all_of_them(k):
    assert geometry.occurrences(normal(13, 4), k).tolist() == occurrences_by_hand(normal(13, 4), k)


# -- pairs drawn at random ------------------------------------------------------------------------------------------


def test_drawn_pairs_estimate_the_mean_over_all():
    x = normal(60, 3)
    terms = np.exp([-2 * (2 - 2 * cosine) for cosine in cosines(x)])
    drawn = [
        math.exp(geometry.uniformity(x, pairs=1000, generator=torch.Generator().manual_seed(seed)))
        for seed in range(100)
    ]
    standard_error = terms.std() / math.sqrt(1000 * 100)
    assert abs(np.mean(drawn) - terms.mean()) < 4 * standard_error
    assert np.std(drawn) == pytest.approx(terms.std() / math.sqrt(1000), rel=0.3)  # as the docstring promises


def test_no_pair_drawn_is_a_row_with_itself():
    assert geometry.uniformity(torch.eye(50), pairs=1000) == pytest.approx(-4, abs=1e-12)


def test_drawn_pairs_repeat_and_follow_the_generator():
    x = normal(60, 3)
    assert geometry.uniformity(x, pairs=100) == geometry.uniformity(x, pairs=100)
    generator = torch.Generator().manual_seed(5)
    assert geometry.uniformity(x, pairs=100, generator=generator) != geometry.uniformity(
        x, pairs=100, generator=generator
    )


def test_drawing_leaves_the_callers_random_state_alone():
    before = torch.random.get_rng_state()
    geometry.uniformity(normal(60, 3), pairs=100)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_more_pairs_than_there_are_is_all_of_them():
    x = normal(10, 3)
    assert geometry.uniformity(x, pairs=45) == geometry.uniformity(x)


# -- what must not matter -------------------------------------------------------------------------------------------

shapes = st.tuples(st.integers(4, 40), st.integers(2, 12), st.integers(0, 99), st.sampled_from([1, 5, 16, 2048]))
properties = settings(deadline=None, max_examples=25)


def same(left, right) -> None:
    torch.testing.assert_close(values(left), values(right), rtol=1e-8, atol=1e-8)


def drawn(shape) -> tuple[Tensor, Tensor, int]:
    n, d, seed, tile = shape
    return normal(n, d, seed=seed) + 0.5, labelled(n), tile


@pytest.mark.parametrize("name", sorted(set(FIGURES) - AXES_OF_ROWS))
@properties
@given(shape=shapes)
def test_a_rotation_does_not_matter(name, shape):
    x, labels, tile = drawn(shape)
    rotation = torch.linalg.qr(normal(x.shape[1], x.shape[1], seed=7)).Q
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "TILE", tile)
        same(FIGURES[name](x, labels), FIGURES[name](x @ rotation, labels))


@pytest.mark.parametrize("name", sorted(set(FIGURES) - ORDERED))
@properties
@given(shape=shapes)
def test_the_order_of_rows_does_not_matter(name, shape):
    x, labels, tile = drawn(shape)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "TILE", tile)
        figure, shuffled = FIGURES[name](x, labels), FIGURES[name](x[order], labels[order])
    same(figure[order] if name == "occurrences" else figure, shuffled)


@every_figure
@properties
@given(shape=shapes, exponent=st.sampled_from([-150, -3, 2, 150]))
def test_lengths_do_not_matter(figure, shape, exponent):
    x, labels, _ = drawn(shape)
    lengths = torch.linspace(0.1, 50, len(x), dtype=torch.float64)[:, None] * 10.0**exponent
    same(figure(x, labels), figure(x * lengths, labels))


@every_figure
def test_the_largest_and_smallest_float32_rows_have_directions_too(figure):
    x = normal(10, 4).float()
    lengths = torch.tensor([1e37, 1e-37] * 5)[:, None]
    torch.testing.assert_close(
        values(figure(x, labelled(10))), values(figure(x * lengths, labelled(10))), rtol=1e-5, atol=1e-6
    )


@every_figure
def test_strides_do_not_matter(figure):
    x = normal(4, 20)
    same(figure(x.T[::2], labelled(10)), figure(x.T[::2].contiguous(), labelled(10)))


@every_figure
def test_half_precision_is_computed_in_float32(figure):
    x = normal(10, 4).bfloat16()
    torch.testing.assert_close(values(figure(x, labelled(10))), values(figure(x.float(), labelled(10))), rtol=0, atol=0)


@every_figure
def test_autocast_does_not_matter(figure):
    x = normal(64, 32).float()
    plain = values(figure(x, labelled(64)))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(values(figure(x, labelled(64))), plain, rtol=0, atol=0)


@every_figure
def test_no_graph_is_built(figure):
    found = figure(normal(10, 4).requires_grad_(), labelled(10))
    assert not any(leaf.requires_grad for leaf in tree_leaves(found) if isinstance(leaf, Tensor))


def test_labels_are_only_compared():
    x, labels = normal(12, 4), labelled(12)
    names = labels.mul(10**12).add(5)
    assert geometry.tolerance(x, labels) == geometry.tolerance(x, names)
    assert geometry.tolerance(x, labels > 0) == geometry.tolerance(x, (labels > 0).long())


# -- identities -----------------------------------------------------------------------------------------------------


def test_alignment_of_equal_orthogonal_and_opposite_directions():
    x = axes(6, 2)
    assert geometry.alignment(x, 3 * x) == pytest.approx(0, abs=1e-12)
    assert geometry.alignment(x, x.roll(1, dims=1)) == pytest.approx(2)
    assert geometry.alignment(x, -x) == pytest.approx(4)


def test_alignment_is_two_minus_twice_the_mean_cosine():
    x, y = normal(9, 5), normal(9, 5, seed=1)
    cosine = float(functional.cosine_similarity(x, y).mean())
    assert geometry.alignment(x, y) == pytest.approx(2 - 2 * cosine, abs=1e-12)


def test_uniformity_of_equal_and_of_opposite_rows():
    assert geometry.uniformity(torch.ones(7, 3)) == pytest.approx(0, abs=1e-6)
    assert geometry.uniformity(axes(3, 1), t=3.0) == pytest.approx(-12)


def test_tolerance_over_all_pairs_is_that_of_a_label_times_its_share():
    x, labels = normal(20, 4) + 0.2, labelled(20)
    share = len(cosines(x, labels)) / len(cosines(x))
    of_label = geometry.tolerance(x, labels, mean_over="same_label")
    assert geometry.tolerance(x, labels) == pytest.approx(of_label * share, abs=1e-12)


def test_tolerance_with_pairs_drawn_with_replacement():
    x, labels = normal(20, 4) + 0.2, labelled(20)
    u = unit(x)
    both = (u @ u.T) * (labels[:, None] == labels).numpy()
    assert (19 * geometry.tolerance(x, labels) + 1) / 20 == pytest.approx(both.mean(), abs=1e-12)


def test_tolerance_of_one_label_is_the_mean_cosine():
    x, ones = normal(20, 4), torch.ones(20, dtype=torch.long)
    assert geometry.tolerance(x, ones) == pytest.approx(geometry.mean_cosine(x), abs=1e-12)


def test_isotropy_is_one_less_tolerance_and_the_mean_cosine():
    x, text = normal(20, 4) + 0.2, labelled(20)
    assert geometry.isotropy(x, text) == pytest.approx(1 - geometry.tolerance(x, text, mean_over="same_label"))
    assert geometry.isotropy(x) == pytest.approx(1 - geometry.mean_cosine(x))


@properties
@given(shape=shapes)
def test_variances_add_up_to_what_the_mean_leaves(shape):
    x, _, _ = drawn(shape)
    left = 1 - float(np.square(unit(x).mean(axis=0)).sum())
    assert float(geometry.spectrum(x).sum()) == pytest.approx(left, abs=1e-12)
    assert float(geometry.spread(x).square().mean()) == pytest.approx(left, abs=1e-12)
    cosine_of_all = (1 + (len(x) - 1) * geometry.mean_cosine(x)) / len(x)  # a row with itself included
    assert 1 - left == pytest.approx(cosine_of_all, abs=1e-12)


@properties
@given(shape=shapes)
def test_the_participation_ratio_is_at_most_the_effective_rank(shape):
    x, _, _ = drawn(shape)
    n, d = x.shape
    rank = geometry.effective_rank(x)
    assert 1 + (d - 1) * geometry.isoscore(x) <= rank + 1e-9
    assert rank <= min(n - 1, d) + 1e-9


@pytest.mark.parametrize("k", [1, 3, 6])
def test_rank_and_isoscore_count_dimensions_of_equal_variance(k):
    assert geometry.effective_rank(axes(6, k)) == pytest.approx(k)
    assert geometry.isoscore(axes(6, k)) == pytest.approx((k - 1) / 5, abs=1e-12)


def test_effective_rank_is_the_entropy_of_variances():
    x = torch.cat([axes(4, 2), axes(4, 1)])  # 4 rows along the first axis, 2 along the second
    shares = torch.tensor([4 / 6, 2 / 6])
    assert geometry.effective_rank(x) == pytest.approx(math.exp(-float((shares * shares.log()).sum())))


def test_rank_and_isoscore_ignore_a_common_direction():
    mean = functional.one_hot(torch.tensor(5), 6).double()
    assert geometry.effective_rank(axes(6, 4) + 100 * mean) == pytest.approx(4)
    assert geometry.isoscore(axes(6, 4) + 100 * mean) == pytest.approx(3 / 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [100, 1000])
def test_rows_equal_up_to_rounding_have_no_variance(n, dtype):
    x = normal(1, 384).to(dtype) * torch.linspace(1, 3, n, dtype=dtype)[:, None]
    assert geometry.spectrum(x).tolist() == [0.0] * min(n, 384)
    assert geometry.effective_rank(x) == 1
    assert geometry.isoscore(x) == 0


def test_partition_isotropy_of_equal_rows_and_of_both_ends_of_every_axis():
    assert geometry.partition_isotropy(torch.ones(9, 4)) == pytest.approx(math.exp(-2))
    assert geometry.partition_isotropy(axes(5, 5)) == pytest.approx(1)


def test_spread_is_one_for_even_directions_and_zero_for_a_dead_dimension():
    torch.testing.assert_close(geometry.spread(axes(6, 6)), torch.ones(6, dtype=torch.float64))
    assert geometry.spread(axes(6, 4)).tolist()[4:] == [0, 0]
    assert geometry.spread(axes(6, 4).float()).dtype == torch.float32


def test_a_star_has_one_hub():
    """The middle is nearest to all others, which are far from each other."""
    x = torch.cat([torch.eye(9), torch.ones(1, 9)])
    found = geometry.hubness(x, k=1)
    assert found.largest == 9
    assert found.antihubs == pytest.approx(8 / 10)
    assert found.skewness == pytest.approx(float(scipy.stats.skew(geometry.occurrences(x, 1).numpy())))


def test_a_ring_has_no_hubs():
    angle = torch.arange(12) * (2 * math.pi / 12)
    ring = torch.stack([angle.cos(), angle.sin()], dim=1).double()
    assert geometry.hubness(ring, k=2) == (0.0, 0.0, 2)


# -- values at chance -----------------------------------------------------------------------------------------------

N, D = 3000, 32


@pytest.fixture(scope="module")
def random_directions() -> Tensor:
    return normal(N, D)


@pytest.mark.parametrize(
    ("figure", "at_chance", "within"),
    [
        (lambda x: geometry.alignment(x, x.roll(1, dims=0)), 2, 0.03),
        (geometry.uniformity, -4 + 8 / D, 0.01),
        (lambda x: geometry.tolerance(x, torch.arange(N) % 10, mean_over="same_label"), 0, 0.002),
        (lambda x: geometry.isotropy(x, torch.arange(N) % 10), 1, 0.002),
        (geometry.mean_cosine, 0, 0.001),
        (geometry.effective_rank, D * math.exp(-D / (2 * N)), 0.05),
        (lambda x: geometry.effective_rank(x[:20]), 20 * math.exp(-20 / (2 * D)), 0.7),
        (geometry.isoscore, N / (N + D), 0.005),
        (geometry.partition_isotropy, 1, 0.03),
        (lambda x: float(geometry.spread(x).min()), 1, 0.05),
        (lambda x: geometry.hubness(x, k=10).skewness, 10**-0.5, 0.1),
        (lambda x: geometry.hubness(x, k=1).antihubs, math.exp(-1), 0.05),
    ],
)
def test_value_at_chance(random_directions, figure, at_chance, within):
    assert figure(random_directions) == pytest.approx(at_chance, abs=within)


def test_a_common_mean_makes_hubs_and_subtracting_it_removes_them(random_directions):
    shifted = random_directions + 1
    assert geometry.hubness(shifted).skewness > 2
    assert geometry.hubness(shifted - shifted.mean(dim=0)).skewness < 0.5


# -- precision ------------------------------------------------------------------------------------------------------


def test_small_variances_are_found_to_the_precision_promised():
    """Standard deviations from 1 to 1e-6 in directions that are no coordinates."""
    rotation = torch.linalg.qr(normal(12, 12, seed=1)).Q
    x = (normal(3000, 12) * torch.logspace(0, -6, 12, dtype=torch.float64)) @ rotation.T
    u = torch.from_numpy(unit(x))
    exact = torch.linalg.svdvals(u - u.mean(dim=0)).square() / len(x)
    torch.testing.assert_close(geometry.spectrum(x), exact, rtol=1e-3, atol=0)
    shares = exact / exact.sum()
    assert geometry.effective_rank(x) == pytest.approx(math.exp(-float((shares * shares.log()).sum())), rel=1e-12)


def test_rank_survives_a_mean_a_million_times_the_spread():
    x = axes(6, 4) + 1e6 * functional.one_hot(torch.tensor(5), 6).double()
    assert geometry.effective_rank(x) == pytest.approx(4, rel=1e-4)


def test_many_tiles_of_float32_add_up_like_one_of_float64(monkeypatch):
    x = normal(240, 8)
    exact = geometry.uniformity(x)
    monkeypatch.setattr(geometry, "TILE", 2)  # 7,260 tiles: rounding of a total in float32 would show
    assert geometry.uniformity(x.float()) == pytest.approx(exact, abs=5e-8)


# -- memory ---------------------------------------------------------------------------------------------------------


class LargestTensor(TorchDispatchMode):
    """Records the bytes of the largest tensor that was made; views of what there was are none."""

    def __init__(self, given: Tensor) -> None:
        super().__init__()
        self.given, self.bytes = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor) and leaf.untyped_storage().data_ptr() != self.given:
                self.bytes = max(self.bytes, leaf.untyped_storage().nbytes())
        return made


@every_figure
def test_memory_is_a_tile_or_a_covariance_or_an_integer_a_row(monkeypatch, figure):
    tile, n, d = 32, 2000, 48
    monkeypatch.setattr(geometry, "TILE", tile)
    x, labels = normal(n, d).float(), labelled(n)
    with LargestTensor(x) as largest:
        figure(x, labels)
    assert largest.bytes <= 8 * max(tile * tile, tile * d, d * d, n)  # float64 and integers: 8 bytes
    assert largest.bytes < x.untyped_storage().nbytes() / 20


def test_memory_stays_small_with_a_label_for_every_two_rows(monkeypatch):
    monkeypatch.setattr(geometry, "TILE", 64)
    x, labels = normal(6000, 48).float(), torch.arange(6000) // 2
    with LargestTensor(x) as largest:
        geometry.tolerance(x, labels)
    assert largest.bytes <= 8 * 6000


GROWTH = """
import resource
from pathlib import Path

import torch

from contrapose import geometry


def peak_mib():
    try:
        status = Path("/proc/self/status").read_text()  # for getrusage a child begins with its parent's peak
        return int(status.split("VmHWM:")[1].split()[0]) / 2**10
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS: bytes


torch.set_num_threads(1)
x = torch.randn(130_000, 384, generator=torch.Generator().manual_seed(0))
labels = torch.arange(len(x)) // 3
geometry.effective_rank(x[:4096])  # what libraries set aside at first use
for name, figure in {
    "alignment": lambda: geometry.alignment(x, x),
    "tolerance": lambda: geometry.tolerance(x, labels),
    "effective_rank": lambda: geometry.effective_rank(x),
    "partition_isotropy": lambda: geometry.partition_isotropy(x),
    "spread": lambda: geometry.spread(x),
    "uniformity of drawn pairs": lambda: geometry.uniformity(x, pairs=500_000),
    "uniformity": lambda: geometry.uniformity(x[:8000]),
    "hubness": lambda: geometry.hubness(x[:8000]),
}.items():
    geometry.TILE = 512 if name in ("uniformity", "hubness") else 2048
    before = peak_mib()
    figure()
    print(round(peak_mib() - before), name, sep="\\t")
"""


def test_the_process_grows_by_little_of_what_the_rows_take():
    """190 MiB of rows. Small results that are kept between large temporary ones would split the heap, chunk by chunk."""
    run = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    grown = {name: int(mib) for mib, name in (line.split("\t") for line in run.stdout.splitlines())}
    assert len(grown) == 8
    assert max(grown.values()) < 60, grown


# -- bad input ------------------------------------------------------------------------------------------------------


@every_figure
@pytest.mark.parametrize("shape", [(1, 4), (4,), (2, 3, 4), (5, 0)], ids=str)
def test_what_is_not_rows_is_refused(figure, shape):
    x = torch.ones(shape)
    with pytest.raises(ArgumentInvalid, match=r"at least two rows and one dimension; got shape \("):
        figure(x, torch.zeros(len(x), dtype=torch.long))


@every_figure
@pytest.mark.parametrize(("value", "name"), [(math.nan, "NaN"), (math.inf, "infinity")])
def test_a_row_that_is_not_finite_is_named(figure, value, name):
    x = normal(12, 4)
    x[[3, 7], 1] = value
    with pytest.raises(NonFinite, match=rf"x holds {name} \(row 3; 2 of 1[12] rows"):
        figure(x, labelled(12))


def test_the_argument_that_is_not_finite_is_named():
    with pytest.raises(NonFinite, match="y holds NaN"):
        geometry.alignment(normal(3, 4), torch.full((3, 4), math.nan))
    with pytest.raises(NonFinite, match="queries holds NaN"):
        geometry.occurrences(normal(3, 4), 1, torch.full((3, 4), math.nan))


@pytest.mark.parametrize("name", sorted(DIRECTIONS))
def test_a_row_without_direction_is_named_where_directions_are_compared(name):
    x = normal(12, 4)
    x[5] = 0
    with pytest.raises(ArgumentInvalid, match=r"x has a zero row, which has no direction \(row 5; 1 of 12"):
        FIGURES[name](x, labelled(12))


def test_a_zero_row_counts_as_the_point_zero_elsewhere():
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert geometry.alignment(x[:2], x[1:3]) == pytest.approx(0.5)
    apart = torch.tensor([0, 1, 1, 1, 1, 2])  # squared distances of the six pairs
    assert geometry.uniformity(x) == pytest.approx(float((-2.0 * apart).exp().mean().log()), abs=1e-6)
    assert geometry.uniformity(torch.zeros(5, 3)) == pytest.approx(0, abs=1e-6)  # the emptiest collapse there is
    assert geometry.effective_rank(torch.zeros(5, 3)) == 1
    assert geometry.mean_cosine(x) == pytest.approx(0, abs=1e-12)


def test_alignment_needs_pairs():
    with pytest.raises(ShapesDiffer):
        geometry.alignment(normal(3, 4), normal(4, 4))


@pytest.mark.parametrize("t", [0.0, -2.0, math.nan, math.inf])
def test_uniformity_needs_a_positive_t(t):
    with pytest.raises(ArgumentInvalid, match="t must be a positive number"):
        geometry.uniformity(normal(3, 4), t)


def test_uniformity_needs_a_pair_to_draw():
    with pytest.raises(ArgumentInvalid, match="pairs is how many pairs to draw"):
        geometry.uniformity(normal(3, 4), pairs=0)


@pytest.mark.parametrize(("figure", "name"), [(geometry.tolerance, "labels"), (geometry.isotropy, "text")])
def test_labels_must_fit_and_be_integers(figure, name):
    with pytest.raises(ShapesDiffer, match=rf"{name} must hold one integer for each of the 3 rows; got shape \(4,\)"):
        figure(normal(3, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ArgumentInvalid, match=rf"{name} must hold integers.*float32"):
        figure(normal(3, 4), torch.zeros(3))


def test_a_mean_over_no_pairs_is_refused():
    with pytest.raises(ArgumentInvalid, match="no two of the 3 rows share a label"):
        geometry.tolerance(normal(3, 4), torch.arange(3))
    with pytest.raises(ArgumentInvalid, match="none of the 3 texts has two tokens"):
        geometry.isotropy(normal(3, 4), torch.arange(3))


def test_tolerance_knows_two_means():
    with pytest.raises(ArgumentInvalid, match="did you mean 'same_label'"):
        geometry.tolerance(normal(3, 4), torch.zeros(3, dtype=torch.long), mean_over="same_labels")


def test_isoscore_needs_two_dimensions():
    with pytest.raises(ArgumentInvalid, match="one dimension shares none"):
        geometry.isoscore(torch.ones(4, 1))


@pytest.mark.parametrize("figure", [geometry.occurrences, geometry.hubness])
def test_neighbours_must_be_there(figure):
    for k in (0, 5):
        with pytest.raises(ArgumentInvalid, match=f"between 1 and the 4 rows that a query can choose from; got {k}"):
            figure(normal(5, 3), k)
    with pytest.raises(ArgumentInvalid, match="between 1 and the 5 rows"):
        figure(normal(5, 3), 6, normal(2, 3))
    with pytest.raises(ShapesDiffer, match="the 3 dimensions of x"):
        figure(normal(5, 3), 2, normal(2, 4))

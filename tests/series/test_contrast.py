"""Windows of a series and the contrast between them, beside the formula written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, ShapesDiffer, TemperatureInvalid
from contrapose.series._contrast import local_contrast, neighbour_contrast, pooled, random_start, window_vectors


def steps(b: int, t: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(b, t, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pooled_leaves_out_what_is_outside() -> None:
    x, inside = steps(2, 6), torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    torch.testing.assert_close(pooled(x, inside)[1], x[1, :3].amax(dim=0))
    with pytest.raises(ShapesDiffer, match="steps"):
        pooled(x[:, 0])


def test_windows_are_maxima_of_unit_steps() -> None:
    x = steps(3, 23)
    found = window_vectors(x, 5, torch.tensor([0, 1, 3]))
    unit = functional.normalize(x, dim=-1)
    expected = [
        torch.stack([unit[row, start + 4 * k : start + 4 * (k + 1)].amax(dim=0) for k in range(5)])
        for row, start in enumerate((0, 1, 3))
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_series_of_other_lengths_have_windows_of_other_sizes() -> None:
    x, lengths = steps(3, 20), torch.tensor([20, 11, 4])
    found = window_vectors(x, 5, lengths=lengths)
    for row, length in enumerate((20, 11)):
        torch.testing.assert_close(found[row], window_vectors(x[row : row + 1, :length], 5)[0])
    assert found[2].abs().sum() == 0


@pytest.mark.parametrize("k", [4, 5, 8])
def test_each_window_has_its_neighbour_and_k_less_three_negatives(k: int) -> None:
    windows, terms = steps(1, k)[0], []
    for i in range(k):
        near = {i - 1, i, i + 1} | ({2} if i == 0 else set()) | ({k - 3} if i == k - 1 else set())
        positive = windows[i] @ windows[i + 1 if i < k - 1 else k - 2]
        negatives = [windows[i] @ windows[j] for j in range(k) if j not in near]
        assert len(negatives) == k - 3
        terms.append(torch.stack([positive, *negatives]).div(0.5).logsumexp(0) - positive / 0.5)
    found = neighbour_contrast(windows[None], temperature=0.5)
    torch.testing.assert_close(found[0], torch.stack(terms).mean())


def test_equal_windows_are_at_chance() -> None:
    assert neighbour_contrast(torch.ones(2, 9, 3)).tolist() == pytest.approx([math.log(7)] * 2)


def test_three_windows_have_no_negatives() -> None:
    with pytest.raises(ArgumentInvalid, match="4 windows"):
        neighbour_contrast(torch.ones(1, 3, 2))


def test_a_series_shorter_than_its_windows_adds_nothing() -> None:
    assert local_contrast(steps(2, 7), 8).tolist() == [0, 0]
    assert local_contrast(steps(2, 9), 8, lengths=torch.tensor([9, 7]))[1] == 0


def test_a_random_start_leaves_room_for_all_windows() -> None:
    lengths = torch.tensor([20, 23, 23, 4])
    start = random_start(torch.tensor([0.999, 0.999, 0.0, 0.5], dtype=torch.float64), lengths, 5)
    assert start.tolist() == [0, 3, 0, 2]  # the last has no windows


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none(temperature: float) -> None:
    with pytest.raises(TemperatureInvalid):
        neighbour_contrast(torch.ones(2, 5, 3), temperature=temperature)


def test_a_series_without_steps_has_no_maximum() -> None:
    with pytest.raises(ShapesDiffer, match=r"\(2, 0, 3\)"):
        pooled(torch.ones(2, 0, 3))

"""Vectors of entries: the mean of their definitions', and three ways to make them even in all directions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from contrapose.data.batches import seeded
from contrapose.errors import CovarianceSingular, DictionaryInvalid, NonFinite, ShapesDiffer
from contrapose.geometry import mean_cosine
from contrapose.text.defsent_plus import entry_vectors, isotropised


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def test_the_vector_of_an_entry_is_the_mean_of_its_definitions() -> None:
    states, owner = drawn(5, 3), torch.tensor([1, 0, 1, 2, 1])
    found = entry_vectors(states, owner, 3)
    torch.testing.assert_close(found, torch.stack([states[1], states[[0, 2, 4]].mean(dim=0), states[3]]))


def test_entries_without_definition_are_refused() -> None:
    with pytest.raises(DictionaryInvalid, match=r"Entry 1 has no definition \(2 such"):
        entry_vectors(drawn(2, 3), torch.tensor([0, 3]), 4)
    with pytest.raises(DictionaryInvalid, match="numbered 0 to 1; got 0 to 2"):
        entry_vectors(drawn(2, 3), torch.tensor([0, 2]), 2)
    with pytest.raises(ShapesDiffer):
        entry_vectors(drawn(2, 3), torch.tensor([0]), 2)


def anisotropic(rows: int = 400, dim: int = 5) -> Tensor:
    return drawn(rows, dim).sign() * drawn(rows, dim, seed=3).abs().pow(2) @ drawn(dim, dim, seed=1) + 5


@pytest.mark.parametrize("kind", ["ica", "whiten"])
def test_coordinates_are_uncorrelated_with_the_variance_of_the_scale(kind: str) -> None:
    entries = anisotropic()
    even, converged = isotropised(entries, kind, scale=7.0)
    assert converged
    np.testing.assert_allclose(np.cov(even.numpy().T, bias=True), 49 * np.eye(5), atol=1e-8)
    assert mean_cosine(entries) > 0.5
    assert abs(mean_cosine(even)) < 0.02
    standard, _ = isotropised(entries, kind)
    torch.testing.assert_close(standard, even * 100 / 7)


def test_ica_finds_the_independent_sources() -> None:
    sources = torch.rand(500, 3, dtype=torch.float64, generator=seeded(0))
    found, _ = isotropised(sources @ drawn(3, 3, seed=1), "ica")
    correlations = np.abs(np.corrcoef(sources.numpy().T, found.numpy().T)[:3, 3:])
    assert (correlations.max(axis=1) > 0.99).all()


def test_normalised_entries_are_centred_and_of_one_length() -> None:
    even, _ = isotropised(anisotropic(), "normalise", scale=3.0)
    torch.testing.assert_close(even.norm(dim=1), torch.full((400,), 3.0, dtype=torch.float64))
    assert abs(mean_cosine(even)) < 0.1
    assert isotropised(anisotropic(), "none")[0].equal(anisotropic())


@pytest.mark.parametrize("kind", ["ica", "whiten"])
def test_entries_that_cannot_be_made_even(kind: str) -> None:
    with pytest.raises(DictionaryInvalid, match=f"isotropy={kind} needs more entries than the 5 dimensions"):
        isotropised(anisotropic(rows=5), kind)
    constant = anisotropic()
    constant[:, 3] = 0.1
    with pytest.raises(CovarianceSingular, match="Coordinate 3"):
        isotropised(constant, kind)
    constant[7, 0] = math.nan
    with pytest.raises(NonFinite, match="entry 7"):
        isotropised(constant, kind)


def test_coordinates_that_follow_from_others_are_not_whitened() -> None:
    entries = anisotropic()
    entries[:, 4] = entries[:, 0] + entries[:, 1]
    with pytest.raises(CovarianceSingular, match="do not span"):
        isotropised(entries, "whiten")


def test_ica_that_does_not_converge_is_used() -> None:
    even, converged = isotropised(anisotropic(), "ica", iterations=1)
    assert not converged
    assert torch.isfinite(even).all()

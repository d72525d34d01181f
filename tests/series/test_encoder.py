"""The encoder of series: the same vector in any company, its scale, its record and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from contrapose.errors import EncoderNotRebuildable, EncoderUnknown, SeriesInvalid, StepsUnavailable, UsageInvalid
from contrapose.series.data import read_data
from contrapose.series.encoder import SeriesEncoder, load_encoder, open_encoder
from tests.series.tiny import walks

SMALL = {"hidden": 6, "dim": 5, "depth": 2, "kernels": (1, 2, 4)}


@pytest.fixture(scope="module")
def encoder() -> SeriesEncoder:
    return SeriesEncoder(2, **SMALL)


def test_a_series_has_its_vector_in_any_company(encoder: SeriesEncoder) -> None:
    series = walks(5)
    together = encoder.encode(series, batch_size=3)
    alone = np.concatenate([encoder.encode([each]) for each in series])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_step_of_encode_steps_is_the_last_one_of_its_window(encoder: SeriesEncoder) -> None:
    (series,) = walks(1)
    found = encoder.encode_steps(series, context=8)
    assert found.shape == (len(series), 5)
    window = torch.from_numpy(series[3:12]).float()[None]
    with torch.no_grad():
        np.testing.assert_allclose(found[11], encoder.steps(window)[0, -1], atol=1e-5)
    later = series.copy()
    later[15:] += 5
    np.testing.assert_array_equal(encoder.encode_steps(later, context=8)[:15], found[:15])


def test_a_record_makes_the_same_untrained_encoder_and_leaves_the_generator_alone(encoder: SeriesEncoder) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    again = open_encoder(encoder.record(), {})
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(again.encode(walks(2)), encoder.encode(walks(2)))
    other = open_encoder({**encoder.record(), "seed": 1}, {})
    assert not np.allclose(other.encode(walks(2)), encoder.encode(walks(2)))


def test_what_is_saved_is_loaded(encoder: SeriesEncoder, tmp_path: Path) -> None:
    encoder.save(tmp_path)
    for again in (load_encoder(tmp_path, encoder.record()), open_encoder(str(tmp_path))):
        np.testing.assert_array_equal(again.encode(walks(2)), encoder.encode(walks(2)))
    with pytest.raises(UsageInvalid, match=r"encoder\.dim"):
        open_encoder(str(tmp_path), {"dim": "8"})


def test_channels_and_scale_come_from_the_training_data() -> None:
    table = read_data({"series": [each * [1, 100] + [0, 7] for each in walks(6)], "channels": ["a", "b"]})
    encoder = open_encoder(None, {"hidden": "4", "dim": "3", "depth": "1", "kernels": "1,2"}, table)
    assert encoder.channels == ("a", "b")
    scaled = np.concatenate([encoder.scaled(series) for series in table.series])
    np.testing.assert_allclose([scaled.mean(axis=0), scaled.std(axis=0)], [[0, 0], [1, 1]], atol=1e-9)
    own = SeriesEncoder(2, **SMALL, scale="series").scaled(table.series[0])
    np.testing.assert_allclose([own.mean(axis=0), own.std(axis=0)], [[0, 0], [1, 1]], atol=1e-9)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (np.zeros((2, 10, 2)), "shape"),
        (np.zeros((10, 3)), r"\(steps, 2\)"),
        (np.zeros((3, 2)), "3 steps"),
        (np.full((10, 2), np.inf), "infinite at step 0"),
        (["a", "b"], "else than numbers"),
        (
            np.where(np.arange(20).reshape(10, 2) == 6, np.nan, 1.0),
            r"channel '0' has no value at step 3.*encoder\.missing",
        ),
    ],
)
def test_a_series_that_does_not_fit_is_named(encoder: SeriesEncoder, value: object, said: str) -> None:
    with pytest.raises(SeriesInvalid, match=f"value 1.*{said}"):
        encoder.encode([walks(1)[0], value])


@pytest.mark.parametrize("missing", ["mask", "zero"])
def test_missing_values_may_be_meant(missing: str) -> None:
    (series,) = walks(1)
    holed = series.copy()
    holed[4, 1] = np.nan
    encoder = SeriesEncoder(2, **SMALL, missing=missing)
    assert np.isfinite(encoder.encode([holed])).all()
    assert not np.allclose(encoder.encode([holed]), encoder.encode([series]))


class Own(nn.Module):
    def __init__(self, pooling: bool = False) -> None:
        super().__init__()
        self.layer, self.pooling = nn.Linear(2, 7), pooling

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).mean(dim=1) if self.pooling else self.layer(x)


def test_a_network_of_ones_own_needs_a_vector_for_every_step() -> None:
    encoder = SeriesEncoder(2, network=Own())
    assert encoder.encode(walks(3)).shape == (3, 7)
    with pytest.raises(StepsUnavailable, match=r"\(2, 7\).*\(2, 400, d\)"):
        SeriesEncoder(2, network=Own(pooling=True))
    with pytest.raises(EncoderNotRebuildable, match="Own"):
        open_encoder(encoder.record(), {})


def test_an_unknown_encoder_and_one_without_data() -> None:
    with pytest.raises(EncoderUnknown, match="'dilatd'"):
        open_encoder("dilatd")
    with pytest.raises(UsageInvalid, match="channels from the training data"):
        open_encoder(None)

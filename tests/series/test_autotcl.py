"""AutoTCL's updates: who moves when, what is averaged, the value at chance, and that it learns."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from contrapose.data.batches import Batch, Data, seeded
from contrapose.errors import ContraposeError
from contrapose.series._average import MeanOfWeights
from contrapose.series.autotcl import AutoTCL, standing_still
from contrapose.series.data import open_data, read_data
from contrapose.series.encoder import SeriesEncoder
from contrapose.training.loop import fit
from contrapose.training.run_folder import RunFolder
from contrapose.training.settings import parse_settings
from tests.series.tiny import walks


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data(read_data(walks(8)), AutoTCL.card, encoder())


def encoder() -> SeriesEncoder:
    return SeriesEncoder(2, hidden=6, dim=5, depth=2, kernels=(1, 2, 4), scale="none")


def method(**settings: Any) -> AutoTCL:
    made = AutoTCL(AutoTCL.Settings(**{"windows": 5, **settings}), encoder())
    torch.manual_seed(0)
    made.build(data_facts())
    return made


def data_facts() -> Any:
    return Data({}, 8).facts


def batch(data: Data, rows: int = 6, step: int = 0) -> Batch:
    return Batch(data, torch.arange(rows), step, seeded(2, step))


def moved(model: AutoTCL, terms: dict[str, torch.Tensor]) -> set[str]:
    model.zero_grad(set_to_none=True)
    model.backward(terms)
    return {name.split(".")[0] for name, each in model.named_parameters() if each.grad is not None}


def test_each_update_moves_its_own_network(data: Data) -> None:
    model = method(smoothness_weight=0.1)
    augmentation, encoding = model.updates()
    assert moved(model, augmentation.loss(batch(data))) == {"augmentation"}
    assert moved(model, encoding.loss(batch(data))) == {"encoder"}
    assert all(parameter.requires_grad for parameter in model.encoder.parameters())
    assert (augmentation.lr, augmentation.every) == (0.01, 1)


def test_a_random_augmentation_is_never_moved() -> None:
    assert len(method(augmentation="random").updates()) == 1


def test_adversarial_is_minus_the_contrast(data: Data) -> None:
    model = method(augmentation="adversarial", timestamp_mask="none", local_weight=0.0)
    against, contrast = model.augmentation_loss(batch(data)), model.encoder_loss(batch(data))
    torch.testing.assert_close(against["adversarial"], -contrast["contrast"])


@pytest.mark.parametrize(("factors", "kept"), [("scale", 1.0), ("mask", 0.6)])
def test_a_view_of_one_factor(data: Data, factors: str, kept: float) -> None:
    model, x = method(factors=factors, augmentation_depth=0), data.columns["series"][torch.arange(8)]
    view, _ = model.augment(x, batch(data, 8))
    there = ~x.isnan()
    nonzero = (view[there] != 0).double().mean()
    assert float(nonzero) == pytest.approx(kept, abs=0.15)
    if factors == "mask":
        hit = view[there] != 0
        torch.testing.assert_close(view[there][hit], x[there][hit])


def test_options_change_the_loss(data: Data) -> None:
    def loss(**settings: Any) -> float:
        terms = method(**settings).encoder_loss(batch(data))
        return sum(float(term.detach()) for term in terms.values())

    plain = loss()
    for settings in (
        {"mask_logits": "logit"},
        {"hard_mask": False},
        {"local_rows": "official_first_only"},
        {"temperature": 0.5},
        {"local_temperature": 0.5},
        {"timestamp_mask": "continuous"},
        {"factors": "scale"},
    ):
        assert loss(**settings) != pytest.approx(plain, abs=1e-7), settings


def test_the_official_smoothness_draws_from_the_batch(data: Data) -> None:
    first, second = (
        method(smoothness="official", smoothness_weight=1.0).augmentation_loss(batch(data, step=step))["smoothness"]
        for step in (0, 0)
    )
    assert first == second
    assert first != method(smoothness_weight=1.0).augmentation_loss(batch(data))["smoothness"]


def test_chance_is_what_a_collapsed_encoder_gets(data: Data) -> None:
    model = method(temperature=0.2)
    for parameter in model.encoder.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.ones_(model.encoder.network.trends.convolutions[0].bias)
    found = model.encoder_loss(batch(data))
    for name, expected in model.chance(batch(data)).items():
        assert float(found[name].detach()) == pytest.approx(expected, abs=1e-5)
    assert model.chance(batch(data))["contrast"] == pytest.approx(math.log(6))


def test_the_mean_of_weights_counts_every_step_alike() -> None:
    online = torch.nn.Linear(1, 1, bias=False)
    states = [1.0, 2.0, 6.0, 3.0]
    torch.nn.init.constant_(online.weight, states[0])
    whole, late = MeanOfWeights(online), MeanOfWeights(online, start=1)
    for step, value in enumerate(states[1:]):
        torch.nn.init.constant_(online.weight, value)
        whole.follow(online, step)
        late.follow(online, step)
    assert float(whole.module.weight.detach()) == pytest.approx(3.0)
    assert float(late.module.weight.detach()) == pytest.approx(4.5)  # without the start and the first step


def test_standing_still_gives_back_what_was_trained() -> None:
    model = encoder().train()
    model.network.inlet.weight.requires_grad_(False)
    with standing_still(model):
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not model.training
    assert model.training
    assert [name for name, each in model.named_parameters() if not each.requires_grad] == ["network.inlet.weight"]


@pytest.mark.parametrize(
    "values", [{"gumbel_bias": 0.5}, {"gumbel_bias": 0}, {"windows": 3}, {"temperature": 0}, {"stretch": -1}]
)
def test_a_setting_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ContraposeError, match=next(iter(values))):
        parse_settings(AutoTCL.Settings, values, owner="method 'autotcl'")


def test_series_without_windows_are_remarked(data: Data) -> None:
    model = method(windows=28)
    model.prepare(data, None)
    assert "fewer than 28 steps" in model.remarks[0]
    model.encoder_loss(batch(data))


def sines(rows: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Waves of two periods, of any phase, in noise."""
    drawn = np.random.default_rng(seed)
    period = np.where(np.arange(rows) % 2, 6.0, 9.0)
    phase, time = drawn.uniform(0, 2 * np.pi, rows), np.arange(40)
    waves = np.sin(2 * np.pi * time / period[:, None] + phase[:, None]) + 0.6 * drawn.normal(size=(rows, 40))
    return [wave[:, None] for wave in waves], period


def test_it_learns_what_tells_series_apart(tmp_path: Any) -> None:
    """Vectors of one kind come nearer to each other than those of two: after training more than before."""
    series, period = sines(48, seed=0)
    table = read_data(series)

    def gap(model: SeriesEncoder) -> float:
        vectors = model.encode(series)
        vectors = vectors - vectors.mean(axis=0)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        same = period[:, None] == period
        cosines = unit @ unit.T
        return float(cosines[same & ~np.eye(48, dtype=bool)].mean() - cosines[~same].mean())

    gains = []
    for seed in range(3):
        start = SeriesEncoder(1, hidden=12, dim=16, depth=2, kernels=(1, 4, 16), seed=seed)
        settings = AutoTCL.Settings(
            steps=30,
            batch_size=24,
            learning_rate=5e-3,
            temperature=0.2,
            windows=8,
            average=False,
            precision="fp32",
            seed=seed,
        )
        trained = fit(
            lambda kind, chosen, start=start: kind(chosen, copy.deepcopy(start)),
            AutoTCL,
            settings,
            open_data(table, AutoTCL.card, start),
            RunFolder.create(tmp_path / str(seed), {}),
        )
        gains.append(gap(trained.encoders()["encoder"]) - gap(start))
    assert min(gains) > 0.02, gains

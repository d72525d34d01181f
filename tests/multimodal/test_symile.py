"""Symile and pairwise CLIP as methods: their terms, what they learn of an exclusive or, and what they refuse."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import contrapose
from contrapose.data.batches import Batch, seeded
from contrapose.errors import SettingInvalid, UsageInvalid
from contrapose.multimodal.data import open_data, read_data
from contrapose.multimodal.encoder import Modalities, open_encoder
from contrapose.multimodal.evaluation import ZeroShot
from contrapose.multimodal.pairwise_clip import PairwiseCLIP
from contrapose.multimodal.symile import Symile
from contrapose.objectives import info_nce, symile
from contrapose.training.encoder import Encoders
from contrapose.training.loop import fit
from contrapose.training.method import ViewMethod
from contrapose.training.run_folder import RunFolder
from tests.multimodal.tiny import columns
from tests.objectives.numbers import EXACT

# the official XOR example's, in small
XOR = {
    "batch_size": 100, "epochs": 9, "learning_rate": 0.1, "temperature": 1.35, "schedule": "constant", "clip_norm": None,
    "precision": "fp32", "log_every": 1000,
}  # fmt: skip


def opened(kind: type[ViewMethod], **settings: object) -> tuple[ViewMethod, Batch]:
    """A method on the tiny sample, in float64 and built, and a batch of 6 rows without groups."""
    table = read_data({name: values for name, values in columns().items() if name != "group_id"})
    encoders = open_encoder(None, {"dim": 5}, table)
    data = open_data(table, kind.card, encoders)
    method = kind(kind.Settings(**settings), encoders)
    method.build(data.facts)
    return method.double(), Batch(data, torch.arange(6), 0, seeded(1))


def bits(rows: int, seed: int, missing: float = 0.0) -> dict[str, np.ndarray]:
    """a, b and c = a xor b, float32 of shape (rows, 1); a share of the values is missing, each by itself."""
    drawn = np.random.default_rng(seed)
    a, b = drawn.integers(0, 2, (2, rows))
    gone = drawn.random((3, rows)) < missing
    values = zip("abc", (a, b, a ^ b), gone, strict=True)
    return {name: np.where(left_out, np.nan, each).astype(np.float32)[:, None] for name, each, left_out in values}


def accuracy(kind: type[ViewMethod], folder: Path, seed: int, missing: float = 0.0) -> float:
    """Of b given a and c, after training on 1,000 rows."""
    table = read_data(bits(1000, seed, missing))
    options = {"dim": 16, "scale": "none", "seed": seed, "missing": "learned" if missing else "refuse"}
    encoders = open_encoder(None, options, table)
    data, settings = open_data(table, kind.card, encoders), kind.Settings(**XOR, seed=seed)
    method = fit(lambda k, s: k(s, copy.deepcopy(encoders)), kind, settings, data, RunFolder.create(folder, {}))
    return ZeroShot(bits(1000, seed + 50), {"target": "b"}).score(Encoders(method.encoders()))


def test_the_term_is_the_objective_of_all_modalities_with_permutations_from_the_batch() -> None:
    method, batch = opened(Symile, temperature=0.3)
    found = method.training_step(batch)["symile"]
    vectors = [encoder(batch[name]) for name, encoder in method.encoder.items()]
    expected = symile(vectors, temperature=0.3, generator=seeded(1))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)  # the temperature is a float32 logarithm
    other = symile(vectors, temperature=0.3, generator=seeded(2))
    assert abs(float((found - other).detach())) > 1e-6


def test_all_combinations_where_they_are_asked_for() -> None:
    method, batch = opened(Symile, candidates="n_squared")
    vectors = [encoder(batch[name]) for name, encoder in method.encoder.items()]
    expected = symile(vectors, temperature=method.log_temperature.exp(), candidates="n_squared")
    torch.testing.assert_close(method.training_step(batch)["symile"], expected, **EXACT)
    assert method.negatives(6, batch.data.facts) == 35
    assert method.chance(batch) == {"symile": pytest.approx(2 * math.log(6))}


def test_the_baseline_is_the_sum_of_clip_over_the_pairs() -> None:
    method, batch = opened(PairwiseCLIP)
    unit = [functional.normalize(encoder(batch[name]), dim=1) for name, encoder in method.encoder.items()]
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = sum(
        info_nce(unit[a], unit[c], temperature=method.log_temperature.exp(), symmetric=True) for a, c in pairs
    )
    torch.testing.assert_close(method.training_step(batch)["pairwise_clip"], expected, **EXACT)
    assert method.chance(batch) == {"pairwise_clip": pytest.approx(3 * math.log(6))}


@pytest.mark.parametrize("kind", [Symile, PairwiseCLIP])
def test_every_encoder_and_the_temperature_receive_a_gradient(kind: type[ViewMethod]) -> None:
    method, batch = opened(kind)
    method.backward(method.training_step(batch))
    assert all(float(parameter.grad.abs().sum()) > 0 for parameter in method.parameters())


def test_a_temperature_that_is_not_learned_stays() -> None:
    method, batch = opened(Symile, learn_temperature=False, temperature=0.5)
    method.backward(method.training_step(batch))
    assert method.log_temperature.grad is None


def test_constant_vectors_give_the_value_at_chance() -> None:
    for kind in (Symile, PairwiseCLIP):
        method, batch = opened(kind)
        for encoder in method.encoder.values():
            torch.nn.init.zeros_(encoder.layers[-1].weight)
        (name, value), *_ = method.training_step(batch).items()
        assert float(value.detach()) == pytest.approx(method.chance(batch)[name], abs=1e-9)


def test_symile_learns_an_exclusive_or_and_clip_on_pairs_stays_at_chance(tmp_path: Path) -> None:
    for seed in range(3):
        assert accuracy(Symile, tmp_path / f"symile-{seed}", seed) >= 0.97
        assert 0.4 <= accuracy(PairwiseCLIP, tmp_path / f"clip-{seed}", seed) <= 0.6


def test_it_is_learned_from_rows_that_lack_modalities_too(tmp_path: Path) -> None:
    assert accuracy(Symile, tmp_path / "run", 0, missing=0.3) >= 0.97


def test_two_modalities_are_enough() -> None:
    run_of = open_encoder(None, {}, read_data({"a": np.eye(4), "b": np.eye(4)}))
    method = Symile(Symile.Settings(), run_of)
    assert len(method.encoder) == 2
    assert method.negatives(4, open_data(read_data({"a": np.eye(4), "b": np.eye(4)}), Symile.card, run_of).facts) == 3


def test_too_many_candidates_are_refused_with_their_number_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(SettingInvalid, match=r"11 rows of 3 modalities make 121 candidates"):
        contrapose.train(
            "symile", columns(), encoder=dict.fromkeys(["picture", "labs", "kind"], "vectors"), out=tmp_path / "run", progress=False,
            settings={"candidates": "n_squared", "most_candidates": 100},
        )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_a_diagnosis_of_temperature_is_refused(tmp_path: Path) -> None:
    run = contrapose.train(
        "symile",
        columns(),
        out=tmp_path / "run",
        progress=False,
        settings={"steps": 1, "batch_size": 4, "encoder.missing": "learned"},
    )
    with pytest.raises(UsageInvalid, match="'symile' compares several modalities"):
        contrapose.diagnose(run)
    assert not (tmp_path / "run" / "diagnosis").exists()


def test_the_encoders_know_how_they_are_compared() -> None:
    for kind, rule in ((Symile, "product"), (PairwiseCLIP, "sum")):
        method, _ = opened(kind, temperature=0.25)
        assert {encoder.rule.score for encoder in method.encoders().values()} == {rule}
        again = open_encoder(Modalities(method.encoders()).record())
        assert next(iter(again.values())).rule.temperature == pytest.approx(0.25)


def test_a_score_is_the_product_with_unit_candidates() -> None:
    method, _ = opened(Symile)
    queries, candidates = torch.tensor([[0.5, 0.0], [0.1, 0.2]]), torch.tensor([[3.0, 4.0]])
    torch.testing.assert_close(method.score(queries, candidates), torch.tensor([[0.3], [0.22]]))

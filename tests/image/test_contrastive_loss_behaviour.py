"""Five losses among views of a batch and among stored vectors: the released and the paper's values, the bank, searched temperatures."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

import contrapose
from contrapose.data.batches import Batch, Data, seeded
from contrapose.errors import ArgumentInvalid, SettingInvalid
from contrapose.geometry import uniformity
from contrapose.hardness import penalty_entropy
from contrapose.image.contrastive_loss_behaviour import (
    HIGHEST,
    ContrastiveLossBehaviour,
    cosines,
    negatives_of,
    sure_entropy,
)
from contrapose.image.data import open_data, read_data
from contrapose.image.encoder import ImageEncoder
from contrapose.objectives import nt_xent
from contrapose.training.interrupts import Stopped
from contrapose.training.loop import fit
from contrapose.training.settings import parse_settings
from tests.training.children import started, weights
from tests.training.toys import Toy, signals

GOLDEN = Path(__file__).parents[1] / "golden" / "contrastive_loss_behaviour.npz"
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def method(rows: int = 12, group: torch.Tensor | None = None, **given: Any) -> tuple[ContrastiveLossBehaviour, Data]:
    """In float64, with a head of 6 dimensions, on random images of 8 x 8 pixels."""
    settings = parse_settings(ContrastiveLossBehaviour.Settings, {"projection": 6, **given}, owner="the test")
    drawn = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (rows, 1, 8, 8), generator=drawn, dtype=torch.uint8)
    data = Data({"image": images}, rows, group)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ContrastiveLossBehaviour(settings, ImageEncoder.open("mlp", size=8, channels=1, width=16))
        model.build(data.facts)
    return model.double(), data


def batch_of(data: Data, rows: list[int]) -> Batch:
    return Batch(data, torch.tensor(rows), 0, seeded(0))


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LOSSES = {
    "infonce": {"loss": "info_nce"},
    "hard": {"loss": "hard"},
    "simple": {"loss": "simple"},
    "hardsimple": {"loss": "hard_simple"},
    "nearest": {"loss": "nearest"},
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("variant", ["paper", "official"])
def test_losses_among_stored_vectors_are_the_golden_ones(name: str, variant: str) -> None:
    with np.load(GOLDEN, allow_pickle=False) as given:
        golden = {key: torch.tensor(given[key]) for key in given.files}
    temperature = golden["hard_temperature" if name == "hard" else "temperature"]
    kept = golden["n_hard_negatives_paper" if variant == "paper" else "n_background"]
    asked = {"temperature": float(temperature), "hardest": int(kept), "negatives": "bank", "variant": variant}
    model, _ = method(**LOSSES[name], **asked)
    points = functional.normalize(golden["points"], dim=1)
    found = model.losses(points, golden["bank"], golden["index"], None).mean()
    averaged = "_mean" if "simple" in name else ""
    wanted = f"{name}_loss_paper{averaged}" if variant == "paper" and name != "nearest" else f"{name}_loss_official"
    torch.testing.assert_close(found, golden[wanted], **EXACT)


def test_info_nce_among_views_is_that_of_simclr() -> None:
    model, data = method(temperature=0.2)
    views = {"first": vectors(5, 8), "second": vectors(5, 8, seed=1)}
    found = model.objective(views, batch_of(data, [3, 1, 4, 0, 9]))["info_nce"]
    first, second = model.head(torch.cat(list(views.values()))).chunk(2)
    torch.testing.assert_close(found, nt_xent(first, second, temperature=0.2), **EXACT)


def test_hard_among_views_keeps_each_anchors_hardest() -> None:
    model, data = method(temperature=0.2, loss="hard", hardest=3)
    views = {"first": vectors(5, 8), "second": vectors(5, 8, seed=1)}
    found = model.objective(views, batch_of(data, list(range(5))))["hard"]
    z = model.project(torch.cat(list(views.values()))) / math.sqrt(0.2)
    s = z @ z.T
    losses = []
    for i in range(10):
        own = (i + 5) % 10
        others = sorted((s[i, k] for k in range(10) if k not in (i, own)), reverse=True)[:3]
        losses.append(torch.stack([s[i, own], *others]).logsumexp(0) - s[i, own])
    torch.testing.assert_close(found, torch.stack(losses).mean(), **EXACT)


@pytest.mark.parametrize("negatives", ["batch", "bank"])
@pytest.mark.parametrize("loss", ["info_nce", "simple", "hard", "hard_simple", "nearest"])
def test_rows_of_a_group_are_no_negatives(negatives: str, loss: str) -> None:
    """Whatever the vector of a row of the anchor's group is, the anchor's loss stays what it was."""
    group = torch.tensor([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    model, data = method(group=group, negatives=negatives, loss=loss, hardest=2)
    batch = batch_of(data, [0, 1, 2, 3])
    own = batch.rows if negatives == "bank" else torch.arange(8).roll(4)
    columns, others = (12, group) if negatives == "bank" else (8, batch.group)
    apart = negatives_of(own, columns, batch.group, others, itself=negatives == "batch")
    z = functional.normalize(vectors(columns, 6), dim=1)
    moved = z.clone()
    moved[1] = z[0]  # as hard as can be
    before, after = (model.losses(z[: len(own)], each, own, apart)[0] for each in (z, moved))
    torch.testing.assert_close(after, before, **EXACT)


def test_searched_temperatures_give_the_entropy_asked_for() -> None:
    model, data = method(entropy=1.5, halvings=50)
    views = {"first": vectors(6, 8), "second": vectors(6, 8, seed=1)}
    loss = model.objective(views, batch_of(data, list(range(6))))["info_nce"]
    z, own = model.project(torch.cat(list(views.values()))), torch.arange(12).roll(6)
    similar = cosines(z, z, own, negatives_of(own, 12, None, None, itself=True))
    low, high = torch.zeros(12), torch.full((12,), 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = penalty_entropy(similar, temperature=middle.double()) < 1.5
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    t = ((low + high) / 2).double()
    positive = (z * z.roll(6, 0)).sum(1)
    logits = torch.cat([positive[:, None], similar], dim=1) / t[:, None]
    torch.testing.assert_close(loss, -logits.log_softmax(1)[:, 0].mean(), rtol=1e-5, atol=1e-7)
    assert model.watched["temperature"] == pytest.approx(float(t.mean()), rel=1e-4)


def test_a_vector_of_zeros_stops_the_step() -> None:
    model, data = method()
    embeddings = {name: vectors(4, model.encoder.dim) for name in ("first", "second")}
    with torch.no_grad():
        model.head[0].bias.zero_()
    embeddings["second"][1] = 0
    with pytest.raises(ArgumentInvalid, match="first: row 5"):
        model.objective(embeddings, batch_of(data, [0, 1, 2, 3]))


def test_the_bank_moves_after_the_step_and_only_where_it_was_asked() -> None:
    model, data = method(negatives="bank", bank_momentum=0.25)
    before, rows = model.bank.clone(), [7, 2, 5]
    torch.testing.assert_close(before.norm(dim=1), torch.ones(12, dtype=torch.float64), rtol=1e-6, atol=0)
    embeddings = {"view": vectors(3, 8)}
    model.objective(embeddings, batch_of(data, rows))
    torch.testing.assert_close(model.bank, before)
    model.after_step(embeddings, batch_of(data, rows))
    moved = 0.25 * before[rows] + 0.75 * model.project(embeddings["view"])
    torch.testing.assert_close(model.bank[rows], functional.normalize(moved, dim=1), **EXACT)
    others = [row for row in range(12) if row not in rows]
    torch.testing.assert_close(model.bank[others], before[others])


CHANCE = {
    "info_nce": ({}, 9),
    "hard of three": ({"loss": "hard", "hardest": 3}, 4),
    "hard of a share": ({"loss": "hard", "hardest": 0.5}, 5),
    "a bank": ({"negatives": "bank"}, 12),
}


@pytest.mark.parametrize(("given", "columns"), CHANCE.values(), ids=CHANCE)
def test_chance_is_the_loss_of_vectors_that_say_nothing(given: dict, columns: int) -> None:
    model, data = method(**given)
    batch = batch_of(data, list(range(5)))
    ((name, value),) = model.chance(batch).items()
    bank = given.get("negatives") == "bank"
    own = batch.rows if bank else torch.arange(10).roll(5)
    m = 12 if bank else 10
    one = torch.ones(m, 6, dtype=torch.float64) / math.sqrt(6)
    loss = model.losses(one[: len(own)], one, own, negatives_of(own, m, None, None, itself=not bank)).mean()
    assert float(loss) == pytest.approx(value)
    assert value == pytest.approx(math.log(columns))
    assert name == given.get("loss", "info_nce")


@pytest.mark.parametrize(("said", "kept"), [("25", 25), ("1", 1), ("1.0", 1.0), ("0.1", 0.1)])
def test_a_number_of_negatives_is_told_from_a_share(said: str, kept: float) -> None:
    found = parse_settings(ContrastiveLossBehaviour.Settings, {"hardest": said}, owner="the test").hardest
    assert (found, type(found)) == (kept, type(kept))


REFUSED = {
    "no negative kept": ({"loss": "hard", "hardest": 0}, "hardest is a number"),
    "a share above 1": ({"loss": "hard", "hardest": 1.5}, "hardest is a number"),
    "a loss that has no temperature": ({"loss": "simple", "entropy": 1.0}, "entropy sets the temperature"),
}


@pytest.mark.parametrize(("given", "named"), REFUSED.values(), ids=REFUSED)
def test_settings_that_mean_nothing_are_refused(given: dict, named: str) -> None:
    with pytest.raises(SettingInvalid, match=named):
        method(**given)


MISFITS = {
    "more than there are": ({"loss": "hard", "hardest": 23}, "has 22 negatives"),
    "more than are stored": ({"loss": "hard_simple", "hardest": 12, "negatives": "bank"}, "has 11 negatives"),
    "an entropy that none reaches": ({"entropy": 3.2}, r"log\(22\)"),
    "an entropy that some may not reach": ({"entropy": 3.09}, r"sure to reach 3\.086"),
}


@pytest.mark.parametrize(("given", "named"), MISFITS.values(), ids=MISFITS)
def test_what_the_data_do_not_allow_is_refused(given: dict, named: str) -> None:
    model, data = method(**given)
    with pytest.raises(SettingInvalid, match=named):
        model.refuse(data)


@pytest.mark.parametrize("negatives", [1, 6, 22, 500])
def test_any_cosines_reach_the_entropy_that_is_sure(negatives: int) -> None:
    sure = sure_entropy(negatives)
    split = torch.ones(negatives + 1, negatives).tril(-1) * 2 - 1  # so many cosines of 1, the others -1
    drawn = torch.rand(200, negatives, generator=seeded(0)) * 2 - 1
    found = penalty_entropy(torch.cat([split, drawn]).double(), temperature=HIGHEST)
    assert found.min() == pytest.approx(sure, abs=1e-9)
    assert sure < math.log(negatives) or negatives == 1


def test_a_short_last_batch_is_left_out_where_it_might_not_reach_the_entropy() -> None:
    for given, sizes in (({}, [8, 4]), ({"entropy": 2.0}, [8])):
        model, data = method(batch_size=8, **given)
        assert [len(rows) for rows in model.batches(data, 0, seeded(0))] == sizes


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_simple_loss_spreads_features_less(seed: int, tmp_path: Path) -> None:
    digits = np.round(load_digits().images[:256] * 255 / 16).astype(np.uint8)
    spread = {}
    for name, given in {"low": {"temperature": 0.1}, "simple": {"loss": "simple"}}.items():
        shared = {"batch_size": 64, "projection": 16, "head_norm": True, "precision": "fp32", "seed": seed}
        shared |= {"steps": 24, "learning_rate": 5e-3, "schedule": "constant"}
        settings = ContrastiveLossBehaviour.Settings(**shared, **given)
        data = open_data(read_data({"image": digits}), ContrastiveLossBehaviour.card, small_network(seed))
        model = fit(
            lambda kind, chosen: kind(chosen, small_network(seed)),
            ContrastiveLossBehaviour, settings, data, started(tmp_path / name),
        )  # fmt: skip
        pixels = model.encoder.pixels(torch.from_numpy(digits)[:, None])
        spread[name] = uniformity(model.eval().project(model.encoder(pixels)).detach())
    assert spread["low"] < spread["simple"] - 0.3


@pytest.mark.parametrize("given", [{"negatives": "bank", "loss": "hard", "hardest": 4}, {"entropy": 1.2}], ids=str)
def test_a_stopped_run_goes_on_to_the_same_bits(given: dict, tmp_path: Path) -> None:
    digits = np.round(load_digits().images[:20] * 255 / 16).astype(np.uint8)
    data = open_data(read_data({"image": digits}), ContrastiveLossBehaviour.card, small_network(0))
    settings = {"batch_size": 8, "projection": 6, "steps": 5, "log_every": 1, "precision": "fp32", **given}
    toy = Toy("behaviour", ContrastiveLossBehaviour, lambda: data, lambda: small_network(0), settings)
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    with pytest.raises(Stopped):
        toy.fit(broken, reporter=signals(signal.SIGTERM, after=3))
    toy.fit(broken)
    assert weights(broken) == weights(unbroken)


def test_a_run_on_images_is_diagnosed(tmp_path: Path) -> None:
    digits = load_digits()
    images = {"image": np.round(digits.images[:60] * 255 / 16).astype(np.uint8), "label": digits.target[:60]}
    np.savez(tmp_path / "digits.npz", **images)
    asked = {"batch_size": 16, "steps": 2, "projection": 6, "temperature": 0.2}
    encoder = {"name": "mlp", "size": 8, "channels": 1, "width": 16}
    data = tmp_path / "digits.npz"
    contrapose.train(
        "contrastive_loss_behaviour", data, encoder=encoder, out=tmp_path / "run", progress=False, settings=asked
    )
    found = contrapose.diagnose(tmp_path / "run", temperatures=[1.0], progress=False).record
    trained = found["behaviour"]["trained"]
    assert (found["temperature"], trained["rows"], trained["negatives"]) == (0.2, 60, 30)
    assert trained["all_same_label"] == pytest.approx(0.09, abs=0.03)
    assert trained["alignment"] is None


def small_network(seed: int) -> ImageEncoder:
    return ImageEncoder.open("mlp", size=8, channels=1, width=64, seed=seed)

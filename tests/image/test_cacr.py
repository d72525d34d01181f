"""CACR as a method: its forms are those of the objectives, its views and keys the paper's."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from contrapose.data.batches import Batch, Data, Facts, seeded
from contrapose.image.cacr import CACR
from contrapose.image.data import open_data, read_data
from contrapose.image.encoder import ImageEncoder
from contrapose.objectives import cacr, cacr_euclidean, cacr_queue, cacr_rbf, nt_xent
from tests.image.tiny import images
from tests.training.children import started
from tests.training.toys import Toy


def network() -> ImageEncoder:
    return ImageEncoder.open("mlp", size=8, channels=3, width=16)


def built(**settings) -> CACR:
    method = CACR(CACR.Settings(**{"positives": 2, "projection": 4, **settings}), network())
    method.build(Facts(12))
    return method.double()


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def embeddings(method: CACR) -> dict[str, Tensor]:
    names = [*method.names, *(f"{name}_key" for name in method.key_names)]
    return {name: drawn(6, 8, seed=seed) for seed, name in enumerate(names)}


def batch(group: Tensor | None = None) -> Batch:
    return Batch(Data({}, 6, group), torch.arange(6), 0, seeded(0))


def total(method: CACR, given: dict[str, Tensor], group: Tensor | None = None) -> Tensor:
    return sum(method.objective(given, batch(group)).values())


VARIANTS = {
    "defaults": {},
    "detached": {"detach_weights": True, "t_pos": 0.5, "t_neg": 0.9, "alpha": 2.0, "beta": 0.5},
    "without weights of negatives": {"variant": "uniform_neg"},
    "without weights of positives": {"variant": "uniform_pos"},
    "without weights": {"variant": "uniform"},
    "debiased": {"tau_plus": 0.1, "symmetric": True},
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_attraction_and_repulsion_are_the_loss_of_the_heads_vectors(options: dict) -> None:
    method = built(**options)
    given = embeddings(method)
    group = torch.tensor([0, 1, 1, -1, 2, 3])
    z = [method.head(given[name]) for name in method.names]
    torch.testing.assert_close(total(method, given, group), cacr(z, group=group, **options))


def test_keys_of_the_first_two_views_meet_the_queries_of_the_others() -> None:
    for form, loss in (("rbf", cacr_rbf), ("euclidean", cacr_euclidean)):
        method = built(form=form, temperature=0.4)
        given = embeddings(method)
        assert [name for name in given if name.endswith("_key")] == ["view_1_key", "view_2_key"]
        q1, q2, q3 = (method.predictor(method.head(given[name])) for name in method.names)
        k1, k2 = (method.momentum_head(given[f"view_{number}_key"]) for number in (1, 2))
        expected = (loss([q2, q3], k1, temperature=0.4) + loss([q1, q3], k2, temperature=0.4)) / 2
        torch.testing.assert_close(total(method, given), expected)
    assert built(form="rbf", keys="all").key_names == ["view_1", "view_2", "view_3"]


def test_the_queue_holds_the_last_views_keys_of_earlier_steps() -> None:
    method = built(form="queue", queue_size=9, t_pos=0.5)
    given, group = embeddings(method), torch.tensor([0, 1, 1, 2, 3, 4])
    first = total(method, given, group)
    q = [method.head(given[name]) for name in method.names]
    k = [method.momentum_head(given[f"{name}_key"]) for name in method.names]
    torch.testing.assert_close(first, cacr_queue(q, k, t_pos=0.5, group=group))
    with torch.no_grad():
        method.after_step({}, batch(group))
    torch.testing.assert_close(method.queue.stored().vectors, k[-1])
    expected = cacr_queue(q, k, t_pos=0.5, queue=k[-1], group=group, queue_group=group)
    torch.testing.assert_close(total(method, given, group), expected)
    assert method.watched["queue"] == 6


def test_the_comparison_is_nt_xent_of_every_pair_of_views() -> None:
    method = built(form="nt_xent", temperature=0.5)
    given = embeddings(method)
    a, b, c = (method.head(given[name]) for name in method.names)
    pairs = [nt_xent(x, y, temperature=0.5) for x, y in ((a, b), (a, c), (b, c))]
    torch.testing.assert_close(total(method, given), torch.stack(pairs).mean())


def test_the_momentum_encoder_moves_before_the_step() -> None:
    method = built(form="rbf", momentum=0.75)
    layer, copied = method.encoder.backbone[1], method.momentum_encoder.module.backbone[1]
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1.0)
        method.before_step(batch())
    torch.testing.assert_close(copied.weight, before + 0.25)


def test_an_image_has_one_view_more_than_positives_all_of_them_different() -> None:
    method = built(positives=3).float()
    data = open_data(read_data({"image": images()}), CACR.card, method.encoder)
    views = method.views(Batch(data, torch.arange(6), 0, seeded(0)))
    assert list(views) == ["view_1", "view_2", "view_3", "view_4"]
    assert not torch.equal(views["view_1"].inputs, views["view_4"].inputs)


def test_chance_and_negatives() -> None:
    assert built().chance(batch()) == {"attraction": 2.0}
    assert built(form="rbf").chance(batch()) == {"rbf": pytest.approx(2 * math.log(6))}
    assert built(form="nt_xent").chance(batch()) == {"nt_xent": pytest.approx(math.log(11))}
    assert built().negatives(64, Facts(100)) == 63
    assert built(form="queue", queue_size=9).negatives(64, Facts(100)) == 72


BAD = {
    "no positive": ({"positives": 0}, "positives"),
    "a share of 1": ({"tau_plus": 1.0}, "tau_plus"),
    "a temperature of 0": ({"temperature": 0.0}, "temperature"),
    "a debiased queue": ({"form": "queue", "tau_plus": 0.1}, "tau_plus and symmetric are of form=views"),
    "a variant of rbf": ({"form": "rbf", "variant": "uniform"}, "variant=uniform"),
}


@pytest.mark.parametrize(("settings", "says"), BAD.values(), ids=BAD)
def test_settings_that_make_no_sense(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        CACR.Settings(**settings)


@pytest.mark.parametrize("form", ["views", "rbf", "euclidean", "queue"])
def test_training_lowers_the_loss(form: str, tmp_path: Path) -> None:
    data = open_data(read_data({"image": images(24)}), CACR.card, network())
    settings = {"batch_size": 24, "steps": 40, "log_every": 1, "precision": "fp32", "positives": 2, "projection": 8}
    folder = started(tmp_path / "run")
    Toy("cacr", CACR, lambda: data, network, settings | {"form": form, "queue_size": 48}).fit(folder)
    sums = [sum(line["terms"].values()) for line in folder.metrics()]
    assert sum(sums[-5:]) < sum(sums[:5]) - 0.5

"""MCLRec: its regulariser and augmenters by their formulas, its three updates by a hand-written loop, what it learns and what it refuses."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import contrapose
from contrapose.data.batches import Batch, Data, seeded, shuffled_batches
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    NoNegatives,
    NonFinite,
    SettingInvalid,
    ShapesDiffer,
)
from contrapose.objectives import nt_xent
from contrapose.sequence.data import open_data, read_data
from contrapose.sequence.encoder import SequenceEncoder, open_encoder
from contrapose.sequence.evaluation import open_protocol
from contrapose.sequence.mclrec import Augmenter, MCLRec, contrast_regulariser
from contrapose.sequence.sasrec import SASRec
from contrapose.sequence.views import Sequences, numbers_for_two, two_views
from contrapose.training.loop import fit
from contrapose.training.method import Method
from tests.sequence.tiny import ENCODER, interactions
from tests.training.children import started

# ------------------------------------------------------------------------------------------------------- the regulariser


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def plain_regulariser(first: Tensor, second: Tensor, scope: str, group: list[int]) -> Tensor:
    """Equations 12 and 13 row by row, over all pairs."""
    z, b = torch.cat([first, second]), len(first)
    labels = torch.tensor(group * 2)
    rows = [r for r in range(2 * b) if (labels != labels[r]).any()]
    positive = torch.stack([z[r] @ z[(r + b) % (2 * b)] for r in rows])
    negative = [z[labels != labels[r]] @ z[r] for r in rows]
    hardest = torch.stack([each.max() for each in negative])
    if scope == "batch":
        least, most = positive.min().expand(len(rows)), hardest.max().expand(len(rows))
    else:
        least, most = positive, hardest
    low, high = torch.minimum(least, most), torch.maximum(least, most)
    below = torch.cat([functional.relu(high[k] - each) for k, each in enumerate(negative)])
    return functional.relu(positive - low).mean() + below.mean()


@given(
    st.lists(st.integers(0, 3), min_size=2, max_size=7).filter(lambda g: len(set(g)) > 1),
    st.sampled_from(["row", "batch"]),
    st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_it_is_the_formula_and_so_is_its_gradient(group: list[int], scope: str, seed: int) -> None:
    views = [drawn(len(group), 4, seed=seed + part).requires_grad_() for part in (0, 1000)]
    for labels, given_group in ((group, torch.tensor(group)), (list(range(len(group))), None)):
        found = contrast_regulariser(*views, scope=scope, group=given_group)
        expected = plain_regulariser(*views, scope, labels)
        torch.testing.assert_close(found, expected)
        slopes, wanted = (torch.autograd.grad(value, views) for value in (found, expected))
        torch.testing.assert_close(slopes, wanted)


def test_views_that_are_all_alike_cost_nothing() -> None:
    alike = torch.ones(4, 3)
    for scope in ("row", "batch"):
        assert contrast_regulariser(alike, alike, scope=scope).item() == 0


def test_no_group_and_one_group() -> None:
    first, second = drawn(4, 3), drawn(4, 3, seed=1)
    none = contrast_regulariser(first, second, group=torch.full((4,), -1))
    torch.testing.assert_close(none, contrast_regulariser(first, second))
    assert contrast_regulariser(first, second, group=torch.zeros(4, dtype=torch.long)).item() == 0


def test_blocks_of_rows_do_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = drawn(9, 4), drawn(9, 4, seed=1)
    whole = contrast_regulariser(first, second)
    monkeypatch.setattr("contrapose.sequence._augmenter.SCORES", 40)
    torch.testing.assert_close(contrast_regulariser(first, second), whole)


BAD = {
    "one row": ((drawn(1, 3), drawn(1, 3)), {}, NoNegatives, "at least two"),
    "other shapes": ((drawn(3, 3), drawn(2, 3)), {}, ShapesDiffer, r"\(2, 3\)"),
    "NaN": ((drawn(3, 3) * math.nan, drawn(3, 3)), {}, NonFinite, "NaN"),
    "a scope": ((drawn(3, 3), drawn(3, 3)), {"scope": "pair"}, ArgumentInvalid, "'pair'"),
    "groups of other rows": ((drawn(3, 3), drawn(3, 3)), {"group": torch.zeros(2, dtype=torch.long)}, ShapesDiffer, "group"),
}  # fmt: skip


@pytest.mark.parametrize(("views", "options", "error", "says"), BAD.values(), ids=BAD)
def test_what_it_refuses(views: tuple, options: dict, error: type[ContraposeError], says: str) -> None:
    with pytest.raises(error, match=says):
        contrast_regulariser(*views, **options)


# -------------------------------------------------------------------------------------------------------- the augmenters


def test_an_augmenter_gives_unit_vectors_of_the_same_size() -> None:
    made = Augmenter(8, (6, 4))(drawn(5, 8).float())
    torch.testing.assert_close(made.norm(dim=1), torch.ones(5))
    assert [layer.out_features for layer in Augmenter(8, (6, 4)).layers] == [6, 4, 8]


def test_an_augmenter_of_another_size() -> None:
    with pytest.raises(ShapesDiffer, match=r"takes \(b, 8\)"):
        Augmenter(8)(torch.ones(2, 5))
    with pytest.raises(ShapesDiffer, match="8 dimensions; its last layer gives 6"):
        Augmenter(8, out=6)


def test_the_regulariser_keeps_the_augmenters_contrast_hard() -> None:
    """Without it, positives end further above the hardest negatives."""
    h1 = drawn(16, 8)
    h2 = h1 + 0.5 * drawn(16, 8, seed=1)

    def margin(weight: float) -> float:
        torch.manual_seed(0)
        first, second = (Augmenter(8, (6, 4)).double() for _ in range(2))
        optimiser = torch.optim.Adam([*first.parameters(), *second.parameters()], lr=0.03)
        for _ in range(40):
            z1, z2 = first(h1), second(h2)
            pairs = [(z1, z2), (h1, z2), (h2, z1)]
            loss = sum(nt_xent(*pair, temperature=1.0, similarity="dot") for pair in pairs)
            loss = loss + weight * sum(contrast_regulariser(*pair) for pair in pairs)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        scores = (z1 @ z2.T).detach()
        hardest = scores.masked_fill(torch.eye(16, dtype=torch.bool), -9).amax(dim=1)
        return float((scores.diagonal() - hardest).mean())

    assert margin(0.0) > margin(1.0) + 0.01


# ------------------------------------------------------------------------------------------------------------ the method


def opened(kind: type[Method]) -> tuple[SequenceEncoder, Data]:
    table = read_data(interactions())
    encoder = open_encoder(ENCODER, {}, table)
    return encoder, open_data(table, kind.card, encoder)


def trained(kind: type[Method], folder: Path, encoder: SequenceEncoder, data: Data, **settings) -> Method:
    chosen = kind.Settings(
        **{"batch_size": 8, "steps": 3, "precision": "fp64", "log_every": 1, "learning_rate": 0.01, **settings}
    )
    return fit(lambda which, options: which(options, copy.deepcopy(encoder)), kind, chosen, data, started(folder))


def official_loop(method: MCLRec, data: Data, rows: Tensor, steps: int) -> MCLRec:
    """The trainer of the official code in plain torch: freeze and thaw, two Adams, three updates a batch."""
    settings, weights = method.settings, method.encoder.transformer.items.weight
    augmenters = [*method.first_augmenter.parameters(), *method.second_augmenter.parameters()]
    theta, phi = (
        torch.optim.Adam(each, lr=settings.learning_rate) for each in (method.encoder.parameters(), augmenters)
    )
    kept = data.take(rows)
    batches = shuffled_batches(len(kept), settings.batch_size, seeded(settings.seed, 0, 1, 0))
    for step in range(steps):
        batch = Batch(kept, batches[step], step, seeded(settings.seed, 0, 3, step))
        sequence = Sequences(**batch["sequence"])
        views = two_views(sequence, batch.uniform(numbers_for_two(sequence.items.shape[1])))

        def contrasts(views: tuple = views) -> tuple[Tensor, Tensor, Tensor]:
            h1, h2 = (method.encoder(view.inputs()) for view in views)
            z1, z2 = method.first_augmenter(h1), method.second_augmenter(h2)
            pairs = [(z1, z2), (h1, z2), (h2, z1)]
            second = sum(nt_xent(*pair, temperature=1.0, similarity="dot") for pair in pairs)
            hard = 0.1 * sum(plain_regulariser(*pair, "row", list(range(len(h1)))) for pair in pairs)
            return nt_xent(h1, h2, temperature=1.0, similarity="dot"), second, hard

        for optimiser in (theta, phi, theta):
            theta.zero_grad(), phi.zero_grad()
            first, second, hard = contrasts()
            if optimiser is phi:
                loss = second + hard
            else:
                logits = method.encoder(batch["sequence"]) @ weights.T
                loss = functional.cross_entropy(logits, batch["next"])
                loss = loss + settings.stochastic_weight * first + settings.learned_weight * (second + hard)
            loss.backward()
            optimiser.step()
    return method


def test_three_updates_with_two_adams_as_in_the_official_trainer(tmp_path: Path) -> None:
    encoder, data = opened(MCLRec)
    found = trained(MCLRec, tmp_path / "run", encoder.double(), data)
    method = MCLRec(found.settings, copy.deepcopy(encoder)).double()
    torch.manual_seed(0)
    method.build(data.facts)
    start = trained(MCLRec, tmp_path / "start", encoder, data, learning_rate=0.0)  # the augmenters as they were made
    method.double().load_state_dict(start.state_dict())
    rows = (data.columns["left"] >= 2).nonzero().squeeze(1)
    expected = official_loop(method.train(), data, rows, 3)
    for name, weight in expected.state_dict().items():
        torch.testing.assert_close(
            found.state_dict()[name], weight, rtol=0, atol=1e-9, msg=lambda said, n=name: f"{n}: {said}"
        )


def test_each_update_moves_its_own_part() -> None:
    encoder, data = opened(MCLRec)
    method = MCLRec(MCLRec.Settings(batch_size=8), encoder)
    method.build(data.facts)
    batch = Batch(data, torch.arange(8), 0, seeded(0))
    method.before_step(batch)
    first, second, third = method.updates()
    assert [update.optimiser for update in (first, second, third)] == ["encoder", "augmenters", "encoder"]
    assert {*first.parameters} == {*third.parameters} == {*encoder.parameters()}
    assert {*second.parameters}.isdisjoint(encoder.parameters())
    sum(second.loss(batch).values()).backward()
    assert all(parameter.grad is None for parameter in encoder.parameters())  # encoded without a graph
    assert all(parameter.grad is not None for parameter in second.parameters)


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"schedule_of_updates": "paper"}, ["encoder", "augmenters"]),
        ({"schedule_of_updates": "joint"}, ["main"]),
        ({"learned_weight": 0.0}, ["encoder", "encoder"]),
        ({"shared_augmenter": True}, ["encoder", "augmenters", "encoder"]),
    ],
)
def test_schedules(settings: dict, updates: list[str]) -> None:
    encoder, data = opened(MCLRec)
    method = MCLRec(MCLRec.Settings(**settings), encoder)
    method.build(data.facts)
    assert [update.optimiser for update in method.updates()] == updates
    assert (method.first_augmenter is method.second_augmenter) == bool(settings.get("shared_augmenter"))


def test_without_contrast_it_is_sasrec(tmp_path: Path) -> None:
    encoder, data = opened(MCLRec)
    plain = trained(SASRec, tmp_path / "sasrec", encoder, data)
    bare = trained(
        MCLRec, tmp_path / "bare", encoder, data, stochastic_weight=0.0, learned_weight=0.0, schedule_of_updates="paper"
    )
    for name, weight in plain.encoder.state_dict().items():
        assert torch.equal(bare.encoder.state_dict()[name], weight)


def terms_of(**settings) -> dict[str, Tensor]:
    torch.manual_seed(0)
    encoder, data = opened(MCLRec)
    method = MCLRec(MCLRec.Settings(**settings), encoder)
    method.build(data.facts)
    batch = Batch(data, torch.arange(8), 0, seeded(0))
    names = ("sequence", "first", "second")
    return method.objective({name: drawn(8, 8, seed=seed).float() for seed, name in enumerate(names)}, batch)


def test_weights_and_readings_of_the_terms() -> None:
    default = terms_of()
    assert list(default) == ["next_item", "stochastic", "learned", "regulariser"]
    h1, h2 = drawn(8, 8, seed=1).float(), drawn(8, 8, seed=2).float()
    torch.testing.assert_close(default["stochastic"], 0.03 * nt_xent(h1, h2, temperature=1.0, similarity="dot"))
    cosine = terms_of(similarity="cosine", temperature=0.5)["stochastic"]
    torch.testing.assert_close(cosine, 0.03 * nt_xent(h1, h2, temperature=0.5))
    torch.testing.assert_close(terms_of(beta_on_regulariser=False)["regulariser"], default["regulariser"] / 0.1)
    torch.testing.assert_close(terms_of(learned_weight=0.2)["learned"], 2 * default["learned"])
    paper = terms_of(regulariser_scope="batch", regulariser_pairs="z")
    assert paper["regulariser"] != default["regulariser"]
    assert list(terms_of(learned_weight=0.0, stochastic_weight=0.0)) == ["next_item"]
    assert list(terms_of(regulariser_weight=0.0)) == ["next_item", "stochastic", "learned"]
    assert terms_of(padding_class=False)["next_item"] < default["next_item"]


def test_rows_of_a_group_are_no_negatives_of_each_other() -> None:
    encoder, data = opened(MCLRec)
    method = MCLRec(MCLRec.Settings(), encoder)
    method.build(data.facts)
    h1, h2 = drawn(8, 8, seed=1).float(), drawn(8, 8, seed=2).float()
    apart, together = (method.contrast(h1, h2, group) for group in (None, torch.arange(8) // 2))
    assert together[0] < apart[0]
    assert together[1] != apart[1]


def test_values_at_chance() -> None:
    encoder, data = opened(MCLRec)
    method = MCLRec(MCLRec.Settings(stochastic_weight=1.0, learned_weight=1.0), encoder)
    method.build(data.facts)
    batch = Batch(data, torch.arange(8), 0, seeded(0))
    same = {name: torch.zeros(8, 8) for name in ("sequence", "first", "second")}
    found = {name: float(value.detach()) for name, value in method.objective(same, batch).items()}
    chance = method.chance(batch)
    assert found["next_item"] == pytest.approx(chance["next_item"]) == math.log(13)
    assert found["stochastic"] == pytest.approx(chance["stochastic"]) == math.log(15)


def test_the_user_keeps_the_encoder_alone(tmp_path: Path) -> None:
    run = contrapose.train(
        "mclrec", interactions(), encoder=ENCODER, out=tmp_path / "run", progress=False, steps=1, batch_size=8
    )
    assert not [name for name in run.model.encoder().state_dict() if "augmenter" in name]


@pytest.mark.parametrize("kind", [SASRec, MCLRec])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_cycle_of_items_is_learned(kind: type[Method], seed: int, tmp_path: Path) -> None:
    """Each item has one successor, and each begins the sequences of four users. Untrained, every second one is among five of ten."""
    table = read_data([{"user": f"u{u}", "item": str((u + k) % 10), "time": k} for u in range(40) for k in range(8)])
    encoder = open_encoder({**ENCODER, "layers": 1, "seed": seed}, {}, table)
    model = trained(
        kind, tmp_path / "run", encoder, open_data(table, kind.card, encoder), steps=25, batch_size=32, learning_rate=0.05,
        precision="fp32", log_every=25, seed=seed,
    )  # fmt: skip
    before, after = (open_protocol("next_item", table).score(each.eval()) for each in (encoder, model.encoder))
    assert after > 0.9 > 0.6 > before


SETTINGS = {
    "tau": {"temperature": 0.0},
    "a crop of all": {"crop_ratio": 1.0},
    "a mask below 0": {"mask_ratio": -0.1},
    "a reorder beyond all": {"reorder_ratio": 1.5},
    "beta": {"learned_weight": -1.0},
    "a batch of one": {"batch_size": 1},
    "more left out than there is": {"leave_out": 9},
}
SAYS = {
    "a batch of one": (NoNegatives, "batch_size is 1"),
    "more left out than there is": (ContraposeError, "leave_out=9"),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_are_refused_before_anything_is_written(name: str, tmp_path: Path) -> None:
    error, says = SAYS.get(name, (SettingInvalid, next(iter(SETTINGS[name]))))
    with pytest.raises(error, match=says):
        contrapose.train(
            "mclrec", interactions(), encoder=ENCODER, out=tmp_path / "run", progress=False, settings=SETTINGS[name]
        )
    assert not (tmp_path / "run").exists()

"""The loop itself: batches, rates, randomness, keeping the best, and refusing to go on."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from contrapose.data.batches import Batch, Data, Facts
from contrapose.errors import NonFinite, TemperatureInvalid
from contrapose.objectives import info_nce
from contrapose.training.interrupts import Stopped
from contrapose.training.method import Method, Stage, StageRecord, Terms, Update, View
from tests.training.children import started, weights
from tests.training.toys import PLAIN, ROWS, Tower, Toy, ToySettings, no_encoder, numbers, signals, table
from tests.training.toys_momentum import Esimcse, sentences

TOY = Toy("esimcse", Esimcse, sentences, lambda: Tower(dropout=0.5))  # dropout, a queue, a momentum copy, Adam
EPOCH = 7  # steps


class Pull(Method):
    """One matrix, one vector and one number, whose gradients are 1 throughout."""

    Settings = ToySettings

    def build(self, facts: Facts) -> None:
        self.matrix, self.vector = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))
        self.number = nn.Parameter(torch.ones(()))

    def training_step(self, batch: Batch) -> Terms:
        return {"sum": sum(parameter.sum() for parameter in self.parameters())}


def rows_only() -> Data:
    return table({"text": numbers(ROWS, 6)})


PULL = Toy("pull", Pull, rows_only, no_encoder)


# ------------------------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize(("rows", "sizes"), [(25, [4] * 6), (26, [4] * 6 + [2])])
def test_a_tail_of_one_row_is_left_out_and_a_longer_one_is_not(rows: int, sizes: list[int], tmp_path: Path) -> None:
    seen = []

    class Watched(Pull):
        def before_step(self, batch: Batch) -> None:
            seen.append(batch.rows)

    toy = Toy("pull", Watched, lambda: table({"text": numbers(rows, 6)}), no_encoder)
    toy.fit(started(tmp_path / "run"), steps=None)
    assert [len(batch) for batch in seen] == sizes
    assert len(torch.cat(seen).unique()) == sum(sizes)


def test_epochs_may_be_fractions(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    PULL.fit(folder, steps=None, epochs=1.5)
    assert [line["epoch"] for line in folder.metrics()] == [0] * EPOCH + [1] * 4  # 1.5 x 7, rounded up


def test_an_epoch_has_an_order_of_its_own(tmp_path: Path) -> None:
    seen = []

    class Watched(Pull):
        def before_step(self, batch: Batch) -> None:
            seen.append(batch.rows)

    Toy("pull", Watched, rows_only, no_encoder).fit(started(tmp_path / "run"), steps=2 * EPOCH)
    first, second = torch.cat(seen[:EPOCH]), torch.cat(seen[EPOCH:])
    assert not torch.equal(first, second)
    assert torch.equal(first.sort().values, second.sort().values)


# ------------------------------------------------------------------------------------------- rates, decay, clipping


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, 0.8535533905932737, 0.5, 0.1464466094067262]),
    ],
)
def test_the_rate_rises_and_falls_as_said_and_is_the_one_used(
    schedule: str, rates: list[float], tmp_path: Path
) -> None:
    folder = started(tmp_path / "run")
    settings = PLAIN | {"schedule": schedule, "warmup_steps": 2, "learning_rate": 1.0}
    model = PULL.fit(folder, steps=6, **settings)
    assert [line["learning_rate"] for line in folder.metrics()] == pytest.approx(rates)
    assert float(model.number.detach()) == pytest.approx(1 - sum(rates))  # every gradient is 1


def test_sgd_keeps_a_share_of_its_last_step(tmp_path: Path) -> None:
    model = PULL.fit(started(tmp_path / "run"), steps=3, learning_rate=1.0, sgd_momentum=0.5, **PLAIN)
    assert float(model.number.detach()) == pytest.approx(1 - (1 + 1.5 + 1.75))  # every gradient is 1


def test_only_matrices_decay_in_either_optimiser(tmp_path: Path) -> None:
    class Still(Pull):
        """No gradient but zeros: what moves is decay alone."""

        def build(self, facts: Facts) -> None:
            super().build(facts)
            self.other = nn.Linear(2, 2)
            nn.init.ones_(self.other.weight)
            nn.init.ones_(self.other.bias)

        def updates(self) -> list[Update]:
            own = [self.matrix, self.vector, self.number]
            return [
                Update(lambda batch: {"own": 0 * sum(p.sum() for p in own)}, own, "one"),
                Update(lambda batch: {"other": 0 * self.other(self.matrix).sum()}, self.other.parameters(), "two"),
            ]

    toy = Toy("still", Still, rows_only, no_encoder)
    model = toy.fit(started(tmp_path / "run"), steps=1, learning_rate=0.5, weight_decay=0.2, schedule="constant")
    shrunk = {name: float(parameter.detach().flatten()[0]) for name, parameter in model.named_parameters()}
    assert shrunk == pytest.approx({"matrix": 0.9, "vector": 1, "number": 1, "other.weight": 0.9, "other.bias": 1})


def test_an_update_moves_its_own_parameters_alone_though_the_optimiser_is_shared(tmp_path: Path) -> None:
    class Halves(Pull):
        def updates(self) -> list[Update]:
            return [Update(self.training_step, [self.matrix]), Update(self.training_step, [self.vector])]

    settings = PLAIN | {"learning_rate": 1.0}
    model = Toy("halves", Halves, rows_only, no_encoder).fit(started(tmp_path / "run"), steps=1, **settings)
    left = {name: float(parameter.detach().flatten()[0]) for name, parameter in model.named_parameters()}
    assert left == {"matrix": 0, "vector": 0, "number": 1}


def test_the_gradient_is_clipped_to_the_norm_that_is_set(tmp_path: Path) -> None:
    settings = PLAIN | {"clip_norm": 0.5, "learning_rate": 1.0}
    model = PULL.fit(started(tmp_path / "run"), steps=1, **settings)
    moved = torch.cat([1 - parameter.detach().flatten() for parameter in model.parameters()])
    assert float(moved.norm()) == pytest.approx(0.5, rel=1e-5)


def test_updates_without_terms_are_counted(tmp_path: Path) -> None:
    class Rests(Pull):
        def training_step(self, batch: Batch) -> Terms:
            return super().training_step(batch) if batch.step % 3 == 2 else {}

    folder = started(tmp_path / "run")
    Toy("rests", Rests, rows_only, no_encoder).fit(folder, steps=6)
    assert [line["skipped"] for line in folder.metrics()] == [1, 2, 2, 3, 4, 4]


# ---------------------------------------------------------------------------------------------------- randomness


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path: Path) -> None:
    runs = {}
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        folder = started(tmp_path / name)
        TOY.fit(folder, seed=seed)
        runs[name] = weights(folder)
    assert runs["one"] == runs["same"]
    assert runs["one"] != runs["other"]


def test_the_random_state_of_the_caller_is_left_alone(tmp_path: Path) -> None:
    def states() -> tuple:
        drawn = np.random.get_state()
        return torch.get_rng_state().tolist(), random.getstate(), drawn[1].tolist(), drawn[2:]

    before = states()
    TOY.fit(started(tmp_path / "whole"))
    with pytest.raises(Stopped):
        TOY.fit(started(tmp_path / "stopped"), reporter=signals(signal.SIGTERM, after=5))
    assert states() == before


def test_the_random_state_of_the_caller_changes_nothing(tmp_path: Path) -> None:
    one, other = started(tmp_path / "one"), started(tmp_path / "other")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        TOY.fit(one)
        torch.manual_seed(2)
        TOY.fit(other)
    assert weights(one) == weights(other)


def test_dropout_differs_from_step_to_step(tmp_path: Path) -> None:
    masks = []

    class Watched(Pull):
        def training_step(self, batch: Batch) -> Terms:
            masks.append(nn.functional.dropout(torch.ones(64), training=self.training))
            return super().training_step(batch)

    Toy("watched", Watched, rows_only, no_encoder).fit(started(tmp_path / "run"), steps=3)
    assert len({tuple(mask.tolist()) for mask in masks}) == 3


# ----------------------------------------------------------------------------------------------- the best weights


class Scores:
    """Development scores in a fixed order, and the weights that each was given for."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.weights = list(scores), []

    def __call__(self, model: Method) -> float:
        self.weights.append(model.encoder.layers[0].weight.clone())
        return self.scores[len(self.weights) - 1]


def test_the_weights_with_the_best_score_are_kept(tmp_path: Path) -> None:
    folder, select = started(tmp_path / "run"), Scores(0.1, 0.9, 0.3, 0.9)  # of two equal scores the first
    model = TOY.fit(folder, steps=8, select=select, select_every=2)
    assert torch.equal(model.encoder.layers[0].weight, select.weights[1])
    _, facts = folder.last_checkpoint()
    assert facts["finished"][0]["figures"] == {"selected": 0.9}
    assert [line["selected"] for line in folder.metrics() if "selected" in line] == [0.1, 0.9, 0.3, 0.9]


def test_the_last_step_is_scored_too(tmp_path: Path) -> None:
    select = Scores(0.1, 0.9)
    TOY.fit(started(tmp_path / "run"), steps=5, select=select, select_every=4)
    assert len(select.weights) == 2


def test_development_scores_are_taken_without_dropout_and_training_goes_on_with_it(tmp_path: Path) -> None:
    modes = []

    class Watched(Esimcse):
        def before_step(self, batch: Batch) -> None:
            modes.append(self.training)
            super().before_step(batch)

    def select(model: Method) -> float:
        modes.append(model.training)
        return 0.0

    toy = Toy("watched", Watched, sentences)
    toy.fit(started(tmp_path / "run"), steps=2, select=select, select_every=1)
    assert modes == [True, False, True, False]


def test_patience_stops_early(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    TOY.fit(folder, steps=20, select=Scores(0.1, 0.9, 0.3, 0.2, 1.0), select_every=2, patience=2)
    assert folder.metrics()[-1]["total_step"] == 8


def test_terms_of_a_stage_that_stopped_early_are_not_told_in_the_next(tmp_path: Path) -> None:
    class TwoStages(Pull):
        class Settings(ToySettings):
            term: str = "first"

        def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
            second = self.settings.model_copy(update={"term": "second", "patience": None})
            return [Stage("one"), Stage("two", second), None][len(finished)]

        def training_step(self, batch: Batch) -> Terms:
            return {self.settings.term: sum(parameter.sum() for parameter in self.parameters())}

    folder = started(tmp_path / "run")
    settings = {"steps": 6, "log_every": 4, "select_every": 1, "patience": 1}
    Toy("two stages", TwoStages, rows_only, no_encoder).fit(folder, select=lambda model: 0.0, **settings)
    told = [line for line in folder.metrics() if "terms" in line]
    assert [(line["stage"], set(line["terms"])) for line in told] == [("two", {"second"})] * 2


def test_a_run_out_of_patience_and_stopped_does_not_go_on_when_resumed(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    settings = {"steps": 20, "select_every": 2, "patience": 2}
    with pytest.raises(Stopped):
        TOY.fit(folder, select=Scores(0.1, 0.9, 0.3, 0.2), reporter=signals(signal.SIGTERM, after=8), **settings)
    TOY.fit(folder, select=Scores(1.0), **settings)
    assert folder.metrics()[-1]["total_step"] == 8


def test_the_best_weights_survive_a_stop(tmp_path: Path) -> None:
    folder, select = started(tmp_path / "run"), Scores(0.1, 0.9, 0.3, 0.2)
    settings = {"steps": 8, "select_every": 2}
    with pytest.raises(Stopped):
        TOY.fit(folder, select=select, reporter=signals(signal.SIGTERM, after=5), **settings)
    model = TOY.fit(folder, select=select, **settings)
    assert torch.equal(model.encoder.layers[0].weight, select.weights[1])


# ------------------------------------------------------------------------------------------------------ NaN


class Poisoned(Esimcse):
    """NaN at the fifth step: in one of its two terms, in that term's gradient alone, or in what a view gives."""

    class Settings(Esimcse.Settings):
        where: str = "term"

    def embed(self, view: View) -> Tensor:
        rows = super().embed(view)
        poisoned = self.settings.where == ("view" if view.encoder == "momentum" else "anchors")
        return rows * float("nan") if poisoned and self.fifth else rows

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        terms = super().objective(embeddings, batch)
        weight = self.encoder.layers[3].weight
        poison = {"term": weight.sum() * float("nan"), "gradient": (weight - weight).sum().sqrt()}
        return terms | {"spread": poison.get(self.settings.where, weight.norm()) if self.fifth else weight.norm()}

    def before_step(self, batch: Batch) -> None:
        super().before_step(batch)
        self.fifth = batch.step == 4


NAMED = {
    "term": "spread became NaN.",
    "gradient": "the gradient of contrast and spread became NaN, first in encoder.layers.3.weight.",
    "anchors": "contrast and spread cannot be computed: anchors hold NaN in 4 of 4 rows (first: row 0).",
    "view": "view 'stored' became NaN.",
}


@pytest.mark.parametrize(("where", "named"), NAMED.items(), ids=NAMED)
def test_nan_is_named_with_its_step_and_the_checkpoint_is_kept(where: str, named: str, tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    with pytest.raises(NonFinite) as raised:
        Toy("poisoned", Poisoned, sentences).fit(folder, where=where)
    assert str(raised.value).startswith(
        f"step 5: {named} step-000000003.safetensors, the last good checkpoint, is kept"
    )
    tensors, facts = folder.last_checkpoint()
    assert facts["total_step"] == 3
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_nan_before_the_first_checkpoint_says_that_there_is_none(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    with pytest.raises(NonFinite, match=r"step 5: spread became NaN\. No checkpoint had been written yet"):
        Toy("poisoned", Poisoned, sentences).fit(folder, checkpoint_every=100)
    assert folder.checkpoint_files() == []


def test_a_run_that_met_nan_resumes_from_the_last_good_checkpoint_to_the_same_bits(tmp_path: Path) -> None:
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy = Toy("poisoned", Poisoned, sentences)
    toy.fit(unbroken, where="nowhere")
    with pytest.raises(NonFinite):
        toy.fit(broken, where="view")
    toy.fit(broken, where="nowhere")
    assert weights(broken) == weights(unbroken)


def test_a_learned_temperature_that_overflows_is_named_with_its_step(tmp_path: Path) -> None:
    class Learned(Esimcse):
        def build(self, facts: Facts) -> None:
            super().build(facts)
            self.log_temperature = nn.Parameter(torch.zeros(()))

        def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
            if batch.step == 4:
                self.log_temperature.data.fill_(1000.0)
            one, other = embeddings["sentence"], embeddings["repeated"]
            return {"contrast": info_nce(one, other, temperature=self.log_temperature.exp())}

    with pytest.raises(TemperatureInvalid, match="step 5: temperature must be a positive number"):
        Toy("learned", Learned, sentences).fit(started(tmp_path / "run"))


def test_weights_with_nan_are_not_saved_and_named_with_their_step(tmp_path: Path) -> None:
    class Breaks(Pull):
        def after_step(self, embeddings: dict[str, Tensor], batch: Batch) -> None:
            if batch.step == 5:
                self.vector.fill_(float("nan"))

    folder = started(tmp_path / "run")
    with pytest.raises(NonFinite, match="step 6: vector became NaN"):
        Toy("breaks", Breaks, rows_only, no_encoder).fit(folder)
    _, facts = folder.last_checkpoint()
    assert facts["total_step"] == 3

"""Collapse is named, on a trend; an anisotropic start, short batches and noise are not."""

from __future__ import annotations

import json
import math
import random
import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import contrapose
from contrapose.data.batches import Batch, Data, Facts
from contrapose.objectives import info_nce
from contrapose.training.health import EVERY, ROWS, TREND, WINDOW, Health, embedding_figures
from contrapose.training.interrupts import Stopped
from contrapose.training.method import Stage, StageRecord, Terms, View, ViewMethod
from contrapose.training.progress import Silent
from tests.text.tiny import WORDS
from tests.training.children import figures, started
from tests.training.toys import Tower, Toy, ToySettings, numbers, signals, table

B, D = 64, 128
Reading = Callable[[int], Tensor]


def even(seed: int, rows: int = B, dim: int = D) -> Tensor:
    """Rows in all directions."""
    return numbers(rows, dim, seed=seed)


def told(readings: Iterable[Tensor], health: Health | None = None) -> list[tuple[int, str]]:
    """What is said of one view, with the number of the reading from 0 at which it is said."""
    health = health or Health()
    said = []
    for number, rows in enumerate(readings):
        said += [(number, verdict) for verdict in health.follow(1 + number * EVERY, {"text": rows}, {}, {})]
    return said


def turned(before: Reading, after: Reading, at: int = 4, readings: int = 20) -> list[Tensor]:
    """One kind of rows, and from reading `at` on another."""
    return [(after if number >= at else before)(number) for number in range(readings)]


# ------------------------------------------------------------------------------------------------------- collapse


def one_point(seed: int) -> Tensor:
    return torch.ones(D) + 0.01 * even(seed)


def one_line(seed: int) -> Tensor:
    return torch.ones(D) * even(seed, dim=1).sign() * (1 + 0.1 * even(seed, dim=1)) + 0.01 * even(seed)


def equal(seed: int) -> Tensor:
    return torch.ones(B, D)


@pytest.mark.parametrize("collapse", [one_point, one_line, equal])
def test_collapse_is_named_at_the_third_reading_with_its_figures(collapse: Reading) -> None:
    ((number, verdict),) = told(turned(even, collapse))
    assert number == 4 + TREND - 1
    assert verdict.startswith("collapsed: effective rank ")
    assert f" of {B - 1}, mean cosine " in verdict


def test_rows_that_became_one_up_to_noise_are_a_collapse_though_their_rank_is_as_high_as_before() -> None:
    (_, verdict), *_ = told(turned(even, one_point))
    now, start = float(verdict.split()[3]), float(verdict.split("at the start rank ")[1].split()[0])
    assert now == pytest.approx(start, rel=0.05)
    assert "mean cosine 1.000" in verdict


def test_rows_that_were_equal_up_to_rounding_from_the_start_are_a_collapse() -> None:
    ((number, verdict),) = told(torch.ones(D) + 1e-7 * even(n) for n in range(8))
    assert (number, verdict.split(":")[0]) == (TREND, "collapsed")


@pytest.mark.parametrize("odd", [1, 2])
def test_odd_batches_make_no_verdict(odd: int) -> None:
    assert told([one_point(n) if n % 4 >= 4 - odd else even(n) for n in range(40)]) == []


def test_a_verdict_is_said_once_and_stands_until_the_rows_differ_again() -> None:
    health = Health()
    standing = []
    for number, rows in enumerate([*turned(even, one_point, at=2, readings=8), even(8), even(9)]):
        health.follow(1 + number * EVERY, {"text": rows}, {}, {})
        standing.append(list(health.verdicts))
    assert standing == [[]] * 4 + [["collapsed"]] * 4 + [[]] * 2
    assert len(told(turned(even, one_point))) == 1


def test_a_collapse_of_the_second_view_alone_is_named() -> None:
    health = Health()
    said = [
        verdict
        for number in range(8)
        for verdict in health.follow(
            1 + number * EVERY, {"image": even(number), "text": (one_point if number else even)(number)}, {}, {}
        )
    ]
    assert [verdict.split(":")[0] for verdict in said] == ["collapsed in view 'text'"]


# ------------------------------------------------------------------------------------------------ collapse in part


def half_silent(seed: int) -> Tensor:
    """Every second dimension constant and not 0, under rows of various lengths."""
    rows = even(seed) * (1 + 0.3 * even(seed + 1000, dim=1)).abs()
    rows[:, ::2] = 0.5
    return rows


def half_faint(seed: int) -> Tensor:
    return even(seed) * torch.ones(D).index_fill(0, torch.arange(0, D, 2), 0.05)


@pytest.mark.parametrize("collapse", [half_silent, half_faint])
def test_half_the_dimensions_dead_is_a_collapse_in_part_and_they_are_counted(collapse: Reading) -> None:
    ((number, verdict),) = told(turned(even, collapse))
    assert number == 4 + TREND - 1
    assert verdict.startswith("collapsed in part: effective rank ")
    assert "64 of 128 dimensions" in verdict


def test_half_the_axes_dead_is_a_collapse_in_part_in_whatever_directions_they_lie() -> None:
    rotation = torch.linalg.qr(numbers(32, 32, seed=7)).Q
    keep = torch.ones(32).index_fill(0, torch.arange(16), 0.01)
    ((_, verdict),) = told(
        turned(lambda n: even(n, 256, 32), lambda n: (even(n, 256, 32) * keep) @ rotation, readings=10)
    )
    assert verdict.startswith("collapsed in part")
    assert "0 of 32 dimensions and 16 of 32 principal axes dead" in verdict


def test_a_quarter_of_the_dimensions_may_fall_silent() -> None:
    keep = torch.ones(D).index_fill(0, torch.arange(D // 4), 0.0)
    assert told(turned(even, lambda n: even(n) * keep)) == []


def test_half_the_dimensions_constant_from_the_start_is_named_too() -> None:
    (number, verdict), *_ = told(half_silent(n) for n in range(8))
    assert (number, "64 of 128 dimensions" in verdict) == (TREND, True)


def test_a_collapse_in_part_that_becomes_whole_is_named_again() -> None:
    kinds = [
        verdict.split(":")[0] for _, verdict in told(turned(even, half_silent, 2, 8) + [one_point(n) for n in range(8)])
    ]
    assert kinds == ["collapsed in part", "collapsed"]


# ---------------------------------------------------------------------------------------- what is not a collapse


def narrow(seed: int) -> Tensor:
    """Vectors that are nearly equal, and differ most along one direction: a truncated encoder."""
    return 5 * torch.ones(D) + 0.02 * even(seed) + 0.3 * even(seed, dim=1) * numbers(D, seed=5)


def test_an_encoder_that_starts_narrow_and_stays_so_is_not_called_collapsed() -> None:
    assert embedding_figures({"text": narrow(0)})["mean_cosine"] > 0.99
    assert embedding_figures({"text": narrow(0)})["effective_rank"] < 3
    assert told(narrow(n) for n in range(40)) == []


def test_an_encoder_that_starts_narrow_and_learns_one_direction_first_is_not_called_collapsed() -> None:
    """So simcse does from four layers of MiniLM: rank 10, then 3, while the loss falls."""

    def learning(seed: int) -> Tensor:
        return 5 * torch.ones(D) + 0.05 * even(seed) + 5 * even(seed, dim=1) * numbers(D, seed=5)

    def faint(seed: int) -> Tensor:
        return 5 * torch.ones(D) + 0.05 * even(seed)

    ranks = [embedding_figures({"text": rows(0)})["effective_rank"] for rows in (faint, learning)]
    assert ranks[0] > 30
    assert ranks[1] < 2
    assert told(turned(faint, learning)) == []


@pytest.mark.parametrize("rows", [2, 3, 4, 8, 64])
@pytest.mark.parametrize("start", [even, narrow])
def test_small_batches_that_only_differ_by_chance_raise_no_alarm(start: Reading, rows: int) -> None:
    assert told(start(n)[:rows] for n in range(100)) == []


def test_a_small_batch_needs_a_longer_trend() -> None:
    ((number, _),) = told(turned(lambda n: even(n)[:4], lambda n: one_point(n)[:4]))
    assert number == 4 + 6 - 1  # six readings of four rows


def test_the_short_last_batch_of_an_epoch_is_passed_over() -> None:
    health, read = Health(), []
    for step in range(1, 31):
        health.follow(step, {"text": even(step)[: 2 if step % 5 == 1 and step > 1 else B]}, {}, {})
        read.append(health.last)
    assert sorted(set(read)) == [1, 7, 12, 17, 22, 27]


@pytest.mark.parametrize(("first", "rows", "dim"), [(64, 40, D), (4, 250, 1024)])
def test_batches_of_another_size_than_the_first_are_compared_fairly(first: int, rows: int, dim: int) -> None:
    assert told([even(0, first, dim)] + [even(n, rows, dim) for n in range(1, 20)]) == []
    points = [torch.ones(dim) + 0.01 * even(n, rows, dim) for n in range(1, 9)]
    (_, verdict), *_ = told([even(0, first, dim), *points])
    assert verdict.startswith("collapsed:")


def test_an_encoder_whose_output_spans_few_dimensions_from_the_start_is_not_called_collapsed() -> None:
    thin = numbers(6, D, seed=3)
    assert told(even(n, dim=6) @ thin for n in range(20)) == []


# ------------------------------------------------------------------------------------------------------ the loss


def above(losses: Sequence[float], chance: float = 4.16) -> list[tuple[int, str]]:
    health = Health()
    return [
        (number, verdict)
        for number, loss in enumerate(losses)
        for verdict in health.follow(1 + number * EVERY, {}, {"info_nce": loss, "norm": 9.0}, {"info_nce": chance})
    ]


def noise(deviation: float, seed: int) -> list[float]:
    return (deviation * numbers(60, seed=seed)).tolist()


def test_a_loss_that_stays_above_chance_is_a_warning_once() -> None:
    ((number, verdict),) = above([4.5 + n for n in noise(0.1, 0)])
    assert number == WINDOW - 1
    assert verdict.startswith("above chance: info_nce 4.")
    assert "chance 4.160" in verdict


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("deviation", [0.01, 0.5])
def test_a_loss_at_chance_is_none(deviation: float, seed: int) -> None:
    assert above([4.16 + n for n in noise(deviation, seed)]) == []


def test_a_loss_on_its_way_down_is_none() -> None:
    assert above([4.16 + 2 * math.exp(-n / 10) for n in range(60)]) == []


def test_a_loss_far_below_chance_is_none() -> None:
    assert above([0.2 + n for n in noise(0.1, 0)]) == []


# ------------------------------------------------------------------------------------------------------- figures


def test_figures_of_a_known_batch() -> None:
    corners = torch.eye(4).repeat_interleave(2, dim=0)
    found = embedding_figures({"anchor": corners, "positive": corners.roll(2, 0)})
    assert found["alignment"] == pytest.approx(2)
    assert found["mean_cosine"] == pytest.approx(1 / 7)  # of seven others one is equal
    assert found["effective_rank"] == pytest.approx(3, rel=1e-5)
    assert found["most_rank"] == 4
    assert found["uniformity"] == pytest.approx(math.log((4 + 24 * math.exp(-4)) / 28), rel=1e-5)


def test_rows_about_their_mean_span_one_direction_fewer_than_they_are() -> None:
    assert embedding_figures({"text": numbers(4, 5)})["most_rank"] == 3


def test_views_without_vectors_have_no_figures() -> None:
    assert embedding_figures({}) == embedding_figures({"score": torch.ones(8)}) == {}
    assert embedding_figures({"score": torch.ones(8, 1), "single": torch.ones(1, 8)}) == {}


def test_of_k_vectors_a_row_each_is_a_row_and_of_many_rows_the_first_are_read() -> None:
    crops = numbers(4, 3, 5)
    assert embedding_figures({"crops": crops}) == embedding_figures({"crops": crops.flatten(0, 1)})
    many = numbers(ROWS + 50, 5)
    assert embedding_figures({"text": many}) == embedding_figures({"text": many[:ROWS]})


def test_views_of_different_sizes_have_no_alignment() -> None:
    assert "alignment" not in embedding_figures({"text": numbers(ROWS + 50, 5), "queue": numbers(ROWS + 60, 5)})


def test_what_is_remembered_goes_through_json_and_on_as_if_never_stopped() -> None:
    health = Health()
    sequence = turned(even, one_point, at=2, readings=8)
    losses = [4.6 + n for n in noise(0.1, 0)]

    def follow(health: Health, number: int) -> list[str]:
        return health.follow(1 + number * EVERY, {"a": sequence[number]}, {"loss": losses[number]}, {"loss": 4.16})

    for number in range(3):
        follow(health, number)
    resumed = Health.of(json.loads(json.dumps(asdict(health))))
    for number in range(3, 8):
        assert follow(resumed, number) == follow(health, number)
        assert asdict(resumed) == asdict(health)
    assert health.verdicts


# ------------------------------------------------------------------------------------------------- through the loop


class Contrast(ViewMethod):
    """InfoNCE over noisy copies; `pull` draws the first `pulled` of the dimensions together."""

    class Settings(ToySettings):
        batch_size: int = 32
        steps: int | None = 50
        log_every: int = 10
        checkpoint_every: int = 10
        temperature: float = 0.1
        pull: float = 0.0
        pulled: float = 0.5
        stages: int = 1

    def build(self, facts: Facts) -> None:
        self.head = nn.Identity()

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        number, before = len(finished), finished[-1].name if finished else "initial"
        return None if number == self.settings.stages else Stage(f"stage {number}", start=before)

    def views(self, batch: Batch) -> dict[str, View]:
        text = batch["text"]
        return {"anchor": View(text), "positive": View(text + 0.3 * batch.uniform(*text.shape[1:]).to(text))}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        anchor = embeddings["anchor"]
        drawn = nn.functional.normalize(anchor)[:, : int(self.settings.pulled * anchor.shape[1])]
        return {
            "contrast": info_nce(anchor, embeddings["positive"], temperature=self.settings.temperature),
            "pull": self.settings.pull * drawn.var(dim=0).sum(),
        }

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"contrast": math.log(len(batch))}


class Narrow(Tower):
    """All vectors begin with a mean cosine of 0.999."""

    def __init__(self) -> None:
        super().__init__(32, width=16)
        nn.init.constant_(self.layers[3].bias, 10.0)


def rows() -> Data:
    return table({"text": numbers(320, 16)})


TOY = Toy("contrast", Contrast, rows, lambda: Tower(32, width=16), {"learning_rate": 0.02})
COLLAPSES = {
    "whole": ({"pull": 100.0, "pulled": 1.0, "temperature": 100.0}, "collapsed: "),
    "half": ({"pull": 100.0}, "collapsed in part: "),
}


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.figures: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    def step(self, step: int, line: str | None) -> None:
        self.figures += [] if line is None else [line]


@pytest.mark.parametrize(("settings", "named"), COLLAPSES.values(), ids=COLLAPSES)
def test_a_run_that_collapses_is_named_within_50_steps(settings: dict, named: str, tmp_path: Path) -> None:
    folder, said = started(tmp_path / "run"), Said()
    TOY.fit(folder, reporter=said, **settings, log_every=1000)
    spoken = [line for line in said.lines if named in line]
    assert spoken
    step = int(spoken[0].removeprefix("Step ").split(":")[0])
    written = next(line for line in folder.metrics() if line["verdicts"])
    assert written["step"] <= step <= 50  # a line out of turn, at the step itself
    assert next(iter(written["verdicts"].values())).startswith("collapsed")
    assert any(line.startswith("collapsed") for line in said.figures)


def test_a_run_that_learns_has_no_verdict(tmp_path: Path) -> None:
    folder, said = started(tmp_path / "run"), Said()
    TOY.fit(folder, reporter=said)
    assert [line["verdicts"] for line in folder.metrics()] == [{}] * 5
    assert [line for line in said.lines if line.startswith("Step")] == []


def test_a_run_that_starts_narrow_has_no_verdict(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    Toy("narrow", Contrast, rows, Narrow, {"learning_rate": 0.02}).fit(folder, steps=100, log_every=1)
    lines = folder.metrics()
    assert lines[0]["geometry"]["mean_cosine"] > 0.998
    assert lines[-1]["terms"]["contrast"] < 0.5 * lines[0]["terms"]["contrast"]
    assert [line["verdicts"] for line in lines] == [{}] * 100


@pytest.mark.parametrize("after", [8, 23, 40])
def test_a_run_that_collapses_and_is_stopped_has_the_verdicts_of_an_unbroken_one(after: int, tmp_path: Path) -> None:
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    settings, _ = COLLAPSES["half"]
    TOY.fit(unbroken, **settings)
    with pytest.raises(Stopped):
        TOY.fit(broken, reporter=signals(signal.SIGTERM, after), **settings)
    TOY.fit(broken, **settings)
    assert any(line["verdicts"] for line in figures(unbroken))
    assert figures(broken) == figures(unbroken)


def test_a_stage_is_compared_with_its_own_start(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    settings, _ = COLLAPSES["half"]
    TOY.fit(folder, **settings | {"stages": 2, "steps": 40, "learning_rate": 0.04})
    verdicts = {name: [] for name in ("stage 0", "stage 1")}
    for line in folder.metrics():
        verdicts[line["stage"]].append(line["verdicts"])
    assert verdicts["stage 0"][-1]
    assert verdicts["stage 1"] == [{}] * 4


def test_reading_changes_no_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, unread = started(tmp_path / "read"), started(tmp_path / "unread")
    settings, _ = COLLAPSES["half"]
    one = TOY.fit(read, **settings)
    monkeypatch.setattr(Health, "follow", lambda *_: [])
    other = TOY.fit(unread, **settings)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(one.parameters(), other.parameters(), strict=True))


# ----------------------------------------------------------------------------------------------- with a transformer


def sentences() -> list[str]:
    drawn = random.Random(0)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(3, 8))) for _ in range(320)]


def test_simcse_at_temperature_100_and_rate_1_is_named_in_metrics_and_report(tiny_bert: Path, tmp_path: Path) -> None:
    hot = {"temperature": 100.0, "learning_rate": 1.0, "steps": 50, "batch_size": 8}
    run = contrapose.train(
        "simcse", sentences(), encoder=str(tiny_bert), out=tmp_path / "run", progress=False, settings=hot
    )
    verdict = run.folder.metrics()[-1]["verdicts"]["collapsed"]
    assert verdict.startswith("collapsed: effective rank ")
    assert verdict in run.folder.report.read_text(encoding="utf-8")

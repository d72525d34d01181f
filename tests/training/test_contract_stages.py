"""Training in stages through the real loop: teachers, rounds, tasks with a memory, growth with candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts
from contrapose.training.checkpoint import read_checkpoint
from contrapose.training.method import Method, Stage, StageRecord, Terms
from contrapose.training.run_folder import RunFolder
from tests.training import toys_stages
from tests.training.children import started
from tests.training.toys import PLAIN, ROWS, Tower, Toy, ToySettings, no_encoder, numbers, table, tower

LR = 0.1


def stage(folder: RunFolder, name: str) -> dict[str, Tensor]:
    tensors, _ = read_checkpoint(folder.stage_file(name))
    return tensors


def records(folder: RunFolder) -> dict[str, Mapping[str, float]]:
    """The figures of each finished stage."""
    _, facts = folder.last_checkpoint()
    return {record["name"]: record["figures"] for record in facts["finished"]}


def test_a_student_sees_the_scores_of_its_teacher_row_by_row(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    student = Toy("dse", toys_stages.Dse, toys_stages.scored_pairs).fit(folder)
    teacher = toys_stages.PairTeacher(toys_stages.PairTeacher.Settings(), tower())
    teacher.build(Facts(ROWS))
    teacher.load_state_dict(stage(folder, "teacher"))
    columns = toys_stages.scored_pairs().columns
    assert torch.equal(student.teacher, teacher.scores(columns["left"], columns["right"]))


def test_a_teacher_has_settings_of_its_own(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    Toy("dse", toys_stages.Dse, toys_stages.scored_pairs).fit(folder)
    taken = [line["stage"] for line in folder.metrics()]
    assert taken == ["teacher"] * 5 + ["student"] * 11


def test_rounds_start_from_the_first_weights_and_aim_at_the_last_ones(tmp_path: Path) -> None:
    """By hand, in plain torch: theta_r = theta_0 - lr grad L(theta_0; M(theta_(r-1)))."""
    columns = toys_stages.dictionary().columns | {"definition": numbers(ROWS, 6).double()}
    data = table(columns, categories=toys_stages.dictionary().categories)
    folder, start = started(tmp_path / "run"), {}

    class Watched(toys_stages.DefsentPlus):
        def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
            start.setdefault("encoder", {name: p.detach().clone() for name, p in self.encoder.named_parameters()})
            return [torch.arange(len(data))]

    toy = Toy("defsent_plus", Watched, lambda: data, lambda: Tower(dropout=0))
    toy.fit(folder, steps=1, learning_rate=LR, **PLAIN)

    theta = start["encoder"]
    encoder = Tower(dropout=0).double()
    for number in (1, 2, 3):
        vectors = torch.func.functional_call(encoder, theta, data.columns["definition"]).detach()
        entries = torch.stack([vectors[data.columns["entry"] == entry].mean(dim=0) for entry in range(9)])
        encoder.load_state_dict(start["encoder"])
        loss = functional.cross_entropy(encoder(data.columns["definition"]) @ entries.T, data.columns["entry"])
        gradients = torch.autograd.grad(loss, list(encoder.parameters()))
        theta = {name: p - LR * g for (name, p), g in zip(start["encoder"].items(), gradients, strict=True)}
        left = stage(folder, f"round-{number}")
        for name, tensor in theta.items():
            torch.testing.assert_close(left[f"encoder.{name}"], tensor, rtol=1e-9, atol=1e-12)


def test_memory_teacher_and_head_pass_from_task_to_task(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    toy = Toy("coconut", toys_stages.Coconut, toys_stages.sounds)
    last = toy.fit(folder)
    before = stage(folder, "task-1")
    assert last.head.weight.shape[0] == 6
    assert torch.equal(last.memory[:4], before["memory"])
    for name, tensor in last.teacher.module.state_dict().items():
        assert torch.equal(tensor, before[f"encoder.{name}"])


def test_a_task_starts_where_the_one_before_ended(tmp_path: Path) -> None:
    start = []

    class Watched(toys_stages.Coconut):
        def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[Tensor]:
            if epoch == 0:
                start.append({name: tensor.clone() for name, tensor in self.state_dict().items()})
            return super().batches(data, epoch, generator)

    folder = started(tmp_path / "run")
    Toy("coconut", Watched, toys_stages.sounds).fit(folder)
    for task in (1, 2):
        before = stage(folder, f"task-{task - 1}")
        assert torch.equal(start[task]["head.weight"][: 2 * task], before["head.weight"])
        assert torch.equal(start[task]["encoder.layers.0.weight"], before["encoder.layers.0.weight"])


def test_the_memory_holds_rows_of_its_class(tmp_path: Path) -> None:
    model = Toy("coconut", toys_stages.Coconut, toys_stages.sounds).fit(started(tmp_path / "run"))
    columns = toys_stages.sounds().columns
    for label, remembered in enumerate(model.memory):
        of_class = columns["sound"][columns["label"] == label]
        assert all((of_class == row).all(dim=1).any() for row in remembered)


def test_growth_takes_the_candidate_with_the_best_figure(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    model = Toy("growclip", toys_stages.Growclip, toys_stages.captioned, no_encoder).fit(folder)
    held_out = {name: figures["held_out"] for name, figures in records(folder).items()}
    best = min(("try-none", "try-image", "try-text"), key=held_out.get)
    widths = {name: encoder.enter.out_features for name, encoder in model.towers.items()}
    grown = {"try-none": {}, "try-image": {"image": 7}, "try-text": {"text": 7}}[best]
    assert widths == {"image": 4, "text": 4} | grown
    taken = [line["stage"] for line in folder.metrics()]
    assert [taken.count(name) for name in held_out] == [11, 4, 4, 4, 11]


def test_the_grown_model_inherits_from_the_small_one_and_not_from_a_candidate(tmp_path: Path) -> None:
    class Still(toys_stages.Growclip):
        """The grown model does not move, so that what it inherited can be seen; "text" always wins."""

        def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
            worse = [
                StageRecord(record.name, record.steps, {"held_out": float(record.name != "try-text")})
                for record in finished
            ]
            stage = super().next_stage(worse)
            if stage is None or stage.name != "grown":
                return stage
            settings = stage.settings.model_copy(update={"learning_rate": 0.0})
            return Stage(stage.name, settings, stage.steps, stage.rows, stage.start, stage.previous)

    folder = started(tmp_path / "run")
    model = Toy("growclip", Still, toys_stages.captioned, no_encoder).fit(folder, inherit=1.0)
    small = stage(folder, "small")
    assert torch.equal(model.towers["text"].enter.weight[:4], small["towers.text.enter.weight"])
    rows = toys_stages.captioned().columns["text"]
    old = toys_stages.Residual(4)
    old.load_state_dict({name: small[f"towers.text.{name}"] for name in old.state_dict()})
    torch.testing.assert_close(model.towers["text"](rows), old(rows))  # growing alone changes no embedding


class Continued(Method):
    """A second stage that starts from the first one's weights and lets a teacher remember them."""

    Settings = ToySettings

    def build(self, facts: Facts) -> None:
        self.register_buffer("remembered", torch.zeros(5, 5))

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        return [Stage("first"), Stage("second", start="first"), None][len(finished)]

    def prepare(self, data: Data, previous: Method | None) -> None:
        if previous is not None:
            self.remembered.copy_(self.encoder.layers[3].weight)

    def training_step(self, batch: Batch) -> Terms:
        return {"norm": self.encoder(batch["text"]).square().sum()}


def test_prepare_sees_the_weights_that_a_stage_starts_with_and_what_it_sets_stays(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    toy = Toy("continued", Continued, lambda: table({"text": numbers(ROWS, 6)}))
    model = toy.fit(folder)
    assert torch.equal(model.remembered, stage(folder, "first")["encoder.layers.3.weight"])
    assert not torch.equal(model.remembered, model.encoder.layers[3].weight)


def test_prepare_draws_the_same_whether_or_not_a_stage_came_before(tmp_path: Path) -> None:
    """What `prepare` draws depends on seed and stage, not on how many numbers the model before used up when it was built."""
    drawn = {}

    class Draws(Continued):
        def build(self, facts: Facts) -> None:
            super().build(facts)
            torch.rand(self.settings.batch_size)

        def prepare(self, data: Data, previous: Method | None) -> None:
            drawn.setdefault(self.settings.batch_size, []).append(torch.rand(3))

    for size in (4, 5):
        toy = Toy("draws", Draws, lambda: table({"text": numbers(ROWS, 6)}))
        toy.fit(started(tmp_path / f"{size}"), steps=1, batch_size=size)
    assert torch.equal(drawn[4][1], drawn[5][1])
    assert not torch.equal(drawn[4][0], drawn[4][1])


def test_the_model_of_a_finished_stage_is_in_evaluation_mode(tmp_path: Path) -> None:
    modes = []

    class Watched(Continued):
        def prepare(self, data: Data, previous: Method | None) -> None:
            super().prepare(data, previous)
            modes.append(previous is not None and previous.training)

    toy = Toy("watched", Watched, lambda: table({"text": numbers(ROWS, 6)}))
    last = toy.fit(started(tmp_path / "run"))
    assert modes == [False, False]
    assert not last.training

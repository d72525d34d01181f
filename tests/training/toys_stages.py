"""Training in several stages (dse, defsent_plus, coconut, growclip)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts
from contrapose.negatives import MomentumCopy
from contrapose.objectives import info_nce
from contrapose.training.encoder import Encoder
from contrapose.training.method import Method, Stage, StageRecord, Terms, View, ViewMethod
from tests.training.toys import ROWS, WIDTH, Toy, ToySettings, no_encoder, numbers, table

CLASSES, TASKS = 6, 3  # two new classes a task


def everything(data: Data) -> LongTensor:
    return torch.arange(len(data))


class PairTeacher(Method):
    """A slow scorer that reads both sides at once."""

    class Settings(ToySettings):
        hidden: int = 7

    def build(self, facts: Facts) -> None:
        self.scorer = nn.Sequential(nn.Linear(2 * WIDTH, self.settings.hidden), nn.ReLU())
        self.out = nn.Linear(self.settings.hidden, 1)

    def scores(self, left: Tensor, right: Tensor) -> Tensor:
        return self.out(self.scorer(torch.cat([left, right], dim=1))).squeeze(1)

    def training_step(self, batch: Batch) -> Terms:
        return {"task": functional.mse_loss(self.scores(batch["left"], batch["right"]), batch["score"])}


class Dse(Method):
    """Learns the scores of a teacher, which is a stage of another method with other settings."""

    class Settings(ToySettings):
        share: float = 0.5  # of the teacher in the loss

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        teacher = Stage("teacher", PairTeacher.Settings(steps=5, seed=self.settings.seed), method=PairTeacher)
        return [teacher, Stage("student"), None][len(finished)]

    def build(self, facts: Facts) -> None:
        self.head = nn.Linear(4 * self.encoder.dim, 1)
        self.register_buffer("teacher", torch.zeros(facts.rows))

    def prepare(self, data: Data, previous: Method | None) -> None:
        rows = everything(data)
        with torch.no_grad():
            self.teacher.copy_(previous.scores(data.columns["left"][rows], data.columns["right"][rows]))

    def training_step(self, batch: Batch) -> Terms:
        left, right = self.encoder(batch["left"]), self.encoder(batch["right"])
        scores = self.head(torch.cat([left, right, left * right, (left - right).abs()], dim=1)).squeeze(1)
        share = self.settings.share
        return {
            "task": (1 - share) * functional.mse_loss(scores, batch["score"]),
            "distillation": share * functional.mse_loss(scores, self.teacher[batch.rows]),
        }


class DefsentPlus(Method):
    """Rounds: the targets come from the model of the round before, the encoder starts from the first weights each time."""

    class Settings(ToySettings):
        rounds: int = 3
        steps: int | None = 4

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        number = len(finished) + 1
        return Stage(f"round-{number}") if number <= self.settings.rounds else None

    def build(self, facts: Facts) -> None:
        self.register_buffer("entries", torch.zeros(len(facts.categories["entry"]), self.encoder.dim))

    def prepare(self, data: Data, previous: Method | None) -> None:
        rows = everything(data)
        encoder = (previous or self).encoder.eval()
        with torch.no_grad():
            vectors = encoder(data.columns["definition"][rows])
            for entry in range(len(self.entries)):
                self.entries[entry] = vectors[data.columns["entry"][rows] == entry].mean(dim=0)

    def training_step(self, batch: Batch) -> Terms:
        scores = self.encoder(batch["definition"]) @ self.entries.T
        return {"entry": functional.cross_entropy(scores, batch["entry"])}


class Coconut(Method):
    """Tasks with classes of their own; a memory of rows, a teacher and a head that grows pass from task to task."""

    class Settings(ToySettings):
        task: int = 0
        kept: int = 2  # rows of each class in the memory
        steps: int | None = 5

        @property
        def classes(self) -> int:
            return (self.task + 1) * CLASSES // TASKS

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        task = len(finished)
        if task == TASKS:
            return None
        return Stage(f"task-{task}", self.settings.model_copy(update={"task": task}), rows=of_task(task))

    def build(self, facts: Facts) -> None:
        classes = self.settings.classes
        self.head = nn.Linear(self.encoder.dim, classes)
        self.teacher = MomentumCopy(self.encoder)  # stays in evaluation mode
        self.register_buffer("memory", torch.zeros(classes, self.settings.kept, WIDTH))  # of this task's end

    def prepare(self, data: Data, previous: Method | None) -> None:
        if previous is None:
            return
        old = len(previous.memory)
        self.encoder.load_state_dict(previous.encoder.state_dict())
        self.teacher.update(previous.encoder, momentum=0)
        with torch.no_grad():
            self.head.weight[:old], self.head.bias[:old] = previous.head.weight, previous.head.bias
        self.memory[:old] = previous.memory

    def training_step(self, batch: Batch) -> Terms:
        old = self.settings.task * CLASSES // TASKS
        remembered = self.memory[:old].flatten(0, 1)
        labels = torch.cat([torch.arange(old).repeat_interleave(self.settings.kept), batch["label"]])
        rows = torch.cat([remembered, batch["sound"]])
        vectors = self.encoder(rows)
        terms = {"task": functional.cross_entropy(self.head(vectors), labels)}
        if old:
            with torch.no_grad():
                taught = self.teacher(remembered)
            terms["preserve"] = info_nce(vectors[: len(remembered)], taught, temperature=0.1)
        return terms

    def finish(self, data: Data) -> Mapping[str, float]:
        """Of each new class the rows nearest to its mean are kept."""
        rows = everything(data)
        sounds, labels = data.columns["sound"][rows], data.columns["label"][rows]
        with torch.no_grad():
            vectors = self.encoder(sounds)
            right = (self.head(vectors).argmax(dim=1) == labels).float().mean()
        for label in labels.unique().tolist():
            mine = vectors[labels == label]
            near = (mine - mine.mean(dim=0)).norm(dim=1).argsort()[: self.settings.kept]
            self.memory[label] = sounds[labels == label][near]
        return {"accuracy": float(right)}


def of_task(task: int) -> Callable[[Data], LongTensor]:
    def rows(data: Data) -> LongTensor:
        labels = data.columns["label"][everything(data)]
        return (labels * TASKS // CLASSES == task).nonzero().flatten()

    return rows


class Growclip(ViewMethod):
    """A small model; then each way to grow is tried shortly, and the best of them is trained on, all from the small model's weights."""

    class Settings(ToySettings):
        image: int = 4  # hidden width of a tower
        text: int = 4
        inherit: float = 0.9  # share of the old weights in what is inherited
        trial_steps: int = 4
        held_out: int = 6

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        ways = {"none": {}, "image": {"image": 7}, "text": {"text": 7}}
        if not finished:
            return Stage("small", rows=lambda data: everything(data)[: ROWS // 2])
        if len(finished) <= len(ways):
            way = list(ways)[len(finished) - 1]
            return Stage(f"try-{way}", self.grown(ways[way]), self.settings.trial_steps, previous="small")
        if len(finished) == len(ways) + 1:
            best = min(finished[1:], key=lambda record: record.figures["held_out"]).name
            return Stage("grown", self.grown(ways[best.removeprefix("try-")]), previous="small")
        return None

    def grown(self, widths: Mapping[str, int]) -> Settings:
        return self.settings.model_copy(update=dict(widths))

    def build(self, facts: Facts) -> None:
        widths = {"image": self.settings.image, "text": self.settings.text}
        self.towers = nn.ModuleDict({name: Residual(width) for name, width in widths.items()})

    def prepare(self, data: Data, previous: Method | None) -> None:
        """Old weights fill the corner of the grown ones; what leads out of new units is 0, so that nothing is said twice."""
        if previous is None:
            return
        old = dict(previous.named_parameters())
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                corner = tuple(slice(0, size) for size in old[name].shape)
                share = self.settings.inherit if parameter.ndim > 1 else 1.0
                inherited = share * old[name] + (1 - share) * parameter[corner]
                if name.endswith("leave.weight"):
                    parameter.zero_()
                parameter[corner] = inherited

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        trained = len(data) - self.settings.held_out
        return torch.randperm(trained, generator=generator).split(self.settings.batch_size)

    def views(self, batch: Batch) -> dict[str, View]:
        return {name: View(batch[name], encoder=name) for name in self.towers}

    def embed(self, view: View) -> Tensor:
        return self.towers[view.encoder](view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        image, text = embeddings["image"], embeddings["text"]
        return {"contrast": info_nce(image, text, temperature=0.2, symmetric=True)}

    def finish(self, data: Data) -> Mapping[str, float]:
        rows = everything(data)[-self.settings.held_out :]
        with torch.no_grad():
            image, text = (tower(data.columns[name][rows]) for name, tower in self.towers.items())
            return {"held_out": float(info_nce(image, text, temperature=0.2, symmetric=True))}

    def encoders(self) -> dict[str, Encoder]:
        return dict(self.towers.items())


class Residual(Encoder):
    """x + W₂ relu(W₁ x): its hidden width can grow without changing what it computes."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.dim = WIDTH
        self.enter, self.leave = nn.Linear(WIDTH, hidden), nn.Linear(hidden, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.leave(functional.relu(self.enter(inputs)))


def scored_pairs() -> Data:
    return table({"left": numbers(ROWS, WIDTH), "right": numbers(ROWS, WIDTH, seed=1), "score": numbers(ROWS, seed=2)})


def dictionary() -> Data:
    entry = torch.arange(ROWS) % 9
    names = tuple(f"entry {number}" for number in range(9))
    return table({"definition": numbers(ROWS, WIDTH), "entry": entry}, categories={"entry": names})


def sounds() -> Data:
    label = torch.arange(4 * CLASSES) % CLASSES
    return table({"sound": numbers(4 * CLASSES, WIDTH) + label[:, None], "label": label})


def captioned() -> Data:
    return table({"image": numbers(ROWS, WIDTH), "text": numbers(ROWS, WIDTH, seed=1)})


TOYS = (
    Toy("dse", Dse, scored_pairs),
    Toy("defsent_plus", DefsentPlus, dictionary),
    Toy("coconut", Coconut, sounds),
    Toy("growclip", Growclip, captioned, no_encoder),
)

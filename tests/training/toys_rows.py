"""Which rows stand together, and what a row becomes (debcse, negclip, p2c, voco, meow)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts, shuffled_batches
from contrapose.negatives import MomentumCopy
from contrapose.objectives import info_nce
from contrapose.training.encoder import Encoder
from contrapose.training.method import Method, Terms, View, ViewMethod
from tests.training.toys import ROWS, WIDTH, Tower, Toy, ToySettings, numbers, table

CLASSES, HEADS = 2, 3
CELL, GRID = 3, 3  # a field of 3 x 3 cells of 3 x 3 points


class Debcse(ViewMethod):
    """A positive and a hard negative a row, drawn anew each epoch by weights that `prepare` finds."""

    class Settings(ToySettings):
        candidates: int = 8

    def prepare(self, data: Data, previous: Method | None) -> None:
        """Candidates are the nearest rows; w⁺ prefers the near among them, w⁻ the far."""
        rows = functional.normalize(data.columns["sentence"][torch.arange(len(data))], dim=1)
        near, self.candidates = (rows @ rows.T).fill_diagonal_(-2).topk(self.settings.candidates)
        self.positive_weight, self.negative_weight = (near / 0.3).softmax(dim=1), (-near / 0.3).softmax(dim=1)

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        weights = (self.positive_weight, self.negative_weight)
        drawn = [torch.multinomial(weight, 1, generator=generator) for weight in weights]
        partners = [self.candidates.gather(1, choice).squeeze(1) for choice in drawn]
        together = torch.stack([torch.arange(len(data)), *partners], dim=1)
        return [together[rows] for rows in shuffled_batches(len(data), self.settings.batch_size, generator)]

    def views(self, batch: Batch) -> dict[str, View]:
        names = ("anchor", "positive", "negative")
        return {name: View(batch.partner(number)["sentence"]) for number, name in enumerate(names)}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        anchor, positive, negative = embeddings.values()
        return {"contrast": info_nce(anchor, positive, temperature=0.1, negatives=negative)}


class P2c(Method):
    """The partner of a row is the one of its class on which the preference heads disagreed most in the last epoch."""

    Settings = ToySettings

    def build(self, facts: Facts) -> None:
        self.classifier = nn.Linear(self.encoder.dim, CLASSES)
        self.judges = nn.Linear(self.encoder.dim, HEADS)
        self.register_buffer("preferences", torch.zeros(facts.rows, HEADS))

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        labels = data.columns["label"][torch.arange(len(data))]
        order = self.preferences[:, None] > self.preferences[None]  # (n, n, heads): who prefers whom
        votes = order.sum(dim=2)
        disagreement = torch.minimum(votes, HEADS - votes) + torch.rand(votes.shape, generator=generator)
        allowed = (labels[:, None] == labels) & ~torch.eye(len(data), dtype=torch.bool)
        partner = disagreement.masked_fill(~allowed, -1).argmax(dim=1)
        together = torch.stack([torch.arange(len(data)), partner], dim=1)
        return [together[rows] for rows in shuffled_batches(len(data), self.settings.batch_size, generator)]

    def training_step(self, batch: Batch) -> Terms:
        first, second = self.encoder(batch["text"]), self.encoder(batch.partner()["text"])
        label = batch["label"]
        one, other = torch.tanh(self.judges(first)), torch.tanh(self.judges(second))
        self.judged = {batch.rows[:, 0]: one.detach(), batch.rows[:, 1]: other.detach()}
        prefers = (batch["votes"] > batch.partner()["votes"]).to(one)[:, None].expand_as(one)
        classes = functional.cross_entropy(self.classifier(first), label)
        return {
            "classes": (classes + functional.cross_entropy(self.classifier(second), label)) / 2,
            "preference": functional.binary_cross_entropy_with_logits(one - other, prefers),
        }

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        for rows, judged in self.judged.items():
            self.preferences[rows] = judged


class Voco(ViewMethod):
    """Crops of a field: where one lies is told from its likeness to the fixed cells. The labels are born with the crops."""

    class Settings(ToySettings):
        crops: int = 2
        momentum: float = 0.9

    def build(self, facts: Facts) -> None:
        self.student = nn.Linear(self.encoder.dim, 4)
        self.teacher = MomentumCopy(self.student)

    def before_step(self, batch: Batch) -> None:
        self.teacher.update(self.student, self.settings.momentum)

    def views(self, batch: Batch) -> dict[str, View]:
        fields = batch["field"]  # (b, 9, 9)
        corners = (batch.uniform(self.settings.crops, 2) * CELL * (GRID - 1)).long()  # (b, k, 2)
        crops = torch.stack([cut(field, own) for field, own in zip(fields, corners, strict=True)])
        flipped = batch.uniform(self.settings.crops) < 0.5
        crops = torch.where(flipped[:, :, None, None], crops.flip(-1), crops)  # the label does not care
        cells = torch.cartesian_prod(torch.arange(GRID), torch.arange(GRID)) * CELL
        bases = torch.stack([cut(field, cells) for field in fields])  # (b, 9, 3, 3)
        return {
            "crops": View(crops.flatten(2), columns={"position": overlap(corners).to(fields)}),
            "bases": View(bases.flatten(2)),
        }

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)  # (b, k, d)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        """The heads standardise over the batch, so they belong here and not in `embed`."""
        crops = functional.normalize(standardised(self.student(embeddings["crops"])), dim=-1)
        taught = functional.normalize(standardised(self.teacher(embeddings["bases"].detach())), dim=-1)
        bases = functional.normalize(standardised(self.student(embeddings["bases"])), dim=-1)
        position, likeness = batch["position"], torch.relu(crops @ taught.mT)
        apart = torch.relu(bases @ bases.detach().mT).square().triu(diagonal=1)
        there, elsewhere = position > 0, position == 0
        return {
            "here": -(position * torch.log(1 - (position - likeness).abs() + 1e-6))[there].sum() / position.sum(),
            "elsewhere": -torch.log(1 - likeness + 1e-6)[elsewhere].mean(),
            "apart": apart.mean(),
        }


def cut(field: Tensor, corners: LongTensor) -> Tensor:
    """(k, CELL, CELL) of a field at (k, 2) corners."""
    return torch.stack([field[x : x + CELL, y : y + CELL] for x, y in corners.tolist()])


def overlap(corners: LongTensor) -> Tensor:
    """(b, k, GRID²): the share of a crop that lies in each cell."""
    starts = torch.arange(GRID) * CELL
    along = (CELL - (corners[..., None] - starts).abs()).clamp_min(0) / CELL  # (b, k, 2, GRID)
    return (along[:, :, 0, :, None] * along[:, :, 1, None, :]).flatten(2)


def standardised(rows: Tensor) -> Tensor:
    flat = rows.flatten(0, -2)
    return ((flat - flat.mean(dim=0)) / (flat.std(dim=0) + 1e-5)).view_as(rows)


@dataclass(frozen=True)
class Graph:
    """Nodes with the edges among them: one input that is not a row-wise tensor."""

    features: Tensor
    adjacency: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def to(self, device: torch.device) -> Graph:
        return Graph(self.features.to(device), self.adjacency.to(device))


@dataclass(frozen=True)
class Nodes:
    """The nodes of a graph as a column."""

    graph: Graph

    def __len__(self) -> int:
        return len(self.graph)

    def __getitem__(self, rows: LongTensor) -> Graph:
        return Graph(self.graph.features[rows], self.graph.adjacency[rows][:, rows])


class Convolution(Encoder):
    """Features, mixed along the edges."""

    row_wise = False

    def __init__(self, dim: int = 5) -> None:
        super().__init__()
        self.dim = dim
        self.layer = nn.Linear(WIDTH, dim)

    def forward(self, inputs: Graph) -> Tensor:
        shares = inputs.adjacency / inputs.adjacency.sum(dim=1, keepdim=True)
        return torch.tanh(self.layer(shares @ inputs.features))


class Meow(ViewMethod):
    """The whole graph is one batch. Masks are drawn once, clusters at each step; what shares a cluster weighs less as a negative."""

    class Settings(ToySettings):
        clusters: int = 3

    def build(self, facts: Facts) -> None:
        self.project = nn.Linear(self.encoder.dim, 4)
        self.register_buffer("kept_features", torch.zeros(facts.rows, WIDTH))

    def prepare(self, data: Data, previous: Method | None) -> None:
        self.kept_features.copy_(torch.rand(len(data), WIDTH) > 0.3)

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        return [torch.arange(len(data))]

    def views(self, batch: Batch) -> dict[str, View]:
        coarse = batch["node"]
        return {"coarse": View(coarse), "fine": View(Graph(coarse.features * self.kept_features, coarse.adjacency))}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        coarse, fine = (functional.normalize(self.project(rows), dim=1) for rows in embeddings.values())
        cluster = nearest_centre(fine.detach(), self.settings.clusters)
        weight = torch.where(cluster[:, None] == cluster, 0.1, 1.0)
        scores = coarse @ fine.T / 0.4
        return {"weighted": ((scores + weight.log()).logsumexp(dim=1) - scores.diagonal()).mean()}


def nearest_centre(rows: Tensor, clusters: int) -> LongTensor:
    """Two rounds of k-means from the first rows on; the same start at every step, as in the paper's code."""
    centres = rows[:clusters]
    for _ in range(2):
        cluster = (rows @ centres.T).argmax(dim=1)
        members = functional.one_hot(cluster, clusters).to(rows)
        centres = members.T @ rows / members.sum(dim=0).clamp_min(1)[:, None]
    return cluster


def sentences() -> Data:
    return table({"sentence": numbers(ROWS, WIDTH)})


def voted() -> Data:
    return table({"text": numbers(ROWS, WIDTH), "label": torch.arange(ROWS) % CLASSES, "votes": numbers(ROWS, seed=1)})


def fields() -> Data:
    return table({"field": numbers(ROWS, CELL * GRID, CELL * GRID)})


def graph() -> Data:
    edges = (numbers(ROWS, ROWS, seed=1) > 1).to(torch.float32)
    return table({"node": Nodes(Graph(numbers(ROWS, WIDTH), (edges + edges.T).clamp_max(1).fill_diagonal_(1)))})


def patches() -> Tower:
    return Tower(width=CELL * CELL)


TOYS = (
    Toy("debcse", Debcse, sentences),
    Toy("p2c", P2c, voted),
    Toy("voco", Voco, fields, patches),
    Toy("meow", Meow, graph, Convolution),
)

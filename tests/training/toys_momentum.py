"""Momentum copies, queues and statistics that a step reads before it writes them (esimcse, contriever, cocosoda, ccp)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts
from contrapose.negatives import MomentumCopy, Queue
from contrapose.objectives import info_nce
from contrapose.training.method import Terms, View, ViewMethod
from tests.training.toys import ROWS, WIDTH, Tower, Toy, ToySettings, numbers, table

LANGUAGES = 2


class Esimcse(ViewMethod):
    """An averaged body under the live head fills the queue; the average moves before the step, the queue after it."""

    class Settings(ToySettings):
        temperature: float = 0.05
        momentum: float = 0.9
        queue_size: int = 10
        head: bool = True

    def build(self, facts: Facts) -> None:
        dim = self.encoder.dim
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.Tanh()) if self.settings.head else nn.Identity()
        self.body = MomentumCopy(self.encoder)
        self.queue = Queue(self.settings.queue_size, dim)

    def before_step(self, batch: Batch) -> None:
        self.body.update(self.encoder, self.settings.momentum)

    def views(self, batch: Batch) -> dict[str, View]:
        sentence = batch["sentence"]
        repeated = sentence + 0.1 * batch.uniform(*sentence.shape[1:]).to(sentence)
        return {
            "sentence": View(sentence),
            "repeated": View(repeated),
            "stored": View(sentence, encoder="momentum", gradient=False),
        }

    def embed(self, view: View) -> Tensor:
        body = self.body if view.encoder == "momentum" else self.encoder
        return self.head(body(view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        stored = self.queue.stored()
        groups = {} if batch.group is None else {"group": batch.group, "queue_group": stored.group}
        temperature = self.settings.temperature
        loss = info_nce(
            embeddings["sentence"], embeddings["repeated"], temperature=temperature, queue=stored.vectors, **groups
        )
        return {"contrast": loss}

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        self.queue.enqueue(embeddings["stored"], batch.rows, batch.group)


class EsimcseInOrder(Esimcse):
    """The same over rows in their order, with the repeated sentence given: what a trace written elsewhere needs."""

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        return torch.arange(len(data)).split(self.settings.batch_size)

    def views(self, batch: Batch) -> dict[str, View]:
        return {**super().views(batch), "repeated": View(batch["repeated"])}


class Ccp(ViewMethod):
    """A queue a language, one language a batch, and a BatchNorm that sees the batch in one branch only, by turns."""

    class Settings(ToySettings):
        temperature: float = 0.1
        queue_size: int = 6

    def build(self, facts: Facts) -> None:
        dim = self.encoder.dim
        self.inner, self.outer = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.norm = nn.BatchNorm1d(dim)
        self.banks = nn.ModuleList(Queue(self.settings.queue_size, dim) for _ in range(LANGUAGES))

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        """(b, 2) with a neighbour in the same document of two; the languages by turns of chance."""
        language = data.columns["language"][torch.arange(len(data))]
        batches = []
        for of in range(LANGUAGES):
            rows = (language == of).nonzero().flatten()
            rows = rows[torch.randperm(len(rows), generator=generator)]
            batches += torch.stack([rows, rows ^ 1], dim=1).split(self.settings.batch_size)
        return [batches[turn] for turn in torch.randperm(len(batches), generator=generator)]

    def views(self, batch: Batch) -> dict[str, View]:
        return {"centre": View(batch["sentence"]), "context": View(batch.partner()["sentence"])}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        looks = "centre" if batch.step % 2 == 0 else "context"
        centre, context = (self.project(embeddings[name], name == looks) for name in ("centre", "context"))
        bank = self.banks[int(batch["language"][0])].stored().vectors
        self.embeddings["banked"] = (context if looks == "centre" else centre).detach()
        temperature = self.settings.temperature
        return {
            "to context": info_nce(centre, context, temperature=temperature, queue=bank),
            "to centre": info_nce(context, centre, temperature=temperature, queue=bank),
        }

    def project(self, rows: Tensor, looks: bool) -> Tensor:
        norm = self.norm
        rows = functional.batch_norm(
            self.inner(rows), norm.running_mean, norm.running_var, norm.weight, norm.bias, training=looks
        )
        return functional.normalize(self.outer(rows), dim=-1)

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        self.banks[int(batch["language"][0])].enqueue(embeddings["banked"], batch.rows[:, 0])


def sentences() -> Data:
    return table({"sentence": numbers(ROWS, WIDTH)}, group=torch.arange(ROWS) // 2)


def documents() -> Data:
    language = (torch.arange(ROWS) // 2) % LANGUAGES
    return table({"sentence": numbers(ROWS, WIDTH), "language": language})


def square() -> Tower:
    """z = W x, as in the golden trace."""
    encoder = Tower(8, width=8, dropout=0)
    encoder.layers = nn.Linear(8, 8, bias=False)
    return encoder


TOYS = (Toy("esimcse", Esimcse, sentences), Toy("ccp", Ccp, documents))

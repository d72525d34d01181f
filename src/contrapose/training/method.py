"""The contract: what a method is, and what the one loop asks of it.

A method reads like its paper: `views` → `embed` → `objective` (`ViewMethod`), or a `training_step` of its own (`Method`).
Everything else is a hook with a default. The loop in `training/loop.py` is the only caller.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import LongTensor, Tensor, nn

from contrapose.data.batches import Batch, Data, Facts, concat, count, shuffled_batches, take
from contrapose.data.columns import Column
from contrapose.distributed import gather_rows, shared_work
from contrapose.training.cache import cached, chunks_of
from contrapose.training.clock import Clock
from contrapose.training.encoder import Encoder
from contrapose.training.settings import MethodSettings

Terms = dict[str, Tensor]


@dataclass(frozen=True)
class Card:
    """What stands above a method's page: the paper, the columns it needs and what the user keeps.

    `modality` names the folder whose data, encoders and evaluation the method uses.
    """

    modality: str
    title: str
    paper: str
    venue: str
    year: int
    url: str
    columns: tuple[Column, ...]
    produces: Literal["embedding", "pair scorer", "classifier", "generator"] = "embedding"


@dataclass(frozen=True)
class View:
    """One view of the b rows of a batch: what an encoder is to embed.

    `encoder` names which encoder ("online", "momentum", …) for `embed` to choose by; `gradient=False` embeds without a graph.
    `columns` are row-aligned tensors born with the view (crop labels, masks): gathered over processes, read in the objective as `batch[name]`.
    """

    inputs: Any
    encoder: str = "online"
    gradient: bool = True
    columns: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Update:
    """One optimiser update of a step: `loss(batch)` gives named terms, whose sum is minimised over `parameters`.

    Updates with the same `optimiser` name share its state. `every=k` runs the update at steps 0, k, 2k, …; `lr` is a peak learning rate
    (default: `settings.learning_rate`). No terms: the update is skipped and counted.
    """

    loss: Callable[[Batch], Terms]
    parameters: Iterable[nn.Parameter] | None = None  # None: all that require a gradient
    optimiser: str = "main"
    lr: float | None = None
    every: int = 1

    def __post_init__(self) -> None:
        if self.parameters is not None:  # `module.parameters()` is an iterator: empty from the second step on
            object.__setattr__(self, "parameters", tuple(self.parameters))


@dataclass(frozen=True)
class Stage:
    """A stretch of training with one set of settings.

    `start`: the weights it begins with: "initial" (built and pretrained), or the name of a finished stage.
    `previous`: the finished stage whose model `prepare` is handed; None: the one before.
    `rows`: which rows it trains on, from the data; None: all. `method`: another method (a teacher); None: this one.
    """

    name: str = "train"
    settings: MethodSettings | None = None
    steps: int | None = None
    rows: Callable[[Data], LongTensor] | None = None
    start: str = "initial"
    previous: str | None = None
    method: type[Method] | None = None


@dataclass(frozen=True)
class StageRecord:
    """What is known of a finished stage: its plan and the figures that its `finish` returned, with the best development score as "selected"."""

    name: str
    steps: int
    figures: Mapping[str, float] = field(default_factory=dict)


class Method(nn.Module):
    """A contrastive method. Subclasses set `card` and `Settings` and write `training_step`; each other hook is optional.

    Whatever influences the next step is a parameter, a persistent buffer or a sub-module: `state_dict` is all that a checkpoint keeps.
    """

    card: ClassVar[Card]
    Settings: ClassVar[type[MethodSettings]] = MethodSettings

    def __init__(self, settings: MethodSettings, encoder: nn.Module | None = None) -> None:
        """Stores what it is handed: `encoder` is an `Encoder`, or an `nn.ModuleDict` of them for several modalities."""
        super().__init__()
        self.settings = settings
        self.encoder = encoder
        self.embeddings: dict[str, Tensor] = {}  # of the last step, detached, all processes
        self.term_names: dict[str, None] = {}  # of the steps so far, in order
        self.watched: dict[str, float] = {}
        self.remarks: list[str] = []  # what `prepare` found that people should know; the plan says it
        self.chunk_size: int | None = None  # rows, or tokens, that go through the encoder at once; the plan sets it
        self.clock = Clock()

    def build(self, facts: Facts) -> None:
        """Make heads, queues and copies. Every shape follows from the settings and the facts, so that a checkpoint loads strictly."""

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        """Raises what is wrong with the data, or with what is to be measured on, before anything is written; called on a built model."""

    def prepare(self, data: Data, previous: Method | None) -> None:
        """Open a stage: mined negatives, propensities, teacher scores, inherited weights. Repeated on resume, before the state is loaded."""

    def finish(self, data: Data) -> Mapping[str, float]:
        """Close a stage: memory chosen, calibration fitted. The figures returned reach `next_stage`."""
        return {}

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        """The rows of each batch of an epoch, (b,) or (b, p) with partner rows. The same on all processes; each takes its share of every batch."""
        return shuffled_batches(len(data), self.settings.batch_size, generator)

    @abstractmethod
    def training_step(self, batch: Batch) -> Terms:
        """Named terms, scalars of the batch of all processes; their sum is minimised and each is logged."""

    def updates(self) -> list[Update]:
        return [Update(self.training_step)]

    def backward(self, terms: Terms) -> None:
        """Gradients of the sum of the terms. Overridden only by a rule on gradients."""
        torch.stack(list(terms.values())).sum().backward()

    def before_step(self, batch: Batch) -> None:
        """Before the forward pass; the online weights are those before this step's update."""

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        """After this step's updates; `embeddings` are the detached ones of this step's forward pass, `batch` that of all processes."""

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        """The stage after the finished ones, or None at the end. A pure function of the settings and the records."""
        return None if finished else Stage()

    def encoders(self) -> dict[str, Encoder]:
        """What the user keeps, by name; the first is the one that `encode` uses."""
        return {"encoder": self.encoder}

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """(n, d) and (m, d) to (n, m), larger is closer; cosine unless the method says otherwise."""
        return nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(candidates, dim=-1).T

    def watch(self, name: str, value: float | Tensor) -> None:
        """A figure to log beside the terms, never to minimise."""
        self.watched[name] = float(value.detach() if isinstance(value, Tensor) else value)

    def chance(self, batch: Batch) -> dict[str, float]:
        """The value of each term where embeddings say nothing, for the terms that have one."""
        return {}

    def negatives(self, batch_size: int, facts: Facts) -> int | None:
        """Negatives that each anchor of a full batch has before masks; None for a method that uses none. A run with 0 is refused."""
        return None

    @property
    def row_wise(self) -> bool:
        """Whether the vector of a row depends on that row alone."""
        return all(module.row_wise for module in self.modules() if isinstance(module, Encoder))


class ViewMethod(Method):
    """views → embed → objective. Because the engine sees the three apart, negatives are exact over processes and views share one pass."""

    @abstractmethod
    def views(self, batch: Batch) -> dict[str, View]:
        """Named views of this process's rows; random numbers through `batch.uniform` or `batch.generator`."""

    @abstractmethod
    def embed(self, view: View) -> Tensor:
        """(b, d) or (b, k, d), row by row, without side effects."""

    @abstractmethod
    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        """Named terms of the embeddings and the batch of all processes."""

    def training_step(self, batch: Batch) -> Terms:
        with self.clock("data"):
            views = self.views(batch)
        with self.clock("encode"):
            embedded = {name: gather_rows(rows) for name, rows in self.embed_views(views).items()}
        self.embeddings = {name: rows.detach() for name, rows in embedded.items()}
        with self.clock("loss"):
            whole = batch.whole
            born = {name: column for view in views.values() for name, column in view.columns.items()}
            whole.columns.update({name: gather_rows(column) for name, column in born.items()})
            with shared_work():
                return self.objective(embedded, whole)

    def embed_views(self, views: Mapping[str, View]) -> dict[str, Tensor]:
        """Every view's embeddings; views of one encoder share one pass where a row's vector depends on that row alone."""
        passes: dict[Any, list[str]] = {}
        for name, view in views.items():
            alike = (view.encoder, view.gradient, layout(view.inputs)) if self.row_wise else name
            passes.setdefault(alike, []).append(name)
        embeddings: dict[str, Tensor] = {}
        for names in passes.values():
            together = [views[name] for name in names]
            first = together[0]
            with torch.set_grad_enabled(first.gradient and torch.is_grad_enabled()):
                inputs = first.inputs if len(names) == 1 else concat([view.inputs for view in together])
                rows = self.embed_in_chunks(View(inputs, first.encoder, first.gradient))
            start = 0
            for name, view in zip(names, together, strict=True):
                stop = start + count(view.inputs)
                embeddings[name] = take(rows, slice(start, stop))
                start = stop
        return {name: embeddings[name] for name in views}

    def embed_in_chunks(self, view: View) -> Tensor:
        """`embed`, through the embedding cache where the rows of a pass are more than `chunk_size` allows."""
        chunks = chunks_of(view.inputs, self.chunk_size if self.row_wise else None)
        if len(chunks) <= 1:
            return self.embed(view)
        return cached(lambda inputs: self.embed(View(inputs, view.encoder, view.gradient)), view.inputs, chunks)


def layout(inputs: Any) -> Any:
    """What must be equal for inputs to share a pass: the shape and dtype of a row, of each column in a mapping."""
    if isinstance(inputs, Mapping):
        return tuple((name, layout(column)) for name, column in inputs.items())
    return (inputs.shape[1:], inputs.dtype) if isinstance(inputs, Tensor) else type(inputs)

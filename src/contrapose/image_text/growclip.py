"""GrowCLIP: towers that grow, where the data say, while pairs of images and texts arrive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import LongTensor

from contrapose.data.batches import Data, Facts, seeded, shuffled_batches
from contrapose.errors import SettingInvalid, UsageInvalid
from contrapose.image_text._architecture import COORDINATES, Architecture, larger
from contrapose.image_text._growing import GrowingImages, growing_pair
from contrapose.image_text._towers import grow
from contrapose.image_text.clip import CLIP, COLUMNS, CLIPSettings
from contrapose.image_text.encoder import Pair, own_facts
from contrapose.objectives import info_nce
from contrapose.training.method import Card, Method, Stage, StageRecord

HELD_OUT_BATCH = 1024  # pairs that the held-out loss is taken among


class GrowCLIP(CLIP):
    r"""Learn from images with texts that arrive in increments, with towers that start small and grow where that helps most.

    Pick it where data keep coming and nobody wants to choose today the size that next year's data need, or train anew each time. Rows stand in
    the order in which they arrived; `increments` says where one ends and the next begins. With all data at hand from the start, use `clip`.

    The first increment trains the pair as it is. At each next one every architecture a step away (blocks more in the image tower, the text
    tower or behind both; wider MLPs; a head more; or nothing) within the budget of parameters inherits the weights, is trained for a few
    steps, and is judged by its loss on held-out pairs of the new increment; the best one starts again from the inherited weights and is
    trained on all increments so far. A weight matrix inherits

    $$\theta_t = \mu\,\theta_{t-1} + (1 - \mu)\,\theta_\mathrm{new}$$

    where it had a predecessor, and is new elsewhere; gains, biases, embeddings and the temperature are inherited whole. What is added has
    outgoing weights of 0, so that with $\mu = 1$ the grown pair computes what the small one did. The loss is that of `clip`.

    **Reconstructed.** No code was released. The growth space, the choice by data, the shared encoder and inheriting with momentum are the
    paper's (abstract); the formula of inheriting, the steps of the growth space, the short trial on held-out pairs, the order of all this and
    every default are ours. Optimisers start anew in each stage, with a warm-up of their own.

    Deng et al., ICCV 2023.
    """

    card = Card(
        modality="image_text",
        title="GrowCLIP: growing with the data",
        paper="GrowCLIP: Data-aware Automatic Model Growing for Large-scale Contrastive Language-Image Pre-training",
        venue="ICCV",
        year=2023,
        url="https://arxiv.org/abs/2308.11331",
        columns=COLUMNS,
    )

    class Settings(CLIPSettings):
        warmup_steps: int = Field(
            10, ge=0, description="Steps of each stage in which the learning rate rises linearly from 0."
        )
        increments: tuple[PositiveFloat, ...] = Field(
            (1.0, 2.0, 4.0),
            description="How large the increments are, relative to each other, in the order of the rows.",
        )
        momentum: float = Field(
            0.9, ge=0, le=1, description="Of inherited weights: 1 keeps them as they are, 0 forgets them."
        )
        grows: tuple[Literal[COORDINATES], ...] = Field(COORDINATES, description="What may grow; empty: nothing does.")
        blocks: PositiveInt = Field(2, description="Blocks that a tower grows by.")
        widening: float = Field(1.25, gt=1, description="Factor that the MLPs' width grows by.")
        budget: float = Field(
            1.5, ge=1, description="Largest ratio of the blocks' parameters, new to old, at each increment."
        )
        trial: float = Field(
            0.1, gt=0, le=1, description="Length of a candidate's trial, as a share of an increment's steps."
        )
        held_out: float = Field(
            0.1, gt=0, lt=1, description="Share of each increment that judges candidates and is never trained on."
        )
        replay: bool = Field(True, description="Train on the earlier increments too; otherwise on the new one alone.")
        stage_steps: PositiveInt | None = Field(
            None,
            description="Steps at each increment; empty: as many as `epochs` over the first increment's rows take.",
        )
        architecture: dict[str, int] | None = Field(
            None, description="Filled in as towers grow; empty: the encoder's own."
        )
        increment: NonNegativeInt = Field(0, description="Filled in: the increment that a stage belongs to, from 0.")

        @field_validator("increments", "grows", mode="before")
        @classmethod
        def listed(cls, value: Any) -> Any:
            return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

        @model_validator(mode="after")
        def some(self) -> GrowCLIP.Settings:
            if not self.increments:
                raise ValueError("increments is empty; give the sizes of one or more, relative to each other")
            if self.increment >= len(self.increments):
                raise ValueError(
                    f"increment is {self.increment} of {len(self.increments)}, counted from 0; leave it out, stages fill it in"
                )
            return self

    def build(self, facts: Facts) -> None:
        super().build(facts)
        if not isinstance(self.encoder["image"], GrowingImages):
            raise UsageInvalid("growclip grows transformers of its own; give --encoder growing.")
        self.held = len(held_out(facts.rows, self.settings)[self.settings.increment])
        start = self.encoder["image"].built
        built = Architecture(**(self.settings.architecture or asdict(start)))
        built.refuse_smaller(start)
        if built != start:
            facts_of = {side: own_facts(encoder.record()) for side, encoder in self.encoder.items()}
            image, text = growing_pair(facts_of["image"], facts_of["text"], built)
            self.encoder = Pair({"image": image, "text": text})

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        """Raises SettingInvalid for an increment too small to train on, ArchitectureInvalid where growth may come to a place with nowhere to go."""
        for number, rows in enumerate(increments(len(data), self.settings)):
            if len(rows) < 2:
                raise SettingInvalid(
                    f"increments: of {len(data):,} rows increment {number + 1} trains on {len(rows)}; give fewer increments or more rows."
                )
        reached = {self.encoder["image"].built}
        for _ in self.settings.increments[1:]:
            reached = {built for old in reached for built in self.a_step_away(old).values()}

    # ------------------------------------------------------------------------------------------------------- stages

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        """Increment 1; then for each next one the candidates' trials and the best of them, from where the last increment ended."""
        settings, records = self.settings, list(finished)
        if not records:
            return self.stage("increment-1", 0, None, None, settings.stage_steps or settings.steps)
        last = records.pop(0)
        for increment in range(1, len(settings.increments)):
            name, candidates = f"increment-{increment + 1}", self.candidates(last)
            tried, records = records[: len(candidates)], records[len(candidates) :]
            if len(tried) < len(candidates):
                untried = list(candidates)[len(tried)]
                steps = max(1, round(settings.trial * last.steps))
                return self.stage(f"{name}-{untried}", increment, candidates[untried], last.name, steps)
            if not records:
                best = min(tried, key=lambda record: record.figures["held_out_loss"])
                return self.stage(name, increment, candidates[best.name.rpartition("-")[2]], last.name, last.steps)
            last = records.pop(0)
        return None

    def candidates(self, last: StageRecord) -> dict[str, Architecture]:
        """Where a finished increment may grow to, by name."""
        return self.a_step_away(
            Architecture(**{name: int(last.figures[name]) for name in Architecture.__dataclass_fields__})
        )

    def a_step_away(self, old: Architecture) -> dict[str, Architecture]:
        settings = self.settings
        return larger(old, settings.grows, settings.blocks, settings.widening, settings.budget)

    def stage(
        self, name: str, increment: int, built: Architecture | None, previous: str | None, steps: int | None
    ) -> Stage:
        own = {
            "increment": increment,
            "architecture": asdict(built) if built else self.settings.architecture,
            "steps": None,
        }
        chosen = self.settings.model_copy(update=own)
        return Stage(name, chosen, steps, rows=lambda data: rows_of(len(data), chosen), previous=previous)

    def prepare(self, data: Data, previous: Method | None) -> None:
        """Inherit what the last increment learned."""
        if previous is None or not self.settings.increment:
            return
        momentum = self.settings.momentum
        grow(self.encoder, previous.encoder, momentum)
        with torch.no_grad():
            self.log_temperature.copy_(previous.log_temperature)

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        """The rows that are trained on, shuffled; the held-out ones stand behind them. The same batches for every candidate of an increment."""
        order = seeded(self.settings.seed, self.settings.increment, epoch)
        return shuffled_batches(len(data) - self.held, self.settings.batch_size, order)

    def finish(self, data: Data) -> Mapping[str, float]:
        """The architecture, its parameters, and the loss on the held-out pairs of the newest increment."""
        built = self.encoder["image"].built
        whole = sum(parameter.numel() for parameter in self.parameters())
        return {**asdict(built), "parameters": whole, "held_out_loss": self.held_out_loss(data)}

    @torch.no_grad()
    def held_out_loss(self, data: Data) -> float:
        """The mean loss among at most HELD_OUT_BATCH held-out pairs at a time; rows of one group are no negatives here either."""
        rows, device, whole = torch.arange(len(data) - self.held, len(data)), self.log_temperature.device, 0.0
        for some in rows.split(HELD_OUT_BATCH):
            sides = [self.encoder[side](data.columns[side][some].to(device)) for side in ("image", "text")]
            group = None if data.group is None else data.group[some].to(device)
            whole += len(some) * float(info_nce(*sides, temperature=self.temperature, group=group, symmetric=True))
        return whole / len(rows)


def bounds(rows: int, shares: Sequence[float]) -> list[int]:
    """Where increments end, as row numbers; the last one ends with the rows."""
    done = torch.tensor(shares, dtype=torch.float64).cumsum(0) / sum(shares)
    return [round(float(share) * rows) for share in done]


def held_out(rows: int, settings: GrowCLIP.Settings) -> list[LongTensor]:
    """Of each increment the rows that are never trained on: evenly spread, two at least, since one alone has no negative."""
    found, start = [], 0
    for stop in bounds(rows, settings.increments):
        count = max(2, round(settings.held_out * (stop - start)))
        found.append((start + torch.linspace(0, max(0, stop - start - 1), count + 2)[1:-1]).long().unique())
        start = stop
    return found


def increments(rows: int, settings: GrowCLIP.Settings) -> list[LongTensor]:
    """The rows of each increment that are trained on."""
    found, start = [], 0
    for stop, held in zip(bounds(rows, settings.increments), held_out(rows, settings), strict=True):
        every = torch.arange(start, stop)
        found.append(every[~torch.isin(every, held)])
        start = stop
    return found


def rows_of(rows: int, settings: GrowCLIP.Settings) -> LongTensor:
    """What a stage is handed: the rows that it trains on, then the held-out ones of its increment."""
    trained = increments(rows, settings)
    first = 0 if settings.replay else settings.increment
    return torch.cat([*trained[first : settings.increment + 1], held_out(rows, settings)[settings.increment]])

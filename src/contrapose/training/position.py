"""Where a run stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from contrapose.training.health import Health
from contrapose.training.method import StageRecord


@dataclass
class Position:
    """What a checkpoint holds beside tensors."""

    finished: list[StageRecord] = field(default_factory=list)
    stage: str | None = None
    step: int = 0  # of this stage
    steps: int = 0
    epoch: int = -1
    batch: int = 0  # the next one in the epoch's list
    total_step: int = 0  # over all stages
    skipped: int = 0  # updates without terms or gradient
    terms: dict[str, float] = field(default_factory=dict)  # the newest of each since the last line of metrics
    watched: dict[str, float] = field(default_factory=dict)
    health: Health = field(default_factory=Health)  # of this stage
    chunk: int | None = None  # of the embedding cache
    memory: int | None = None  # bytes that a step is expected to take
    best: float | None = None
    stale: int = 0  # scores since the best one

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Position:
        finished = [StageRecord(**record) for record in facts["finished"]]
        known = {name: facts[name] for name in cls.__dataclass_fields__}
        return cls(**{**known, "finished": finished, "health": Health.of(facts["health"])})

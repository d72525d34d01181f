"""A momentum that rises to 1 over the training."""

from __future__ import annotations

import math

from contrapose.data.batches import Facts
from contrapose.training.settings import MethodSettings


def steps_of(settings: MethodSettings, facts: Facts) -> int:
    """How many steps a run of one stage takes."""
    batches = facts.rows // settings.batch_size + (facts.rows % settings.batch_size > 1)
    return settings.steps or math.ceil(settings.epochs * max(1, batches))


def rising(momentum: float, step: int, steps: int) -> float:
    """`momentum` at step 0, 1 at the last: 1 - (1 - m) (cos(pi k / K) + 1) / 2 (BYOL: Grill et al., 2020, section 3.2; MoCo v3 too)."""
    return 1 - (1 - momentum) * (math.cos(math.pi * min(1.0, step / max(1, steps - 1))) + 1) / 2

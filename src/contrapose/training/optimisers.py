"""Optimisers by name, and the learning rate as a function of the step: nothing here needs saving but the optimisers' own state."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from contrapose.training.method import Method, Update
from contrapose.training.settings import MethodSettings


def trainable(update: Update, method: Method) -> list[nn.Parameter]:
    """The parameters that an update moves, each once."""
    parameters = method.parameters() if update.parameters is None else update.parameters
    return list(dict.fromkeys(parameter for parameter in parameters if parameter.requires_grad))


def build_optimisers(method: Method, updates: Sequence[Update]) -> dict[str, torch.optim.Optimizer]:
    """One optimiser a name, over the union of its updates' parameters; matrices decay, biases, norms and temperatures do not."""
    kinds = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
    kind = kinds[method.settings.optimiser]
    own = {"momentum": method.settings.sgd_momentum} if method.settings.optimiser == "sgd" else {}
    optimisers = {}
    for name in dict.fromkeys(update.optimiser for update in updates):
        mine = [parameter for update in updates if update.optimiser == name for parameter in trainable(update, method)]
        mine = list(dict.fromkeys(mine))
        groups = [
            {"params": [p for p in mine if p.ndim >= 2], "weight_decay": method.settings.weight_decay},
            {"params": [p for p in mine if p.ndim < 2], "weight_decay": 0.0},
        ]
        optimisers[name] = kind(
            [group for group in groups if group["params"]], lr=method.settings.learning_rate, fused=True, **own
        )
    return optimisers


def learning_rate(peak: float, step: int, steps: int, settings: MethodSettings) -> float:
    """The rate of step 0 … steps − 1: linear from 0 over the warm-up, then linear or half a cosine to 0, or constant."""
    if step < settings.warmup_steps:
        return peak * (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, steps - settings.warmup_steps)
    return (
        peak * {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done)), "constant": 1.0}[settings.schedule]
    )


def state_tensors(method: Method, optimisers: dict[str, torch.optim.Optimizer]) -> dict[str, Tensor]:
    """The optimisers' state by optimiser, parameter and key, as flat tensors for a checkpoint."""
    names = {parameter: name for name, parameter in method.named_parameters()}
    return {
        f"{optimiser}/{names[parameter]}/{key}": value
        for optimiser, it in optimisers.items()
        for parameter, state in it.state.items()
        for key, value in state.items()
        if value is not None
    }


def load_state_tensors(
    method: Method, optimisers: dict[str, torch.optim.Optimizer], tensors: dict[str, Tensor]
) -> None:
    """The reverse of `state_tensors`, into freshly built optimisers."""
    parameters = dict(method.named_parameters())
    for name, value in tensors.items():
        optimiser, parameter, key = name.split("/")
        target = parameters[parameter]
        optimisers[optimiser].state[target][key] = value.to(target.device)

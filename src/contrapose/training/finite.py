"""NaN and infinity: found, named with term and step, refused."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from contrapose.errors import NonFinite, TemperatureInvalid
from contrapose.training.run_folder import RunFolder


def refuse_non_finite(tensors: Mapping[str, Tensor]) -> None:
    """Raises NonFinite naming the first tensor that holds NaN or infinity."""
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFinite(f"{name} became {'NaN' if bool(torch.isnan(tensor).any()) else 'infinity'}.")


def refuse_non_finite_gradient(norm: Tensor, terms: Iterable[str], model: nn.Module) -> None:
    """Raises NonFinite naming the terms whose gradient has that norm, and the first parameter that it spoils."""
    if bool(torch.isfinite(norm)):
        return
    found = "NaN" if bool(torch.isnan(norm)) else "infinity"
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    first = next((name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())), None)
    where = f", first in {first}" if first else ", in its norm alone"
    raise NonFinite(f"the gradient of {' and '.join(terms)} became {found}{where}.")


@contextmanager
def naming_terms(names: Iterable[str]) -> Iterator[None]:
    """Adds what could not be computed to what an objective says of embeddings that hold NaN or infinity."""
    try:
        yield
    except NonFinite as error:
        raise NonFinite(f"{' and '.join(names) or 'the objective'} cannot be computed: {error.args[0]}") from None


@contextmanager
def naming_step(step: int, folder: RunFolder) -> Iterator[None]:
    """Adds the step, what is left on disk and what to do to what is said of NaN or infinity, a learned temperature's among them."""
    try:
        yield
    except (NonFinite, TemperatureInvalid) as error:
        files = folder.checkpoint_files()
        left = f"{files[-1].name}, the last good checkpoint, is kept" if files else "No checkpoint had been written yet"
        raise type(error)(
            f"step {step + 1:,}: {error.args[0]} {left}; lower the learning rate or raise the temperature."
        ) from None

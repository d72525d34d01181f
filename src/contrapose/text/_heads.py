"""Heads: small layers on a pooled state that are part of what the user keeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from contrapose.errors import WeightsBroken

FILE = "head.safetensors"


class Head(nn.Sequential):
    """Linear (dim to dim) and tanh on a pooled state: BERT's pooler with fresh weights, N(0, 0.02²), as SimCSE's official code starts it."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.Linear(dim, dim), nn.Tanh())
        nn.init.normal_(self[0].weight, std=0.02)
        nn.init.zeros_(self[0].bias)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self[0].in_features,)

    @property
    def dim(self) -> int:
        return self[0].out_features


class Projection(nn.Linear):
    """A linear layer to another size."""

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.in_features, self.out_features

    @property
    def dim(self) -> int:
        return self.out_features


class NormedHead(nn.Sequential):
    """LayerNorm, linear, tanh, linear (all dim to dim), with fresh weights: the pooler of MoE embeddings, after the mean over tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim))

    @property
    def sizes(self) -> tuple[int, ...]:
        return (self.dim,)

    @property
    def dim(self) -> int:
        return self[3].out_features


KINDS = {"tanh": Head, "linear": Projection, "normed": NormedHead}


def head_record(head: nn.Module) -> dict[str, Any]:
    """What makes a head again, as JSON."""
    return {"kind": next(name for name, kind in KINDS.items() if kind is type(head)), "sizes": list(head.sizes)}


def save_head(head: nn.Module, folder: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in head.state_dict().items()}, folder / FILE)


def load_head(record: Mapping[str, Any], folder: Path) -> nn.Module:
    """The head that `save_head` wrote. Raises WeightsBroken."""
    head = KINDS[record["kind"]](*record["sizes"])
    return load_part(head, folder / FILE)


def load_part(part: nn.Module, file: Path) -> nn.Module:
    """Put the weights in a file into a part of an encoder. Raises WeightsBroken when they are not all there."""
    try:
        part.load_state_dict(load_file(file))
    except (OSError, SafetensorError, RuntimeError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsBroken(f"{file} cannot be read ({first}). Copy the folder again, or export it anew.") from None
    return part.eval()

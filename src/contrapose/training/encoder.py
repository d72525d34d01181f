"""What the user keeps: an encoder maps rows of named columns to vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from contrapose.training.precision import Precision


class Encoder(nn.Module):
    """Maps b rows to vectors of shape (b, dim).

    Training sees `forward` on collated inputs (token ids, pixels, …); the user sees `encode` on raw values (strings, images, …).
    An encoder that looks across rows (BatchNorm, a graph) sets `row_wise = False`: the embedding cache is then off, and the run says why.
    """

    dim: int
    row_wise: bool = True

    @abstractmethod
    def forward(self, inputs: Any) -> Tensor:
        """Vectors of shape (b, dim), differentiable, in the dtype of the weights or of autocast; not normalised."""

    @abstractmethod
    def encode(
        self,
        values: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of raw values, float32 of shape (n, dim), in evaluation mode and without gradient; a progress bar over two seconds.

        `precision` is that of the matrix products; "auto" is bf16 where the hardware has it.
        """

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """What rebuilds this encoder without its weights, as JSON: stands in the model folder and in the run's config.yaml."""


class Encoders(nn.ModuleDict):
    """Several encoders by name: each is called as the column that it reads ("image", "text").

    Where a modality has one encoder, methods, protocols and results deal with that `Encoder`; where it has several, with these.
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(dict(encoders))

    def record(self) -> dict[str, Any]:
        """What rebuilds them without their weights: `{"name": …, "encoders": {column: record}}`."""
        records = {column: encoder.record() for column, encoder in self.items()}
        said = "; ".join(f"{column}: {record['name']}" for column, record in records.items())
        return {"name": said, "encoders": records}

    def __repr__(self) -> str:
        return "; ".join(f"{column}: {encoder}" for column, encoder in self.items())


def together(encoders: Mapping[str, Encoder]) -> Encoder | Encoders:
    """What a protocol measures: the encoder of a method that has one, all of a method that has several."""
    return next(iter(encoders.values())) if len(encoders) == 1 else Encoders(encoders)

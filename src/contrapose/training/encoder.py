"""What the user keeps: an encoder maps rows of named columns to vectors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import LongTensor, Tensor, nn

from contrapose.errors import UsageInvalid
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

    def collate(self, values: Sequence[Any]) -> Any:
        """Raw values as `forward` takes them. An encoder that can be one of several, each of a column, says so here; others raise UsageInvalid."""
        raise UsageInvalid(
            f"{type(self).__name__} does not say how single values become its inputs (`collate`), so it cannot encode a column beside others."
        )

    def open_column(self, values: Sequence[Any]) -> Any:
        """A column for training: `column[rows]` is what `forward` takes of those rows. Collated when asked for, where the encoder knows no better."""
        return Collated(values, self)


@dataclass(frozen=True)
class Collated:
    """A column whose values an encoder collates when they are asked for."""

    values: Sequence[Any]
    encoder: Encoder

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: LongTensor) -> Any:
        return self.encoder.collate([self.values[row] for row in rows.tolist()])


class Encoders(nn.ModuleDict):
    """Several encoders by name: each is called as the column that it reads ("image", "text").

    Where a modality has one encoder, methods, protocols and results deal with that `Encoder`; where it has several, with these.
    """

    def __init__(self, encoders: Mapping[str, Encoder]) -> None:
        super().__init__(dict(encoders))

    def record(self) -> dict[str, Any]:
        """What rebuilds them without their weights: `{"name": …, "encoders": {column: record}}`."""
        records = {column: encoder.record() for column, encoder in self.items()}
        said = ",".join(f"{column}={record['name']}" for column, record in records.items())  # as --encoder takes it
        return {"name": said, "encoders": records}

    def __repr__(self) -> str:
        return "; ".join(f"{column}: {encoder}" for column, encoder in self.items())


def together(encoders: Mapping[str, Encoder]) -> Encoder | Encoders:
    """What a protocol measures: the encoder of a method that has one, all of a method that has several."""
    return next(iter(encoders.values())) if len(encoders) == 1 else Encoders(encoders)

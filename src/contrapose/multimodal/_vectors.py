"""The plainest encoder of a modality: vectors of numbers through a linear map or an MLP, with flags for what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from contrapose.data.batches import in_chunks, seed_of
from contrapose.errors import ValuesUnfit, VectorsInvalid
from contrapose.multimodal._arrays import flat
from contrapose.multimodal._options import ColumnOptions, Rule
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision

WEIGHTS = "model.safetensors"
ROWS = 4096  # through the network at once when encoding


class VectorEncoder(Encoder):
    """Rows of `size` numbers to vectors of shape (b, dim): a linear map with bias, or an MLP with ReLU where there are `hidden` sizes.

    A number x enters as (x - centre) / deviation; both are one number, or one for each place. With `missing="learned"` every number has a
    flag beside it, 1 where it is missing (NaN), and a learned number, 0 at first, in its place: of a row without any value, all of them. So
    an MLP can tell a missing value from every other (Saporta et al., 2024, whose encoders are given value and flag).

    `seed` and `stream`, a number for each of several encoders, say the initial weights; without a seed they come from torch's own generator. Inputs (b, size) are floating point, NaN where missing.
    """

    rule: Rule | None = None  # how its vectors are compared with those of other modalities; a method says so

    def __init__(
        self,
        size: int,
        dim: int,
        options: ColumnOptions | None = None,
        *,
        centre: Sequence[float] | float = 0.0,
        deviation: Sequence[float] | float = 1.0,
        seed: int | None = None,
        stream: int = 0,
    ) -> None:
        super().__init__()
        self.size, self.dim, self.seed, self.stream = size, dim, seed, stream
        self.options = options or ColumnOptions()
        for name, numbers in (("centre", centre), ("deviation", deviation)):
            self.register_buffer(name, torch.tensor(numbers, dtype=torch.float32), persistent=False)
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed_of(seed, stream))
            sizes = [2 * size if self.takes_missing else size, *self.options.hidden, dim]
            layers = [nn.Linear(n, m) for n, m in pairwise(sizes)]
        self.layers = nn.Sequential(layers[0], *(part for layer in layers[1:] for part in (nn.ReLU(), layer)))
        if self.takes_missing:
            self.placeholder = nn.Parameter(torch.zeros(size))

    @property
    def takes_missing(self) -> bool:
        return self.options.missing == "learned"

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, dim) of (b, size); float32, or float64 where the weights are."""
        x = inputs.to(self.layers[0].weight.dtype)
        missing = x.isnan()
        x = (x - self.centre) / self.deviation
        if self.takes_missing:
            x = torch.cat([torch.where(missing, self.placeholder, x), missing.to(x.dtype)], dim=1)
        vectors = self.layers(x)
        return vectors if vectors.dtype == torch.float64 else vectors.float()

    def collate(self, values: Sequence[Any] | np.ndarray) -> Tensor:
        """(n, size) float32 of n vectors, None or NaN for what is missing. Raises ValuesUnfit."""
        if isinstance(values, np.ndarray) and values.dtype.kind == "f" and values.ndim == 2:
            vectors = values.astype(np.float32, copy=False)
            if vectors.shape[1] != self.size:
                raise ValuesUnfit(
                    f"Vectors of {vectors.shape[1]:,} numbers were given; this encoder takes {self.size:,}."
                )
        else:
            try:
                vectors = flat(values, "Value {}".format, self.size)
            except VectorsInvalid as error:
                raise ValuesUnfit(error.args[0]) from None
        wrong = np.isnan(vectors).any(axis=1) if not self.takes_missing else np.isinf(vectors).any(axis=1)
        if wrong.any():
            lacks = "lacks numbers (NaN or none)" if not self.takes_missing else "holds infinity"
            raise ValuesUnfit(
                f"Value {int(wrong.argmax())} {lacks}, which this encoder has not learned from; it can where it is trained with "
                "encoder.missing=learned."
            )
        return torch.from_numpy(np.array(vectors))  # a copy: what was given may be read-only, and stays as it is

    def open_column(self, values: Sequence[Any] | np.ndarray) -> Tensor:
        """The whole column as one tensor."""
        return self.collate(values)

    def encode(
        self,
        values: Sequence[Any] | np.ndarray,
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Unit vectors, float32 of shape (n, dim), of n vectors or of an array (n, …). Raises ValuesUnfit."""
        inputs, vectors = self.collate(values), np.empty((len(values), self.dim), np.float32)
        device = self.layers[0].weight.device
        with evaluating(self, device, precision):
            for rows in in_chunks(len(inputs), batch_size or ROWS):
                vectors[rows] = nn.functional.normalize(self(inputs[rows].to(device)), dim=-1).float().cpu().numpy()
        return vectors

    def record(self) -> dict[str, Any]:
        return {
            "name": "vectors",
            "size": self.size,
            "dim": self.dim,
            "hidden": list(self.options.hidden),
            "missing": self.options.missing,
            "scale": self.options.scale,
            "centre": self.centre.tolist(),
            "deviation": self.deviation.tolist(),
            "seed": self.seed,
            "stream": self.stream,
            **({} if self.rule is None else {"rule": self.rule._asdict()}),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> VectorEncoder:
        """An encoder as `record` described it, with its initial weights."""
        options = ColumnOptions(**{name: record[name] for name in ColumnOptions.model_fields})
        numbers = {name: record[name] for name in ("centre", "deviation", "seed", "stream")}
        encoder = cls(record["size"], record["dim"], options, **numbers)
        encoder.rule = Rule(**record["rule"]) if "rule" in record else None
        return encoder

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors; centre and deviation stand in the record."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, str(folder / WEIGHTS))

    def __repr__(self) -> str:
        layers = " → ".join(map(str, [self.size, *self.options.hidden, self.dim]))
        return f"VectorEncoder({layers}{', missing ones learned' if self.takes_missing else ''})"


def centre_and_deviation(vectors: np.ndarray, scale: str) -> tuple[Any, Any]:
    """What an encoder of these training vectors (n, size) takes off and divides by: numbers for "column", lists for "entry", 0 and 1 for "none"."""
    if scale == "none":
        return 0.0, 1.0
    if scale == "column":
        known = vectors[~np.isnan(vectors)].astype(np.float64)
        mean, deviation = (float(known.mean()), float(known.std())) if known.size else (0.0, 1.0)
        return mean, deviation or 1.0
    known = np.ma.masked_invalid(vectors.astype(np.float64))
    mean, deviation = (each.filled(0.0) for each in (known.mean(axis=0), known.std(axis=0)))
    return mean.astype(np.float32).tolist(), np.where(deviation > 0, deviation, 1.0).astype(np.float32).tolist()

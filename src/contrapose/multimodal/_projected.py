"""Any encoder as one of several: its vectors through a linear layer into the space that all share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import LongTensor, Tensor, nn

from contrapose.data.batches import in_chunks, seed_of, to_device
from contrapose.errors import ValuesUnfit
from contrapose.multimodal._options import Rule
from contrapose.multimodal._vectors import WEIGHTS
from contrapose.training.bar import Bar
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision

INNER = "encoder"  # folder of the encoder within
ROWS = 256  # through the encoder at once when encoding


class ProjectedEncoder(Encoder):
    """An encoder of another modality, and a linear layer with bias from its vectors, (b, d'), to the shared space, (b, dim).

    With `missing="learned"` the layer also reads a flag, 1 for a row without a value, whose vector is then a learned one, 0 at first
    (Saporta et al., 2024). `forward` then takes {"values": what the encoder takes, "present": (b,) bool}; otherwise what the encoder takes.

    `modality`: where the encoder comes from, so that a folder can be read back; None for one of your own, which is read back by you.
    """

    rule: Rule | None = None  # how its vectors are compared with those of other modalities; a method says so

    def __init__(
        self,
        encoder: Encoder,
        dim: int,
        *,
        missing: str = "refuse",
        seed: int = 0,
        stream: int = 0,
        modality: str | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.dim, self.missing, self.modality = encoder, dim, missing, modality
        self.seed, self.stream = seed, stream
        with torch.random.fork_rng():
            torch.manual_seed(seed_of(seed, stream))
            self.projection = nn.Linear(encoder.dim + self.takes_missing, dim)
        if self.takes_missing:
            self.placeholder = nn.Parameter(torch.zeros(encoder.dim))

    @property
    def takes_missing(self) -> bool:
        return self.missing == "learned"

    @property
    def row_wise(self) -> bool:
        return self.encoder.row_wise

    def forward(self, inputs: Any) -> Tensor:
        """(b, dim); float32, or float64 where the weights are."""
        if self.takes_missing:
            present = inputs["present"][:, None]
            states = torch.where(present, self.encoder(inputs["values"]).to(self.placeholder), self.placeholder)
            states = torch.cat([states, (~present).to(states.dtype)], dim=1)
        else:
            states = self.encoder(inputs)
        vectors = self.projection(states)
        return vectors if vectors.dtype == torch.float64 else vectors.float()

    def collate(self, values: Sequence[Any]) -> Any:
        """Values as `forward` takes them. Raises ValuesUnfit for a missing one that was not learned from."""
        return self.with_flags(values, self.encoder.collate)

    def open_column(self, values: Sequence[Any]) -> Any:
        if not self.takes_missing:
            return self.encoder.open_column(values)
        return ByName(self.with_flags(values, self.encoder.open_column))

    def with_flags(self, values: Sequence[Any], inputs_of: Any) -> Any:
        """What `inputs_of` makes of the values; where some may be missing, beside flags, another row's value standing in their place."""
        present = torch.tensor([not is_missing(value) for value in values], dtype=torch.bool)
        if not self.takes_missing:
            if not bool(present.all()):
                raise ValuesUnfit(
                    f"Value {int((~present).nonzero()[0])} is missing, which this encoder has not learned from; it can where it is trained "
                    "with encoder.missing=learned."
                )
            return inputs_of(values)
        stand_in = next((value for value in values if not is_missing(value)), None)
        if stand_in is None:
            raise ValuesUnfit("All of the values are missing; at least one is needed.")
        filled = [stand_in if is_missing(value) else value for value in values]
        return {"values": inputs_of(filled), "present": present}

    def encode(
        self,
        values: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Unit vectors, float32 of shape (n, dim), of n values that the encoder takes, None for a missing one. Raises ValuesUnfit."""
        vectors, device = np.empty((len(values), self.dim), np.float32), self.projection.weight.device
        with evaluating(self, device, precision), Bar("Encoding", len(values), shown=progress) as bar:
            for rows in in_chunks(len(values), batch_size or ROWS):
                block = list(values[rows])
                present = np.array([not (self.takes_missing and is_missing(value)) for value in block])
                found = torch.empty(len(block), self.dim)
                if present.any():
                    there = [value for value, known in zip(block, present, strict=True) if known]
                    found[torch.from_numpy(present)] = self(to_device(self.collate(there), device)).float().cpu()
                if not present.all():
                    found[torch.from_numpy(~present)] = self.of_missing().float().cpu()
                vectors[rows] = nn.functional.normalize(found, dim=-1).numpy()
                bar.advance(len(block))
        return vectors

    def of_missing(self) -> Tensor:
        """The vector, (dim,), of every row without a value."""
        return self.projection(torch.cat([self.placeholder, self.placeholder.new_ones(1)]))

    def record(self) -> dict[str, Any]:
        inner = self.encoder.record()
        return {
            "name": f"{self.modality}:{inner['name']}" if self.modality else inner["name"],
            "modality": self.modality,
            "encoder": inner,
            "dim": self.dim,
            "missing": self.missing,
            "seed": self.seed,
            "stream": self.stream,
            **({} if self.modality else {"own_module": True}),
            **({} if self.rule is None else {"rule": self.rule._asdict()}),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any], encoder: Encoder) -> ProjectedEncoder:
        """As `record` described it around an encoder, with the layer's initial weights."""
        options = {name: record[name] for name in ("missing", "seed", "stream", "modality")}
        projected = cls(encoder, record["dim"], **options)
        projected.rule = Rule(**record["rule"]) if "rule" in record else None
        return projected

    def own_state(self) -> dict[str, Tensor]:
        """The weights that are not the encoder's within."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors, the layer, and the encoder in a folder within."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in self.own_state().items()}, str(folder / WEIGHTS))
        self.encoder.save(folder / INNER)

    def __repr__(self) -> str:
        return f"{self.encoder} → {self.dim}{', missing ones learned' if self.takes_missing else ''}"


class ByName:
    """Columns by name as one column: its rows are mappings."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, rows: LongTensor) -> dict[str, Any]:
        return {name: column[rows] for name, column in self.columns.items()}


def is_missing(value: Any) -> bool:
    """None, NaN, or a text of blanks alone."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )

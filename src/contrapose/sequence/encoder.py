"""Encoders of sequences: the small transformer of SASRec, with the vectors of the items that it reads."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from contrapose.data.cache import written_whole
from contrapose.errors import (
    EncoderUnknown,
    ItemUnknown,
    ModelFolderInvalid,
    SequenceInvalid,
    UsageInvalid,
    WeightsBroken,
)
from contrapose.sequence._table import SequenceTable
from contrapose.sequence._transformer import LastState
from contrapose.training.bar import Bar
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision
from contrapose.training.settings import parse_settings

NAME = "transformer"
RECORD = "contrapose.json"  # of a model folder
WEIGHTS, ITEMS = "model.safetensors", "items.json"
BATCH = 512  # sequences encoded at once, of similar lengths
ALIKE = 128  # sequences of similar lengths that go through the transformer together on a processor
MANY = 10_000  # items among which a nearest name is no longer looked for


class EncoderOptions(BaseModel):
    """Settings of the encoder; on the command line as `--set encoder.dim=32`. Sizes are those of MCLRec's code."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: PositiveInt = Field(64, description="Dimensions of items and sequences.")
    layers: PositiveInt = Field(2, description="Transformer blocks.")
    heads: PositiveInt = Field(2, description="Heads of attention; they divide `dim`.")
    inner: PositiveInt = Field(256, description="Width of the feed-forward layers.")
    dropout: float = Field(0.5, ge=0, lt=1, description="Of embeddings and layers; 0.5 for sparse data, 0.1 for dense.")
    attention_dropout: float = Field(0.5, ge=0, lt=1, description="Of attention weights.")
    max_length: PositiveInt = Field(50, description="The last so many items of a sequence are read.")
    min_count: PositiveInt = Field(1, description="Items with fewer interactions have no vector.")
    unknown: Literal["refuse", "skip"] = Field(
        "refuse", description="What becomes of items without a vector: an error, or they are left out of sequences."
    )
    seed: NonNegativeInt = Field(0, description="Of the initial weights.")

    @model_validator(mode="after")
    def fitting(self) -> EncoderOptions:
        if self.dim % self.heads:
            raise ValueError(f"heads {self.heads} do not divide dim {self.dim}")
        if self.min_count > 1 and self.unknown == "refuse":
            raise ValueError(f"min_count {self.min_count} leaves items without a vector; give unknown=skip with it")
        return self


class SequenceEncoder(Encoder):
    """Sequences of items to vectors of shape (b, dim): the state of a causal transformer at the last item.

    `items` are names, in order; item i of them has the number i + 1, and 0 is no item. The dot product of a sequence's vector with an item's is how
    likely that item is the next. `encode([["a", "b"], ["c"]])` takes lists of names; `item_vectors()` gives the items' own.

    `forward` takes {"items": (b, t) int64, 0 on the right, "lengths": (b,) int64}. Kang and McAuley (ICDM 2018), as MCLRec's code builds it:
    learned places, layer norm after each sum, exact GELU, weights N(0, 0.02²).
    """

    def __init__(self, items: Sequence[str], options: EncoderOptions | None = None, *, seeded: bool = True) -> None:
        """`seeded`: initial weights by `options.seed`, the caller's random state left alone; False: from torch's own generator.

        Raises SequenceInvalid without items, or with one that stands twice.
        """
        super().__init__()
        self.options = options or EncoderOptions()
        self.items = tuple(items)
        self.number_of = {name: number for number, name in enumerate(self.items, 1)}
        if len(self.number_of) < max(1, len(self.items)):
            raise SequenceInvalid(
                f"An encoder needs items, each once; got {len(self.items):,}, of which {len(self.number_of):,} differ."
            )
        self.origin = NAME  # or the folder whose weights it started from
        self.dim, self.max_length, self.unknown = self.options.dim, self.options.max_length, self.options.unknown
        sizes = self.options.model_dump(
            include={"max_length", "dim", "layers", "heads", "inner", "dropout", "attention_dropout"}
        )
        with torch.random.fork_rng(enabled=seeded):
            if seeded:
                torch.manual_seed(self.options.seed)
            self.transformer = LastState(len(self.items), **sizes)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """(b, dim) for b sequences. Raises SequenceInvalid for an empty one, and for a number that is no item's."""
        items, lengths = inputs["items"], inputs["lengths"]
        if not len(lengths):
            return self.transformer.items.weight.new_zeros(0, self.dim)
        least, most = int(lengths.min()), int(lengths.max())
        if least < 1 or most > min(self.max_length, items.shape[1]):
            raise SequenceInvalid(
                f"Sequences have from 1 to {min(self.max_length, items.shape[1])} items; got lengths from {least} to {most}."
            )
        if int(items.min()) < 0 or int(items.max()) > len(self.items):
            raise SequenceInvalid(
                f"Items are numbered 1 to {len(self.items)}, 0 for none; got {int(items.min())} to {int(items.max())}."
            )
        if items.device.type != "cpu" or len(items) <= ALIKE:
            return self.transformer(items[:, :most], lengths)
        order = lengths.argsort(stable=True)  # so that few rows are padded to the longest
        parts = [self.transformer(items[rows, : int(lengths[rows[-1]])], lengths[rows]) for rows in order.split(ALIKE)]
        return torch.cat(parts).index_select(0, order.argsort())

    def encode(
        self,
        values: Sequence[Sequence[Any]],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of n sequences, lists of items' names, oldest first: float32 of shape (n, dim), not normalised.

        Of a longer sequence the last `max_length` items are read. Raises SequenceInvalid for an empty sequence or a text in place of a list,
        ItemUnknown where unknown items are not skipped.
        """
        numbers = self.numbered(values)
        lengths = torch.tensor([len(each) for each in numbers], dtype=torch.long)
        vectors = np.empty((len(numbers), self.dim), dtype=np.float32)
        with evaluating(self, self.device, precision), Bar("Encoding", len(numbers), shown=progress) as bar:
            for rows in (
                lengths.argsort(stable=True, descending=True).split(batch_size or BATCH) if len(lengths) else ()
            ):
                items = torch.zeros(len(rows), int(lengths[rows].max()), dtype=torch.long)
                for place, row in enumerate(rows.tolist()):
                    items[place, : len(numbers[row])] = torch.from_numpy(numbers[row])
                found = self({"items": items.to(self.device), "lengths": lengths[rows].to(self.device)})
                vectors[rows.numpy()] = found.float().cpu().numpy()
                bar.advance(len(rows))
        return vectors

    def numbered(self, values: Sequence[Sequence[Any]]) -> list[np.ndarray]:
        """Each sequence's item numbers, the last `max_length` of those that are known. Raises SequenceInvalid and ItemUnknown."""
        found = []
        for row, value in enumerate(values):
            if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
                raise SequenceInvalid(
                    f"Value {row} is {value!r}, not a list of items; an encoder of sequences takes lists, as in encode([['a', 'b']])."
                )
            names = [str(name) for name in value]
            if self.unknown == "refuse":
                self._refuse_unknown(row, names)
            numbers = [self.number_of[name] for name in names if name in self.number_of][-self.max_length :]
            if not numbers:
                why = "is empty" if not names else "holds no item that the encoder knows"
                raise SequenceInvalid(f"Sequence {row} {why}, so it can have no vector; leave it out.")
            found.append(np.array(numbers, np.int64))
        return found

    def item_vectors(self, names: Sequence[Any] | None = None) -> np.ndarray:
        """The vectors of items by name, or of all in the order of `items`: float32 of shape (n, dim). Raises ItemUnknown."""
        with torch.inference_mode():
            vectors = self.transformer.items.weight[1:].float().cpu().numpy()
        if names is None:
            return vectors
        wanted = [str(name) for name in names]
        self._refuse_unknown(0, wanted)
        return vectors[[self.number_of[name] - 1 for name in wanted]]

    def recommend(self, values: Sequence[Sequence[Any]], k: int = 10, *, progress: bool = True) -> list[list[str]]:
        """The k likeliest next items of each sequence, best first. Raises as `encode` does, and UsageInvalid for a k that there is not."""
        if not 1 <= k <= len(self.items):
            raise UsageInvalid(f"k must be from 1 to {len(self.items)}, the number of items; got {k}.")
        sequences, items = (
            torch.from_numpy(self.encode(values, progress=progress)),
            torch.from_numpy(self.item_vectors()),
        )
        rows = max(1, 2**23 // len(items))
        best = [(part @ items.T).topk(k, dim=1).indices for part in sequences.split(rows)]
        return [[self.items[number] for number in row] for part in best for row in part.tolist()]

    def record(self) -> dict[str, Any]:
        return {"name": self.origin, **self.options.model_dump(), "items": list(self.items)}

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors, and items.json: the names in the order of the rows of `transformer.items.weight`, from row 1."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / WEIGHTS) as part:
            save_file({name: tensor.contiguous() for name, tensor in self.state_dict().items()}, part)
        with written_whole(folder / ITEMS) as part:
            part.write_text(json.dumps(list(self.items), ensure_ascii=False), encoding="utf-8")

    @property
    def device(self) -> torch.device:
        return self.transformer.items.weight.device

    def __repr__(self) -> str:
        return f"SequenceEncoder({len(self.items):,} items; {self.options.layers} blocks, {self.dim} dimensions, the last {self.max_length} items)"

    def hint(self, name: str) -> str:
        """The item that an unknown name may mean, or how many there are."""
        close = difflib.get_close_matches(name, self.items, n=1) if len(self.items) < MANY else []
        return f"did you mean '{close[0]}'?" if close else f"it has {len(self.items):,}, such as '{self.items[0]}'."

    def _refuse_unknown(self, row: int, names: Sequence[str]) -> None:
        unknown = next((name for name in names if name not in self.number_of), None)
        if unknown is not None:
            raise ItemUnknown(
                f"Sequence {row}: the encoder has no item '{unknown}'; {self.hint(unknown)} Leave it out, or open the encoder with unknown=skip."
            )


def open_encoder(
    given: Any = None, options: Mapping[str, Any] | None = None, table: SequenceTable | None = None
) -> SequenceEncoder:
    """An encoder from what a user gives: nothing or "transformer" (untrained, its items those of `table`), a record, a folder, an encoder.

    `options` are names and values of EncoderOptions, text allowed. Raises SettingUnknown, SettingInvalid, UsageInvalid, EncoderUnknown, and
    WeightsBroken for a folder whose weights are not all there.
    """
    chosen = parse_settings(EncoderOptions, options or {}, owner="the encoder").model_dump(exclude_unset=True)
    if isinstance(given, SequenceEncoder):
        if chosen:
            raise UsageInvalid(
                f"encoder.{next(iter(chosen))} was given with an encoder that is made already; set it where it is made."
            )
        return given
    if isinstance(given, Mapping):
        record = {**given, **chosen}
        name, items = record.pop("name", NAME), record.pop("items", None)
        if items is not None and name == NAME:  # complete, so a record
            return SequenceEncoder(items, EncoderOptions(**record)).eval()
        options = {option: value for option, value in record.items() if option in EncoderOptions.model_fields}
        return open_encoder(name, options if items is not None else record, table)
    if given is not None and not isinstance(given, (str, Path)):
        raise UsageInvalid(
            f"encoder is a {type(given).__name__}; give 'transformer', a model folder, a record or a SequenceEncoder."
        )
    if given not in (None, NAME):
        return _from_folder(str(given), chosen)
    if table is None:
        raise UsageInvalid(
            "An untrained encoder of sequences takes its items from the data; give a table, a record with items, or a model folder."
        )
    settings = parse_settings(EncoderOptions, chosen, owner="the encoder")
    count = Counter(table.codes.tolist())
    items = [name for code, name in enumerate(table.items) if count[code] >= settings.min_count]
    if not items:
        raise SequenceInvalid(
            f"{table.source} has no item with {settings.min_count} interactions; set encoder.min_count lower."
        )
    return SequenceEncoder(items, settings).eval()


def _from_folder(name: str, chosen: Mapping[str, Any]) -> SequenceEncoder:
    """A trained encoder to go on from; of `chosen` only what does not change its weights may differ."""
    folder = Path(name).expanduser()
    inner = folder / "model" if (folder / "model" / RECORD).is_file() else folder
    try:
        recorded = list(json.loads((inner / RECORD).read_text(encoding="utf-8"))["encoders"].values())
        record = next(each for each in recorded if "items" in each)
    except FileNotFoundError:
        raise EncoderUnknown(
            f"'{name}' is neither '{NAME}', the untrained encoder of sequences, nor a folder with {RECORD}, as training leaves one."
        ) from None
    except (ValueError, KeyError, AttributeError, StopIteration):
        raise ModelFolderInvalid(
            f"{inner / RECORD} describes no encoder of sequences; give a run of this modality."
        ) from None
    free = {"dropout", "attention_dropout", "unknown"}
    fixed = next((option for option in chosen if option not in free and chosen[option] != record[option]), None)
    if fixed is not None:
        raise UsageInvalid(
            f"encoder.{fixed}={chosen[fixed]} does not fit the weights in {name}, which have {record[fixed]}; leave it out."
        )
    encoder = load_encoder(inner / record.get("folder", "."), {**record, **chosen})
    encoder.origin = name
    return encoder


def load_encoder(folder: Path, record: Mapping[str, Any]) -> SequenceEncoder:
    """The encoder that `save` wrote into a folder. Raises WeightsBroken."""
    options = {name: record[name] for name in EncoderOptions.model_fields if name in record}
    encoder = SequenceEncoder(record["items"], EncoderOptions(**options))
    file = Path(folder) / WEIGHTS
    try:
        encoder.load_state_dict(load_file(file))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsBroken(
            f"{file} cannot be read, or is not of this encoder ({reason}). Copy the folder again, or export it anew."
        ) from None
    return encoder.eval()


def compare_export(folder: Path, encoder: SequenceEncoder, values: Sequence[Any]) -> dict[str, float]:
    """Nobody else reads these folders."""
    return {}


def usage(encoder: SequenceEncoder) -> str:
    """How a folder that `save` wrote is used, in Markdown."""
    names = ", ".join(repr(name) for name in encoder.items[:2])
    return f"""```python
import contrapose

model = contrapose.load("path/to/this/folder")
vectors = model.encode([[{names}]])  # one vector a sequence, oldest item first
model.encoder().recommend([[{names}]], k=10)  # the likeliest next items
model.encoder().item_vectors()  # one vector an item, in the order of items.json
```"""

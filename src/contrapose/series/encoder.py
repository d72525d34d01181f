"""Encoders of time series: a network that gives a vector a step, and how its inputs are scaled, cut and masked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from contrapose.data.cache import written_whole
from contrapose.errors import (
    EncoderNotRebuildable,
    EncoderUnknown,
    SeriesInvalid,
    StepsUnavailable,
    UsageInvalid,
    WeightsBroken,
)
from contrapose.series._contrast import pooled
from contrapose.series._network import KERNELS, DilatedConvolutions, at_least_float32, inside_of
from contrapose.series._table import SeriesTable
from contrapose.series.data import length_of, refuse_missing, refuse_series
from contrapose.training.bar import Bar
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision
from contrapose.training.settings import parse_settings

__all__ = ["EncoderOptions", "SeriesEncoder", "compare_export", "load_encoder", "open_encoder", "usage"]

DILATED = "dilated"
RECORD, WEIGHTS = "encoder.json", "model.safetensors"
BATCH = 64  # series, or windows of one, at once when encoding
CONTEXT = 200  # steps that a forecast looks back on, as in TS2Vec's protocol


class EncoderOptions(BaseModel):
    """What `--set encoder.NAME=VALUE` can say about an encoder of time series."""

    model_config = ConfigDict(extra="forbid")

    hidden: PositiveInt | None = Field(None, description="Width of the blocks; 64.")
    dim: PositiveInt | None = Field(None, description="Dimensions of the vectors; 320.")
    depth: NonNegativeInt | None = Field(None, description="Residual blocks before the last one; 10.")
    kernels: str | None = Field(
        None, description="Taps of the causal convolutions, as in 1,2,4; 1 to 128 by powers of 2."
    )
    window: PositiveInt | None = Field(None, ge=4, description="Longer series are cut into windows for training; 256.")
    scale: Literal["channel", "series", "none"] | None = Field(
        None, description="z-scores by the training data's channels, by each series, or none; channel."
    )
    missing: Literal["refuse", "mask", "zero"] | None = Field(None, description="What a missing value means; refuse.")
    seed: NonNegativeInt | None = Field(None, description="Of the random initial weights; 0.")


class SeriesEncoder(Encoder):
    """Time series (t, c) of any length to vectors (dim,): the largest value over time of a vector for every step.

    `channels`: their names, or how many. Sizes of the network are those of the official code: 64 wide, 10 blocks and the last one, 320 dimensions,
    26 million weights, of which the causal convolutions are most; `hidden=32, dim=64, depth=5` has 1.2 million and is enough for small data.
    `window`: training windows have at most so many steps; `encode` takes series whole. `scale`: "channel" takes `mean` and `deviation`, each of c
    numbers, from the training data; "series" gives each series mean 0 and deviation 1; "none" leaves it. `missing`: "refuse" raises for NaN
    within a series; "mask" hides steps that lack a value, as TS2Vec does; "zero" reads missing values as 0 after scaling, as AutoTCL's loader
    does. NaN after a series' last value is padding always. `seed`: of the random initial weights, drawn without touching torch's generator;
    None: drawn from it.

    `network`: your own module in place of the dilated one, (b, t, c) without NaN to (b, t, dim); missing and hidden steps reach it as zeros.
    Raises StepsUnavailable where it gives anything else.
    """

    def __init__(
        self,
        channels: Sequence[str] | int,
        *,
        hidden: int = 64,
        dim: int = 320,
        depth: int = 10,
        kernels: Sequence[int] = KERNELS,
        window: int = 256,
        scale: Literal["channel", "series", "none"] = "channel",
        missing: Literal["refuse", "mask", "zero"] = "refuse",
        mean: Sequence[float] | None = None,
        deviation: Sequence[float] | None = None,
        seed: int | None = 0,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.channels = tuple(map(str, range(channels))) if isinstance(channels, int) else tuple(channels)
        self.window, self.scale, self.missing = window, scale, missing
        self.mean = np.zeros(self.channel_count) if mean is None else np.asarray(mean, dtype=np.float64)
        self.deviation = np.ones(self.channel_count) if deviation is None else np.asarray(deviation, dtype=np.float64)
        self.sizes = {
            "hidden": hidden,
            "dim": dim,
            "depth": depth,
            "kernels": ",".join(map(str, kernels)),
            "seed": seed,
        }
        self.own = network is not None
        if network is None:
            with seeded_weights(seed):
                network = DilatedConvolutions(self.channel_count, hidden=hidden, dim=dim, depth=depth, kernels=kernels)
        self.network = network
        self.row_wise = not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in network.modules())
        self.dim = self._probe() if self.own else dim

    @property
    def channel_count(self) -> int:
        return len(self.channels)

    def record(self) -> dict[str, Any]:
        use = {
            "channels": list(self.channels),
            "window": self.window,
            "scale": self.scale,
            "missing": self.missing,
            "mean": self.mean.tolist(),
            "deviation": self.deviation.tolist(),
        }
        if self.own:
            kind = type(self.network)
            return {"name": f"{kind.__module__}.{kind.__qualname__}", **use, "own_module": True}
        return {"name": DILATED, **self.sizes, **use}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SeriesEncoder:
        """The untrained encoder that `record()` describes. Raises EncoderNotRebuildable for a network of your own."""
        if record.get("own_module"):
            raise EncoderNotRebuildable(
                f"The encoder was made from your own network {record['name']}, which contrapose cannot build; build it, load model.safetensors into "
                "SeriesEncoder(channels, network=network) with safetensors.torch.load_model, and give that as the encoder."
            )
        known = {"hidden", "dim", "depth", "kernels", "seed", "window", "scale", "missing", "mean", "deviation"}
        given = {name: record[name] for name in known if record.get(name) is not None}
        if "kernels" in given:
            given["kernels"] = kernels_of(given["kernels"])
        return cls(record["channels"], **given)

    def steps(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """A vector for every step: (b, t, c), NaN where there is no value, to (b, t, dim); float32, or float64 where the weights are.

        `keep`: bool (b, t), False on steps to hide. x is scaled already, as the columns of `open_data` are.
        """
        x = x.to(next(self.parameters()).dtype)
        if not self.own:
            return at_least_float32(self.network(x, keep))
        shown = ~x.isnan().any(dim=-1) if keep is None else keep & ~x.isnan().any(dim=-1)
        return at_least_float32(self.network(x.masked_fill(~shown.unsqueeze(-1), 0)))

    def forward(self, inputs: Tensor) -> Tensor:
        """(b, t, c), scaled, NaN where there is no value, to (b, dim)."""
        return pooled(self.steps(inputs), inside_of(inputs))

    def last(self, x: Tensor) -> Tensor:
        """The vector of the last step alone, (b, t, c) to (b, dim); much cheaper than `steps`."""
        x = x.to(next(self.parameters()).dtype)
        return at_least_float32(self.steps(x)[:, -1] if self.own else self.network(x, last=True))

    def encode(
        self,
        values: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of n time series, float32 of shape (n, dim), in evaluation mode and without gradient.

        `values`: arrays (t, c), or (t,) of one channel, of any lengths, not scaled; or an array (n, t, c) or (n, t). `batch_size`: most at once,
        of one length or nearly; None: 64. Raises SeriesInvalid, naming the series, for what does not fit the encoder.
        """
        ready = [self.prepared(each, f"value {row}") for row, each in enumerate(values)]
        vectors = np.empty((len(ready), self.dim), dtype=np.float32)
        order = np.argsort([-len(each) for each in ready], kind="stable")
        with evaluating(self, self.device, precision), Bar("Encoding", len(ready), shown=progress) as bar:
            for start in range(0, len(ready), batch_size or BATCH):
                rows = order[start : start + (batch_size or BATCH)]
                vectors[rows] = self(padded([ready[row] for row in rows]).to(self.device)).float().cpu().numpy()
                bar.advance(len(rows))
        return vectors

    def encode_steps(
        self, series: Any, *, context: int = CONTEXT, progress: bool = True, precision: Precision = "float32"
    ) -> np.ndarray:
        """A vector for every step of a series that sees nothing after it: float32 of shape (t, dim).

        The vector of step s is that of the last step of the window from s - context to s, TS2Vec's protocol for forecasts; what would lie
        before the series is missing. `series`: (t, c), or (t,).
        """
        if context < 0:
            raise UsageInvalid(f"context is how many steps before it a step sees, 0 or more; got {context}.")
        ready = torch.from_numpy(self.prepared(series, "the series")).float()
        before = torch.full((context, ready.shape[1]), torch.nan)
        windows = torch.cat([before, ready]).unfold(0, context + 1, 1).transpose(1, 2)  # (t, context + 1, c), a view
        vectors = np.empty((len(ready), self.dim), dtype=np.float32)
        with evaluating(self, self.device, precision), Bar("Encoding steps", len(ready), shown=progress) as bar:
            for start in range(0, len(ready), 4 * BATCH):
                found = self.last(windows[start : start + 4 * BATCH].to(self.device))
                vectors[start : start + len(found)] = found.float().cpu().numpy()
                bar.advance(len(found))
        return vectors

    def prepared(self, values: Any, where: str) -> np.ndarray:
        """A series as the network takes it: checked, without the padding at its end, scaled; float64 (t, c). Raises SeriesInvalid."""
        try:
            given = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
            if np.iscomplexobj(given):
                raise SeriesInvalid(f"{where} holds complex numbers; give their parts, or size and angle, as channels.")
            series = given.astype(np.float64)
        except (TypeError, ValueError):
            raise SeriesInvalid(
                f"{where} holds something else than numbers; a series is an array of (steps, channels)."
            ) from None
        series = series[:, None] if series.ndim == 1 else series
        if series.ndim != 2 or series.shape[1] != self.channel_count:
            raise SeriesInvalid(
                f"{where} has shape {np.shape(values)}; this encoder takes series of (steps, {self.channel_count}), the channels "
                f"{', '.join(self.channels)}."
            )
        refuse_series(series, where, self.channels)
        if self.missing == "refuse":
            refuse_missing(series, where, self.channels)
        series = self.scaled(series[: length_of(series)])
        return np.nan_to_num(series, nan=0.0) if self.missing == "zero" else series

    def scaled(self, series: np.ndarray) -> np.ndarray:
        """(t, c) as `scale` says; NaN stays. A channel that never changes is centred alone."""
        if self.scale == "none":
            return series
        mean, deviation = (
            (self.mean, self.deviation) if self.scale == "channel" else map(np.array, statistics([series]))
        )
        return (series - mean) / np.where(deviation > 0, deviation, 1.0)

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors and encoder.json."""
        from safetensors.torch import save_model

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / WEIGHTS) as part:
            save_model(self, str(part))
        with written_whole(folder / RECORD) as part:
            part.write_text(json.dumps(self.record(), indent=2), encoding="utf-8")

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def __repr__(self) -> str:
        what = f"'{self.record()['name']}'"
        return f"SeriesEncoder({what}, {self.channel_count} channels, window {self.window}; {self.dim} dimensions)"

    def _probe(self) -> int:
        steps = 2 * CONTEXT
        weight = next(self.network.parameters())
        with evaluating(self, self.device):
            found = self.network(torch.zeros(2, steps, self.channel_count, dtype=weight.dtype, device=weight.device))
        if not isinstance(found, Tensor) or found.ndim != 3 or found.shape[:2] != (2, steps):
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise StepsUnavailable(
                f"The network gives {shape} for series of shape (2, {steps}, {self.channel_count}); (2, {steps}, d) is needed, a vector for every step."
            )
        return found.shape[-1]


def open_encoder(
    given: Any = None, options: Mapping[str, Any] | None = None, table: SeriesTable | None = None
) -> SeriesEncoder:
    """An encoder from what a user gives: nothing or "dilated" (untrained), a folder, a record, a SeriesEncoder, or a module of one's own.

    `table`: the training data, from which a new encoder takes its channels and their scale; a record or a folder has them. `options` are names and
    values of EncoderOptions, text allowed. Raises SettingUnknown, SettingInvalid, UsageInvalid, EncoderUnknown, StepsUnavailable.
    """
    chosen = parse_settings(EncoderOptions, options or {}, owner="the encoder").model_dump(exclude_none=True)
    if isinstance(given, SeriesEncoder):
        if chosen:
            raise UsageInvalid(
                f"encoder.{next(iter(chosen))} was given with an encoder that is made already; set it where it is made."
            )
        return given
    if isinstance(given, Mapping) and "channels" in given:
        return SeriesEncoder.from_record({**given, **chosen})
    if isinstance(given, Mapping):
        named = dict(given)
        return open_encoder(named.pop("name", None), {**named, **chosen}, table)
    if isinstance(given, (str, Path)) and str(given) != DILATED:
        return from_folder(Path(given).expanduser(), chosen)
    if given is not None and not isinstance(given, (str, Path, nn.Module)):
        raise UsageInvalid(
            f"encoder is a {type(given).__name__}; give 'dilated', a folder, a SeriesEncoder or a module."
        )
    if table is None:
        raise UsageInvalid(
            "A new encoder of time series takes its channels from the training data, and there are none; give SeriesEncoder(channels)."
        )
    mean, deviation = statistics(table.series)
    network = given if isinstance(given, nn.Module) else None
    if "kernels" in chosen:
        chosen["kernels"] = kernels_of(chosen["kernels"])
    return SeriesEncoder(table.channels, mean=mean, deviation=deviation, network=network, **chosen)


def kernels_of(said: str) -> list[int]:
    parts = [part.strip() for part in said.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageInvalid(f"encoder.kernels is '{said}'; write numbers of taps with commas between them: 1,2,4,8")
    return [int(part) for part in parts]


def statistics(series: Sequence[np.ndarray]) -> tuple[list[float], list[float]]:
    """Mean and deviation of each channel over all steps that have a value. A channel without any has 0 and 1."""
    together = np.concatenate([np.asarray(each, dtype=np.float64) for each in series])
    count = np.maximum((~np.isnan(together)).sum(axis=0), 1)
    mean = np.nansum(together, axis=0) / count
    deviation = np.sqrt(np.nansum(np.square(together - mean), axis=0) / count)
    return mean.tolist(), deviation.tolist()


def from_folder(folder: Path, chosen: Mapping[str, Any]) -> SeriesEncoder:
    """The encoder in a folder that `save` wrote, or in a run's."""
    place = next((each for each in (folder, folder / "model") if (each / RECORD).is_file()), None)
    if place is None:
        raise EncoderUnknown(
            f"There is no encoder of time series '{folder}': '{DILATED}' is a new one, a folder holds {RECORD} and {WEIGHTS}."
        )
    shapes = [name for name in chosen if name not in ("window", "missing")]
    if shapes:
        raise UsageInvalid(f"encoder.{shapes[0]} cannot change an encoder that is trained already; leave it out.")
    record = json.loads((place / RECORD).read_text(encoding="utf-8"))
    return load_encoder(place, {**record, **chosen})


def load_encoder(folder: Path, record: Mapping[str, Any]) -> SeriesEncoder:
    """The encoder that `save` wrote into a folder. Raises EncoderNotRebuildable for a network of your own, WeightsBroken."""
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    encoder = SeriesEncoder.from_record(record)
    try:
        load_model(encoder, str(Path(folder) / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise WeightsBroken(
            f"{Path(folder) / WEIGHTS} cannot be loaded: {str(error).splitlines()[0]}. Copy the folder again."
        ) from None
    return encoder.eval()


def compare_export(folder: Path, encoder: SeriesEncoder, values: Sequence[Any]) -> dict[str, float]:
    """Nobody but contrapose reads these folders."""
    return {}


def usage(encoder: SeriesEncoder) -> str:
    """How a folder that `save` wrote is used, in Markdown."""
    if encoder.own:
        return f"""```python
from contrapose.series.encoder import SeriesEncoder
from safetensors.torch import load_model

network = ...  # a {encoder.record()["name"]}, built as for the training
encoder = SeriesEncoder({list(encoder.channels)}, network=network)
load_model(encoder, "path/to/this/folder/model.safetensors")
```"""
    return f"""```python
import contrapose

model = contrapose.load("path/to/this/folder")
vectors = model.encode([series])  # arrays of (steps, {encoder.channel_count}): {", ".join(encoder.channels[:8])}
steps = model.encoder().encode_steps(series)  # a vector for every step, from the {CONTEXT} steps before it alone
```"""


def padded(series: Sequence[np.ndarray]) -> Tensor:
    """(b, longest, c) float32, NaN behind the end of each."""
    longest = max(len(each) for each in series)
    together = np.full((len(series), longest, series[0].shape[1]), np.nan, dtype=np.float32)
    for row, each in enumerate(series):
        together[row, : len(each)] = each
    return torch.from_numpy(together)


@contextlib.contextmanager
def seeded_weights(seed: int | None) -> Iterator[None]:
    """Random weights by a seed of their own, the caller's generator left alone; None: by the caller's."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield

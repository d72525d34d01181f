"""Encoders of images: a network on normalised pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from contrapose.data.table import Table
from contrapose.errors import EncoderNotRebuildable, ImageEncoderMisfit, ImageInvalid, UsageInvalid, WeightsBroken
from contrapose.image._backbones import DEFAULT, PLANS, SMALL, Plan, build, find, load, planned, pooled
from contrapose.image._decode import as_bytes
from contrapose.image._export import compare_export, usage
from contrapose.image._given import GivenImages
from contrapose.image.data import BLOCK, Pixels, decoded, seen
from contrapose.training.bar import Bar
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision
from contrapose.training.pretrained import quiet
from contrapose.training.settings import parse_settings

__all__ = ["EncoderOptions", "ImageEncoder", "compare_export", "load_encoder", "open_encoder", "usage"]

Pooling = Literal["cls", "avg"]

# ImageNet's means and deviations, which most pretrained networks were trained with; of grey, their means.
COLOUR = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
GREY = ((0.449,), (0.226,))
LARGEST = 96  # pixels: what an encoder takes as it is where nobody says a size
RECORD = "contrapose.json"  # what tells a model folder of contrapose


class EncoderOptions(BaseModel):
    """What `--set encoder.NAME=VALUE` can say about an image encoder."""

    model_config = ConfigDict(extra="forbid")

    size: PositiveInt | None = Field(None, description="Side of the square that images are brought to, in pixels.")
    channels: PositiveInt | None = Field(None, description="3 for colour, 1 for grey.")
    width: PositiveInt | None = Field(
        None, description="Of an untrained network: channels of the first stage, hidden size, units."
    )
    depth: PositiveInt | None = Field(
        None, description="Of an untrained network: blocks of each of four stages, or layers."
    )
    stem: Literal["small", "large"] | None = Field(
        None, description="Of an untrained ResNet: one 3 x 3 convolution, or a 7 x 7 one of stride 2 and a pooling."
    )
    pooling: Pooling | None = Field(None, description="Of tokens: the first one (cls) or their mean (avg).")
    seed: NonNegativeInt | None = Field(None, description="Of an untrained network's weights.")
    revision: str | None = Field(None, description="The commit of a model of the Hub.")


class ImageEncoder(Encoder):
    """Images to vectors of shape (b, dim).

    `ImageEncoder.open("resnet", size=32)` builds an untrained one by name (resnet, resnet-18, resnet-50, vit-tiny, mlp), or loads a folder or a
    model of the Hub; `ImageEncoder(module, size=32)` takes your own: the module is called with pixels (b, c, size, size) and returns
    (b, d), a map (b, d, h, w) or tokens (b, t, d), plain or as `last_hidden_state`.

    `pooling`: of tokens, the first one ("cls") or their mean ("avg"); maps are averaged. `normalise`: whether `encode` gives unit vectors;
    `forward` never does. A network with BatchNorm looks across rows while it trains, so `row_wise` is False.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        size: int,
        channels: int = 3,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        pooling: Pooling = "cls",
        normalise: bool = True,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        """`mean`, `std`: of each channel, taken off and divided by, on the scale 0 … 1; None: ImageNet's. `origin`: of an encoder that `open` found.

        Raises ImageEncoderMisfit where the module cannot take images of this size, or gives no vectors.
        """
        super().__init__()
        if channels not in (1, 3):
            raise ImageEncoderMisfit(f"encoder.channels={channels}; images are in colour (3) or grey (1).")
        self.backbone, self.size, self.channels = backbone, size, channels
        self.pooling: Pooling = pooling
        self.normalise = normalise
        self.origin = dict(origin) if origin else None
        usual = COLOUR if channels == 3 else GREY
        self.mean, self.std = tuple(mean or usual[0]), tuple(std or usual[1])
        self.row_wise = not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
        self.dim = self._probe()

    @classmethod
    def open(
        cls,
        name: str = DEFAULT,
        *,
        size: int | None = None,
        channels: int | None = None,
        revision: str | None = None,
        **options: Any,
    ) -> ImageEncoder:
        """An encoder by name, in evaluation mode, on the processor and in float32.

        `name`: "resnet" (a ResNet-18 of half the width), "resnet-18", "resnet-50", "vit-tiny" or "mlp", untrained; a folder of transformers or
        a model of the Hub, at `revision`. `options`: further ones of `EncoderOptions`. `size`: None is 64, or what the folder says.

        Weights are safetensors; no pickle is loaded and no code from a folder is run. Raises EncoderUnknown, ModelFolderInvalid, WeightsPickled,
        WeightsBroken, ImageEncoderMisfit.
        """
        plan = planned(name, size or SMALL, options)
        pooling = options.get("pooling")
        if plan is not None:
            size, channels = size or SMALL, channels or 3
            origin = {"name": name, "revision": None, **asdict(plan)}
            pooling = pooling or ("avg" if plan.family == "vit" else "cls")
            return cls(build(plan, size, channels), size=size, channels=channels, pooling=pooling, origin=origin).eval()
        given = [option for option in ("width", "depth", "stem", "seed") if options.get(option) is not None]
        if given:
            raise ImageEncoderMisfit(
                f"encoder.{given[0]} is of untrained networks ({', '.join(PLANS)}); '{name}' has its own."
            )
        folder, found = find(name, revision)
        return cls._of_folder(folder, {"name": name, "revision": found}, size, channels, pooling)

    @classmethod
    def _of_folder(
        cls, folder: Path, origin: Mapping[str, Any], size: int | None, channels: int | None, pooling: Pooling | None
    ) -> ImageEncoder:
        if (folder / RECORD).is_file():
            return cls._of_run(folder, size, channels)
        backbone = load(folder)
        said = _preprocessing(folder)
        own = getattr(backbone.config, "num_channels", 3)
        if channels not in (None, own):
            raise ImageEncoderMisfit(
                f"encoder.channels={channels}, but '{origin['name']}' takes {own}; leave the setting out."
            )
        return cls(
            backbone,
            size=size or said.get("size") or getattr(backbone.config, "image_size", None) or 224,
            channels=own,
            mean=said.get("mean"),
            std=said.get("std"),
            pooling=pooling or "cls",
            origin=origin,
        ).eval()

    @classmethod
    def _of_run(cls, folder: Path, size: int | None, channels: int | None) -> ImageEncoder:
        """The first encoder of a model folder of contrapose, to start from."""
        record = next(iter(json.loads((folder / RECORD).read_text(encoding="utf-8"))["encoders"].values()))
        place = folder / record.pop("folder", ".")
        if size not in (None, record["size"]) or channels not in (None, record["channels"]):
            raise ImageEncoderMisfit(
                f"{folder} was trained on {record['channels']} x {record['size']} x {record['size']} images; leave size and channels out."
            )
        return cls.from_record({**record, "name": str(folder), "revision": None, "start": str(place)}, place)

    @classmethod
    def from_record(cls, record: Mapping[str, Any], folder: Path | None = None) -> ImageEncoder:
        """An encoder as `record()` described it: as it was before training, or with the weights in `folder`, which `save` wrote.

        Raises EncoderNotRebuildable for a module of your own.
        """
        if record.get("own_module"):
            raise EncoderNotRebuildable(
                f"The encoder was made from your own module {record['name']}, which contrapose cannot build; build it, load "
                "model.safetensors into it with safetensors.torch.load_model, and give (module, size) as the encoder."
            )
        use = {name: record[name] for name in ("size", "channels", "mean", "std", "pooling", "normalise")}
        origin = {name: record[name] for name in ("name", "revision")}
        if "family" in record:
            plan = Plan(**{name: record[name] for name in Plan.__dataclass_fields__})
            backbone, origin = build(plan, record["size"], record["channels"]), {**origin, **asdict(plan)}
            if "start" in record:
                origin["start"] = record["start"]
            if weights := folder or record.get("start"):
                backbone = with_weights(backbone, plan, Path(weights))
        else:
            backbone = load(folder or find(record["name"], record["revision"])[0])
        return cls(backbone, **use, origin=origin).eval()

    def record(self) -> dict[str, Any]:
        use = {
            "size": self.size, "channels": self.channels, "mean": list(self.mean), "std": list(self.std),
            "pooling": self.pooling, "normalise": self.normalise,
        }  # fmt: skip
        if self.origin is not None:
            return {**self.origin, **use}
        kind = type(self.backbone)
        return {"name": f"{kind.__module__}.{kind.__qualname__}", "revision": None, **use, "own_module": True}

    def pixels(self, images: Tensor) -> Tensor:
        """Images (b, c, h, w), uint8 or floats from 0 to 1, as floats from 0 to 1 in the dtype of the weights: what views are made of."""
        weight = self._weight()
        return (
            images.to(weight.device, weight.dtype) / 255
            if images.dtype == torch.uint8
            else images.to(weight.device, weight.dtype)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(b, dim) for images (b, c, h, w), uint8 or floats from 0 to 1; in the dtype of the weights or of autocast."""
        pixels = self.pixels(images)
        mean, std = (pixels.new_tensor(each).view(1, -1, 1, 1) for each in (self.mean, self.std))
        return pooled(self.backbone((pixels - mean) / std), self.pooling)

    def encode(
        self,
        values: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of n images, float32 of shape (n, dim), in evaluation mode and without gradient; unit vectors where `normalise` is set.

        `values`: paths, bytes of image files, PIL images, arrays (h, w[, c]), or one array (n, h, w[, c]); brought to the encoder's size and
        channels as for training. `batch_size`: images at once; None: 256. Raises ImageInvalid, which names the value.
        """
        if isinstance(values, (str, bytes)):
            raise ImageInvalid("encode takes a list of images and was given one; write encode([image]).")
        if hasattr(values, "detach"):
            values = values.detach().cpu().numpy()
            if values.ndim == 4 and values.shape[1] in (1, 3) and values.shape[3] not in (1, 3):
                values = values.transpose(0, 2, 3, 1)
        if isinstance(values, np.ndarray) and values.ndim > 2:
            values = as_bytes(values, "The array")
        rows = batch_size or BLOCK
        vectors = np.empty((len(values), self.dim), dtype=np.float32)
        device = self._weight().device
        with evaluating(self, device, precision), Bar("Encoding", len(values), shown=progress) as bar:
            for start in range(0, len(values), rows):
                block = torch.from_numpy(decoded(values[start : start + rows], self.size, self.channels, start))
                found = self(block.to(device))
                found = nn.functional.normalize(found, dim=-1) if self.normalise else found
                vectors[start : start + len(block)] = found.float().cpu().numpy()
                bar.advance(len(block))
        return vectors

    def collate(self, values: Sequence[Any]) -> Tensor:
        """Images as `forward` takes them, uint8 (b, c, size, size). Raises ImageInvalid, which names the value."""
        return torch.from_numpy(decoded(values, self.size, self.channels))

    def open_column(self, values: Sequence[Any]) -> Pixels:
        """A column of images among others, decoded once for training. Raises ImageInvalid, which names the file or the number of the value."""
        return Pixels.open(GivenImages(values), self.size, self.channels)

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors and, where transformers can build the network, config.json, so that `AutoModel.from_pretrained(folder)` reads it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if self.is_plain:
            with quiet():
                self.backbone.save_pretrained(folder)
        else:
            from safetensors.torch import save_model

            save_model(self.backbone, str(folder / "model.safetensors"))

    @property
    def is_plain(self) -> bool:
        """Whether `AutoModel.from_pretrained` reads what `save` writes."""
        return is_plain(self.backbone, (self.origin or {}).get("stem"))

    def __repr__(self) -> str:
        name = self.record()["name"]
        colours = "RGB" if self.channels == 3 else "grey"
        return f"ImageEncoder({name!r}, images as {self.size} x {self.size} {colours}; {self.dim} dimensions)"

    def _weight(self) -> Tensor:
        return next(self.backbone.parameters())

    def _probe(self) -> int:
        """The size of a vector, from one image."""
        try:
            with evaluating(self, self._weight().device):
                found = self(torch.zeros(1, self.channels, self.size, self.size, dtype=torch.uint8))
        except (RuntimeError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise ImageEncoderMisfit(
                f"the network cannot take {self.channels} x {self.size} x {self.size} images ({reason}); choose another encoder.size or encoder.channels."
            ) from None
        return found.shape[-1]


def open_encoder(
    given: Any = None, options: Mapping[str, Any] | None = None, table: Table | None = None
) -> ImageEncoder:
    """An encoder from what a user gives: nothing (an untrained ResNet), a name, a record, an encoder, or (module, size).

    `table`: the training images. Where nobody says a size or channels, an untrained network takes those of the first hundred images: their
    own size where all are square, of one size and at most 96 pixels, else 64; grey where all are grey. What was taken stands in the record.

    Raises SettingUnknown, SettingInvalid, UsageInvalid, and what `ImageEncoder.open` raises.
    """
    chosen = parse_settings(EncoderOptions, options or {}, owner="the encoder").model_dump(exclude_none=True)
    if isinstance(given, Mapping):
        if "mean" in given and "normalise" in given:  # complete, so a record
            return ImageEncoder.from_record({**given, **chosen})
        named = dict(given)
        return open_encoder(named.pop("name", None), {**named, **chosen}, table)
    if isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], nn.Module):
        return ImageEncoder(given[0], size=given[1], **_use(chosen, "pooling", "channels"))
    if isinstance(given, ImageEncoder):
        if chosen:
            raise UsageInvalid(
                f"encoder.{next(iter(chosen))} was given with an encoder that is made already; set it where it is made."
            )
        return given
    if given is not None and not isinstance(given, (str, Path)):
        raise UsageInvalid(
            f"encoder is a {type(given).__name__}; give a name, a folder, an ImageEncoder or (module, size)."
        )
    name = str(given or DEFAULT)
    if name in PLANS and table is not None:
        size, grey = seen(table)
        fits = size is not None and size[0] == size[1] <= LARGEST
        chosen = {"size": size[0] if fits else SMALL, "channels": 1 if grey else 3, **chosen}
    return ImageEncoder.open(name, **chosen)


def _use(chosen: Mapping[str, Any], *names: str) -> dict[str, Any]:
    other = [name for name in chosen if name not in names]
    if other:
        raise UsageInvalid(f"encoder.{other[0]} was given with a module that is made already; set it where it is made.")
    return dict(chosen)


def load_encoder(folder: Path, record: Mapping[str, Any]) -> ImageEncoder:
    """The encoder that `save` wrote into a folder. Raises EncoderNotRebuildable for a module of your own."""
    return ImageEncoder.from_record(record, folder)


def with_weights(backbone: nn.Module, plan: Plan, folder: Path) -> nn.Module:
    """A network with the weights that `save` wrote. Raises WeightsBroken."""
    if is_plain(backbone, plan.stem):
        return load(folder)
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    file = folder / "model.safetensors"
    try:
        load_model(backbone, str(file))
    except (SafetensorError, OSError, RuntimeError) as error:
        reason = (str(error).splitlines() or [""])[0].rstrip(".:")
        raise WeightsBroken(f"{file} cannot be read: {reason}. Copy the folder again, or export it anew.") from None
    return backbone


def is_plain(backbone: nn.Module, stem: str | None) -> bool:
    """Whether transformers' AutoModel builds a network by its configuration alone."""
    return hasattr(backbone, "save_pretrained") and stem != "small"


def _preprocessing(folder: Path) -> dict[str, Any]:
    """Size, means and deviations that a folder's preprocessor_config.json says, as far as it says them."""
    try:
        said = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    size = said.get("crop_size") if said.get("do_center_crop") else said.get("size")
    if isinstance(size, Mapping):
        size = size.get("shortest_edge") or size.get("height")
    found = {"size": size, "mean": said.get("image_mean"), "std": said.get("image_std")}
    if said.get("do_normalize") is False:
        found |= {"mean": [0.0] * 3, "std": [1.0] * 3}
    return {name: value for name, value in found.items() if value is not None}

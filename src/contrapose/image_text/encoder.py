"""Two encoders into one space: images and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from safetensors import SafetensorError
from safetensors.torch import load_file

from contrapose.data.table import Table
from contrapose.errors import EncoderNotRebuildable, ModelFolderInvalid, UsageInvalid, WeightsBroken
from contrapose.image import encoder as images
from contrapose.image.data import seen
from contrapose.image_text._architecture import Architecture
from contrapose.image_text._growing import GROWING, GrowingImages, GrowingTexts, growing_pair
from contrapose.image_text._projected import TOWER, WEIGHTS, ProjectedEncoder
from contrapose.text import encoder as texts
from contrapose.training.encoder import Encoder, Encoders
from contrapose.training.settings import parse_settings

__all__ = ["EncoderOptions", "Pair", "ProjectedEncoder", "compare_export", "load_encoder", "open_encoder", "usage"]

LARGEST = 96  # pixels up to which a growing tower takes images as they are
SIDES = {"image": images, "text": texts}


class EncoderOptions(BaseModel):
    """What `--set encoder.NAME=VALUE` can say of a pair of encoders; `encoder.image.NAME` and `encoder.text.NAME` reach into one of them."""

    model_config = ConfigDict(extra="forbid")

    dim: PositiveInt = Field(128, description="Dimensions of the space that both end in.")
    freeze: Literal["none", "image", "text", "both"] = Field("none", description="Whose tower is left as it is.")
    seed: NonNegativeInt = Field(
        0, description="Of initial weights of the layers into the space, and of growing towers."
    )
    depth: PositiveInt = Field(2, description="growing: blocks of each tower at the start.")
    shared: NonNegativeInt = Field(0, description="growing: blocks that both share, at the start.")
    width: PositiveInt = Field(64, description="growing: dimensions between the blocks.")
    hidden: PositiveInt = Field(128, description="growing: width of the MLPs at the start.")
    heads: PositiveInt = Field(2, description="growing: heads of attention at the start.")
    head: PositiveInt = Field(32, description="growing: dimensions of a head.")
    patch: PositiveInt = Field(8, description="growing: side of a patch, in pixels.")
    buckets: PositiveInt = Field(4096, ge=2, description="growing: word vectors.")
    max_tokens: PositiveInt = Field(32, description="growing: words of a text that are read.")


class Pair(Encoders):
    """The encoder "image" and the encoder "text"."""

    def record(self) -> dict[str, Any]:
        freeze = [side for side, encoder in self.items() if getattr(encoder, "frozen", False)]
        said = {"dim": self["image"].dim, "seed": self["image"].seed}
        if not isinstance(self["image"], GrowingImages):
            said["freeze"] = "both" if len(freeze) == 2 else "".join(freeze) or "none"
        return {**super().record(), "name": name_of(self), **said}


def name_of(pair: Pair) -> str:
    """As `--encoder` takes it."""
    if isinstance(pair["image"], GrowingImages):
        return GROWING
    return ",".join(f"{side}={pair[side].record()['name']}" for side in SIDES)


def open_encoder(given: Any = None, options: Mapping[str, Any] | None = None, table: Table | None = None) -> Pair:
    """A pair of encoders, from what a user gives.

    Args:
        given: None: an untrained ResNet and the offline text encoder. "image=vit-tiny,text=minilm" or a mapping of the two: names, records or
            encoders of their modalities; what is left out is the default. "growing": two small transformers that can grow. A record, or a `Pair`.
        options: names and values of EncoderOptions, and with "image." or "text." before them those of either encoder; text allowed.
        table: the training images; an untrained network takes its size and colours from them, which stand in the record.

    Raises UsageInvalid, SettingUnknown, SettingInvalid, and what the encoders of images and texts raise.
    """
    options = dict(options or {})
    if isinstance(given, Pair):
        if options:
            raise UsageInvalid(
                f"encoder.{next(iter(options))} was given with encoders that are made already; set it where they are made."
            )
        return given
    sides = {side: {} for side in SIDES}
    for name in [name for name in options if name.partition(".")[0] in sides and "." in name]:
        side, _, option = name.partition(".")
        sides[side][option] = options.pop(name)
    record = given if isinstance(given, Mapping) and "encoders" in given else None
    kept = {name: record[name] for name in ("dim", "seed", "freeze") if record and name in record}
    chosen = parse_settings(EncoderOptions, {**kept, **options}, owner="the encoder")
    if record is not None:
        wanted = dict(record["encoders"])
        if all(each["name"] == GROWING for each in wanted.values()):
            return growing_again(wanted)
    elif given == GROWING:
        return growing(chosen, table, sides)
    else:
        wanted = by_side(given)
    made = {}
    for side, room in SIDES.items():
        spec = wanted.get(side)
        tower = spec["tower"] if isinstance(spec, Mapping) and "tower" in spec else spec
        inner = room.open_encoder(tower, sides[side], table)
        frozen = chosen.freeze in (side, "both")
        made[side] = ProjectedEncoder(inner, side, chosen.dim, chosen.seed + list(SIDES).index(side), frozen)
    return Pair(made)


def by_side(given: Any) -> dict[str, Any]:
    """What is said of either encoder."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        found = dict(given)
    elif isinstance(given, str):
        found = dict(part.split("=", 1) if "=" in part else (part, "") for part in given.split(","))
    else:
        raise UsageInvalid(
            f"encoder is a {type(given).__name__}; give image=NAME,text=NAME, a mapping of the two, growing, or a Pair."
        )
    unknown = [side for side in found if side.strip() not in SIDES]
    if unknown:
        raise UsageInvalid(f"--encoder {given}: '{unknown[0]}' is no side; write image=NAME,text=NAME, or growing.")
    return {side.strip(): spec or None for side, spec in found.items()}


def growing(chosen: EncoderOptions, table: Table | None, sides: Mapping[str, Mapping[str, Any]]) -> Pair:
    """Two towers as small as they start. Raises UsageInvalid where the patches do not fit the images."""
    for side, own in sides.items():
        if own:
            raise UsageInvalid(
                f"encoder.{side}.{next(iter(own))} is of other encoders; growing towers have encoder.width and the like."
            )
    found, grey = (None, False) if table is None else seen(table)
    size = found[0] if found is not None and found[0] == found[1] <= LARGEST else 64
    if size % chosen.patch:
        raise UsageInvalid(
            f"encoder.patch={chosen.patch} does not divide the images, {size} pixels a side; give one that does."
        )
    built = Architecture(
        chosen.depth, chosen.depth, chosen.shared, chosen.width, chosen.hidden, chosen.heads, chosen.head
    )
    both = {"dim": chosen.dim, "seed": chosen.seed}
    return made_with_seed(
        {**both, "size": size, "channels": 1 if grey else 3, "patch": chosen.patch},
        {**both, "buckets": chosen.buckets, "max_tokens": chosen.max_tokens},
        built,
    )


def growing_again(records: Mapping[str, Mapping[str, Any]]) -> Pair:
    """Growing towers as their records say, with their initial weights."""
    own = {side: own_facts(record) for side, record in records.items()}
    return made_with_seed(own["image"], own["text"], architecture_of(records["image"]))


def made_with_seed(image: dict[str, Any], text: dict[str, Any], built: Architecture) -> Pair:
    """Two growing towers whose initial weights depend on the seed alone; the caller's random state is left alone."""
    with torch.random.fork_rng():
        torch.manual_seed(image["seed"])
        first, second = growing_pair(image, text, built)
    return Pair({"image": first.eval(), "text": second.eval()})


def architecture_of(record: Mapping[str, Any]) -> Architecture:
    return Architecture(**{name: record[name] for name in Architecture.__dataclass_fields__})


def own_facts(record: Mapping[str, Any]) -> dict[str, Any]:
    """Of a growing encoder's record what is no architecture."""
    return {
        name: value
        for name, value in record.items()
        if name not in ("name", "reads", "folder") and name not in Architecture.__dataclass_fields__
    }


def load_encoder(folder: Path, record: Mapping[str, Any]) -> Encoder:
    """The encoder that `save` wrote into a folder. Raises EncoderNotRebuildable for a module of your own, ModelFolderInvalid, WeightsBroken."""
    if record["name"] == GROWING:
        kind = {"image": GrowingImages, "text": GrowingTexts}[record["reads"]]
        encoder: Encoder = kind(architecture_of(record), **own_facts(record))
        encoder.load_state_dict(tensors_of(folder, encoder.state_dict()))
        return encoder.eval()
    if record.get("own_module"):
        raise EncoderNotRebuildable(
            f"The {record['reads']} encoder was made from your own module {record['name']}, which contrapose cannot build; build it, and load "
            "tower/model.safetensors into it with safetensors.torch.load_model."
        )
    tower = SIDES[record["reads"]].load_encoder(folder / TOWER, record["tower"])
    encoder = ProjectedEncoder(tower, record["reads"], record["dim"], record["seed"], record["frozen"])
    encoder.projection.weight.data.copy_(
        tensors_of(folder, {"projection.weight": encoder.projection.weight})["projection.weight"]
    )
    return encoder.eval()


def tensors_of(folder: Path, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors of a folder, with the names and shapes that are wanted. Raises ModelFolderInvalid, WeightsBroken."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise ModelFolderInvalid(f"{folder} has no {WEIGHTS}; copy the folder again, or export it anew.")
    try:
        tensors = load_file(file)
    except SafetensorError as error:
        raise WeightsBroken(
            f"{file} cannot be read: {str(error).splitlines()[0]}. Copy the folder again, or export it anew."
        ) from None
    for name, expected in wanted.items():
        found = tensors.get(name)
        if found is None or found.shape != expected.shape:
            shape = "is missing" if found is None else f"has the shape {tuple(found.shape)}"
            raise WeightsBroken(
                f"{file}: {name} {shape}, and the record says {tuple(expected.shape)}. Copy the folder again, or export it anew."
            )
    return tensors


def compare_export(folder: Path, encoder: Encoder, values: Sequence[Any]) -> dict[str, float]:
    """Nothing: no other library reads both towers and the layers behind them."""
    return {}


def usage(encoder: Encoder) -> str:
    """How a folder that `save` wrote is used, in Markdown."""
    within = (
        "" if isinstance(encoder, (GrowingImages, GrowingTexts))
        else "\n\nThe folders `image/tower` and `text/tower` are ordinary encoders, which transformers and sentence-transformers load; the layers into the common space are in `model.safetensors` beside them."
    )  # fmt: skip
    return f"""```python
import contrapose

model = contrapose.load("path/to/this/folder")
pictures = model.encode(["photo.png"], encoder="image")
captions = model.encode(["a photo of a cat"], encoder="text")
similarity = pictures @ captions.T
```{within}"""

"""Settings: one pydantic class a method, from which the command line, the documentation and config.yaml are made."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, get_args

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from contrapose.errors import SettingInvalid, SettingsFileInvalid, SettingUnknown, nearest
from contrapose.training.run_folder import flattened


class MethodSettings(BaseModel):
    """What every method shares; a method's own `Settings` adds to it and overrides defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    batch_size: PositiveInt = Field(
        64, description="Rows in a batch, over all processes; with in-batch negatives this is the contrast set."
    )
    epochs: PositiveFloat = Field(1.0, description="Passes over the data; fractions allowed.")
    steps: PositiveInt | None = Field(None, description="Steps of each stage; overrides epochs.")
    learning_rate: NonNegativeFloat = Field(2e-5, description="Peak learning rate.")
    warmup_steps: NonNegativeInt = Field(0, description="Steps in which the learning rate rises linearly from 0.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="How the learning rate falls to 0 after the warm-up."
    )
    optimiser: Literal["adamw", "adam", "sgd"] = Field("adamw", description="Optimiser of every update.")
    sgd_momentum: float = Field(0.0, ge=0, lt=1, description="Share of the last step that SGD keeps; of sgd alone.")
    weight_decay: NonNegativeFloat = Field(
        0.0, description="Decay of weight matrices; biases, norms and temperatures have none."
    )
    clip_norm: PositiveFloat | None = Field(1.0, description="Largest norm of the gradient; empty for no clipping.")
    seed: NonNegativeInt = Field(0, description="Seed of everything random.")
    precision: Literal["auto", "bf16", "fp32", "fp64"] = Field(
        "auto", description="auto: bf16 where the processor has it, else fp32."
    )
    memory: str | None = Field(
        None,
        description="What the tensors of a step may take, such as 4GB: the embedding cache then holds the encoder to it.",
    )
    log_every: PositiveInt = Field(10, description="Steps between two lines of metrics.")
    checkpoint_every: PositiveInt = Field(
        200, description="Steps between two checkpoints; one is also written when a run stops."
    )
    select_every: PositiveInt = Field(
        50, description="Steps between two scores on the development data, where there are any."
    )
    patience: PositiveInt | None = Field(
        None, description="Stop after so many scores without a better one; empty: never early."
    )

    @field_validator("memory")
    @classmethod
    def amount(cls, text: str | None) -> str | None:
        parse_memory(text)
        return text


UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse_memory(text: str | None) -> int | None:
    """ "4GB" or "512 MB" to bytes, in powers of 1024; None stays None. Raises ValueError."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?\s*", text, re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise ValueError("is no amount of memory; write 4GB or 512MB")
    return int(float(found[1]) * UNITS[found[2].upper()])


SettingsType = TypeVar("SettingsType", bound=BaseModel)


def parse_settings(kind: type[SettingsType], values: Mapping[str, Any], *, owner: str) -> SettingsType:
    """Settings of `kind` from names and values; text is converted by the field's type, and an empty one is None where a setting may be empty.

    Raises SettingUnknown (naming the nearest setting) or SettingInvalid (naming setting, value and what is allowed).
    """
    for name in values:
        if name not in kind.model_fields:
            raise SettingUnknown(f"{owner} has no setting '{name}'; {nearest(name, kind.model_fields)}")
    fields = kind.model_fields
    empty = {name for name, value in values.items() if value == "" and NoneType in get_args(fields[name].annotation)}
    try:
        return kind(**{name: None if name in empty else value for name, value in values.items()})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        allowed = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        if not name:  # a relation between settings: its message names them
            raise SettingInvalid(f"{owner}: {allowed}.") from None
        field = fields.get(str(first["loc"][0]))
        meaning = f" {field.description}" if field is not None and field.description else ""
        raise SettingInvalid(f"{owner}: setting '{name}' {allowed}; got {first['input']!r}.{meaning}") from None


def read_settings(path: Path) -> dict[str, Any]:
    """Names and values of a YAML file, nested names joined by dots. Raises SettingsFileInvalid naming the line."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsFileInvalid(f"{path} cannot be read ({error.strerror}). Check the path.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise SettingsFileInvalid(f"{path}{place} is not YAML; write one `name: value` a line.") from None
    if not isinstance(values, dict):
        raise SettingsFileInvalid(f"{path} holds no names and values; write one `name: value` a line.")
    return flattened(values)

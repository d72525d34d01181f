"""What can be said of the encoders of several modalities, and how their vectors are compared."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator


class ColumnOptions(BaseModel):
    """Options of one column's encoder: `encoder.hidden=256` for all columns, `encoder.picture.hidden=256` for one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    hidden: tuple[PositiveInt, ...] = Field(
        (), description="Sizes of the hidden layers of an encoder of vectors, such as 256 or 256,128; empty: linear."
    )
    missing: Literal["refuse", "learned"] = Field(
        "refuse", description="learned: rows may lack the modality; a flag and a learned vector stand in its place."
    )
    scale: Literal["column", "entry", "none"] = Field(
        "column",
        description="Vectors are centred and divided by the deviation of all numbers of the column, by that of each entry, or not at all.",
    )

    @field_validator("hidden", mode="before")
    @classmethod
    def sizes(cls, given: Any) -> Any:
        """ "256,128" as it is written on the command line."""
        if isinstance(given, str):
            return tuple(part for part in given.split(",") if part)
        return (given,) if isinstance(given, int) else given


class EncoderOptions(ColumnOptions):
    """Options of the encoders of several modalities."""

    dim: PositiveInt = Field(64, description="Dimensions of the space that all modalities are embedded in.")
    seed: NonNegativeInt = Field(0, description="Seed of the initial weights of new layers.")


class Rule(NamedTuple):
    """How vectors of several modalities score a candidate of another: "product" of all, or "sum" of the cosines with each.

    `temperature` divides the scores before a softmax makes them probabilities.
    """

    score: Literal["product", "sum"]
    temperature: float = 1.0

"""What a user may say about an encoder of graphs."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, NonNegativeInt, PositiveInt


def several(value: Any) -> Any:
    """ "110,700" or "[110, 700]" as it comes from a command line, a single value, or a list: always a tuple."""
    if isinstance(value, str):
        return tuple(part.strip().strip("'\"") for part in value.strip("[]() ").split(",") if part.strip())
    return tuple(value) if isinstance(value, (list, tuple)) else (value,)


Names = Annotated[tuple[str, ...], BeforeValidator(several)]
Counts = Annotated[tuple[PositiveInt, ...], BeforeValidator(several)]
Rates = Annotated[tuple[Annotated[float, Field(ge=0, lt=1)], ...], BeforeValidator(several)]


class EncoderOptions(BaseModel):
    """What `--set encoder.NAME=VALUE` can say about a graph encoder. Several values: `encoder.top_k=110,700`, one a meta-path, or one for all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metapaths: Names = Field(
        (),
        description="paper-author-paper,paper-subject-paper; empty: those of graph.yaml, else one over each neighbouring type.",
    )
    # MEOW's code: 5 to 700, tuned for each data set and path; masks as for ACM
    top_k: Counts = Field((100,), description="Neighbours of a node that are kept over each meta-path, by PathSim.")
    dim: PositiveInt = Field(64, description="Of the vectors, and of all hidden layers.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Of features, contexts, convolutions and attention.")
    contexts: bool = Field(True, description="Nodes along a meta-path give it context; False: its ends alone.")
    masked: bool = Field(True, description="A masked copy of each meta-path's view stands beside it.")
    feature_mask: float = Field(
        0.3, ge=0, lt=1, description="Share of the features' entries that the masked copies lack."
    )
    edge_mask: Rates = Field((0.3,), description="Share of the edges that the masked copies lack, by meta-path.")
    # straight is the formula's; the code transposes between reading and normalising, and nodes that nobody chose then have no neighbours
    orientation: Literal["straight", "transposed"] = Field(
        "straight",
        description="A node gathers from those that it chose, or (as in MEOW's code) from those that chose it.",
    )
    seed: NonNegativeInt = Field(0, description="Of the initial weights and of the masks.")

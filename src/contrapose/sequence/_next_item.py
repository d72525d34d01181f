"""What methods of next-item prediction share: beginnings of sequences, the item after each, and what is kept out of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveInt
from torch import LongTensor, Tensor

from contrapose.data.batches import Data
from contrapose.errors import HeldOutLearned, SequenceInvalid
from contrapose.objectives import info_nce
from contrapose.sequence.encoder import SequenceEncoder
from contrapose.training.method import Stage
from contrapose.training.settings import MethodSettings


class NextItemSettings(MethodSettings):
    """Settings of every method here. Batch, optimiser and rate are those of MCLRec's code."""

    batch_size: PositiveInt = Field(256, description="Beginnings of sequences in a batch, over all processes.")
    epochs: float = Field(20.0, gt=0, description="Passes over all beginnings of sequences; fractions allowed.")
    learning_rate: float = Field(1e-3, ge=0, description="Peak learning rate.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "constant", description="How the learning rate falls to 0."
    )
    optimiser: Literal["adamw", "adam", "sgd"] = Field("adam", description="Optimiser of every update.")
    clip_norm: float | None = Field(None, gt=0, description="Largest norm of the gradient; empty for no clipping.")
    leave_out: NonNegativeInt = Field(
        2,
        description="A user's last so many interactions are not learned from: the test and the development data; 0: learn from all.",
    )
    most_beginnings: PositiveInt | None = Field(
        None, description="Of a user, learn from the last so many beginnings; empty: all."
    )
    padding_class: bool = Field(True, description="The padding is one of the classes, as in the official code.")


def next_item_loss(
    sequences: Tensor, encoder: SequenceEncoder, following: LongTensor, *, padding_class: bool = True
) -> Tensor:
    """Cross-entropy of the next item among all: -log softmax of the dot products with every item's vector, in tiles.

    Args:
        sequences: (b, d).
        encoder: whose items' vectors are the classes, tied with those that it reads.
        following: (b,) item numbers from 1.
        padding_class: number 0 is one of the classes (the official code, a slip without much effect); False: items alone.

    Returns:
        A scalar; log(n + 1) at chance, or log(n).
    """
    vectors = encoder.transformer.items.weight
    classes, index = (vectors, following) if padding_class else (vectors[1:], following - 1)
    return info_nce(sequences, classes, index=index, temperature=1.0, similarity="dot")


def beginnings_to_learn(data: Data, leave_out: int, most: int | None) -> LongTensor:
    """The rows whose next item is not among a user's last `leave_out`; of a user the last `most` of them. Raises SequenceInvalid for none."""
    left = data.columns["left"][torch.arange(len(data))]
    kept = (left >= leave_out) & ((left < leave_out + most) if most is not None else True)
    if not kept.any():
        raise SequenceInvalid(
            f"No user of {data.source} has {leave_out + 2} interactions, so with leave_out={leave_out} there is no next item to learn from; set it lower."
        )
    return kept.nonzero().squeeze(1)


def next_item_stage(settings: NextItemSettings, finished: Sequence[Any]) -> Stage | None:
    """One stage, on the beginnings that are not held out."""
    if finished:
        return None
    return Stage(rows=lambda data: beginnings_to_learn(data, settings.leave_out, settings.most_beginnings))


def refuse_learned(settings: NextItemSettings, data: Data, protocols: Sequence[Any], encoder: SequenceEncoder) -> None:
    """Raises HeldOutLearned for a protocol whose items to predict are learned from, SequenceInvalid where nothing is left to learn, and what a
    protocol says of items that the encoder does not know."""
    beginnings_to_learn(data, settings.leave_out, settings.most_beginnings)
    for protocol in protocols:
        if protocol.fingerprint == data.fingerprint and protocol.held_out > settings.leave_out:
            raise HeldOutLearned(
                f"{protocol.name} asks for {protocol.words[0].lower()}{protocol.words[1:]} of {data.source}, which leave_out={settings.leave_out} learns from; "
                f"set leave_out={protocol.held_out} or more, or measure on other data."
            )
        protocol.refuse(encoder)

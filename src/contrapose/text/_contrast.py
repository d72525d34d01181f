"""Contrastive generation: each next token under an instruction, against the same under the opposite instruction."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid, ShapesDiffer


def contrastive_logits(wanted: Tensor, opposite: Tensor, *, contrast: float, plausible: float = 0.1) -> Tensor:
    """(1 + a) l+ - a l-, among the tokens that are plausible under the wanted instruction; -inf elsewhere.

    Args:
        wanted: (…, v), logits of the next token under the wanted instruction.
        opposite: (…, v), after the same words under the opposite instruction.
        contrast: a in [0, 1]; at 0 `wanted` is given back as it is.
        plausible: in [0, 1]; kept are tokens whose probability under the wanted instruction is at least this share of the largest.

    The coefficient and the cut are a reconstruction: the paper's code for this stage is not published.

    Raises:
        ShapesDiffer: the two have not one shape.
        ArgumentInvalid: contrast or plausible is not in [0, 1].
    """
    for name, value in (("contrast", contrast), ("plausible", plausible)):
        if not 0 <= value <= 1:
            raise ArgumentInvalid(f"{name} must lie from 0 to 1; got {value}.")
    if wanted.shape != opposite.shape:
        raise ShapesDiffer(
            f"Logits of both instructions must be of one vocabulary; got {tuple(wanted.shape)} and {tuple(opposite.shape)}."
        )
    if contrast == 0:
        return wanted
    least = wanted.amax(dim=-1, keepdim=True) + (math.log(plausible) if plausible else -math.inf)
    mixed = (1 + contrast) * wanted - contrast * opposite
    return mixed.masked_fill(wanted < least, -math.inf)


class AgainstOpposite:
    """A logits processor of transformers, for one prompt: its next token against that under the opposite prompt.

    `opposite` (1, t): the tokens of the opposite prompt. `start`: how many tokens of what is generated are the prompt's own; 0 for a
    model with a decoder. The words so far go through the model anew at every token.
    """

    def __init__(self, model: Any, opposite: LongTensor, start: int, *, contrast: float, plausible: float) -> None:
        self.model, self.opposite, self.start = model, opposite, start
        self.options = {"contrast": contrast, "plausible": plausible}

    def __call__(self, input_ids: LongTensor, scores: Tensor) -> Tensor:
        if self.model.config.is_encoder_decoder:
            inputs = {"input_ids": self.opposite, "decoder_input_ids": input_ids}
        else:
            inputs = {"input_ids": torch.cat([self.opposite, input_ids[:, self.start :]], dim=1)}
        with torch.inference_mode():
            opposite = self.model(**inputs, use_cache=False).logits[:, -1]
        return contrastive_logits(scores, opposite.to(scores), **self.options)

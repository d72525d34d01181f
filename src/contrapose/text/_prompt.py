"""A sentence within a prompt that asks for its meaning: the state of the mask is its vector."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from contrapose.errors import PoolingUnavailable, TokenLimitInvalid
from contrapose.text.data import tokenise

if TYPE_CHECKING:
    from contrapose.text.encoder import TextEncoder

TEMPLATE = 'This sentence : "{text}" means {mask} .'
UNCUT = 10**6  # tokens


@dataclass(frozen=True)
class Prompt:
    """Tokenises texts within a template, as `tokenise` does plain ones.

    A text that is too long loses its own last tokens, never the mask. `opening`, `closing` and `ending` count the template's tokens before the
    text, between text and mask, and from the mask to the end.
    """

    template: str
    opening: int
    closing: int
    ending: int

    @classmethod
    def of(cls, template: str, tokenizer: Any) -> Prompt:
        """Raises PoolingUnavailable when the tokeniser has no mask."""
        if getattr(tokenizer, "mask_token_id", None) is None:
            raise PoolingUnavailable(
                f"The prompt {template!r} needs a tokeniser with a mask token, and this one has none; take pooling 'avg' or 'cls_before_pooler'."
            )
        before, after = template.replace("{mask}", tokenizer.mask_token).split("{text}")
        ids = tokenizer(before + after)["input_ids"]
        place = last(ids, tokenizer.mask_token_id)
        between = after.split(tokenizer.mask_token)[0].rstrip()
        closing = len(tokenizer(between, add_special_tokens=False)["input_ids"])
        return cls(template, place - closing, closing, len(ids) - place)

    @property
    def tokens(self) -> int:
        """Of the template alone."""
        return self.opening + self.closing + self.ending

    def __call__(
        self, texts: Sequence[str], tokenizer: Any, max_tokens: int, first: int = 0
    ) -> tuple[list[list[int]], np.ndarray]:
        """The ids of each text in the template, of at most `max_tokens`, and a bool array (n,): whether the text was cut."""
        whole = self.template.replace("{mask}", tokenizer.mask_token)
        wrapped = [whole.replace("{text}", text) if isinstance(text, str) else text for text in texts]
        ids, _ = tokenise(wrapped, tokenizer, UNCUT, first)
        after = self.closing + self.ending
        cut = np.array([len(each) > max_tokens for each in ids], dtype=bool)
        return [each[: min(len(each), max_tokens) - after] + each[-after:] for each in ids], cut


def prompted(encoder: TextEncoder, template: str = TEMPLATE) -> TextEncoder:
    """The encoder with its texts in a template and their vectors taken from the mask; it shares the weights.

    Raises PoolingUnavailable for a tokeniser without mask, TokenLimitInvalid where `max_tokens` leaves a text no room.
    """
    prompt = Prompt.of(template, encoder.tokenizer)
    if encoder.max_tokens <= prompt.tokens:
        raise TokenLimitInvalid(
            f"max_tokens={encoder.max_tokens} leaves no room for a text: the prompt {template!r} alone has {prompt.tokens} tokens; "
            f"set encoder.max_tokens to more than that."
        )
    asked = pooled(encoder, f"last_{prompt.ending}")
    asked.prompt = prompt
    return asked


def pooled(encoder: TextEncoder, pooling: str) -> TextEncoder:
    """The encoder with another pooling of its last layer; it shares the weights."""
    other = copy.copy(encoder)
    other.pooling = pooling
    return other


def last(ids: Sequence[int], token: int) -> int:
    """The place where a token stands last."""
    return len(ids) - 1 - list(ids)[::-1].index(token)

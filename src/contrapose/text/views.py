"""Views of texts: word repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid
from contrapose.text.data import Tokens

Rule = Literal["paper", "official"]


def repeat_limit(tokens: int | LongTensor, rate: float, rule: Rule = "paper") -> int | LongTensor:
    """The largest number of repeats drawn for a text of so many tokens (ESimCSE: Wu et al., 2022, section 3.1).

    "paper": max(2, int(rate · tokens)), special tokens not counted. "official": the code's sub-word mode, min(10, int(rate · tokens)) − 1
    and at least 0, special tokens counted.

    Raises ArgumentInvalid for a rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ArgumentInvalid(f"the rate of repetition is a share of the tokens, from 0 to 1; got {rate}.")
    number = torch.as_tensor(tokens)
    share = (number.double() * rate).long()
    limit = share.clamp(min=2) if rule == "paper" else (share.clamp(max=10) - 1).clamp(min=0)
    return limit if isinstance(tokens, torch.Tensor) else int(limit)


def repeat_at(ids: Sequence[int] | LongTensor, positions: Sequence[int] | LongTensor) -> LongTensor:
    """The ids (t,) with those at `positions` standing twice in a row; their order is kept."""
    ids, positions = torch.as_tensor(ids), torch.as_tensor(positions, dtype=torch.long)
    return ids.repeat_interleave(torch.ones_like(ids).index_fill(0, positions, 2))


def repeat_tokens(
    tokens: Tokens, uniform: Tensor, *, rate: float, special: LongTensor, rule: Rule = "paper", most: int | None = None
) -> Tokens:
    """Each text with some of its tokens standing twice in a row, special ones never.

    The number of repeats is drawn uniformly from 0 … `repeat_limit`, the positions uniformly without replacement; a text with fewer
    tokens than that repeats all of them, and one without any is given back as it is.

    tokens: b texts. uniform: (b, 1 + t) numbers in [0, 1), t at least the longest text: `batch.uniform(1 + max_tokens)`. special: the
    ids of special tokens. rate: 0 to 1; 0 repeats nothing, under the paper's rule too. most: a cap on the repeats of a text.
    """
    if rate == 0:
        return tokens
    _, mask = tokens.padded(0)
    free = torch.zeros_like(mask)
    free[mask] = ~torch.isin(tokens.ids, special)
    counted = free.sum(dim=1) if rule == "paper" else tokens.lengths
    limit = repeat_limit(counted, rate, rule)
    if most is not None:
        limit = limit.clamp(max=most)
    drawn = (uniform[:, 0] * (limit + 1)).long().minimum(free.sum(dim=1))
    keys = uniform[:, 1 : 1 + mask.shape[1]].masked_fill(~free, 2.0)  # above every drawn number: chosen last
    rank = keys.argsort(dim=1).argsort(dim=1)
    repeats = (rank < drawn[:, None]).long()
    return Tokens(tokens.ids.repeat_interleave(1 + repeats[mask]), tokens.lengths + repeats.sum(dim=1))

"""A sentence within a prompt: the mask stays, whatever is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from contrapose.data.batches import seeded
from contrapose.errors import PoolingUnavailable, TokenLimitInvalid
from contrapose.text._prompt import Prompt, prompted
from contrapose.text.encoder import TextEncoder, pool
from tests.text.samples import random_tokens


def test_the_last_tokens_are_pooled_by_the_length_of_each_text() -> None:
    tokens = random_tokens([4, 2, 6])
    _, mask = tokens.padded(0)
    states = torch.randn(3, 6, 5, generator=seeded(0))
    found = pool([states], mask, "last_3")
    assert torch.equal(found, torch.stack([states[0, 1], states[1, 0], states[2, 3]]))


def test_a_long_text_is_cut_and_the_mask_is_not(tiny_bert: Path) -> None:
    encoder = prompted(TextEncoder.open(str(tiny_bert), max_tokens=40))
    prompt = encoder.prompt
    long, short = "cat dog " * 30, "cat [MASK] dog"
    ids, cut = prompt([long, short], encoder.tokenizer, 40)
    assert cut.tolist() == [True, False]
    assert len(ids[0]) == 40
    for each in ids:
        assert each[-prompt.ending] == encoder.tokenizer.mask_token_id
    whole = encoder.tokenizer(f'This sentence : "{long}" means [MASK] .', truncation=False)["input_ids"]
    assert ids[0] == whole[: 40 - prompt.closing - prompt.ending] + whole[-prompt.closing - prompt.ending :]


def test_prompts_that_do_not_fit(encoder: TextEncoder) -> None:
    with pytest.raises(TokenLimitInvalid, match="leaves no room for a text"):
        prompted(encoder)
    encoder.tokenizer.mask_token = None
    with pytest.raises(PoolingUnavailable, match="mask token"):
        Prompt.of("{text} {mask}", encoder.tokenizer)

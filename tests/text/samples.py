"""Small transformers, tokens and texts."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoModel,
    BertConfig,
    CamembertConfig,
    DistilBertConfig,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from contrapose.text.data import Tokens

TEXTS = [
    "the cat sat on the mat",
    "a dog",
    "is it a very large house?",
    "the tree",
    "blue, green and red!",
    "an old river runs under it",
]
NEVER = 1e-12  # a probability of dropout that takes the way of dropout and drops nothing


def random_tokens(lengths: list[int], seed: int = 0) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    return Tokens(torch.randint(5, 60, (sum(lengths),), generator=generator), torch.tensor(lengths))


FAMILIES = {
    "bert": BertConfig,
    "camembert": CamembertConfig,
    "distilbert": DistilBertConfig,
    "electra": ElectraConfig,
    "roberta": RobertaConfig,
    "xlm-roberta": XLMRobertaConfig,
    "mpnet": MPNetConfig,
    "modernbert": ModernBertConfig,
}


def random_transformer(family: str, folder: Path) -> Path:
    sizes = {
        "vocab_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    width = {"dim": 32, "hidden_dim": 64} if family == "distilbert" else {"hidden_size": 32, "intermediate_size": 64}
    drops = dict.fromkeys(["hidden_dropout_prob", "attention_probs_dropout_prob"], NEVER)
    if family == "distilbert":
        drops = {"dropout": NEVER, "attention_dropout": NEVER}
    if family == "modernbert":
        drops = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3, "local_attention": 8}
    padding = 0 if family in ("bert", "distilbert", "electra", "modernbert") else 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        AutoModel.from_config(FAMILIES[family](**sizes, **width, **drops, pad_token_id=padding)).save_pretrained(folder)
    return folder

"""Random texts of a few words, a random BERT that reads them, and what each method of texts asks for beside."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from contrapose.catalogue import find_method
from contrapose.data.columns import Column
from tests.tiny import Tiny

ROWS = 11
WORDS = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "is",
    "it",
    "cat",
    "dog",
    "sat",
    "on",
    "mat",
    "red",
    "blue",
    "green",
    "house",
    "tree",
    "river",
    "runs",
    "sleeps",
    "under",
    "over",
    "very",
    "small",
    "large",
    "old",
    "new",
]

SETTINGS = {  # what a tiny encoder asks for
    "dse": {"task": "regression", "pooling": None},
    "moe_embeddings": {"fallback": "0"},
    "multicsr": {"positive_line": 0.0, "require_gap": False},
    "whitenedcse": {"groups": 8},
}
EXACT: dict[str, dict[str, Any]] = {
    "moe_embeddings": {"temperature": 0.5, "learning_rate": 0.1},
    "pairs": {"learn_temperature": True, "temperature": 0.5},
    "esimcse": {"queue_size": 8, "temperature": 0.5},
    "debcse": {
        "candidates": 6,
        "hard_negatives": 2,
        "most_negative": 1.0,
        "mask_false_negatives": True,
        "temperature": 0.5,
    },
    "multicsr": {"phi": 0.9, "temperature": 0.5, "reference_learning_rate": 0.1},
    "defsent_plus": {"isotropy": "normalise", "isotropy_rounds": "every", "isotropy_scale": 2.0, "learning_rate": 0.1},
    "whitenedcse": {"groups": 16, "temperature": 0.5, "grad_through_whitening": True},
    "dse": {
        "pooling": "concat_top2_max",
        "dropout": 0.0,
        "learning_rate": 0.01,
        "teacher_learning_rate": 0.01,
    },
}


def tiny(method: str, folder: Path) -> Tiny:
    encoder = {"name": str(write_tiny_bert(folder)), "max_tokens": 16}
    return Tiny(rows(method), encoder, SETTINGS.get(method, {}), ["a cat", "the old house"], EXACT.get(method, {}))


def rows(method: str) -> list[dict[str, str]]:
    """Random texts, numbers and names in every column that the method asks for, and groups that repeat."""
    drawn = random.Random(0)

    def value(column: Column) -> str:
        if column.kind == "text":
            return " ".join(drawn.choices(WORDS, k=drawn.randint(1, 9)))
        return str(drawn.randint(0, 1)) if column.kind == "number" else str(drawn.randint(0, 2))

    columns = find_method(method).card.columns
    texts = [{column.name: value(column) for column in columns} for _ in range(ROWS)]
    return [{**text, "group_id": str(number // 2)} for number, text in enumerate(texts)]


def write_tiny_bert(parent: Path) -> Path:
    """A transformers folder: a random BERT (hidden 32, 2 layers, 64 positions) and its WordPiece tokeniser of letters and a few words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = parent / "tiny_bert"
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters), *WORDS]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    words = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    words.normalizer = normalizers.BertNormalizer()
    words.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    words.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        initializer_range=0.3,  # large enough for layers to matter
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=64, **special).save_pretrained(folder)
    return folder

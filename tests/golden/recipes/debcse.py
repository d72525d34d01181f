"""DebCSE's likeness in form, its weights by inverse propensity, draws with given noise, and its loss of triplets."""

from __future__ import annotations

import torch

from contrapose.objectives import info_nce
from contrapose.text._surface import jaccard_similarity, levenshtein, levenshtein_similarity, numbered_words
from contrapose.text.debcse import gumbel_top, pair_weights
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = (
    "sentences", "semantic", "surface", "T_semantic", "T_surface", "propensity_floor", "gumbel", "topk", "z", "temp",
)  # fmt: skip
WAITS: dict[str, str] = {}
WEIGHTS = "`pair_weights(semantic, surface, …)`"
LOSS = "`info_nce(anchors, positives, negatives=…)`"
CALLS = {
    "levenshtein_words": "`levenshtein(first, second)` of `numbered_words(sentences)`",
    "surface_levenshtein": "`levenshtein_similarity(first, second)`",
    "surface_jaccard": "`jaccard_similarity(first, second)`",
    "w_*": WEIGHTS,
    "pick_*": f"{WEIGHTS} and `gumbel_top(log_weights, noise, k)`",
    "loss": LOSS,
    "grad": LOSS,
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return form(given) | drawn(given) | triplets(given)


def form(given: Arrays) -> Made:
    sentences = [str(sentence) for sentence in given["sentences"]]
    n, spoken = len(sentences), numbered_words(sentences)
    first, second = spoken[torch.arange(n).repeat_interleave(n)], spoken[torch.arange(n).repeat(n)]
    return {
        "levenshtein_words": levenshtein(first, second).view(n, n),
        "surface_levenshtein": levenshtein_similarity(first, second).reshape(n, n),
        "surface_jaccard": jaccard_similarity(first, second).reshape(n, n),
    }


def drawn(given: Arrays) -> Made:
    positive, negative = pair_weights(
        torch.tensor(given["semantic"]),
        torch.tensor(given["surface"]),
        semantic_temperature=float(given["T_semantic"]),
        surface_temperature=float(given["T_surface"]),
        floor=float(given["propensity_floor"]),
    )
    noise = torch.tensor(given["gumbel"])
    return {
        "w_pos": positive.exp(),
        "w_neg": negative.exp(),
        "pick_pos": gumbel_top(positive, noise, 1)[:, 0],
        "pick_neg_topk": gumbel_top(negative, noise, int(given["topk"])),
    }


def triplets(given: Arrays) -> Made:
    z = leaf(given["z"])
    loss = info_nce(z[:, 0], z[:, 1], negatives=z[:, 2:], temperature=float(given["temp"]))
    return {"loss": loss} | gradients(loss, grad=z)

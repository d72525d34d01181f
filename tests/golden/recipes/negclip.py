"""NegCLIP's loss, in which hard captions are columns and never anchors, and the scores of its benchmark."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from contrapose.evaluation.retrieval import retrieval_by_score
from contrapose.objectives import info_nce
from tests.golden.pieces import Arrays, Made, each_case, gradients, leaf, stable_ranks

INPUTS = ("?_image", "?_text", "?_logit_scale", "?_vg_scores_false_true", "?_vg_group", "?_order_scores")
WAITS: dict[str, str] = {}
BOTH = "`info_nce(images, captions and hard captions, index=…)` and `info_nce(captions, images)`"
CALLS = {
    "?_loss": BOTH,
    "?_grad_*": BOTH,
    "?_loss_caption_negatives_only": BOTH,
    "?_loss_plain_clip": BOTH,
    "?_vg_accuracy_micro": '`retrieval_by_score(…)["accuracy@1"]`, where a tie is a miss',
    "?_vg_accuracy_macro": '`retrieval_by_score(…)["accuracy@1"]`, a mean over groups of means',
    "?_order_p1_ties_wrong": '`retrieval_by_score(…)["accuracy@1"]`, where a tie is a miss',
    "?_order_p1_ties_correct": '`retrieval_by_score(…)["accuracy@1"]`, ties by number',
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return each_case(one_case, given, due)


def one_case(given: Arrays, due: list[str]) -> Made:
    image, text, scale = leaf(given["image"]), leaf(given["text"]), leaf(given["logit_scale"])
    b = len(image) // 2  # images [I; I'], texts [T; T'; hard T; hard T']

    def loss(images: Tensor, texts: Tensor) -> Tensor:
        options = {"temperature": 1 / scale, "similarity": "dot"}
        there = info_nce(images, texts, index=torch.arange(len(images)), **options)
        return (there + info_nce(texts[: len(images)], images, **options)) / 2

    whole = loss(image, text)
    made = {
        "loss": whole,
        "loss_caption_negatives_only": loss(image[:b], torch.cat([text[:b], text[2 * b : 3 * b]])),
        "loss_plain_clip": loss(image[:b], text[:b]),
    }
    made |= gradients(whole, grad_image=image, grad_text=text, grad_logit_scale=scale)
    return made | benchmark(given)


def benchmark(given: Arrays) -> Made:
    right = first_is_right(given["vg_scores_false_true"][:, 0], true=1)
    groups = [right[given["vg_group"] == group].mean() for group in np.unique(given["vg_group"])]
    order = given["order_scores"][:, 0]
    return {
        "vg_accuracy_micro": right.mean(),
        "vg_accuracy_macro": np.mean(groups),
        "order_p1_ties_wrong": first_is_right(order, true=0).mean(),
        "order_p1_ties_correct": first_is_right(-stable_ranks(order), true=0).mean(),
    }


def first_is_right(scores: np.ndarray, true: int) -> np.ndarray:
    """(n,): whether the true caption scores highest, and alone."""
    relevant = np.full((len(scores), 1), true)
    return retrieval_by_score(lambda rows: scores[rows], *scores.shape, relevant, ks=[1])["accuracy@1"]

"""GrowCLIP's inherited weights, CLIP's loss, and a residual block."""

from __future__ import annotations

import torch

from contrapose.image_text._towers import inherit, residual_mlp
from contrapose.objectives import info_nce
from tests.golden.pieces import Arrays, Made, each_case

INPUTS = (
    "?_old",
    "?_fresh",
    "?_momentum",
    "?_image",
    "?_text",
    "?_logit_scale",
    "?_block_x",
    "?_block_w?",
    "?_block_b?",
)
WAITS: dict[str, str] = {}
CALLS = {
    "?_pim": "`inherit(old, fresh, momentum)`",
    "?_clip_loss": "`info_nce(image, text, temperature=1 / s, symmetric=True)`",
    "?_block_out": "`residual_mlp(x, w1, b1, w2, b2)`",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return each_case(one_case, given, due)


def one_case(given: Arrays, due: list[str]) -> Made:
    tensors = {name: torch.tensor(value) for name, value in given.items()}
    block = [tensors[f"block_{name}"] for name in ("x", "w1", "b1", "w2", "b2")]
    return {
        "pim": inherit(tensors["old"], tensors["fresh"], float(tensors["momentum"])),
        "clip_loss": info_nce(
            tensors["image"], tensors["text"], temperature=1 / float(tensors["logit_scale"]), symmetric=True
        ),
        "block_out": residual_mlp(*block),
    }

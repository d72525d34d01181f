"""MCLRec's contrasts of sequences and of their augmented embeddings, its regulariser, and the sums that its stages minimise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import gelu, linear, normalize

from contrapose.objectives import nt_xent, simple_contrastive
from tests.golden.pieces import Arrays, Made, gradients, leaf, one_hot_columns

INPUTS = ("h1", "h2", "tau", "beta", "lmd", "gamma", "aug1_*", "aug2_*")
WAITS = {
    "z1": "mclrec, because its augmenters are its own; the losses take them from the recipe",
    "z2": "mclrec, because its augmenters are its own; the losses take them from the recipe",
    "reg_paper_eq13_z1_z2": "mclrec, because this regulariser has one extreme for a whole batch, and losses here are of rows",
}
HARD = "`simple_contrastive(scores, one-hot columns, hardest=1, weight=1.0)`, its size, less `simple_contrastive(scores, one-hot columns)`"
STAGE = "`nt_xent(…)` and `simple_contrastive(…)` of the three pairs"
CALLS = {
    "cl1_dot": '`nt_xent(h1, h2, temperature=tau, similarity="dot")`',
    "cl1_cos": "`nt_xent(h1, h2, temperature=tau)`",
    "con_*": '`nt_xent(…, temperature=1, similarity="dot")`',
    "cl2": '`nt_xent(…, temperature=1, similarity="dot")` of three pairs',
    "reg_h?_z?": HARD,
    "reg_z1_z2": HARD,
    "reg_official": f"{HARD}; of three pairs, times gamma",
    "stage?_*": STAGE,
}


def recompute(given: Arrays, due: list[str]) -> Made:
    h1, h2 = leaf(given["h1"]), leaf(given["h2"])
    t, beta, lmd, gamma = (float(given[name]) for name in ("tau", "beta", "lmd", "gamma"))
    cl1 = nt_xent(h1, h2, temperature=t, similarity="dot")
    z1, z2 = augment(h1, given, "aug1"), augment(h2, given, "aug2")
    contrasts, regularisers = second_level(h1, h2, z1, z2)
    cl2, penalty = sum(contrasts.values()), gamma * sum(regularisers.values())
    stage1 = lmd * cl1 + beta * (cl2 + penalty)
    made = {"cl1_dot": cl1, "cl1_cos": nt_xent(h1, h2, temperature=t), "cl2": cl2, "reg_official": penalty}
    made |= {f"con_{pair}": value for pair, value in contrasts.items()}
    made |= {f"reg_{pair}": value for pair, value in regularisers.items()}
    made |= {"stage1_ssl_official": stage1} | gradients(stage1, stage1_grad_h1=h1, stage1_grad_h2=h2)
    return made | stage2(given, gamma)


def stage2(given: Arrays, gamma: float) -> Made:
    """The augmenters' turn: sequences stand still."""
    h1, h2 = torch.tensor(given["h1"]), torch.tensor(given["h2"])
    last = {name: leaf(given[f"{name}_w3"]) for name in ("aug1", "aug2")}
    z1, z2 = augment(h1, given, "aug1", last["aug1"]), augment(h2, given, "aug2", last["aug2"])
    contrasts, regularisers = second_level(h1, h2, z1, z2)
    loss = sum(contrasts.values()) + gamma * sum(regularisers.values())
    return {"stage2_loss_official": loss} | gradients(
        loss, stage2_grad_aug1_w3=last["aug1"], stage2_grad_aug2_w3=last["aug2"]
    )


def second_level(h1: Tensor, h2: Tensor, z1: Tensor, z2: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """By pair: the contrast with temperature 1, and the regulariser."""
    pairs = {"h1_z2": (h1, z2), "h2_z1": (h2, z1), "z1_z2": (z1, z2)}
    contrasts = {name: nt_xent(*pair, temperature=1.0, similarity="dot") for name, pair in pairs.items()}
    return contrasts, {name: regulariser(*pair) for name, pair in pairs.items()}


def regulariser(first: Tensor, second: Tensor) -> Tensor:
    """mean relu(s+ - min(s+, m)) + mean relu(max(s+, m) - s-), m the hardest negative, which is mean |m - s+| less the mean of s- less s+."""
    views = torch.cat([first, second])
    n = len(views)
    itself = torch.eye(n, dtype=torch.bool)
    scores = (views @ views.T)[~itself].view(n, n - 1)
    partner = torch.arange(n).roll(n // 2)
    index = partner - (partner > torch.arange(n)).long()  # its place once a view's product with itself is left out
    options = {"index": index, "similarity": "dot", "reduction": "none"}
    margin = simple_contrastive(scores, one_hot_columns(scores), hardest=1, weight=1.0, **options)
    return (margin.abs() - simple_contrastive(scores, one_hot_columns(scores), **options)).mean()


def augment(h: Tensor, given: Arrays, name: str, last: Tensor | None = None) -> Tensor:
    weights = {
        f"{kind}{number}": torch.tensor(given[f"{name}_{kind}{number}"]) for kind in "wb" for number in (1, 2, 3)
    }
    hidden = gelu(linear(gelu(linear(h, weights["w1"], weights["b1"])), weights["w2"], weights["b2"]))
    return normalize(linear(hidden, weights["w3"] if last is None else last, weights["b3"]), dim=1)

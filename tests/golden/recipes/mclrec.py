"""MCLRec's contrasts of sequences and of their augmented embeddings, its regulariser, and the sums that its stages minimise."""

from __future__ import annotations

import torch
from torch import Tensor

from contrapose.objectives import nt_xent
from contrapose.sequence.mclrec import Augmenter, contrast_regulariser
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = ("h1", "h2", "tau", "beta", "lmd", "gamma", "aug1_*", "aug2_*")
WAITS: dict[str, str] = {}
HARD = "`contrast_regulariser(…)`"
STAGE = "`nt_xent(…)` and `contrast_regulariser(…)` of the three pairs"
CALLS = {
    "z?": "`Augmenter(dim, widths)`",
    "reg_paper_eq13_z1_z2": '`contrast_regulariser(z1, z2, scope="batch")`',
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
    made |= {"z1": z1, "z2": z2, "reg_paper_eq13_z1_z2": contrast_regulariser(z1, z2, scope="batch")}
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
    return contrasts, {name: contrast_regulariser(*pair) for name, pair in pairs.items()}


def augment(h: Tensor, given: Arrays, name: str, last: Tensor | None = None) -> Tensor:
    """The file's weights in an augmenter; `last` in place of its last matrix."""
    numbers = range(1, 1 + sum(key.startswith(f"{name}_w") for key in given))
    augmenter = Augmenter(h.shape[1], [len(given[f"{name}_b{number}"]) for number in numbers][:-1]).double()
    weights = {
        f"layers.{number - 1}.{kind}": torch.tensor(given[f"{name}_{kind[0]}{number}"])
        for number in numbers
        for kind in ("weight", "bias")
    }
    if last is not None:
        weights[f"layers.{len(numbers) - 1}.weight"] = last
    return torch.func.functional_call(augmenter, weights, (h,))

"""What several recipes need: leaves and their gradients, cases by prefix, and an encoder that looks tokens up in a table."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from contrapose.negatives import Queue
from contrapose.text.encoder import pool

Arrays = dict[str, np.ndarray]
Made = dict[str, Tensor | np.ndarray | float]


def leaf(array: np.ndarray) -> Tensor:
    return torch.tensor(array, requires_grad=True)


def gradients(loss: Tensor, **leaves: Tensor) -> Made:
    """The gradient of each leaf, by the name that it is given here."""
    found = torch.autograd.grad(loss, list(leaves.values()), retain_graph=True)
    return dict(zip(leaves, found, strict=True))


def each_case(recompute: Callable[[Arrays, list[str]], Made], given: Arrays, due: list[str]) -> Made:
    """Run a recipe for every case of a file, whose arrays start with a_, b_, c_ …"""
    made = {}
    for case in sorted({name[:2] for name in given if re.match(r"[a-z]_", name)}):
        inside = {name[2:]: array for name, array in given.items() if name.startswith(case)}
        found = recompute(inside, [name[2:] for name in due if name.startswith(case)])
        made |= {case + name: array for name, array in found.items()}
    return made


def one_hot_columns(scores: Tensor) -> Tensor:
    """(m, m): columns for which a dot product returns the score itself, so that an objective takes scores as its similarities."""
    return torch.eye(scores.shape[-1], dtype=scores.dtype)


def table(tokens: np.ndarray) -> nn.Embedding:
    """An encoder's whole weights in these files: a vector a token."""
    return nn.Embedding.from_pretrained(torch.tensor(tokens), freeze=False)


def mean_of_tokens(vectors: nn.Module, ids: np.ndarray, mask: np.ndarray) -> Tensor:
    """The mean over the unmasked tokens of each text, (b, d)."""
    return pool([vectors(torch.tensor(ids))], torch.tensor(mask), "avg")


def filled_queue(vectors: np.ndarray, pointer: int = 0) -> Queue:
    """A full queue, as a checkpoint holds it: vectors by slot, and the slot written next."""
    queue = Queue(*vectors.shape, torch.float64)
    held = {"vectors": torch.tensor(vectors), "pointer": torch.tensor(pointer), "fill": torch.tensor(len(vectors))}
    queue.load_state_dict(queue.state_dict() | held)
    return queue


def steps(given: Arrays) -> list[str]:
    """s0, s1 …, in the order of training."""
    return sorted(
        {found[0] for name in given if (found := re.match(r"s\d+(?=_)", name))}, key=lambda step: int(step[1:])
    )


def stable_ranks(scores: np.ndarray) -> np.ndarray:
    """The place of each column in its row, from 0 for the highest; of equal scores the first column comes first."""
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1)

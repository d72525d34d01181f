"""One, two and three processes, over gloo: objectives that share their work, and the form in which one side travels, against one process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from contrapose import distributed
from contrapose.objectives import (
    PairWeight,
    cacr,
    decoupled,
    info_nce,
    info_nce_across,
    nt_xent,
    sigmoid,
    supervised,
    symile,
    uniformity,
)
from contrapose.objectives._tiles import pairs
from tests.objectives.numbers import normal
from tests.processes import at_once

ROWS = 11
SHARES = {1: [11], 2: [7, 4], 3: [6, 5, 0]}  # uneven; the last of three has nothing
GROUP, LABELS = torch.arange(ROWS) // 2, torch.arange(ROWS) % 4


def everything(a: Tensor, p: Tensor, n: Tensor, t: Tensor) -> Tensor:
    queue, queue_group = normal(5, 4, seed=7), torch.tensor([0, 3, 9, -1, -1])
    return info_nce(a, p, temperature=t, negatives=n, negative_log_weight=0.5, queue=queue, group=GROUP,
                    queue_group=queue_group, symmetric=True)  # fmt: skip


def learned_weights(a: Tensor, p: Tensor, n: Tensor, t: Tensor) -> Tensor:
    weight = PairWeight(lambda rows, columns, n: n[rows, :1] * n[columns, 1:2].T, (n,))
    return info_nce(a, p, temperature=t, pair=weight)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "info_nce": everything,
    "learned weights": learned_weights,
    "decoupled": lambda a, p, n, t: decoupled(a, p, temperature=t, symmetric=True),
    "nt_xent": lambda a, p, n, t: nt_xent(a, p, temperature=t, group=GROUP),
    "running maxima": lambda a, p, n, t: info_nce(a * 1e3, p, temperature=t, similarity="dot", symmetric=True),
    "supervised": lambda a, p, n, t: supervised(a, labels=LABELS, temperature=t, denominator="own"),
    "sigmoid": lambda a, p, n, t: sigmoid(a, p, temperature=t, bias=-t),
    "symile": lambda a, p, n, t: symile([a, p, n], temperature=t, candidates="n_squared"),
    "cacr": lambda a, p, n, t: cacr([a, p, n]) * t,
    "uniformity": lambda a, p, n, t: uniformity(a) * t,
}


def step(loss: Callable[..., Tensor], mine: slice, name: str) -> dict[str, np.ndarray]:
    """Loss, and gradients of this process's rows (times the number of processes) and of the temperature (averaged)."""
    inputs = [normal(ROWS, 4, seed=seed)[mine].requires_grad_() for seed in range(3)]
    temperature = torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
    value = loss(*inputs, temperature)
    value.backward()
    distributed.average_gradients([temperature])
    gradients = [torch.zeros_like(each) if each.grad is None else each.grad for each in inputs]
    made = {"loss": value.detach(), "inputs": torch.stack(gradients, 1), "temperature": temperature.grad}
    return {f"{name} {key}": each.numpy() for key, each in made.items()}


def shared(loss: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The loss of the gathered batch, its work shared: what the training loop does."""

    def gathered(a: Tensor, p: Tensor, n: Tensor, t: Tensor) -> Tensor:
        whole = [distributed.gather_rows(each) for each in (a, p, n)]
        with distributed.shared_work():
            return loss(*whole, t)

    return gathered


def one_sided(symmetric: bool, grouped: bool, size: float = 1.0) -> Callable[..., Tensor]:
    def loss(a: Tensor, p: Tensor, n: Tensor, t: Tensor) -> Tensor:
        first = sum(SHARES[distributed.world_size()][: distributed.rank()])
        group = GROUP[first : first + len(a)] if grouped else None
        similarity = "cosine" if size == 1 else "dot"
        return info_nce_across(a * size, p, temperature=t, group=group, symmetric=symmetric, similarity=similarity)

    return loss


ONE_SIDED = {
    f"one side, {'both ways' if symmetric else 'one way'}, {'groups' if grouped else 'no groups'}, size {size:g}": (
        symmetric,
        grouped,
        size,
    )
    for symmetric in (False, True)
    for grouped in (False, True)
    for size in (1.0, 1e3)
}


def every_result(mine: slice) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for name, loss in LOSSES.items():
        made |= step(shared(loss), mine, name)
    for name, options in ONE_SIDED.items():
        made |= step(one_sided(*options), mine, name)
    return made


def work(process: int, folder: str) -> None:
    torch.set_num_threads(1)
    pairs.SHARED_FROM, pairs.ROWS, pairs.COLUMNS = 0, 3, 4
    for world in (2, 3):
        if process < world:
            address, patience = f"file://{folder}/rendezvous-{world}", timedelta(seconds=120)
            dist.init_process_group("gloo", init_method=address, rank=process, world_size=world, timeout=patience)
            first = sum(SHARES[world][:process])
            np.savez(f"{folder}/{process}-of-{world}.npz", **every_result(slice(first, first + SHARES[world][process])))
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("processes")
    at_once(3, work, str(folder))
    return folder


@pytest.fixture(scope="module", params=[2, 3], ids=["two processes", "three processes"])
def ranks(request, folder) -> list[dict[str, np.ndarray]]:
    results = []
    for rank in range(request.param):
        with np.load(folder / f"{rank}-of-{request.param}.npz", allow_pickle=False) as arrays:
            results.append(dict(arrays))
    return results


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return every_result(slice(0, ROWS))


@pytest.mark.parametrize("name", [*LOSSES, *ONE_SIDED])
def test_loss_and_gradients_are_those_of_one_process(ranks, alone, name):
    exact = {"rtol": 1e-12, "atol": 1e-12 * max(1.0, float(np.abs(alone[f"{name} inputs"]).max()))}
    for rank in ranks:
        np.testing.assert_allclose(rank[f"{name} loss"], alone[f"{name} loss"], **exact)
        np.testing.assert_allclose(rank[f"{name} temperature"], alone[f"{name} temperature"], **exact)
    inputs = np.concatenate([rank[f"{name} inputs"] for rank in ranks]) / len(ranks)
    np.testing.assert_allclose(inputs, alone[f"{name} inputs"], **exact)


@pytest.mark.parametrize("symmetric", [False, True])
def test_in_one_process_the_one_sided_form_is_info_nce(symmetric):
    a, p = normal(9, 4), normal(9, 4, seed=1)
    expected = info_nce(a, p, temperature=0.2, symmetric=symmetric)
    torch.testing.assert_close(
        info_nce_across(a, p, temperature=0.2, symmetric=symmetric), expected, rtol=0, atol=1e-12
    )


def test_every_process_has_a_part_of_the_tiles():
    whole = pairs.Pairs(100, 100, False, None, None)
    parts = [list(whole._replace(part=part, parts=3).tiles()) for part in range(3)]
    assert all(parts)
    covered = torch.zeros(100, 100, dtype=torch.int64)
    for part in parts:
        for tile in part:
            covered[tile.rows, tile.columns] += 1
    assert bool((covered == 1).all())

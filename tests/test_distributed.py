"""One, two and three processes: real ones, over gloo, against the same step in one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from contrapose import distributed
from contrapose.objectives import info_nce
from tests.processes import at_once

ROWS = 7  # uneven over two and over three processes
SHARES = {1: [7], 2: [5, 2], 3: [4, 3, 0]}  # the last of three has nothing to do
EXACT = {"rtol": 0, "atol": 1e-12}


class Model(nn.Module):
    """An encoder, a learned temperature, and a module that some or all of the processes do not use."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.encoder = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
            self.long_rows = nn.Linear(4, 4)
            self.unused = nn.Linear(2, 2)
        self.log_temperature = nn.Parameter(torch.tensor(-1.0))
        self.double()

    def forward(self, x: torch.Tensor, long: torch.Tensor) -> torch.Tensor:
        z = self.encoder(x)
        if long.any():
            z = torch.where(long[:, None], self.long_rows(z), z)
        return z


def step(mine: slice) -> dict[str, np.ndarray]:
    """A training step on this process's rows of the batch: loss, averaged gradients, and the gradient of the inputs."""
    model, draw = Model(), torch.Generator().manual_seed(1)
    left, right = (torch.randn(ROWS, 5, dtype=torch.float64, generator=draw)[mine].requires_grad_() for _ in range(2))
    long = (torch.arange(ROWS) < 2)[mine]  # on the first process alone
    group = torch.tensor([0, 1, 2, 3, 0, 4, 3])[mine]  # across processes
    loss = info_nce(
        distributed.gather_rows(model(left, long)),
        distributed.gather_rows(model(right, long)),
        temperature=model.log_temperature.exp(),
        group=distributed.gather_rows(group),
        symmetric=True,
    )
    loss.backward()
    distributed.average_gradients(parameter for parameter in model.parameters())
    gradients = {f"gradient {name}": each.grad for name, each in model.named_parameters() if each.grad is not None}
    return {
        "loss": loss.detach().numpy(),
        "inputs": torch.stack([left.grad, right.grad], 1).numpy(),
        **{name: gradient.numpy() for name, gradient in gradients.items()},
    }


def collectives(rank: int, world: int) -> dict[str, np.ndarray]:
    """What each collective gives on this process."""
    given: dict[str, object] = {"rank": distributed.rank(), "world": distributed.world_size()}
    for dtype in (torch.bool, torch.int64, torch.bfloat16, torch.float32):
        rows = torch.full((rank, 2), rank % 2, dtype=dtype)  # none on the first process
        gathered = distributed.gather_rows(rows)
        given[f"rows {dtype}"] = gathered.double().numpy()
        given[f"same dtype {dtype}"] = gathered.dtype == dtype
    given["objects"] = distributed.gather_objects(f"from {rank}")
    given["broadcast"] = [distributed.broadcast_object(f"from {rank}", source) for source in range(world)]
    given["any"] = [
        distributed.any_process(rank == world - 1),
        distributed.any_process(False),
        distributed.any_process(rank * 7),
    ]
    given["all"] = [distributed.all_processes(True), distributed.all_processes(rank == 0)]

    sizes, dtypes = (
        [3, 8, 1, 20, 2, 0],
        [torch.float64, torch.float32, torch.float64, torch.float64, torch.float32, torch.float64],
    )
    parameters = [nn.Parameter(torch.zeros(size, dtype=dtype)) for size, dtype in zip(sizes, dtypes, strict=True)]
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.full_like(parameter, number + rank)
    large = nn.Parameter(torch.zeros(1, dtype=torch.float16))
    large.grad = torch.full_like(large, 60000.0)  # the largest number of half precision is 65504
    distributed.average_gradients([*parameters, large])
    given["averages"] = torch.cat([parameter.grad.double() for parameter in parameters]).numpy()
    given["half"] = large.grad.numpy()

    rows = torch.ones(1, 2, requires_grad=True)
    first = torch.autograd.grad(distributed.gather_rows(rows).square().sum(), rows, create_graph=True)[0]
    try:
        first.sum().backward()
        given["twice"] = "went through"
    except RuntimeError as error:
        given["twice"] = str(error)
    return {name: np.asarray(value) for name, value in given.items()}


def work(process: int, folder: str) -> None:
    """A process of three: first two of them make a group, then all do."""
    torch.set_num_threads(1)
    distributed.BUCKET = 10  # elements: several buckets
    for world in (2, 3):
        if process < world:
            address, patience = f"file://{folder}/rendezvous-{world}", timedelta(seconds=120)
            dist.init_process_group("gloo", init_method=address, rank=process, world_size=world, timeout=patience)
            first = sum(SHARES[world][:process])
            results = step(slice(first, first + SHARES[world][process])) | collectives(process, world)
            np.savez(f"{folder}/{process}-of-{world}.npz", **results)
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The results of all processes."""
    folder = tmp_path_factory.mktemp("processes")
    at_once(3, work, str(folder))
    return folder


@pytest.fixture(scope="module", params=[2, 3], ids=["two processes", "three processes"])
def ranks(request, folder) -> list[dict[str, np.ndarray]]:
    """The results of each process of a group."""
    results = []
    for rank in range(request.param):
        with np.load(folder / f"{rank}-of-{request.param}.npz", allow_pickle=False) as arrays:
            results.append(dict(arrays))
    return results


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return step(slice(0, ROWS))


def test_each_process_sees_the_loss_of_the_whole_batch(ranks, alone):
    for rank in ranks:
        np.testing.assert_allclose(rank["loss"], alone["loss"], **EXACT)


def test_gradients_of_encoder_and_temperature_are_those_of_one_process(ranks, alone):
    names = [name for name in alone if name.startswith("gradient")]
    assert "gradient encoder.0.weight" in names
    assert "gradient log_temperature" in names
    for rank in ranks:
        assert [name for name in rank if name.startswith("gradient")] == names
        for name in names:
            np.testing.assert_allclose(rank[name], alone[name], err_msg=name, **EXACT)


def test_a_module_that_one_process_alone_used_has_its_gradient_everywhere(ranks, alone):
    for rank in ranks:
        np.testing.assert_allclose(rank["gradient long_rows.weight"], alone["gradient long_rows.weight"], **EXACT)


def test_a_module_that_nobody_used_has_no_gradient(ranks):
    assert not any("unused" in name for rank in ranks for name in rank)


def test_gradients_of_inputs_carry_the_number_of_processes(ranks, alone):
    inputs = np.concatenate([rank["inputs"] for rank in ranks]) / len(ranks)
    np.testing.assert_allclose(inputs, alone["inputs"], **EXACT)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float32])
def test_rows_of_any_dtype_are_gathered_in_the_order_of_ranks(ranks, dtype):
    expected = np.concatenate([np.full((number, 2), number % 2) for number in range(len(ranks))])
    for rank in ranks:
        assert rank[f"same dtype {dtype}"]
        np.testing.assert_array_equal(rank[f"rows {dtype}"], expected)


def test_ranks_and_size(ranks):
    assert [int(rank["rank"]) for rank in ranks] == list(range(len(ranks)))
    assert {int(rank["world"]) for rank in ranks} == {len(ranks)}


def test_objects_are_gathered_and_broadcast(ranks):
    everyone = [f"from {number}" for number in range(len(ranks))]
    for rank in ranks:
        assert rank["objects"].tolist() == everyone
        assert rank["broadcast"].tolist() == everyone


def test_flags(ranks):
    for rank in ranks:
        assert rank["any"].tolist() == [1, 0, 7 * (len(ranks) - 1)]
        assert rank["all"].tolist() == [1, 0]


def test_gradients_of_several_dtypes_travel_in_several_buckets(ranks):
    expected = np.repeat(np.arange(6), [3, 8, 1, 20, 2, 0]) + (len(ranks) - 1) / 2
    for rank in ranks:
        np.testing.assert_allclose(rank["averages"], expected, rtol=1e-6)


def test_large_half_precision_gradients_do_not_overflow(ranks):
    for rank in ranks:
        np.testing.assert_allclose(rank["half"], 60000, rtol=2e-3)


def test_a_second_derivative_is_refused(ranks):
    for rank in ranks:
        assert "once_differentiable" in str(rank["twice"])


def test_one_process_changes_nothing():
    rows, parameter = torch.ones(2, 3), nn.Parameter(torch.zeros(2))
    parameter.grad = torch.ones(2)
    distributed.average_gradients([parameter])
    assert distributed.gather_rows(rows) is rows
    assert parameter.grad.tolist() == [1, 1]
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.gather_objects("value") == ["value"]
    assert distributed.broadcast_object("value") == "value"
    assert (distributed.any_process(15), distributed.all_processes(False)) == (15, 0)

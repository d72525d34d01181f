from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from contrapose.errors import ArgumentInvalid, ShapesDiffer
from contrapose.negatives import MomentumCopy, Queue
from contrapose.objectives import info_nce

GOLDEN = Path(__file__).parents[1] / "golden"


class Tower(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
        self.head = nn.Linear(4, 3)
        self.double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def randomise(module: nn.Module) -> None:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn_like(parameter))


def test_closed_form_after_k_updates():
    online = nn.Linear(3, 2).double()
    slow, first, m = MomentumCopy(online), online.weight.detach().clone(), 0.9
    seen = []
    for _ in range(5):
        randomise(online)
        seen.append(online.weight.detach().clone())
        slow.update(online, m)
    expected = m**5 * first + (1 - m) * sum(m ** (4 - i) * weight for i, weight in enumerate(seen))
    torch.testing.assert_close(slow.module.weight, expected, rtol=0, atol=1e-14)


def test_equal_weights_stay_equal_to_the_last_bit():
    online = nn.Linear(64, 64)
    slow = MomentumCopy(online)
    for _ in range(100):
        slow.update(online, 0.995)
    assert torch.equal(slow.module.weight, online.weight)


@pytest.mark.parametrize("momentum", [0, 1])
def test_momentum_zero_copies_and_one_stands_still(momentum):
    online = Tower()
    slow, before = MomentumCopy(online), Tower()
    before.load_state_dict(online.state_dict())
    randomise(online)
    slow.update(online, momentum)
    wanted = before if momentum else online
    for mine, theirs in zip(slow.module.parameters(), wanted.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_buffers_are_copied_as_they_are():
    online = Tower()
    slow = MomentumCopy(online)
    online.train()(torch.randn(8, 4, dtype=torch.float64))
    slow.update(online, 0.99)
    for (name, mine), theirs in zip(slow.module.named_buffers(), online.buffers(), strict=True):
        assert torch.equal(mine, theirs), name


def test_only_averages_a_submodule_and_copies_the_rest():
    online = Tower()
    slow, before = MomentumCopy(online, only="body"), online.body[0].weight.detach().clone()
    randomise(online)
    slow.update(online, 0.75)
    torch.testing.assert_close(slow.module.body[0].weight, 0.75 * before + 0.25 * online.body[0].weight)
    assert torch.equal(slow.module.head.weight, online.head.weight)


def test_it_stays_in_evaluation_mode_inside_a_training_module():
    outer = nn.ModuleDict({"online": Tower(), "slow": MomentumCopy(Tower())}).train()
    assert not any(module.training for module in outer["slow"].modules())
    assert outer["online"].training


def test_no_parameter_and_no_output_requires_a_gradient():
    slow = MomentumCopy(Tower())
    assert not any(parameter.requires_grad for parameter in slow.parameters())
    assert not slow(torch.randn(2, 4, dtype=torch.float64, requires_grad=True)).requires_grad


def test_the_online_module_is_left_alone():
    online = Tower().train()
    state = {name: tensor.clone() for name, tensor in online.state_dict().items()}
    MomentumCopy(online).update(online, 0.5)
    assert online.training
    assert all(parameter.requires_grad for parameter in online.parameters())
    assert all(torch.equal(tensor, state[name]) for name, tensor in online.state_dict().items())


def test_state_dict_round_trip():
    online = Tower()
    slow, restored = MomentumCopy(online), MomentumCopy(Tower())
    randomise(online)
    slow.update(online, 0.5)
    restored.load_state_dict(slow.state_dict(), strict=True)
    x = torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(restored(x), slow(x))


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_momentum_outside_its_range_is_refused(momentum):
    online = nn.Linear(2, 2)
    with pytest.raises(ArgumentInvalid, match="momentum"):
        MomentumCopy(online).update(online, momentum)


def test_an_unknown_submodule_names_the_nearest():
    with pytest.raises(ArgumentInvalid, match="did you mean 'body'"):
        MomentumCopy(Tower(), only="bodi")


@pytest.mark.parametrize("other", [nn.Linear(3, 3), nn.Linear(2, 2, bias=False), nn.Sequential(nn.Linear(2, 2))])
def test_another_module_is_refused(other):
    with pytest.raises(ShapesDiffer, match="momentum copy"):
        MomentumCopy(nn.Linear(2, 2)).update(other, 0.9)


def test_golden_trace_of_esimcse():
    """Loss with the queue of earlier steps, average before the optimiser, enqueue at the end: four steps of the official code."""
    with np.load(GOLDEN / "esimcse.npz", allow_pickle=False) as arrays:
        trace = {name: torch.tensor(arrays[name]) for name in arrays.files}
    online = nn.Linear(8, 8, bias=False).double()
    with torch.no_grad():
        online.weight.copy_(trace["trace_W0"])
    slow, queue = MomentumCopy(online), Queue(int(trace["trace_queue_size"]), 8, dtype=torch.float64)
    optimiser = torch.optim.SGD(online.parameters(), lr=float(trace["trace_lr"]))
    exact = {"rtol": 0, "atol": 1e-12}
    for step, views in enumerate(trace["trace_X"]):
        anchors, positives = online(views).unbind(1)
        loss = info_nce(anchors, positives, temperature=float(trace["temp"]), queue=queue.stored().vectors)
        slow.update(online, float(trace["trace_momentum"]))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        queue.enqueue(slow(views[:, 0]))
        torch.testing.assert_close(loss.detach(), trace["trace_losses"][step], **exact)
        torch.testing.assert_close(online.weight.detach(), trace["trace_W"][step], **exact)
        torch.testing.assert_close(slow.module.weight, trace["trace_Wm"][step], **exact)
        assert len(queue) == int(trace["trace_queue_len"][step])
    torch.testing.assert_close(queue.stored().vectors, trace["trace_final_queue"], **exact)


def test_a_copy_that_takes_the_batchs_statistics_does_so_while_training_and_drops_nothing():
    online = Tower()
    fixed, live = MomentumCopy(online), MomentumCopy(online, batch_statistics=True)
    x = torch.randn(16, 4, dtype=torch.float64) * 3 + 1
    for copied in (fixed, live):
        copied.train()
    normed = (x @ online.body[0].weight.T + online.body[0].bias).detach()
    normed = (normed - normed.mean(0)) / (normed.var(0, correction=0) + online.body[1].eps).sqrt()
    torch.testing.assert_close(live(x), online.head(normed).detach())
    assert not torch.allclose(fixed(x), live(x))
    live.update(online, 1.0)  # the running statistics are the online ones again
    torch.testing.assert_close(live.eval()(x), fixed(x))

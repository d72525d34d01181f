"""What the plan expects of memory against what a real step allocates, and the chunk that a limit allows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import contrapose
from contrapose.errors import MemoryTooSmall, SettingInvalid
from contrapose.training import loop
from contrapose.training.memory import Allocated, MemoryPlan
from contrapose.training.settings import MethodSettings, parse_memory, parse_settings

MIB = 2**20


@pytest.fixture
def steps(monkeypatch) -> dict[str, list]:
    """The plan of a run, and the bytes that each of its steps had at most: the model's, the optimiser's and what the step made."""
    seen: dict[str, list] = {"plan": [], "bytes": []}
    plan, step = loop.plan_memory, loop.train_step

    def planned(*given) -> MemoryPlan:
        seen["plan"].append(plan(*given))
        return seen["plan"][-1]

    def measured(run, model, updates, optimisers, batch) -> None:
        before = sum(tensor.nbytes for tensor in model.state_dict().values()) + sum(
            value.nbytes
            for optimiser in optimisers.values()
            for state in optimiser.state.values()
            for value in state.values()
            if isinstance(value, Tensor)
        )
        with Allocated() as allocated:
            step(run, model, updates, optimisers, batch)
        seen["bytes"].append(before + allocated.peak)

    monkeypatch.setattr(loop, "plan_memory", planned)
    monkeypatch.setattr(loop, "train_step", measured)
    return seen


@pytest.mark.parametrize(
    ("layers", "settings", "cached"),
    [
        (1, {"batch_size": 64}, False),
        (2, {"batch_size": 128, "precision": "fp32"}, False),
        (2, {"batch_size": 128, "precision": "fp32", "memory": "340MB"}, True),
    ],
)
def test_the_plan_is_within_a_quarter_of_what_a_step_takes(steps, tmp_path: Path, layers, settings, cached):
    contrapose.train(
        "pairs",
        "sample:latvian/train",
        columns={"anchor": "english", "positive": "latvian"},
        encoder={"name": "minilm", "layers": layers, "max_tokens": 48},
        out=tmp_path / "run",
        progress=False,
        settings={"steps": 2, "memory": "100GB", **settings},
    )
    (plan,) = steps["plan"]
    assert (plan.chunk is not None) == cached
    assert plan.expected == pytest.approx(
        steps["bytes"][1], rel=0.25
    )  # the optimiser has its state from the second step on


def test_a_limit_that_holds_no_row_is_refused_with_what_is_needed(tmp_path: Path):
    with pytest.raises(MemoryTooSmall, match=r"memory=20MB holds no step: .* take about \d+\.\d MB"):
        contrapose.train(
            "pairs",
            [{"anchor": f"a sentence {n}", "positive": f"another {n}"} for n in range(8)],
            encoder={"name": "minilm", "layers": 1},
            out=tmp_path / "run",
            progress=False,
            memory="20MB",
        )


def test_only_what_is_alive_is_counted():
    with Allocated() as allocated:
        kept = torch.zeros(MIB // 4)
        for _ in range(3):
            torch.zeros(MIB)  # gone at once
    assert allocated.live == MIB
    assert allocated.peak == 5 * MIB
    del kept
    assert allocated.live == 0


def test_a_view_counts_once_and_a_backward_pass_is_seen():
    layer = nn.Linear(256, 256, bias=False)
    with Allocated() as allocated:
        layer(torch.ones(4, 256)).view(-1).sum().backward()
    assert layer.weight.grad.nbytes <= allocated.peak < layer.weight.grad.nbytes + 64 * 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4GB", 4 * 2**30), ("512 MB", 512 * MIB), ("1.5g", 1.5 * 2**30), ("4096", 4096), (None, None)],
)
def test_amounts_of_memory(text, expected):
    assert parse_memory(text) == expected


@pytest.mark.parametrize("text", ["much", "-1GB", "0", "4 potatoes"])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(SettingInvalid, match="'memory' is no amount of memory; write 4GB or 512MB"):
        parse_settings(MethodSettings, {"memory": text}, owner="method 'pairs'")

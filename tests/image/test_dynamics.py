"""What the paper proves of linear networks, seen in their gradient flow."""

from __future__ import annotations

import pytest

from contrapose.errors import ArgumentInvalid
from contrapose.image.directpred import linear_dynamics

SHORT = {"dim": 4, "inputs": 8, "step": 0.05}


def test_weight_decay_balances_predictor_and_encoder_and_turns_their_eigenspaces_together() -> None:
    seen = linear_dynamics(**SHORT, weight_decay=0.05)
    assert seen.time[-1] == pytest.approx(100)
    assert seen.imbalance[-1] < 0.01 < 0.5 < seen.imbalance[0]
    assert seen.alignment[-1] > 0.99 > seen.alignment[0]
    assert seen.largest[-1] > 0.5


def test_without_weight_decay_they_stay_apart() -> None:
    assert linear_dynamics(**SHORT, weight_decay=0.0, duration=50).imbalance[-1] > 0.5


COLLAPSES = {
    "no predictor": {"predictor": "identity"},
    "no stop-gradient": {"stop_gradient": False},
    "too much weight decay": {"weight_decay": 0.5},
}


@pytest.mark.parametrize("options", COLLAPSES.values(), ids=COLLAPSES)
def test_collapse(options: dict) -> None:
    assert linear_dynamics(**SHORT, **options).largest[-1] < 1e-3


@pytest.mark.parametrize("options", [{"noise": -1.0}, {"step": 0.0}, {"dim": 9}, {"predictor": "mlp"}])
def test_values_out_of_range(options: dict) -> None:
    with pytest.raises(ArgumentInvalid, match=next(iter(options))):
        linear_dynamics(**{**SHORT, **options})

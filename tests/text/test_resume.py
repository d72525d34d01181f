"""Every text method, stopped in the midst of an epoch, goes on to the bits of an unbroken run. A method joins by being there."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from contrapose.catalogue import find_method
from contrapose.data.readers import read
from contrapose.text.data import open_data
from contrapose.text.encoder import TextEncoder
from contrapose.training.interrupts import Stopped
from tests.test_two_processes import METHODS
from tests.torchrun import BATCH, OWN, rows
from tests.training.children import figures, started, weights
from tests.training.toys import Toy, signals


@pytest.mark.parametrize("name", METHODS)
def test_a_stopped_run_goes_on_to_the_same_bits(name: str, encoder: TextEncoder, tmp_path: Path) -> None:
    method = find_method(name)
    data = open_data(read(rows(method), needs=method.card.columns), method.card, encoder)
    settings = {**OWN.get(name, {}), "batch_size": BATCH, "steps": 5, "log_every": 1, "precision": "fp32"}
    toy = Toy(name, method, lambda: data, lambda: encoder, settings)
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    with pytest.raises(Stopped):
        toy.fit(broken, reporter=signals(signal.SIGTERM, after=3))
    toy.fit(broken)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)

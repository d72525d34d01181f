"""Every method trains from one call to a model that is read back, and, stopped, goes on to the same bits. A method joins by being there."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import contrapose
from contrapose.catalogue import methods
from contrapose.training.interrupts import Stopped
from tests.tiny import tiny
from tests.torchrun import BATCH, opened
from tests.training.children import figures, started, weights
from tests.training.toys import Toy, signals


@pytest.mark.parametrize("name", methods())
def test_a_call_trains_it_and_gives_a_model(name: str, tmp_path: Path) -> None:
    sample = tiny(name, tmp_path / "sample")
    settings = {"batch_size": 8, "steps": 4, "log_every": 1, **sample.settings}
    run = contrapose.train(
        name, sample.data, encoder=sample.encoder, out=tmp_path / "run", progress=False, settings=settings
    )
    terms = [term for line in run.folder.metrics() for term in line["terms"].values()]
    assert terms
    assert np.isfinite(terms).all()
    vectors = run.model.encode(sample.values, progress=False)
    assert vectors.shape == (len(sample.values), run.model.dim)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize("name", methods())
def test_a_stopped_run_goes_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    sample = tiny(name, tmp_path / "sample")
    method, encoder, data = opened(name, sample)
    settings = {
        "batch_size": BATCH, "steps": 5, "log_every": 1, "precision": "fp32", **sample.settings, **sample.exact
    }  # fmt: skip
    toy = Toy(name, method, lambda: data, lambda: encoder, settings)
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    with pytest.raises(Stopped):
        toy.fit(broken, reporter=signals(signal.SIGTERM, after=3))
    toy.fit(broken)
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)

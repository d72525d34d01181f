"""Masks and fixed views: what they change, and that a series' view does not depend on the others."""

from __future__ import annotations

import pytest
import torch

from contrapose.data.batches import Batch, Data, seeded
from contrapose.series.views import fixed_view, timestamp_mask, without_spans


def batch(b: int) -> Batch:
    return Batch(Data({}, b), torch.arange(b), 0, seeded(1))


def test_masks_hide_what_they_say() -> None:
    lengths = torch.tensor([20, 12])
    assert timestamp_mask("none", batch(2), 20, lengths).all()
    last = timestamp_mask("mask_last", batch(2), 20, lengths)
    assert (~last).nonzero().tolist() == [[0, 19], [1, 11]]
    half = timestamp_mask("binomial", batch(200), 100, torch.full((200,), 100))
    assert float(half.double().mean()) == pytest.approx(0.5, abs=0.01)
    spans = timestamp_mask("continuous", batch(50), 100, torch.full((50,), 100))
    hidden = (~spans).sum(dim=1)
    assert int(hidden.min()) >= 10
    assert int(hidden.max()) <= 50


def test_spans_reach_both_ends() -> None:
    kept = without_spans(torch.tensor([[0.0], [0.999999]], dtype=torch.float64), 20)
    assert (~kept).nonzero().tolist() == [[0, 0], [0, 1], [1, 18], [1, 19]]


@pytest.mark.parametrize("kind", ["none", "jitter", "scaling", "jitter_scaling", "cutout", "subsequence"])
def test_a_view_has_the_shape_and_the_missing_values_of_its_series(kind: str) -> None:
    x = torch.randn(4, 30, 2)
    x[1, 20:], x[2, 5, 0] = torch.nan, torch.nan
    lengths = torch.tensor([30, 20, 30, 30])
    view = fixed_view(kind, x, batch(4), lengths)
    assert torch.equal(view.isnan(), x.isnan())
    assert torch.equal(view.nan_to_num(), x.nan_to_num()) == (kind == "none")


def test_scaling_has_one_factor_a_channel_and_cutout_one_stretch() -> None:
    x, lengths = torch.ones(3, 40, 2), torch.full((3,), 40)
    scaled = fixed_view("scaling", x, batch(3), lengths)
    assert torch.equal(scaled, scaled[:, :1].expand_as(scaled))
    assert scaled[:, 0].unique().numel() == 6
    assert (fixed_view("cutout", x, batch(3), lengths)[..., 0] == 0).sum(dim=1).tolist() == [4, 4, 4]


def test_a_subsequence_keeps_a_stretch_of_two_or_more() -> None:
    kept = fixed_view("subsequence", torch.ones(300, 25, 1), batch(300), torch.full((300,), 25))[..., 0]
    assert int(kept.sum(dim=1).min()) >= 2
    assert int(kept.sum(dim=1).max()) == 25
    assert int((kept[:, 1:] != kept[:, :-1]).sum(dim=1).max()) <= 2

"""AdaMEOW's loss against sums over all pairs, with gradients through its weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

from contrapose.data.batches import Batch, Facts, seeded
from contrapose.errors import NoNegatives, ShapesDiffer
from contrapose.graph.adameow import AdaMEOW, Weigher, learned_info_nce
from contrapose.graph.data import Nodes, open_data
from contrapose.graph.encoder import open_encoder
from contrapose.objectives import info_nce


def unit(n: int, seed: int) -> torch.Tensor:
    return normalize(torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


def test_the_loss_and_every_gradient_are_the_formula() -> None:
    fine, coarse, weigher = unit(9, 0).requires_grad_(), unit(9, 1).requires_grad_(), Weigher(5, 4).double()
    plain = nn.Sequential(weigher.first, nn.Tanh(), weigher.second, nn.Sigmoid())
    gamma = plain(fine[:, None] + coarse[None])[..., 0]
    torch.testing.assert_close(weigher.log_weights(fine, coarse).exp(), gamma)
    similar = (fine @ coarse.T / 0.7).exp()
    expected = -(similar.diagonal() / (gamma * similar).sum(1)).log().mean()
    found = learned_info_nce(fine, coarse, weigher, temperature=0.7)
    torch.testing.assert_close(found, expected)
    leaves = [fine, coarse, *weigher.parameters()]
    for one, other in zip(torch.autograd.grad(found, leaves), torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(one, other)


def test_weights_of_one_are_info_nce() -> None:
    fine, coarse, weigher = unit(9, 0), unit(9, 1), Weigher(5, 4).double()
    with torch.no_grad():
        weigher.second.weight.zero_()
        weigher.second.bias.fill_(50.0)
    found = learned_info_nce(fine, coarse, weigher, temperature=0.7)
    assert found.item() == pytest.approx(info_nce(fine, coarse, temperature=0.7).item())


@pytest.mark.parametrize("weighting", [True, False])
def test_a_step_and_its_value_at_chance(nodes: Nodes, weighting: bool) -> None:
    method = AdaMEOW(AdaMEOW.Settings(weighting=weighting), open_encoder(None, {"dim": 5, "top_k": 6}, nodes).eval())
    method.build(Facts(len(nodes), ("node",)))
    batch = Batch(open_data(nodes, AdaMEOW.card, method.encoder), torch.arange(len(nodes)), 0, seeded(0))
    (term,) = method.training_step(batch).values()
    fine, coarse = method.embeddings["fine"], method.embeddings["coarse"]
    expected = (
        learned_info_nce(fine, coarse, method.weigher, temperature=1.0)
        if weighting
        else info_nce(fine, coarse, temperature=1.0)
    )
    assert term.item() == pytest.approx(expected.item(), rel=1e-5)
    assert method.chance(batch)["info_nce"] == pytest.approx(
        term.item(), abs=0.7
    )  # at the start the vectors say little


def test_views_that_do_not_fit_and_a_row_alone() -> None:
    weigher = Weigher(5, 4).double()
    with pytest.raises(ShapesDiffer, match=r"\(4, 5\) and \(3, 5\)"):
        learned_info_nce(unit(4, 0), unit(3, 1), weigher, temperature=0.7)
    for rows in (0, 1):
        with pytest.raises(NoNegatives, match=f"{rows} row"):
            learned_info_nce(unit(rows, 0), unit(rows, 1), weigher, temperature=0.7)

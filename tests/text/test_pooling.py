from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from contrapose.errors import PoolingUnavailable
from contrapose.text._pooling import POOLINGS, pool

GOLDEN = Path(__file__).parents[1] / "golden" / "simcse_base.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    with np.load(GOLDEN) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays if name.startswith("pool_")}


@pytest.mark.parametrize("pooling", ["cls_before_pooler", "avg", "avg_top2", "avg_first_last"])
def test_poolings_are_those_of_simcse(pooling, golden):
    vectors = pool(golden["pool_hidden"], golden["pool_mask"], pooling)
    torch.testing.assert_close(vectors, golden[f"pool_{pooling}"].double(), rtol=0, atol=1e-12)


def test_the_accident_of_the_papers_code_takes_the_embedding_layer(golden):
    hidden, mask = golden["pool_hidden"], golden["pool_mask"]
    expected = (pool(hidden[:1], mask, "avg") + pool(hidden, mask, "avg")) / 2
    torch.testing.assert_close(pool(hidden, mask, "avg_first_last_embedding"), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_padding_has_no_part(pooling):
    hidden = torch.randn(3, 2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    other = hidden.clone()
    other[:, 0, 3:] = 1e6
    assert torch.equal(pool(hidden, mask, pooling), pool(other, mask, pooling))


def test_half_precision_is_summed_in_float32():
    hidden = torch.randn(1, 1, 500, 4, generator=torch.Generator().manual_seed(0)).bfloat16() + 8
    vectors = pool(hidden, torch.ones(1, 500), "avg")
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, hidden[0].double().mean(1).float(), rtol=1e-6, atol=0)


def test_an_empty_text_has_the_zero_vector():
    assert pool([torch.ones(1, 2, 3)], torch.zeros(1, 2), "avg").tolist() == [[0.0, 0.0, 0.0]]


def test_an_unknown_pooling_names_the_nearest():
    with pytest.raises(PoolingUnavailable, match="no pooling 'avg_top_2'; did you mean 'avg_top2'"):
        pool([torch.ones(1, 2, 3)], torch.ones(1, 2), "avg_top_2")


@pytest.mark.parametrize(("pooling", "states"), [("avg_top2", 1), ("avg_first_last", 1)])
def test_a_pooling_over_layers_that_are_not_there_is_refused(pooling, states):
    with pytest.raises(PoolingUnavailable, match=f"'{pooling}' needs the hidden states of more layers than the 1"):
        pool([torch.ones(1, 2, 3)] * states, torch.ones(1, 2), pooling)


@pytest.mark.parametrize("joined", ["concat", "mean"])
@pytest.mark.parametrize("over", ["mean", "sqrt", "max"])
@pytest.mark.parametrize("first", ["", "_cls"])
def test_top_layers_by_hand(joined, over, first):
    states = list(torch.randn(4, 3, 5, 2, generator=torch.Generator().manual_seed(0)))
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
    found = pool(states, mask, f"{joined}_top2_{over}{first}")
    for row in range(3):
        tokens = [place for place in range(5) if mask[row, place] and (first or place)]
        layers = torch.cat(states[2:], dim=-1) if joined == "concat" else (states[2] + states[3]) / 2
        own = layers[row, tokens]
        by_hand = (
            {
                "mean": lambda own: own.mean(dim=0),
                "sqrt": lambda own: own.sum(dim=0) / len(own) ** 0.5,
                "max": lambda own: own.amax(dim=0),
            }[over](own)
            if tokens
            else torch.zeros(layers.shape[-1])
        )
        torch.testing.assert_close(found[row], by_hand)


def test_a_pooling_of_no_layers_is_none():
    with pytest.raises(PoolingUnavailable, match="no pooling 'mean_top0_max'"):
        pool([torch.zeros(1, 2, 3)], torch.ones(1, 2), "mean_top0_max")

"""Growing changes nothing that is computed, and costs what it says."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from contrapose.errors import ArchitectureInvalid, ArgumentInvalid
from contrapose.image_text._architecture import COORDINATES, Architecture, larger
from contrapose.image_text._growing import growing_pair
from contrapose.image_text._towers import Tower, grow, inherit
from contrapose.text.data import Tokens

SMALL = Architecture(image=1, text=1, shared=1, width=16, hidden=12, heads=2, head=4)
IMAGES = {"dim": 8, "size": 8, "channels": 1, "patch": 4, "seed": 0}
TEXTS = {"dim": 8, "buckets": 32, "max_tokens": 6, "seed": 0}


def pair_of(built: Architecture) -> torch.nn.ModuleDict:
    image, text = growing_pair(dict(IMAGES), dict(TEXTS), built)
    return torch.nn.ModuleDict({"image": image, "text": text}).double()


def vectors(pair: torch.nn.ModuleDict) -> list[torch.Tensor]:
    pixels = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    tokens = Tokens.from_lists([[1, 2, 3], [4], [5, 6, 7, 8]])
    return [pair["image"](pixels), pair["text"](tokens)]


@pytest.mark.parametrize("name", COORDINATES)
def test_a_grown_pair_computes_what_the_small_one_did(name: str) -> None:
    torch.manual_seed(0)
    old = pair_of(SMALL)
    fresh = pair_of(larger(SMALL, COORDINATES, 2, 1.5, 9.0)[name])
    grow(fresh, old, 1.0)
    for before, after in zip(vectors(old), vectors(fresh), strict=True):
        torch.testing.assert_close(after, before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", COORDINATES)
def test_what_was_added_learns(name: str) -> None:
    """With incoming and outgoing weights of 0 it never would."""
    torch.manual_seed(0)
    old = pair_of(SMALL)
    fresh = pair_of(larger(SMALL, COORDINATES, 1, 1.5, 9.0)[name])
    grow(fresh, old, 1.0)
    sum(each.square().sum() for each in vectors(fresh)).backward()
    sizes = dict(old.named_parameters())
    added = []
    for at, parameter in fresh.named_parameters():
        slope = parameter.grad.clone()
        if at in sizes:
            slope[tuple(slice(0, size) for size in sizes[at].shape)] = 0
        added.append(float(slope.abs().sum()))
    assert max(added) > 0


def test_with_less_momentum_a_grown_pair_is_another() -> None:
    torch.manual_seed(0)
    old, fresh = pair_of(SMALL), pair_of(replace(SMALL, image=2))
    grow(fresh, old, 0.5)
    assert not torch.allclose(vectors(fresh)[0], vectors(old)[0], atol=1e-3)


def test_gains_biases_and_embeddings_are_inherited_whole() -> None:
    torch.manual_seed(0)
    old, fresh = pair_of(SMALL), pair_of(replace(SMALL, hidden=16))
    grow(fresh, old, 0.0)
    text, before = fresh["text"], old["text"]
    for one, other in (
        (text.first.words.weight, before.first.words.weight),
        (text.norm.weight, before.norm.weight),
        (text.tower.blocks[0].inner.bias[:12], before.tower.blocks[0].inner.bias),
    ):
        assert torch.equal(one, other)


def test_shared_blocks_are_one_module_and_count_once() -> None:
    pair = pair_of(SMALL)
    assert pair["image"].shared is pair["text"].shared
    blocks = [each for each in pair.modules() if isinstance(each, Tower)]
    assert sum(p.numel() for tower in blocks for p in tower.parameters()) == SMALL.parameters


def test_only_steps_within_the_budget_are_candidates() -> None:
    found = larger(SMALL, COORDINATES, 1, 1.25, 1.2)
    assert list(found) == ["none", "hidden"]
    assert all(built.parameters <= 1.2 * SMALL.parameters for built in found.values())


def test_a_budget_without_any_step_is_refused() -> None:
    with pytest.raises(ArchitectureInvalid, match=r"the smallest step takes 1\.33 times"):
        larger(SMALL, ("image",), 1, 1.25, 1.1)


def test_a_smaller_architecture_is_refused() -> None:
    with pytest.raises(ArchitectureInvalid, match="hidden would go from 12 to 8"):
        replace(SMALL, hidden=8).refuse_smaller(SMALL)


def test_a_tensor_that_would_shrink_is_named() -> None:
    torch.manual_seed(0)
    with pytest.raises(ArchitectureInvalid, match=r"inner.weight: A tensor of shape \(12, 16\)"):
        grow(pair_of(replace(SMALL, hidden=8)), pair_of(SMALL), 1.0)


def test_momentum_is_a_share() -> None:
    with pytest.raises(ArgumentInvalid, match="from 0 to 1"):
        inherit(torch.ones(2), torch.ones(2), 1.5)


def test_inheriting_leaves_the_old_tensor_alone() -> None:
    old = torch.ones(2, 2)
    before = copy.deepcopy(old)
    assert inherit(old, torch.zeros(3, 3), 0.5)[:2, :2].unique().tolist() == [0.5]
    assert torch.equal(old, before)


def test_an_unknown_coordinate_is_named() -> None:
    with pytest.raises(ArchitectureInvalid, match="'width' is nothing that grows; known: image"):
        larger(SMALL, ("image", "width"), 1, 1.25, 2.0)

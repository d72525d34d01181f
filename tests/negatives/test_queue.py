from __future__ import annotations

import math
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer
from contrapose.negatives import Queue
from contrapose.objectives import info_nce


def numbered(first: int, count: int, dim: int = 2) -> torch.Tensor:
    return torch.arange(first, first + count, dtype=torch.float32)[:, None].expand(count, dim)


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 7), batches=st.lists(st.integers(0, 16), max_size=8))
def test_first_in_first_out_for_any_batches(size, batches):
    queue, model, first = Queue(size, 2), deque(maxlen=size), 0
    for b in batches:
        rows = torch.arange(first, first + b)
        queue.enqueue(numbered(first, b), rows=rows, group=rows + 1000)
        model.extend(range(first, first + b))
        first += b
        stored = queue.stored()
        assert stored.vectors[:, 1].tolist() == list(model)
        assert stored.rows.tolist() == list(model)
        assert stored.group.tolist() == [number + 1000 for number in model]
        assert len(queue) == len(model)


def test_rows_and_groups_that_are_not_given_are_none():
    queue = Queue(3, 2)
    queue.enqueue(numbered(0, 3), rows=torch.arange(3), group=torch.arange(3))
    queue.enqueue(numbered(3, 2))
    assert queue.stored().rows.tolist() == [2, -1, -1]
    assert queue.stored().group.tolist() == [2, -1, -1]


def test_a_restored_queue_goes_on_like_the_unbroken_one():
    unbroken, before, after = Queue(5, 2), Queue(5, 2), Queue(5, 2)
    for queue in (unbroken, before):
        queue.enqueue(numbered(0, 4), rows=torch.arange(4))
        queue.enqueue(numbered(4, 3), rows=torch.arange(4, 7))
    after.load_state_dict(before.state_dict(), strict=True)
    for queue in (unbroken, after):
        queue.enqueue(numbered(7, 2), group=torch.tensor([1, 2]))
    for name, tensor in unbroken.state_dict().items():
        assert torch.equal(tensor, after.state_dict()[name]), name


def test_several_queues_of_a_module_fill_and_are_restored_each_by_its_name():
    def two() -> torch.nn.Module:
        return torch.nn.ModuleDict({"images": Queue(5, 2), "texts": Queue(3, 2)})

    filled, restored = two(), two()
    filled["images"].enqueue(numbered(0, 4))
    filled["texts"].enqueue(numbered(9, 5))
    restored.load_state_dict(filled.state_dict(), strict=True)
    assert restored["images"].stored().vectors[:, 0].tolist() == [0, 1, 2, 3]
    assert restored["texts"].stored().vectors[:, 0].tolist() == [11, 12, 13]


def test_the_state_dict_holds_all_state():
    assert set(Queue(3, 2).state_dict()) == {"vectors", "rows", "group", "pointer", "fill"}


def test_vectors_take_the_dtype_of_the_queue():
    queue = Queue(3, 2, dtype=torch.float16)
    queue.enqueue(torch.ones(2, 2, dtype=torch.float64))
    assert queue.stored().vectors.dtype == torch.float16


def test_no_graph_is_kept():
    queue = Queue(3, 2)
    queue.enqueue(torch.ones(2, 2, requires_grad=True) * 2)
    assert not queue.stored().vectors.requires_grad


def test_enqueue_does_not_touch_what_a_loss_has_seen():
    queue = Queue(3, 2)
    queue.enqueue(torch.randn(3, 2))
    anchors = torch.randn(2, 2, requires_grad=True)
    loss = info_nce(anchors, torch.randn(2, 2), temperature=0.1, queue=queue.stored().vectors, similarity="dot")
    expected = torch.autograd.grad(loss, anchors, retain_graph=True)[0]
    queue.enqueue(torch.randn(3, 2))
    loss.backward()
    assert torch.equal(anchors.grad, expected)


@pytest.mark.parametrize("shape", [(3, 5), (4,), (3, 2, 4)])
def test_other_dimensions_are_refused(shape):
    with pytest.raises(ShapesDiffer, match="4 dimensions"):
        Queue(8, 4).enqueue(torch.zeros(shape))


@pytest.mark.parametrize("name", ["rows", "group"])
def test_one_number_a_vector(name):
    with pytest.raises(ShapesDiffer, match=name):
        Queue(8, 4).enqueue(torch.zeros(3, 4), **{name: torch.arange(2)})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_non_finite_vectors_are_refused_and_nothing_is_stored(value):
    queue = Queue(8, 4)
    with pytest.raises(NonFinite):
        queue.enqueue(torch.full((2, 4), value))
    assert len(queue) == 0


@pytest.mark.parametrize(("size", "dim"), [(-1, 4), (4, 0)])
def test_impossible_sizes_are_refused(size, dim):
    with pytest.raises(ArgumentInvalid):
        Queue(size, dim)

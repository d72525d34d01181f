"""What a step will take of memory, measured on a few rows before it is spent; and the chunk that a limit allows."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import LongTensor, Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from contrapose.data.batches import Batch, Data, seeded
from contrapose.errors import MemoryTooSmall
from contrapose.objectives import tile_bytes
from contrapose.training.cache import row_sizes
from contrapose.training.method import Method, Update, ViewMethod
from contrapose.training.optimisers import trainable
from contrapose.training.progress import Silent
from contrapose.training.settings import parse_memory
from contrapose.training.stages import RunContext

PROBED = (8, 32)  # rows of the two measurements
AT_WORK = 1.1  # of what a graph holds, with the gradients of the block that the backward pass is in


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes that a step will allocate in tensors, and how many rows (or tokens) go through the encoder at once; None: all of them."""

    expected: int
    chunk: int | None
    of: int  # rows, or tokens, in a batch
    tiles: int  # bytes of the objective's similarities at any time

    def __str__(self) -> str:
        cache = "off" if self.chunk is None else f"on, {self.chunk:,} of {self.of:,} at a time"
        return f"embedding cache {cache}, tiles of the objective {in_words(self.tiles)}, about {in_words(self.expected)} in all"


class Allocated(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside and still alive: `live` now, `peak` at most."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: dict[int, int] = {}  # bytes by address; 0 for those that were there before
        self.live = self.peak = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.know((args, kwargs), made=False)
        outputs = function(*args, **(kwargs or {}))
        self.know(outputs, made=True)
        self.peak = max(self.peak, self.live)
        return outputs

    def know(self, tensors: Any, made: bool) -> None:
        for tensor in tree_leaves(tensors):
            if not isinstance(tensor, Tensor):
                continue
            storage = tensor.untyped_storage()
            address = storage._cdata
            if address not in self.storages:
                self.storages[address] = storage.nbytes() if made else 0
                self.live += self.storages[address]
                weakref.finalize(storage, self.forget, address)

    def forget(self, address: int) -> None:
        self.live -= self.storages.pop(address, 0)


def plan_memory(
    run: RunContext, model: Method, data: Data, rows: LongTensor, updates: Iterable[Update]
) -> MemoryPlan | None:
    """Measure what some rows of a batch take in the encoder, and choose the chunk that `settings.memory` allows.

    On a copy of the model, so that nothing of it has moved.

    None where nothing can be measured: for a method without views, or an encoder that looks across rows (then a chunk is no option either);
    and where nobody would read it.
    Raises MemoryTooSmall, with what is needed.
    """
    fabric, unread = run.fabric, model.settings.memory is None and isinstance(run.reporter, Silent)
    if unread or not isinstance(model, ViewMethod) or not model.row_wise:
        return None
    batch_size = min(model.settings.batch_size, len(data)) // fabric.world_size
    parameters = {parameter for update in updates for parameter in trainable(update, model)}
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    gradients = sum(parameter.nbytes for parameter in parameters)
    moments = {"adamw": 2, "adam": 2, "sgd": int(model.settings.sgd_momentum > 0)}[model.settings.optimiser] * gradients
    trial = copy.deepcopy(model)
    small, large = (probe(trial, data, rows[:few], fabric) for few in PROBED)
    a_unit = max(1.0, (large.held - small.held) / max(1, large.units - small.units))
    once = max(0.0, large.held - a_unit * large.units)  # weights in another precision
    units = round(large.units / large.rows * batch_size)
    # of each view: as it is, unit, scaled, gathered, and the gradients of these
    vectors = 8 * large.vector_bytes * batch_size
    tiles = tile_bytes(batch_size * fabric.world_size)
    objective = vectors * fabric.world_size + tiles

    def expected(chunk: int | None) -> int:
        through = once + AT_WORK * a_unit * (units if chunk is None else chunk)
        all_gradients = 0 if chunk is None else gradients  # of chunks that are done, while the next one's graph stands
        return round(weights + moments + max(through + vectors + all_gradients, gradients + objective))

    limit = parse_memory(model.settings.memory)
    if limit is None or expected(None) <= limit:
        return MemoryPlan(expected(None), None, units, tiles)
    chunk = int((limit - expected(0)) / (AT_WORK * a_unit))
    if chunk < large.longest:
        needed = in_words(expected(large.longest))
        raise MemoryTooSmall(
            f"memory={model.settings.memory} holds no step: weights, optimiser, vectors and a single row take about {needed}. "
            "Give more, a smaller batch_size or a smaller encoder."
        )
    return MemoryPlan(expected(chunk), chunk, units, tiles)


def in_words(amount: int) -> str:
    """Bytes as people say them."""
    return f"{amount / 2**30:.2g} GB" if amount >= 2**30 else f"{amount / 2**20:,.1f} MB"


@dataclass(frozen=True)
class Probe:
    rows: int
    units: int
    longest: int
    vector_bytes: int  # a row, over all views
    held: int  # by the graph, when the forward pass is done


def probe(trial: ViewMethod, data: Data, rows: LongTensor, fabric: Fabric) -> Probe:
    """Embed rows as a step would, and count what the backward pass would need. The random state is as before."""
    batch = Batch(data, rows, 0, seeded(0), fabric.device)
    trial.train()
    with torch.random.fork_rng(), torch.enable_grad(), fabric.autocast():
        trial.before_step(batch)
        views = trial.views(batch)
        with Allocated() as allocated:
            embedded = trial.embed_views(views)
            held = allocated.live
    sizes = [row_sizes(view.inputs) for view in views.values()]
    return Probe(
        len(rows),
        sum(map(sum, sizes)),
        max(map(max, sizes)),
        sum(vectors[0].numel() * 4 for vectors in embedded.values()),
        held,
    )

"""An encoder of the nodes of one graph: what stands along meta-paths, what stands at their ends, and attention over the paths."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import LongTensor, Tensor, nn
from torch.nn.functional import elu, layer_norm, normalize, prelu
from torch.utils.checkpoint import checkpoint

from contrapose.errors import GraphAbsent, ModelFolderInvalid, NodeUnknown, ShapesDiffer, UsageInvalid
from contrapose.graph._graph import Graph, MetaPath
from contrapose.graph._options import EncoderOptions
from contrapose.graph._sparse import Adjacency
from contrapose.graph._structure import Structure
from contrapose.graph.data import Nodes, read_data
from contrapose.training.dropout import dropout
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision
from contrapose.training.settings import parse_settings

__all__ = [
    "EncoderOptions",
    "GraphEncoder",
    "SemanticAttention",
    "TwoConvolutions",
    "compare_export",
    "load_encoder",
    "open_encoder",
    "usage",
]

NAME = "metapaths"
WEIGHTS = "model.safetensors"


class TwoConvolutions(nn.Module):
    """Two graph convolutions without bias: X W1, A, PReLU, W2, A; then all n x d values are standardised together.

    Standardising the matrix and no rows is as in the official code (LayerNorm over its whole shape): nothing is scaled node by node.
    """

    def __init__(self, dim: int, hidden: int, rate: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(torch.empty(dim, hidden)), nn.Parameter(torch.empty(hidden, hidden))
        for weight in (self.first, self.second):
            nn.init.uniform_(weight, -1 / math.sqrt(hidden), 1 / math.sqrt(hidden))
        self.slope = nn.Parameter(torch.tensor([0.25]))
        self.rate = rate

    def forward(self, x: Tensor, adjacency: Callable[[Tensor], Tensor] | Tensor) -> Tensor:
        """(n, dim) and an adjacency, normalised, to (n, hidden): a dense one (n, n), or what gives its product with (n, hidden)."""
        times = adjacency.__matmul__ if isinstance(adjacency, Tensor) else adjacency
        rate = self.rate if self.training else 0
        hidden = prelu(times(dropout(x @ self.first, rate)), self.slope)
        out = times(dropout(hidden @ self.second, rate))
        return layer_norm(out, out.shape)


def again(part: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """What a part of the encoder gives; for the gradient it is computed again and nothing within it kept: it is quick, and rows are many."""
    return checkpoint(part, *inputs, use_reentrant=False)


class SemanticAttention(nn.Module):
    """One weight for each view, from what its nodes say on the mean: softmax over views of q · mean_i tanh(W z_i + b)."""

    def __init__(self, dim: int, rate: float = 0.0) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.query = nn.Parameter(torch.empty(1, dim))
        nn.init.xavier_normal_(self.linear.weight, gain=1.414)
        nn.init.xavier_normal_(self.query, gain=1.414)
        self.rate = rate

    def weights(self, views: Sequence[Tensor]) -> Tensor:
        """(v,), which sum to 1."""
        query = dropout(self.query, self.rate if self.training else 0)[0]
        return torch.stack([query @ self.linear(view).tanh().mean(0) for view in views]).softmax(0)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        """v views of shape (n, dim) to their weighted sum."""
        if not views or any(view.shape != views[0].shape for view in views):
            raise ShapesDiffer(f"views must have one shape (n, dim); got {[tuple(view.shape) for view in views]}.")
        return sum(weight * view for weight, view in zip(self.weights(views), views, strict=True))


class GraphEncoder(Encoder):
    """The nodes of a graph's target type as vectors of shape (n, dim), by meta-paths (Yu et al., SDM 2023).

    h = ELU(W x) of a node's own features. Over each meta-path p the nodes along it give its context, h_p = ELU(h + sum U_p mean ELU(W x)), and
    two graph convolutions, shared by all, gather from the k nodes that are most similar over p. Beside it stands a masked copy, with some
    features and edges left out once and for all. The vectors of these views, normalised, are summed by semantic attention.

    Transductive: it has vectors of the nodes of its own graph alone, whose sparse structure it carries along, and computes those of all nodes
    at once. Made by `open_encoder(None, options, table)`.
    """

    row_wise = False

    def __init__(self, structure: Structure, options: EncoderOptions, graph: Graph | None = None) -> None:
        """graph: the one that the structure was made of; None for an encoder from a folder, which needs it no more."""
        super().__init__()
        self.structure, self.options, self.dim, self.graph = structure, options, options.dim, graph
        dim, rate = options.dim, options.dropout
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            widths = {name: structure.features[name].shape[1] if name in structure.features else count
                      for name, count in structure.counts.items()}  # fmt: skip
            self.own = nn.ModuleDict({name: nn.Linear(width, dim) for name, width in widths.items()})
            walks = [walk for path in structure.paths for walk in path.contexts] if options.contexts else []
            self.along = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in walks)
            self.convolutions = TwoConvolutions(dim, dim, rate)
            self.attention = SemanticAttention(dim, rate)

    @property
    def paths(self) -> list[MetaPath]:
        """The meta-paths."""
        return self.structure.paths

    @property
    def fingerprint(self) -> str:
        """Of the graph that it was made for."""
        return self.structure.facts["fingerprint"]

    @property
    def source(self) -> str:
        """What that graph was called."""
        return self.structure.facts["source"]

    @property
    def nodes(self) -> int:
        """How many nodes the target type has."""
        return self.structure.counts[self.structure.target]

    def coarse_and_fine(self) -> tuple[Tensor, Tensor]:
        """Both views of all nodes, (n, dim) each.

        Coarse: the node's own features over the mean of all meta-paths' adjacencies, without contexts. Fine: the encoder's vectors.
        """
        states = self.states()
        coarse = again(self.convolutions, states[self.structure.target], self.structure.together)
        return coarse, self.attention(self.by_path(states))

    def states(self) -> dict[str, Tensor]:
        """ELU(W x + b) of the nodes of every type, (n, dim)."""
        return {name: again(self._state, name) for name in self.structure.counts}

    def forward(self, nodes: LongTensor) -> Tensor:
        """(b, dim) of b nodes, by their numbers; computed for all nodes, as each depends on all."""
        return self.attention(self.by_path(self.states()))[nodes]

    def encode(
        self,
        values: Sequence[int],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of nodes by their numbers, float32 of shape (n, dim), in evaluation mode and without gradient; not normalised.

        All nodes are computed at once, so `batch_size` has no say, and there is nothing to show the progress of. Sparse products are float32 in
        any `precision`. Raises NodeUnknown for what is no number of a node of the target type.
        """
        nodes, device = self.checked(values), self.convolutions.first.device
        with evaluating(self, device, precision):
            return self(nodes.to(device)).float().cpu().numpy()

    def checked(self, values: Sequence[int]) -> LongTensor:
        """Node numbers as int64 (n,). Raises NodeUnknown, naming the first that is none."""
        numbers = np.asarray(
            values if not isinstance(values, range) else np.arange(values.start, values.stop, values.step)
        )
        kind = self.structure.target
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise NodeUnknown(
                f"encode takes a list of numbers of nodes of type '{kind}', 0 to {self.nodes - 1}; got {values!r:.80}."
            )
        wrong = (numbers < 0) | (numbers >= self.nodes)
        if wrong.any():
            place = int(wrong.argmax())
            raise NodeUnknown(
                f"value {place} is {numbers[place]}, and nodes of type '{kind}' are numbered 0 to {self.nodes - 1}."
            )
        return torch.from_numpy(numbers.astype(np.int64))

    def record(self) -> dict[str, Any]:
        """Options, with several values joined by commas; the graph's name and fingerprint."""
        said = self.options.model_dump()
        said["metapaths"] = tuple(map(str, self.paths))
        joined = {
            name: ",".join(map(str, value)) if isinstance(value, tuple) else value for name, value in said.items()
        }
        return {
            "name": NAME,
            **joined,
            "graph": self.source,
            "target": self.structure.target,
            "fingerprint": self.fingerprint,
        }

    def save(self, folder: Path | str) -> None:
        """model.safetensors (weights), graph.safetensors and graph.json (the structure of the graph)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self, str(folder / WEIGHTS))
        self.structure.save(folder)

    def __repr__(self) -> str:
        return f"GraphEncoder({self.nodes:,} nodes of type {self.structure.target!r} over {', '.join(map(str, self.paths))}; {self.dim} dimensions)"

    def _state(self, name: str, masked: bool = False) -> Tensor:
        """ELU(W x + b) of all nodes of a type."""
        linear, known = self.own[name], self.structure.features
        features = self.structure.masked_features if masked else known[name] if name in known else None  # noqa: SIM401
        return elu(self._drop((linear.weight.T if features is None else features(linear.weight.T)) + linear.bias))

    def by_path(self, states: Mapping[str, Tensor]) -> list[Tensor]:
        """The views that are summed: of each meta-path one, and its masked copy where there is one; unit rows (n, dim)."""
        views, first, own = [], 0, states[self.structure.target]
        masked = again(self._state, self.structure.target, True) if self.options.masked else None
        for number, path in enumerate(self.paths):
            walks = path.contexts if self.options.contexts else []
            means = [self.along[first + place](self._context(walk, states)) for place, walk in enumerate(walks)]
            first += len(walks)
            pairs = [(own, self.structure.neighbours[number])]
            pairs += [(masked, self.structure.masked[number])] if masked is not None else []
            views += [again(self._view, state, adjacency, *means) for state, adjacency in pairs]
        return views

    def _view(self, state: Tensor, adjacency: Adjacency, *means: Tensor) -> Tensor:
        """One of the views, unit rows (n, dim)."""
        gathered = elu(state + sum(map(self._drop, means))) if means else state
        return normalize(self.convolutions(gathered, adjacency), dim=1)

    def _context(self, walk: tuple[str, ...], states: Mapping[str, Tensor]) -> Tensor:
        """The mean state of the nodes at the end of a walk, over all ways to walk it; 0 where there is none. (n, dim)."""
        reached = states[walk[-1]]
        ways = reached.new_ones(len(reached), 1)
        for first, second in reversed(list(itertools.pairwise(walk))):
            hop = self.structure.hops[f"{first}>{second}"]
            reached, ways = hop(reached), hop(ways)
        return reached / ways.clamp(min=1)

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self.options.dropout if self.training else 0)


def open_encoder(
    encoder: Any = None, options: Mapping[str, Any] | None = None, table: Nodes | None = None
) -> GraphEncoder:
    """An encoder with random weights for the graph of `table`: from nothing, from its name, from a record, or one that is there already.

    `options`: names and values of EncoderOptions, text allowed; they override a record's. Without a table, a record's graph is read from the
    folder that it names. Raises SettingUnknown, SettingInvalid, MetaPathInvalid, GraphAbsent, UsageInvalid.
    """
    options = dict(options or {})
    if isinstance(encoder, GraphEncoder):
        if options:
            raise UsageInvalid("encoder options go with an encoder that is to be made; the one given is made already.")
        return encoder
    if encoder is not None and not isinstance(encoder, (str, Path, Mapping)):
        raise UsageInvalid(
            f"encoder is a {type(encoder).__name__}; give nothing, '{NAME}', a model folder or a GraphEncoder."
        )
    if isinstance(encoder, Mapping):
        given = {name: value for name, value in encoder.items() if name in EncoderOptions.model_fields}
        options = given | options
        if table is None and Path(str(encoder.get("graph", ""))).is_dir():
            table = read_data(encoder["graph"], rename={"node": encoder["target"]} if "target" in encoder else None)
    elif encoder is not None and str(encoder) != NAME:
        return _from_folder(Path(encoder), options)
    if table is None:
        raise GraphAbsent("an encoder of a graph needs the graph: hand it over as the data, or load the model folder.")
    chosen = parse_settings(EncoderOptions, options, owner="the encoder")
    return GraphEncoder(Structure.of(table.graph, chosen), chosen, table.graph).eval()


def _from_folder(folder: Path, options: Mapping[str, Any]) -> GraphEncoder:
    """What a run or a model folder holds, to go on training."""
    import json

    place = folder if (folder / WEIGHTS).is_file() else folder / "model"
    if not (place / WEIGHTS).is_file() or options:
        reason = (
            "encoder options go with an encoder that is to be made"
            if options
            else f"{folder} is no model folder of a graph"
        )
        raise UsageInvalid(f"{reason}; known by name is '{NAME}'.")
    record = json.loads((place / "contrapose.json").read_text(encoding="utf-8"))
    return load_encoder(place, next(iter(record["encoders"].values())))


def load_encoder(folder: Path, record: Mapping[str, Any]) -> GraphEncoder:
    """The encoder that `save` wrote, without its graph's source. Raises ModelFolderInvalid."""
    chosen = parse_settings(
        EncoderOptions,
        {name: record[name] for name in EncoderOptions.model_fields if name in record},
        owner="the encoder",
    )
    encoder = GraphEncoder(Structure.load(Path(folder)), chosen)
    try:
        load_model(encoder, str(Path(folder) / WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelFolderInvalid(f"{folder} does not hold the weights of this encoder ({error}).") from None
    return encoder.eval()


def compare_export(folder: Path, encoder: GraphEncoder, values: Sequence[int]) -> dict[str, float]:
    """Nobody else reads these folders."""
    return {}


def usage(encoder: GraphEncoder) -> str:
    """How a model folder is used, in Markdown."""
    return f"""```python
import contrapose

model = contrapose.load("path/to/this/folder")
vectors = model.encode([0, 1, 2])  # numbers of nodes of type {encoder.structure.target}
```

The encoder is transductive: it has vectors of the {encoder.nodes:,} nodes of type `{encoder.structure.target}` of its own graph, whose sparse
structure ({", ".join(f"`{path}`" for path in encoder.paths)}, features and neighbourhoods) stands in `graph.safetensors` beside the weights. For new
nodes it is trained anew."""

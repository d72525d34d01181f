"""HeCo: a graph's meta-path view against its schema view, with positives that share many meta-paths."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from scipy.sparse import csr_matrix, diags
from torch import LongTensor, Tensor, nn
from torch.nn.functional import dropout, elu, leaky_relu, normalize

from contrapose.data.batches import Batch, Data, Facts
from contrapose.errors import ArgumentInvalid, GraphAbsent, ShapesDiffer
from contrapose.graph._contrast import GraphSettings, refuse_processes, whole_batches
from contrapose.graph._graph import Graph, MetaPath
from contrapose.graph._structure import cached_neighbours
from contrapose.graph.data import NODE
from contrapose.graph.encoder import SemanticAttention
from contrapose.graph.views import most_alike
from contrapose.objectives import log_partition
from contrapose.objectives._arguments import check_number
from contrapose.training.method import Card, Method, Terms

SLOPE = 0.01  # of the leaky ReLU of attention, torch's own default, as in the official code


class HeCo(Method):
    r"""Learn vectors of the nodes of one type in a graph of several by two views, with chosen positives.

    The baseline of `meow`. Pick it where nodes that share many meta-paths do belong together: it takes the nodes that a node shares most of
    them with as its positives, and on some graphs over half of these have another label; `meow` needs no such choice.

    The meta-path view $m_i$ is the encoder's vector. The schema view $s_i$ looks at direct neighbours alone: attention over those of each type,
    then over types. Both go through one head, W2 ELU(W1 z + b1) + b2. With $P_i$ the positives of $i$, itself among them,

    $$L = \lambda \, \ell(m, s) + (1 - \lambda) \, \ell(s, m), \qquad
      \ell(x, y) = -\frac{1}{N} \sum_i \log \frac{\sum_{j \in P_i} e^{\cos(x_i, y_j)/\tau}}{\sum_j e^{\cos(x_i, y_j)/\tau}}.$$

    At chance it is log N less the mean log |P_i|.

    Positives: the counts of each meta-path, over their row's sum, added up over paths; the `positives` largest of each row. They are counted
    among the neighbours that the encoder keeps (`encoder.top_k`). What differs from the official code: the meta-path view is this modality's
    encoder, so that a comparison with `meow` is one of objectives (`encoder.contexts=False, encoder.masked=False` is nearest to HeCo's own, which has one
    convolution a path); and attention sees all neighbours of a type, where the code draws a few anew in every epoch.

    Wang et al., KDD 2021; official code liun-online/HeCo at 20e8ca2.
    """

    card = Card(
        modality="graph",
        title="HeCo: meta-path view against schema view",
        paper="Self-supervised Heterogeneous Graph Neural Network with Co-contrastive Learning",
        venue="KDD",
        year=2021,
        url="https://arxiv.org/abs/2105.09111",
        columns=(NODE,),
    )

    class Settings(GraphSettings):
        # the official code's for ACM
        learning_rate: PositiveFloat = Field(8e-4, description="Learning rate.")
        temperature: PositiveFloat = Field(0.8, description="Divides the cosines.")
        balance: float = Field(
            0.5, ge=0, le=1, description="Of the direction from meta-paths to schema; the other has the rest."
        )
        positives: PositiveInt = Field(5, description="Positives of a node at most, itself among them.")
        attention_dropout: float = Field(0.5, ge=0, lt=1, description="Of the attention over neighbours.")

    def build(self, facts: Facts) -> None:
        self.schema = SchemaView(self.encoder, self.settings.attention_dropout)
        self.projection = projection(self.encoder.dim)

    def refuse(self, data: Data, protocols: Sequence[object] = ()) -> None:
        refuse_processes("heco")
        if self.encoder.graph is None:
            raise GraphAbsent(
                "heco counts meta-paths to find positives, and an encoder from a folder holds none; leave the encoder out."
            )

    def prepare(self, data: Data, previous: Method | None) -> None:
        graph, options = self.encoder.graph, self.encoder.options
        top_k = list(options.top_k) * (1 if len(options.top_k) > 1 else len(self.encoder.paths))
        self.pairs = positive_pairs(graph, self.encoder.paths, top_k, self.settings.positives)
        self.remarks = [f"{self.pairs.shape[1] / len(data):.1f} positives a node on the mean"]

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        return whole_batches(data, self.settings.batch_size, generator)

    def training_step(self, batch: Batch) -> Terms:
        nodes = batch["node"]
        with self.clock("encode"):
            views = {"meta-path": self.encoder.coarse_and_fine()[1][nodes], "schema": self.schema(self.encoder)[nodes]}
            meta_path, schema = map(self.projection, views.values())
        self.embeddings = {name: view.detach() for name, view in views.items()}
        pairs = among(self.pairs.to(nodes.device), nodes, len(batch.data))
        self.at_chance = math.log(len(nodes)) - float(torch.bincount(pairs[0]).double().log().mean())
        with self.clock("loss"):
            settings = self.settings
            return {
                "info_nce": heco_loss(
                    meta_path, schema, pairs, temperature=settings.temperature, balance=settings.balance
                )
            }

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"info_nce": self.at_chance}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return max(0, batch_size - 1)


def projection(dim: int) -> nn.Sequential:
    """HeCo's head: W2 ELU(W1 z + b1) + b2, of `dim` throughout."""
    head = nn.Sequential(nn.Linear(dim, dim), nn.ELU(), nn.Linear(dim, dim))
    for layer in (head[0], head[2]):
        nn.init.xavier_normal_(layer.weight, gain=1.414)
    return head


def heco_loss(
    meta_path: Tensor, schema: Tensor, positives: LongTensor, *, temperature: float, balance: float = 0.5
) -> Tensor:
    """Both directions of -log (sum over positives of exp(cos / t) / sum over all), weighed by `balance` and 1 - balance; a scalar.

    meta_path and schema: (n, d), any length. positives: pairs (2, e) of an anchor and one of its positives, or bool (n, n); every anchor has one
    at least. In tiles over all pairs. Raises ShapesDiffer, and ArgumentInvalid for an anchor without a positive, a row that there is not, a balance
    outside [0, 1].
    """
    n = len(meta_path)
    if meta_path.ndim != 2 or meta_path.shape != schema.shape or not n:
        raise ShapesDiffer(
            f"both views must have one shape (n, d), n above 0; got {tuple(meta_path.shape)} and {tuple(schema.shape)}."
        )
    check_number("balance", balance, 0, 1)
    pairs = positives.nonzero().T if positives.dtype == torch.bool else positives
    if pairs.numel() and not 0 <= int(pairs.min()) <= int(pairs.max()) < n:
        raise ArgumentInvalid(f"positives name rows 0 to {n - 1}; got {int(pairs.min())} to {int(pairs.max())}.")
    if len(torch.unique(pairs[0])) < n:
        raise ArgumentInvalid("every anchor needs a positive, which may be itself.")
    there, back = (one_way(x, y, pairs, temperature) for x, y in ((meta_path, schema), (schema, meta_path)))
    return balance * there + (1 - balance) * back


def one_way(anchors: Tensor, others: Tensor, pairs: LongTensor, temperature: float) -> Tensor:
    """The mean over anchors of the log of all less the log of the positives."""
    anchors, others = normalize(anchors, dim=1), normalize(others, dim=1)
    logits = (anchors[pairs[0]] * others[pairs[1]]).sum(1) / temperature
    largest = logits.new_full((len(anchors),), -math.inf).scatter_reduce(0, pairs[0], logits.detach(), "amax")
    shifted = (logits - largest[pairs[0]]).exp()
    positive = logits.new_zeros(len(anchors)).index_add(0, pairs[0], shifted).log() + largest
    return (log_partition(anchors, others, temperature=temperature, similarity="dot") - positive).mean()


def positive_pairs(graph: Graph, paths: Sequence[MetaPath], top_k: Sequence[int], most: int) -> LongTensor:
    """(2, e): each node with those that it shares most meta-paths with, itself first, at most `most` of each."""
    shares = []
    for path, k in zip(paths, top_k, strict=True):
        counts = cached_neighbours(graph, path, k)
        shares.append(csr_matrix(diags(1 / np.asarray(counts.sum(axis=1)).ravel()) @ counts))
    found = most_alike(csr_matrix(sum(shares)), most).tocoo()
    return torch.from_numpy(np.stack([found.row, found.col]).astype(np.int64))


def among(pairs: LongTensor, nodes: LongTensor, n: int) -> LongTensor:
    """The pairs of which both nodes stand in a batch, by their places in it."""
    place = pairs.new_full((n,), -1)
    place[nodes] = torch.arange(len(nodes), device=nodes.device)
    there = place[pairs]
    return there[:, (there >= 0).all(0)]


class SchemaView(nn.Module):
    """A node by its direct neighbours: attention over those of each type, LeakyReLU(a · [h_i, h_j]), then over the types.

    The neighbours of a node are those one hop along the encoder's meta-paths. A node without any of a type has 0 there.
    """

    def __init__(self, encoder: nn.Module, rate: float) -> None:
        super().__init__()
        self.types = sorted({path.types[1] for path in encoder.paths})
        self.queries = nn.ParameterList(
            nn.init.xavier_normal_(torch.empty(2, encoder.dim), gain=1.414) for _ in self.types
        )
        self.over_types = SemanticAttention(encoder.dim, rate)
        self.rate = rate

    def forward(self, encoder: nn.Module) -> Tensor:
        """(n, dim) of all nodes, from the encoder's own states of every type."""
        states = encoder.states()
        return self.over_types(
            [self.over_neighbours(encoder, states, *each) for each in zip(self.types, self.queries, strict=True)]
        )

    def over_neighbours(self, encoder: nn.Module, states: dict[str, Tensor], kind: str, query: Tensor) -> Tensor:
        target = encoder.structure.target
        hop, own, others = encoder.structure.hops[f"{target}>{kind}"], states[target], states[kind]
        row = torch.repeat_interleave(hop.starts.diff().long())
        column = hop.columns.long()
        query = dropout(query, self.rate, self.training)
        said = leaky_relu((own @ query[0])[row] + (others @ query[1])[column], SLOPE)
        largest = said.new_full((len(own),), -math.inf).scatter_reduce(0, row, said.detach(), "amax")
        weight = (said - largest[row]).exp()
        total = said.new_zeros(len(own)).index_add(0, row, weight)
        gathered = own.new_zeros(own.shape).index_add(0, row, (weight / total[row])[:, None] * others[column])
        return elu(gathered)

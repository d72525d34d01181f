"""AdaMEOW: MEOW's two views, with the weight of every negative learned by the loss itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import LongTensor, Tensor, nn
from torch.nn.functional import linear, logsigmoid
from torch.utils.checkpoint import checkpoint

from contrapose.data.batches import Batch, Data, Facts
from contrapose.errors import NoNegatives, ShapesDiffer
from contrapose.graph._contrast import GraphSettings, projected, refuse_processes, whole_batches
from contrapose.graph.data import NODE
from contrapose.objectives import PairWeight, info_nce, log_partition
from contrapose.training.method import Card, Method, Terms


class AdaMEOW(Method):
    r"""Learn vectors of the nodes of one type in a graph of several, with negatives whose weights are learned beside them.

    Pick it where `meow` fits and the number of clusters is anyone's guess: it has no clusters and no prototypes. It learns slowly
    (a rate 14 times lower) and a step costs more, since a small network looks at every pair.

    The views are `meow`'s, with the roles turned about: the anchor is the fine vector $f_i$, the others are coarse, $c_j$. A network of one
    hidden layer weighs each pair, and receives its gradient, as the vectors do through it, from the same loss:

    $$\gamma_{ij} = \sigma(w_2 \cdot \tanh(W_1 (f_i + c_j) + b_1) + b_2), \qquad
      L = -\frac{1}{N} \sum_i \log \frac{e^{f_i \cdot c_i/\tau}}{\sum_j \gamma_{ij} e^{f_i \cdot c_j/\tau}}.$$

    The sum includes the positive, with its own weight. With $\gamma = 1$ (`hidden` given, `weighting=False`) it is InfoNCE, log N at chance.

    Nothing keeps $\gamma$ from falling to 0 everywhere but how it is made: a low learning rate and few epochs are part of the method. The log shows
    the mean of log gamma as `log_weight`; where it falls without end, so does the loss, and nothing is learned any more. The code takes
    the checkpoint whose AUC is best after epoch 410; `select` with a development split does the same without looking at test nodes.

    Yu and Li, TKDE 2024; official code jianxiangyu/MEOW, folder code_adameow, at 6a072d7. Its network sees N x N x d values; here
    $W_1 f_i$ and $W_1 c_j$ are computed once for each node and added pair by pair, in tiles, which is the same.
    """

    card = Card(
        modality="graph",
        title="AdaMEOW: meta-path contexts and negatives with learned weights",
        paper="Heterogeneous Graph Contrastive Learning with Meta-Path Contexts and Adaptively Weighted Negative Samples",
        venue="TKDE",
        year=2024,
        url="https://arxiv.org/abs/2212.13847",
        columns=(NODE,),
    )

    class Settings(GraphSettings):
        # the official code's for ACM
        learning_rate: PositiveFloat = Field(5e-5, description="Learning rate.")
        weight_decay: NonNegativeFloat = Field(
            1e-5, description="Decay of weight matrices; biases and slopes have none."
        )
        epochs: PositiveFloat = Field(1000.0, description="Passes over all nodes; the code takes 1,000 to 3,000.")
        temperature: PositiveFloat = Field(1.0, description="Divides the cosines.")
        hidden: PositiveInt = Field(16, description="Units of the network that weighs pairs.")
        weighting: bool = Field(True, description="Learn the weights; False: all are 1, which is InfoNCE.")

    def build(self, facts: Facts) -> None:
        self.projection = nn.Linear(self.encoder.dim, self.encoder.dim)
        if self.settings.weighting:
            self.weigher = Weigher(self.encoder.dim, self.settings.hidden)

    def refuse(self, data: Data, protocols: Sequence[object] = ()) -> None:
        refuse_processes("adameow")

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        return whole_batches(data, self.settings.batch_size, generator)

    def training_step(self, batch: Batch) -> Terms:
        with self.clock("encode"):
            nodes = batch["node"]
            coarse, fine = (projected(view[nodes], self.projection) for view in self.encoder.coarse_and_fine())
        self.embeddings = {"fine": fine.detach(), "coarse": coarse.detach()}
        with self.clock("loss"):
            if not self.settings.weighting:
                return {"info_nce": info_nce(fine, coarse, temperature=self.settings.temperature)}
            with torch.no_grad():
                self.watch("log_weight", self.weigher.log_weights(fine[:512], coarse[:512]).mean())
            return {"info_nce": learned_info_nce(fine, coarse, self.weigher, temperature=self.settings.temperature)}

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"info_nce": math.log(len(batch)) + self.watched.get("log_weight", 0.0)}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1


class Weigher(nn.Module):
    """The network that weighs pairs: sigmoid(w2 · tanh(W1 (x + y) + b1) + b2)."""

    def __init__(self, dim: int, hidden: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(dim, hidden), nn.Linear(hidden, 1)

    def halves(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """W1 x and W1 y + b1, (n, hidden) and (m, hidden): what is added for each pair."""
        return linear(x, self.first.weight), self.first(y)

    def log_weights(self, x: Tensor, y: Tensor) -> Tensor:
        """log gamma of every pair, (n, m), from (n, dim) and (m, dim)."""
        return log_weight(*self.halves(x, y), self.second.weight, self.second.bias)


def log_weight(left: Tensor, right: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """log sigmoid(w2 · tanh(left_i + right_j) + b2), (n, m), from (n, h), (m, h), (1, h) and (1,).

    Unit by unit, and each unit's n x m values computed again for the gradient: nothing of n x m x h is kept.
    """
    logits = b2.expand(len(left), len(right))
    for unit in range(left.shape[1]):
        logits = logits + checkpoint(_unit, left[:, unit], right[:, unit], w2[0, unit], use_reentrant=False)
    return logsigmoid(logits)


def learned_info_nce(fine: Tensor, coarse: Tensor, weigher: Weigher, *, temperature: float) -> Tensor:
    """-log exp(f_i · c_i / t) / sum_j gamma_ij exp(f_i · c_j / t), the mean over i, j = i included; gamma from `weigher`, with gradients.

    fine and coarse: (n, d) unit rows. In tiles, whose weights are computed again for the gradient. Raises ShapesDiffer, and NoNegatives for fewer
    than two rows.
    """
    if fine.ndim != 2 or fine.shape != coarse.shape:
        raise ShapesDiffer(f"both views must have one shape (n, d); got {tuple(fine.shape)} and {tuple(coarse.shape)}.")
    if len(fine) < 2:
        raise NoNegatives(f"{len(fine)} row(s): negatives are the other rows, so at least two are needed.")
    left, right = weigher.halves(fine, coarse)
    second = weigher.second

    def tile(rows: slice, columns: slice, left: Tensor, right: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
        return log_weight(left[rows], right[columns], w2, b2)

    pair = PairWeight(tile, (left, right, second.weight, second.bias))
    partition = log_partition(fine, coarse, temperature=temperature, pair=pair, similarity="dot")
    return (partition - (fine * coarse).sum(1) / temperature).mean()


def _unit(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    return (left[:, None] + right).tanh() * weight

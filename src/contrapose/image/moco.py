"""MoCo: many negatives from small batches, by a momentum encoder and a queue; and its third version, without the queue."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import LongTensor, Tensor

from contrapose.data.batches import Batch, Data, Facts
from contrapose.data.columns import Column
from contrapose.errors import NoNegatives
from contrapose.image._heads import mlp
from contrapose.image._schedule import rising, steps_of
from contrapose.image.views import ViewSettings, views_of
from contrapose.negatives import MomentumCopy, Queue
from contrapose.objectives import info_nce
from contrapose.training.method import Card, Terms, View, ViewMethod


class MoCo(ViewMethod):
    r"""Learn from images without labels, with thousands of negatives that do not have to fit into a batch.

    Pick it where batches are small: negatives are keys of earlier batches, kept in a queue, made by a slowly moving copy of the network so that
    they stay comparable. `form="v3"` has no queue: large batches, a prediction head and both directions, made for vision transformers.

    With the query $q_i$ of one view, the key $k_i$ of the other by the momentum copy, and the queue $n_m$ of shape (q, d), all unit vectors,

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{q_i \cdot k_i/\tau}}{e^{q_i \cdot k_i/\tau} + \sum_m e^{q_i \cdot n_m/\tau}}, \qquad
      L_{\text{v3}} = 2\tau\,\big(\mathrm{ctr}(q_1, k_2) + \mathrm{ctr}(q_2, k_1)\big),$$

    $\mathrm{ctr}$ being InfoNCE among the keys of the batch. At chance $L = \log(1 + q)$.

    Where this differs from the official code: the momentum copy is in evaluation mode, with the running statistics of the online network's
    BatchNorm, so that no statistics of a batch tell which key belongs to which query and nothing needs shuffling (EMAN: Cai et al., 2021);
    the queue starts empty, its first step having the batch's own keys as negatives; a query never meets older keys of its own image, which a
    queue longer than an epoch holds.

    He et al., CVPR 2020, equation 1 and algorithm 1; version 2: Chen et al., arXiv 2003.04297; version 3: Chen et al., ICCV 2021, algorithm 1.
    """

    card = Card(
        modality="image",
        title="MoCo: momentum contrast",
        paper="Momentum Contrast for Unsupervised Visual Representation Learning",
        venue="CVPR",
        year=2020,
        url="https://arxiv.org/abs/1911.05722",
        columns=(Column("image", "image", "An image."),),
    )

    class Settings(ViewSettings):
        # version 2 on ImageNet: temperature 0.2, momentum 0.999, 65,536 keys, hidden 2048, batch 256; a shorter queue and a faster copy fit
        # runs of some thousand steps (0.99, 4,096: MoCo's own CIFAR-10 demonstration)
        form: Literal["v2", "v3"] = Field(
            "v2", description="v2: a queue; v3: large batches, a prediction head, both directions."
        )
        temperature: PositiveFloat = Field(0.2, description="Divides the cosines.")
        momentum: float = Field(0.99, ge=0, lt=1, description="Of the copy that makes keys; in v3 it rises to 1.")
        queue_size: PositiveInt = Field(4096, description="v2: stored keys.")
        hidden: PositiveInt | None = Field(
            None, description="Width of the heads' hidden layers; empty: that of the network's vectors."
        )
        projection: PositiveInt = Field(128, description="Dimensions of queries and keys.")

    def build(self, facts: Facts) -> None:
        settings, dim = self.settings, self.encoder.dim
        hidden = settings.hidden or dim
        self.steps = steps_of(settings, facts)
        if settings.form == "v2":
            self.head = mlp([dim, hidden, settings.projection], norm=False)
            self.queue = Queue(settings.queue_size, settings.projection)
        else:
            self.head = mlp([dim, hidden, hidden, settings.projection], last_norm=True)
            self.predictor = mlp([settings.projection, hidden, settings.projection], last_norm=True)
        self.momentum_encoder = MomentumCopy(self.encoder)
        self.momentum_head = MomentumCopy(self.head)

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        """Raises NoNegatives for batches of one image in v2, whose queue is empty at the first step."""
        if self.settings.form == "v2" and min(self.settings.batch_size, len(data)) < 2:
            raise NoNegatives(
                "batch_size is 1, and the first batch, which finds no stored keys, has no other negatives; 2 is the least."
            )

    def before_step(self, batch: Batch) -> None:
        momentum = self.settings.momentum
        if self.settings.form == "v3":
            momentum = rising(momentum, batch.step, self.steps)
        self.momentum_encoder.update(self.encoder, momentum)
        self.momentum_head.update(self.head, momentum)

    def views(self, batch: Batch) -> dict[str, View]:
        first, second = views_of(self.encoder.pixels(batch["image"]), batch, self.settings)
        if self.settings.form == "v2":
            return {"query": View(first), "key": View(second, encoder="momentum", gradient=False)}
        online = {"query1": View(first), "query2": View(second)}
        return online | {
            "key1": View(first, encoder="momentum", gradient=False),
            "key2": View(second, encoder="momentum", gradient=False),
        }

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs) if view.encoder == "online" else self.momentum_encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        temperature = self.settings.temperature
        if self.settings.form == "v3":
            queries = [self.predictor(self.head(embeddings[name])) for name in ("query1", "query2")]
            keys = [self.momentum_head(embeddings[name]) for name in ("key1", "key2")]
            across = [
                info_nce(queries[a], keys[b], temperature=temperature, group=batch.group) for a, b in ((0, 1), (1, 0))
            ]
            return {"info_nce": 2 * temperature * (across[0] + across[1])}
        stored, group = self.queue.stored(), own_group(batch)
        self.watch("queue", len(stored.vectors))
        loss = info_nce(
            self.head(embeddings["query"]),
            self.momentum_head(embeddings["key"]),
            queue=stored.vectors,
            temperature=temperature,
            group=group,
            queue_group=stored.group if len(stored.vectors) else None,
            in_batch=not len(stored.vectors),
        )
        return {"info_nce": loss}

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        if self.settings.form == "v2":
            self.queue.enqueue(self.momentum_head(embeddings["key"]), batch.rows, own_group(batch))

    def chance(self, batch: Batch) -> dict[str, float]:
        if self.settings.form == "v3":
            return {"info_nce": 4 * self.settings.temperature * math.log(len(batch))}
        return {"info_nce": math.log(self.watched.get("queue", 0) + 1 if self.watched.get("queue") else len(batch))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return self.settings.queue_size if self.settings.form == "v2" else batch_size - 1


def own_group(batch: Batch) -> LongTensor:
    """The groups of a batch's rows; where there are none, the rows themselves, so that no image is its own negative."""
    return batch.rows if batch.group is None else batch.group

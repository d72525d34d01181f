"""CLIP on every pair of modalities: the baseline for more than two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from contrapose.data.batches import Batch, Data, Facts
from contrapose.multimodal._options import Rule
from contrapose.objectives import pairwise_clip
from contrapose.training.encoder import Encoder
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings


class PairwiseCLIP(ViewMethod):
    r"""Learn from rows of two or more modalities by CLIP's loss on every pair of them.

    Pick it when each modality says something of every other by itself, so that vectors of any two are to be compared by their cosine. What
    only two modalities tell together of a third it cannot learn; `symile` can.

    With unit vectors $r^1_i, \dots, r^M_i$ of row $i$, each of shape (b, d), and $\ell(x, y)$ the mean of InfoNCE from $x$ to $y$ and
    from $y$ to $x$ at a learned temperature,

    $$L = \sum_{a < c} \ell(r^a, r^c).$$

    It is a sum, as in Symile's official code, whose docstring says a mean. At chance $L = \frac{M(M-1)}{2} \log b$. A candidate of one
    modality is scored by the sum of its cosines with all the others.

    Radford et al., ICML 2021; as the baseline of Saporta et al., NeurIPS 2024, official code rajesh-lab/symile at d12e2c8b.
    """

    card = Card(
        modality="multimodal",
        title="CLIP on every pair of modalities",
        paper="Learning Transferable Visual Models From Natural Language Supervision",
        venue="ICML",
        year=2021,
        url="https://arxiv.org/abs/2103.00020",
        columns=(),
    )

    class Settings(MethodSettings):
        # shared with symile's: the official baseline differs in its loss alone
        temperature: PositiveFloat = Field(0.1, description="Divides the cosines; the start value where it is learned.")
        learn_temperature: bool = Field(True, description="Learn the temperature, without a bound.")
        batch_size: PositiveInt = Field(256, description="Rows in a batch, over all processes.")
        learning_rate: PositiveFloat = Field(1e-3, description="Peak learning rate.")
        weight_decay: NonNegativeFloat = Field(0.01, description="Decay of weight matrices, as in the official code.")

    def build(self, facts: Facts) -> None:
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(self.settings.temperature)), requires_grad=self.settings.learn_temperature
        )

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        """Raises what is wrong with the data of protocols."""
        for protocol in protocols:
            protocol.refuse(self.encoder)

    def views(self, batch: Batch) -> dict[str, View]:
        return {name: View(batch[name], encoder=name) for name in self.encoder}

    def embed(self, view: View) -> Tensor:
        return self.encoder[view.encoder](view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        temperature = self.log_temperature.exp()
        self.watch("temperature", temperature)
        loss = pairwise_clip(list(embeddings.values()), temperature=temperature, group=batch.group)
        return {"pairwise_clip": loss}

    def encoders(self) -> dict[str, Encoder]:
        for encoder in self.encoder.values():
            encoder.rule = Rule("sum", float(self.log_temperature.detach().exp()))
        return dict(self.encoder.items())

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"pairwise_clip": math.comb(len(self.encoder), 2) * math.log(len(batch))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1

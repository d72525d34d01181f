"""Symile: any number of modalities, told together by the product of all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from contrapose.data.batches import Batch, Data, Facts
from contrapose.errors import SettingInvalid
from contrapose.multimodal._options import Rule
from contrapose.objectives import symile
from contrapose.objectives.symile import MOST_CANDIDATES
from contrapose.training.encoder import Encoder
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings


class Symile(ViewMethod):
    r"""Learn from rows of three or more modalities, of which none need tell anything of another by itself.

    Pick it when every row has several aligned modalities (a radiograph, an ECG and laboratory values; picture, text and sound) and you
    suspect that the signal is joint: two of them together say what neither says alone, as in an exclusive or, or in a spoken language that
    says which of several texts is meant. Losses between pairs of modalities (`pairwise_clip`) cannot see that. For two modalities it is
    CLIP. There is an encoder for each modality, all into vectors of one length.

    With unit vectors $r^1_i, \dots, r^M_i$ of row $i$, each of shape (b, d), and the multilinear inner product
    $\langle x, y, \dots, w \rangle = \sum_k x_k y_k \cdots w_k$,

    $$L = \frac{1}{M} \sum_a -\frac{1}{b} \sum_i \log
    \frac{e^{\langle r^1_i, \dots, r^M_i \rangle / \tau}}{\sum_{c \in C_a(i)} e^{\langle r^a_i, c \rangle / \tau}}.$$

    Modality $a$ of row $i$ is told from candidates $c$, products of rows of the other modalities. With `candidates="n"` each of these is
    permuted anew over the batch for every anchor modality, and the candidate at row $i$'s own place is the true one: b candidates. With
    `"n_squared"` they are all combinations of rows, $b^{M-1}$: better for small data, and soon too many. At chance $L = \log b$, or
    $(M - 1) \log b$. $\tau$ is learned, its logarithm without a bound: products of M unit vectors are of the order of $d^{1-M/2}$, so
    that it has to be able to fall.

    A candidate of one modality is scored by the product of its unit vector with those of all the others; `--on zero_shot=FILE` predicts
    each modality of held-out rows so, and `contrapose.multimodal.evaluation.zero_shot_scores` gives the scores.

    Saporta et al., NeurIPS 2024; official code rajesh-lab/symile at d12e2c8b.

    **Pitfalls.** A cosine between two modalities means nothing after this training, and their vectors must not be averaged: for an even
    number of modalities the signs of two can flip together. An encoder needs a bias where values are 0 and 1: without one it is odd, and
    cannot learn an exclusive or. Rows may lack a modality with `encoder.missing=learned`.
    """

    card = Card(
        modality="multimodal",
        title="Symile: contrast all modalities together",
        paper="Contrasting with Symile: Simple Model-Agnostic Representation Learning for Unlimited Modalities",
        venue="NeurIPS",
        year=2024,
        url="https://arxiv.org/abs/2411.01053",
        columns=(),
    )

    class Settings(MethodSettings):
        candidates: Literal["n", "n_squared"] = Field(
            "n", description="n: permuted rows, as many as the batch has; n_squared: all combinations of rows."
        )
        most_candidates: PositiveInt = Field(
            MOST_CANDIDATES, description="Of an anchor with n_squared; a batch that makes more is refused."
        )
        # the official XOR example starts at exp(0.3) = 1.35, with a rate of 0.1; its other experiments set it for each run. At smaller rates a
        # start so high leaves products of unit vectors without a say (own runs at 3e-3 on sums of digits: 0.18 right instead of 0.94)
        temperature: PositiveFloat = Field(
            0.1, description="Divides the products; the start value where it is learned."
        )
        learn_temperature: bool = Field(True, description="Learn the temperature, without a bound.")
        batch_size: PositiveInt = Field(256, description="Rows in a batch, over all processes.")
        learning_rate: PositiveFloat = Field(1e-3, description="Peak learning rate; 0.1 in the official XOR example.")
        weight_decay: NonNegativeFloat = Field(0.01, description="Decay of weight matrices, as in the official code.")

    def build(self, facts: Facts) -> None:
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(self.settings.temperature)), requires_grad=self.settings.learn_temperature
        )

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        """Raises SettingInvalid for more candidates than are allowed, and what is wrong with the data of protocols."""
        rows, others = min(self.settings.batch_size, len(data)), len(self.encoder) - 1
        if self.settings.candidates == "n_squared" and rows**others > self.settings.most_candidates:
            raise SettingInvalid(
                f"method 'symile': batches of {rows:,} rows of {others + 1} modalities make {rows**others:,} candidates an anchor, more than "
                f"most_candidates={self.settings.most_candidates:,}; take a smaller batch_size, candidates=n, or raise it."
            )
        for protocol in protocols:
            protocol.refuse(self.encoder)

    def views(self, batch: Batch) -> dict[str, View]:
        return {name: View(batch[name], encoder=name) for name in self.encoder}

    def embed(self, view: View) -> Tensor:
        return self.encoder[view.encoder](view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        temperature = self.log_temperature.exp()
        self.watch("temperature", temperature)
        loss = symile(
            list(embeddings.values()),
            temperature=temperature,
            candidates=self.settings.candidates,
            group=batch.group,
            generator=batch.generator,
            most_candidates=self.settings.most_candidates,
        )
        return {"symile": loss}

    def encoders(self) -> dict[str, Encoder]:
        for encoder in self.encoder.values():
            encoder.rule = Rule("product", float(self.log_temperature.detach().exp()))
        return dict(self.encoder.items())

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """(n, d) products of unit vectors of all other modalities, and (m, d) candidates: (n, m)."""
        return queries @ nn.functional.normalize(candidates, dim=-1).T

    def chance(self, batch: Batch) -> dict[str, float]:
        others = 1 if self.settings.candidates == "n" else len(self.encoder) - 1
        return {"symile": others * math.log(len(batch))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        others = 1 if self.settings.candidates == "n" else len(facts.columns) - 1
        return batch_size**others - 1

"""Two texts that belong together: symmetric InfoNCE."""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.objectives import info_nce
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings


class Pairs(ViewMethod):
    r"""Learn from pairs of texts that belong together: a sentence and its translation, a query and its answer.

    Pick it when every row has two texts of one meaning. Each anchor's positive is its partner; its negatives are the partners of all
    other rows of the batch, so a larger batch is a harder task. Rows that share a `group_id` are never each other's negatives. An optional
    column `negative` holds a text that is close to the anchor and wrong; it joins the negatives of every anchor of the batch.
    With raw sentences alone, use `simcse` or `esimcse`.

    With unit vectors $a_i$, $p_j$ of shape (b, d) and temperature $\tau$,

    $$L = -\frac{1}{2b}\sum_i \log\frac{e^{a_i \cdot p_i/\tau}}{\sum_j e^{a_i \cdot p_j/\tau}}
          -\frac{1}{2b}\sum_i \log\frac{e^{a_i \cdot p_i/\tau}}{\sum_j e^{a_j \cdot p_i/\tau}},$$

    hard negatives standing in the first sum's denominator. At chance $L = \log b$.

    The two directions are those of CLIP (Radford et al., 2021, figure 3); in-batch negatives for texts go back to Henderson et al. (2017),
    and InfoNCE to van den Oord et al. (2018).
    """

    card = Card(
        modality="text",
        title="Pairs: symmetric InfoNCE with in-batch negatives",
        paper="Representation Learning with Contrastive Predictive Coding",
        venue="arXiv 1807.03748",
        year=2018,
        url="https://arxiv.org/abs/1807.03748",
        columns=(
            Column("anchor", "text", "One side of the pair."),
            Column("positive", "text", "The text that belongs to the anchor."),
            Column("negative", "text", "A text close to the anchor that does not belong to it.", required=False),
        ),
    )

    class Settings(MethodSettings):
        # batch 64, 1e-4, warm-up and temperature: own sweep on the Latvian sample's development split
        learning_rate: PositiveFloat = Field(1e-4, description="Peak learning rate.")
        warmup_steps: int = Field(10, ge=0, description="Steps in which the learning rate rises linearly from 0.")
        temperature: PositiveFloat = Field(0.05, description="Divides the cosines; the start value when it is learned.")
        learn_temperature: bool = Field(False, description="Learn the temperature, as CLIP does.")
        least_temperature: PositiveFloat = Field(
            0.01, description="Lower bound of a learned temperature (CLIP: 1/100)."
        )

        @model_validator(mode="after")
        def bounds(self) -> Pairs.Settings:
            if self.learn_temperature and self.temperature < self.least_temperature:
                raise ValueError(f"temperature {self.temperature} is below least_temperature {self.least_temperature}")
            return self

    def build(self, facts: Facts) -> None:
        self.hard_negatives = "negative" in facts.columns
        if self.settings.learn_temperature:
            self.log_temperature = nn.Parameter(torch.tensor(math.log(self.settings.temperature)))

    @property
    def temperature(self) -> Tensor | float:
        if not self.settings.learn_temperature:
            return self.settings.temperature
        return self.log_temperature.clamp(min=math.log(self.settings.least_temperature)).exp()

    def views(self, batch: Batch) -> dict[str, View]:
        names = ["anchor", "positive", "negative"] if self.hard_negatives else ["anchor", "positive"]
        return {name: View(batch[name]) for name in names}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        self.watch("temperature", self.temperature)
        loss = info_nce(
            embeddings["anchor"],
            embeddings["positive"],
            negatives=embeddings.get("negative"),
            temperature=self.temperature,
            group=batch.group,
            symmetric=True,
        )
        return {"info_nce": loss}

    def chance(self, batch: Batch) -> dict[str, float]:
        forward = 2 * len(batch) if self.hard_negatives else len(batch)
        return {"info_nce": (math.log(forward) + math.log(len(batch))) / 2}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return 2 * batch_size - 1 if "negative" in facts.columns else batch_size - 1

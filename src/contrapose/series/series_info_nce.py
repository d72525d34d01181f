"""InfoNCE of time series with an augmentation that is chosen by hand: what a learned one has to beat."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from contrapose.data.batches import Batch, Data, Facts
from contrapose.data.columns import Column
from contrapose.objectives import info_nce
from contrapose.series._average import MeanOfWeights
from contrapose.series._contrast import neighbour_contrast, pooled, random_start, window_vectors
from contrapose.series._network import inside_of
from contrapose.series.data import say_short_series
from contrapose.series.views import FixedView, TimestampMask, fixed_view, timestamp_mask
from contrapose.training.encoder import Encoder
from contrapose.training.method import Card, Method, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings


class SeriesInfoNCE(ViewMethod):
    r"""Learn representations of time series without labels, with a fixed augmentation: jitter, scaling, cutout or a subsequence.

    Pick it when you know a change that leaves a series what it is, or as the baseline beside `autotcl`, whose objective and encoder it shares:
    only the view is another.

    With the maxima over time $z_i$ of a series' representations and $\tilde z_i$ of its view, both (b, d), and its windows $w_1 \dots w_k$,

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{\cos(z_i, \tilde z_i)/\tau}}{\sum_j e^{\cos(z_i, \tilde z_j)/\tau}}
          - \frac{\lambda}{b k} \sum_{i,j} \log \frac{e^{w_j \cdot w_{j+1}}}{e^{w_j \cdot w_{j+1}} + \sum_{|l - j| > 1} e^{w_j \cdot w_l}}.$$

    The first term is $\log b$ at chance, the second $\lambda \log (k - 2)$. In both views steps are hidden from the encoder as in TS2Vec
    (Yue et al., AAAI 2022), so that `view="none"` still has two different ones. Strengths of the augmentations are those of the baselines in
    AutoTCL's official code. What you keep is the plain mean of the weights over all steps.

    InfoNCE: van den Oord et al., 2018; the two levels of contrast and the encoder: Zheng et al., ICLR 2024.
    """

    card = Card(
        modality="series",
        title="InfoNCE of time series with a fixed augmentation",
        paper="Representation Learning with Contrastive Predictive Coding",
        venue="arXiv 1807.03748",
        year=2018,
        url="https://arxiv.org/abs/1807.03748",
        columns=(Column("series", "series", "A time series, (steps, channels)."),),
    )

    class Settings(MethodSettings):
        # as autotcl's, so that the two differ in nothing but the view
        batch_size: PositiveInt = Field(32, description="Series in a batch, over all processes.")
        epochs: PositiveFloat = Field(115.0, description="Passes over the series or windows; fractions allowed.")
        learning_rate: PositiveFloat = Field(1e-3, description="Peak learning rate.")
        schedule: Literal["linear", "cosine", "constant"] = Field("constant", description="How the rate falls.")
        weight_decay: NonNegativeFloat = Field(0.01, description="Decay of weight matrices.")
        clip_norm: PositiveFloat | None = Field(None, description="Largest norm of the gradient; empty: none.")
        view: FixedView = Field("subsequence", description="How a series is changed to make its positive.")
        temperature: PositiveFloat = Field(1.0, description="Of the contrast between series.")
        local_temperature: PositiveFloat = Field(1.0, description="Of the contrast within a series.")
        windows: PositiveInt = Field(16, ge=4, description="Windows that a series is cut into for the local term.")
        local_weight: NonNegativeFloat = Field(0.3, description="Of the contrast within a series; 0: none.")
        timestamp_mask: TimestampMask = Field("binomial", description="Which steps are hidden from the encoder.")
        average: bool = Field(True, description="Keep the mean of the weights over all steps, not the last ones.")
        average_from: NonNegativeInt = Field(0, description="Steps that the mean leaves out, the random start too.")

    def build(self, facts: Facts) -> None:
        if self.settings.average:
            self.averaged = MeanOfWeights(self.encoder, self.settings.average_from)

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        """Raises SeriesInvalid for series to measure on that the encoder does not take."""
        for protocol in protocols:
            protocol.refuse(self.encoder)

    def prepare(self, data: Data, previous: Method | None) -> None:
        if self.settings.local_weight:
            say_short_series(self, data, self.settings.windows)

    def views(self, batch: Batch) -> dict[str, View]:
        s, x = self.settings, batch["series"]
        lengths = inside_of(x).sum(dim=1)
        changed = fixed_view(s.view, x, batch, lengths)
        start = random_start(batch.uniform(1).squeeze(1), lengths, s.windows)
        hidden = [timestamp_mask(s.timestamp_mask, batch, x.shape[1], lengths) for _ in range(2)]
        return {
            "series": View({"x": x, "keep": hidden[0], "start": start}, columns={"lengths": lengths}),
            "view": View({"x": changed, "keep": hidden[1], "start": start}),
        }

    def embed(self, view: View) -> Tensor:
        """(b, 1 + k, d): the series, then its windows."""
        x, start = view.inputs["x"], view.inputs["start"]
        steps, inside = self.encoder.steps(x, view.inputs["keep"]), inside_of(x)
        windows = window_vectors(steps, self.settings.windows, start, inside.sum(dim=1))
        return torch.cat([pooled(steps, inside).unsqueeze(1), windows], dim=1)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        s, (series, view) = self.settings, embeddings.values()
        terms = {"contrast": info_nce(series[:, 0], view[:, 0], temperature=s.temperature, group=batch.group)}
        if s.local_weight:
            long_enough = (batch["lengths"] >= s.windows).to(series)
            local = neighbour_contrast(series[:, 1:], temperature=s.local_temperature) * long_enough
            terms["local"] = s.local_weight * local.sum() / long_enough.sum().clamp_min(1)
        return terms

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        if self.settings.average:
            self.averaged.follow(self.encoder, batch.step)

    def encoders(self) -> dict[str, Encoder]:
        return {"encoder": self.averaged.module if self.settings.average else self.encoder}

    def chance(self, batch: Batch) -> dict[str, float]:
        s = self.settings
        return {"contrast": math.log(len(batch)), "local": s.local_weight * math.log(s.windows - 2)}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1

"""AutoTCL: a time series' augmentation is learned beside its encoder."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from contrapose.data.batches import Batch, Data, Facts
from contrapose.data.columns import Column
from contrapose.distributed import gather_rows
from contrapose.objectives import info_nce
from contrapose.series._augmentation import (
    AugmentationNetwork,
    augmented,
    concrete_mask,
    expected_mask,
    kept_share,
    mean_discrepancy,
    official_smoothness,
    over_budget,
    total_variation,
)
from contrapose.series._average import MeanOfWeights
from contrapose.series._contrast import local_contrast, pooled, random_start
from contrapose.series._network import inside_of
from contrapose.series.data import say_short_series
from contrapose.series.views import TimestampMask, timestamp_mask
from contrapose.training.encoder import Encoder
from contrapose.training.method import Card, Method, Terms, Update
from contrapose.training.settings import MethodSettings

__all__ = [
    "AutoTCL", "augmented", "concrete_mask", "expected_mask", "kept_share", "local_contrast", "mean_discrepancy", "official_smoothness",
    "over_budget", "pooled", "total_variation",
]  # fmt: skip


class AutoTCL(Method):
    r"""Learn representations of time series without labels, with an augmentation that is learned and not chosen.

    Pick it when you want to forecast or to classify series with a frozen encoder, and cannot say which change leaves a series what it is:
    jitter, crops and warps each destroy what matters in some data. It costs a second, small network and its update beside every step. Where
    you do know an augmentation that is sane, `series_info_nce` with it is simpler.

    A series $x$ of shape (t, c) is taken apart into factors: an augmentation network gives a mask $h(x)$ and a scale $g(x)$, both in
    $(0, 1)^{t \times c}$, and the view is $\tilde x = g(x) \odot m \odot x$, where $m$ is drawn from $h$ with noise, as a binary concrete
    variable. With the encoder's representations $r, \tilde r$ of shape (b, t, d), their maxima over time $z, \tilde z$, and $w_1 \dots w_k$
    the maxima of unit steps of $r$ over $k$ windows, the encoder minimises

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{\cos(z_i, \tilde z_i)/\tau}}{\sum_j e^{\cos(z_i, \tilde z_j)/\tau}}
          - \frac{\lambda}{b k} \sum_{i,j} \log \frac{e^{w_j \cdot w_{j+1}}}{e^{w_j \cdot w_{j+1}} + \sum_{|l - j| > 1} e^{w_j \cdot w_l}},$$

    whose two terms are $\log b$ and $\lambda \log (k - 2)$ at chance, and the augmentation network, by the principle of relevant information,

    $$L_{aug} = \mathrm{MMD}(z, \tilde z) + \beta \max(0, \bar h - 0.4) + \gamma \, \mathrm{mean} |h_t - h_{t+1}|:$$

    a view should look to the encoder as the series does, and keep no more of it than its budget. The two take turns in every step, each with
    an AdamW of its own. What you keep is the plain mean of the encoder's weights over all steps.

    Where paper and official code differ: h is a probability, and the code uses it as a logit, so that a value is kept with a chance between 0.50
    and 0.73 whatever the network learns (`mask_logits="probability"`, the default, for parity; "logit" is what the formulas say); the code's local
    term is that of the first series of a batch (`local_rows="official_first_only"`), the default averages over all; its smoothness draws far steps
    together (`smoothness="official"`), the default is the total variation above. The paper's additive noise is no part of the code: steps are hidden
    from the encoder instead (`timestamp_mask`). Its configuration lists `mask_mode`, depth and dropout that its script never hands over; the
    defaults here are what runs. Windows for the local term start at a step of each series' own.

    Zheng et al., ICLR 2024, sections 3 and 4; official code AslanDing/AutoTCL at 2ca0060.

    **Pitfalls.** The weights are tuned to each data set in the paper (from 3e-6 to 0.3), so choose them on data of your own: `select`. The mean of
    weights starts at the random ones: with few steps they weigh, and `average_from` leaves the first steps out. Watch `kept` and `scale`: a view
    that keeps all, or nothing, teaches nothing.
    """

    card = Card(
        modality="series",
        title="AutoTCL: learned augmentation of time series",
        paper="Parametric Augmentation for Time Series Contrastive Learning",
        venue="ICLR",
        year=2024,
        url="https://arxiv.org/abs/2402.10434",
        columns=(Column("series", "series", "A time series, (steps, channels)."),),
    )

    class Settings(MethodSettings):
        # epochs, weights and widths of the mask: univariate ETTh1 of the official configuration; rates: its class's defaults
        batch_size: PositiveInt = Field(32, description="Series in a batch, over all processes.")
        epochs: PositiveFloat = Field(115.0, description="Passes over the series or windows; fractions allowed.")
        learning_rate: PositiveFloat = Field(1e-3, description="Peak learning rate of the encoder.")
        augmentation_learning_rate: PositiveFloat = Field(1e-2, description="Of the augmentation network.")
        schedule: Literal["linear", "cosine", "constant"] = Field("constant", description="How both rates fall.")
        weight_decay: NonNegativeFloat = Field(0.01, description="Decay of weight matrices; the code decays all.")
        clip_norm: PositiveFloat | None = Field(None, description="Largest norm of the gradient; empty: none.")
        ratio_step: PositiveInt = Field(1, description="Steps from one update of the augmentation network to the next.")
        temperature: PositiveFloat = Field(1.0, description="Of the contrast between series.")
        local_temperature: PositiveFloat = Field(1.0, description="Of the contrast within a series.")
        windows: PositiveInt = Field(16, ge=4, description="Windows that a series is cut into for the local term.")
        local_weight: NonNegativeFloat = Field(0.3, description="Of the contrast within a series; 0: none.")
        local_rows: Literal["mean", "official_first_only"] = Field(
            "mean", description="Whose local term counts: all series', or the first one's alone as in the code."
        )
        augmentation: Literal["pri", "adversarial", "random"] = Field(
            "pri", description="pri: as above. adversarial: against the encoder. random: never trained, a control."
        )
        factors: Literal["both", "mask", "scale"] = Field("both", description="What makes a view: g h x, h x or g x.")
        mask_logits: Literal["probability", "logit"] = Field(
            "probability", description="What the mask is drawn from: h itself as a logit, as in the code, or its logit."
        )
        hard_mask: bool = Field(True, description="A mask of 0 and 1, with the gradient of the soft one.")
        gumbel_bias: float = Field(0.05, gt=0, lt=0.5, description="Cuts the noise's ends; 1/2 would be no noise.")
        stretch: NonNegativeFloat = Field(0.05, description="How far the mask is widened below 0 (gamma_zeta).")
        budget: float = Field(0.4, ge=0, description="What h may be on average, summed over channels, for free.")
        budget_weight: NonNegativeFloat = Field(0.003, description="Of what h is above its budget.")
        smoothness: Literal["total_variation", "official"] = Field(
            "total_variation", description="How a jumping mask is counted."
        )
        smoothness_weight: NonNegativeFloat = Field(0.0, description="Of the smoothness of h.")
        timestamp_mask: TimestampMask = Field("binomial", description="Which steps are hidden from the encoder.")
        augmentation_hidden: PositiveInt = Field(64, description="Width of the augmentation network.")
        augmentation_dim: PositiveInt = Field(16, description="Dimensions from which h and g are read.")
        augmentation_depth: NonNegativeInt = Field(1, description="Blocks of it; 1 to 3 in the configuration.")
        average: bool = Field(True, description="Keep the mean of the weights over all steps, not the last ones.")
        average_from: NonNegativeInt = Field(0, description="Steps that the mean leaves out, the random start too.")

    def build(self, facts: Facts) -> None:
        s = self.settings
        self.augmentation = AugmentationNetwork(
            self.encoder.channel_count, dim=s.augmentation_dim, hidden=s.augmentation_hidden, depth=s.augmentation_depth
        )
        if s.average:
            self.averaged = MeanOfWeights(self.encoder, s.average_from)

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        """Raises SeriesInvalid for series to measure on that the encoder does not take."""
        for protocol in protocols:
            protocol.refuse(self.encoder)

    def prepare(self, data: Data, previous: Method | None) -> None:
        if self.settings.local_weight:
            say_short_series(self, data, self.settings.windows)

    def updates(self) -> list[Update]:
        """First the augmentation network, then the encoder: the paper's algorithm."""
        encoder = Update(self.encoder_loss, self.encoder.parameters())
        if self.settings.augmentation == "random":
            return [encoder]
        network, rate = self.augmentation.parameters(), self.settings.augmentation_learning_rate
        learned = Update(self.augmentation_loss, network, "augmentation", lr=rate, every=self.settings.ratio_step)
        return [learned, encoder]

    def training_step(self, batch: Batch) -> Terms:
        return self.encoder_loss(batch)

    def augment(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """A view of x (b, t, c) by fresh noise, and h."""
        s = self.settings
        logits, scale = self.augmentation(x)
        h = logits.sigmoid()
        mask = concrete_mask(
            h if s.mask_logits == "probability" else logits,
            batch.uniform(*x.shape[1:]).to(logits),
            bias=s.gumbel_bias,
            stretch=s.stretch,
            hard=s.hard_mask,
        )
        self.watch("kept", mask.mean())
        self.watch("scale", scale.mean())
        ones = torch.ones_like(mask)
        return augmented(x, ones if s.factors == "scale" else mask, ones if s.factors == "mask" else scale), h

    def augmentation_loss(self, batch: Batch) -> Terms:
        """Of the augmentation network: the encoder stands still, and sees every step."""
        s, x = self.settings, batch["series"]
        inside = inside_of(x)
        with standing_still(self.encoder):
            view, h = self.augment(x, batch)
            changed = gather_rows(pooled(self.encoder.steps(view), inside))
            with torch.no_grad():
                plain = gather_rows(pooled(self.encoder.steps(x), inside))
        if s.augmentation == "adversarial":
            return {"adversarial": -info_nce(plain, changed, temperature=s.temperature, group=batch.whole.group)}
        terms = {"discrepancy": mean_discrepancy(plain, changed)}
        within = None if bool(inside.all()) else inside
        kept = gather_rows(kept_share(h, within))
        terms["budget"] = s.budget_weight * over_budget(kept, s.budget)
        if s.smoothness_weight:
            terms["smoothness"] = s.smoothness_weight * gather_rows(self.roughness(h, batch, within)).mean()
        return terms

    def roughness(self, h: Tensor, batch: Batch, inside: Tensor | None) -> Tensor:
        """Of the mask of each series, (b,)."""
        if self.settings.smoothness == "total_variation":
            return total_variation(h, inside)
        b, t = len(batch.whole), h.shape[1]
        first, second = torch.randint(1, max(2, t - 2), (2, b), generator=batch.generator).to(h.device)
        return official_smoothness(h, first, second)

    def encoder_loss(self, batch: Batch) -> Terms:
        """Of the encoder: views are drawn anew, and steps are hidden from it."""
        s, x = self.settings, batch["series"]
        b, t, _ = x.shape
        inside = inside_of(x)
        lengths = inside.sum(dim=1)
        with torch.no_grad():  # no gradient of this loss moves the augmentation network
            view, _ = self.augment(x, batch)
        keep = [
            timestamp_mask(s.timestamp_mask, batch, t, lengths) for _ in range(2)
        ]  # the two views hide different steps
        steps = self.encoder.steps(torch.cat([x, view]), torch.cat(keep))
        z, changed = (gather_rows(half) for half in pooled(steps, inside.repeat(2, 1)).split(b))
        self.embeddings = {"series": z.detach(), "view": changed.detach()}
        terms = {"contrast": info_nce(z, changed, temperature=s.temperature, group=batch.whole.group)}
        if s.local_weight:
            start = random_start(batch.uniform(1).squeeze(1), lengths, s.windows)
            local = local_contrast(steps[:b], s.windows, temperature=s.local_temperature, start=start, lengths=lengths)
            local, long_enough = gather_rows(local), gather_rows((lengths >= s.windows).to(local))
            if s.local_rows == "official_first_only":
                local, long_enough = local[:1], long_enough[:1]
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


@contextmanager
def standing_still(encoder: nn.Module) -> Iterator[None]:
    """Evaluation mode, and no gradient for its weights: what flows through it reaches its inputs alone."""
    trained, training = [parameter for parameter in encoder.parameters() if parameter.requires_grad], encoder.training
    encoder.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        encoder.train(training)
        for parameter in trained:
            parameter.requires_grad_(True)

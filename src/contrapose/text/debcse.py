"""DebCSE: positives and hard negatives drawn from the corpus by inverse propensity, so that form does not pass for meaning."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat
from torch import LongTensor, Tensor

from contrapose.data.batches import Batch, Data, Facts, shuffled_batches
from contrapose.data.columns import Column
from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer, TemperatureInvalid
from contrapose.objectives import info_nce
from contrapose.text._candidates import prepared_candidates
from contrapose.text._loading import find
from contrapose.text._surface import Measure
from contrapose.text.data import texts_of
from contrapose.text.encoder import Head, TextEncoder, open_encoder
from contrapose.text.simcse import SimCSE
from contrapose.training.method import Card, Method, Stage, StageRecord, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings


class DebCSE(ViewMethod):
    r"""Learn sentence embeddings from a corpus in which sentences say the same in other words, without labels.

    Pick it for raw sentences with redundancy: news, forums, captions, reviews. Real near-paraphrases become positives, and sentences that
    look alike and mean something else hard negatives, so that neither length nor shared words give the answer away, as they do with dropout
    positives and random negatives. In a corpus without redundancy there is nothing to find; take `esimcse` there.

    Before training, each sentence $i$ gets candidates $C(i)$: those nearest in meaning, by the cosines of a frozen reference encoder,
    $m = (1 + \cos)/2$, and those that share most words with it. Their surface similarity is $s = 1 - \mathrm{edits}/\mathrm{words}$, by
    Levenshtein's distance of words. A pair is taken for a positive by form alone with propensity $e^+$, for a negative with $e^-$; dividing
    by it leaves meaning:

    $$e^{+}_{ij} = \mathrm{softmax}_j \frac{s_{ij}}{T_s}, \quad w^{+}_{ij} \propto \frac{e^{m_{ij}/T_m}}{\max(e^{+}_{ij}, \epsilon)}, \quad
      e^{-}_{ij} = \mathrm{softmax}_j \frac{1 - s_{ij}}{T_s}, \quad w^{-}_{ij} \propto \frac{e^{(1 - m_{ij})/T_m}}{\max(e^{-}_{ij}, \epsilon)}.$$

    A positive is likely where it means the same and looks different, a negative where it means something else and looks alike. In every
    epoch each sentence draws one positive $p$ by $w^+$ among candidates with $m \ge$ `least_positive`, and negatives $n$ by $w^-$ among those
    with $m \le$ `most_negative`. Then, over the whole batch,

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{\cos(z_i, p_i)/\tau}}{\sum_j e^{\cos(z_i, p_j)/\tau} + \sum_j e^{\cos(z_i, n_j)/\tau}},$$

    where a column that is the sentence itself or its positive, or shares its group, is left out. At chance $L = \log b(1 + n)$. A sentence without
    a positive takes its own dropout view, one without a negative has none of its own; the run says how many there are.

    This is a reconstruction. From the paper's abstract, all of it that was at hand, come the three biases (word frequency, sentence length, false
    negatives) and the inverse propensities of surface and semantic similarity. The candidates, both similarities, the formulas of the weights,
    the guards, the draw, and every default but batch size, learning rate and $\tau$ (SimCSE's) are ours. Each is a setting, so that a correction
    is a change of one.

    Miao, Du and Zhang, CIKM 2023. Encoder, head and loss are SimCSE's (supervised form; the head in training alone).

    **Pitfalls.** An anisotropic reference encoder (mean cosine 0.5: $m$ is 0.75 where sentences have nothing in common) leaves few
    negatives below `most_negative`, and its similarities lie so close together that a `semantic_temperature` of 0.1 draws almost evenly: the
    line of figures names the `effective_positives` of each sentence; lower it until they are few. `reference=simcse` trains one first. Sentences of the same words are dropped, but for the first.
    Candidates are exact: their cost grows with the square of the sentences; up to 200,000 are fine. They are kept in the cache.
    """

    card = Card(
        modality="text",
        title="DebCSE: pairs by inverse propensity",
        paper="DebCSE: Rethinking Unsupervised Contrastive Sentence Embedding Learning in the Debiasing Perspective",
        venue="CIKM",
        year=2023,
        url="https://arxiv.org/abs/2309.07396",
        columns=(Column("text", "text", "A sentence."),),
    )

    class Settings(MethodSettings):
        # SimCSE's, BERT-base; what is not said to be SimCSE's is this reconstruction's
        learning_rate: PositiveFloat = Field(3e-5, description="Peak learning rate.")
        temperature: PositiveFloat = Field(0.05, description="Divides the cosines.")
        negative_log_weight: float = Field(0.0, description="Added to the logit of an anchor's own hard negatives.")
        reference: str = Field(
            "initial",
            description="The frozen encoder that says what means the same: initial (this one, before training), simcse (trained first, on the same "
            "sentences), or any encoder's name or folder.",
        )
        refresh: bool = Field(
            False, description="Afterwards go on for another stage, with candidates by the trained encoder."
        )
        candidates: int = Field(64, ge=2, description="Of a sentence: half by meaning, half by shared words.")
        surface: Measure = Field(
            "levenshtein", description="What likeness in form is: edits of words, or shared words."
        )
        semantic_temperature: PositiveFloat = Field(0.1, description="Divides the semantic similarities.")
        surface_temperature: PositiveFloat | None = Field(
            0.2, description="Divides the surface similarities; empty: no propensities, pairs by meaning alone."
        )
        propensity_floor: float = Field(0.01, gt=0, le=1, description="Least propensity.")
        positives: Literal["drawn", "dropout"] = Field("drawn", description="dropout: the sentence itself, as SimCSE.")
        hard_negatives: NonNegativeInt = Field(1, description="Drawn for each sentence.")
        least_positive: float = Field(0.8, ge=0, le=1, description="Least semantic similarity of a positive.")
        least_positive_of: Literal["best", "absolute"] = Field(
            "best", description="best: as a share of the similarity of the sentence's best candidate."
        )
        most_negative: float = Field(0.75, ge=0, le=1, description="Largest semantic similarity of a negative.")
        mask_false_negatives: bool = Field(
            False, description="Leave out columns that the reference finds as near as a positive must be."
        )
        weighting: Literal["drawing", "importance"] = Field(
            "drawing", description="importance: positives drawn evenly, and each loss weighed by w+."
        )

    def build(self, facts: Facts) -> None:
        self.head = Head(self.encoder.dim)
        if self.settings.reference not in ("initial", "simcse"):
            find(self.settings.reference, None)  # one that is not there is refused before anything is written

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        """The reference, where it is trained first; the training; the training by refreshed candidates."""
        stages = [Stage("train")]
        if self.settings.reference == "simcse":
            stages.insert(0, Stage("reference", settings=simcse_settings(self.settings), method=SimCSE))
        if self.settings.refresh:
            stages.append(Stage("refreshed", start="train"))
        return stages[len(finished)] if len(finished) < len(stages) else None

    def prepare(self, data: Data, previous: Method | None) -> None:
        self.candidates = prepared_candidates(
            texts_of(data.columns["text"]),
            self.reference(previous),
            count=self.settings.candidates,
            surface=self.settings.surface,
            keep_vectors=self.settings.mask_false_negatives,
        )
        self.weigh(data)
        self.number = torch.full((len(data),), -1)  # of each row of the data among the distinct sentences
        self.number[self.candidates.kept] = torch.arange(len(self.candidates))
        self.remark(data)

    def reference(self, previous: Method | None) -> TextEncoder:
        if previous is not None:
            return previous.encoder
        return self.encoder if self.settings.reference == "initial" else open_encoder(self.settings.reference)

    def weigh(self, data: Data) -> None:
        """The log-weights of every pair, (n, k), -inf where the guards forbid it."""
        found, settings = self.candidates, self.settings
        self.least = torch.full((len(found),), settings.least_positive)
        if settings.least_positive_of == "best":
            self.least *= found.semantic.amax(dim=1)
        other_group = torch.ones_like(found.there)
        if data.group is not None:
            group = data.group[found.kept]
            other_group = group[:, None] != group[found.rows.clamp_min(0).long()]
        self.log_positive, self.log_negative = pair_weights(
            found.semantic,
            found.surface,
            semantic_temperature=settings.semantic_temperature,
            surface_temperature=settings.surface_temperature,
            floor=settings.propensity_floor,
            there=found.there,
            positive=found.semantic >= self.least[:, None],
            negative=(found.semantic <= settings.most_negative) & other_group,
        )

    def remark(self, data: Data) -> None:
        """What people should know before step 1, and how many candidates the weights really choose among."""
        found, settings = self.candidates, self.settings
        repeated, few = len(data) - len(found), min(settings.candidates, len(found) - 1)
        counts = {
            f"{repeated:,} sentences have the words of another and are left out": repeated,
            f"candidates is {few:,}, since there are {len(found):,} distinct sentences": few < settings.candidates,
        }
        if settings.positives == "drawn":
            alone = int(self.log_positive.isneginf().all(dim=1).sum())
            counts[f"{alone:,} sentences have no candidate for a positive and take their own dropout view"] = alone
            self.watch("effective_positives", effective_sample_size(self.log_positive).mean())
        if settings.hard_negatives:
            alone = int(self.log_negative.isneginf().all(dim=1).sum())
            counts[f"{alone:,} sentences have no candidate for a negative and none of their own"] = alone
            self.watch("effective_negatives", effective_sample_size(self.log_negative).mean())
        self.remarks = [said for said, count in counts.items() if count]

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        """The distinct sentences in random order, each with a positive and negatives drawn anew: (b, 2 + n) rows."""
        order = shuffled_batches(len(self.candidates), self.settings.batch_size, generator)
        drawn = torch.cat([torch.arange(len(self.candidates))[:, None], self.draw(generator)], dim=1)
        rows = self.candidates.kept[drawn]
        return [rows[batch] for batch in order]

    def draw(self, generator: torch.Generator) -> LongTensor:
        """(n, 1 + negatives): for each sentence its positive and its negatives, as numbers; its own where there is none."""
        found, settings = self.candidates, self.settings
        own = torch.arange(len(found))[:, None]
        log_positive = self.log_positive
        if settings.weighting == "importance":
            log_positive = torch.zeros_like(log_positive).masked_fill_(log_positive.isneginf(), -math.inf)
        slots = gumbel_top(log_positive, gumbel(found.rows.shape, generator), 1)
        if settings.positives == "dropout":
            slots.fill_(-1)
        chosen = torch.zeros_like(found.there).scatter_(1, slots.clamp_min(0), slots >= 0)
        log_negative = self.log_negative.masked_fill(chosen, -math.inf)  # a positive is no negative
        few = min(settings.hard_negatives, found.rows.shape[1])
        drawn = torch.cat([slots, gumbel_top(log_negative, gumbel(found.rows.shape, generator), few)], dim=1)
        self.watch_overlap("positive_overlap", drawn[:, :1])
        self.watch_overlap("negative_overlap", drawn[:, 1:])
        picked = torch.where(drawn < 0, own, found.rows.gather(1, drawn.clamp_min(0)).long())
        return torch.cat([picked, own.expand(-1, settings.hard_negatives - few)], dim=1)

    def watch_overlap(self, name: str, slots: LongTensor) -> None:
        """The mean surface similarity of what was drawn."""
        if bool((slots >= 0).any()):
            self.watch(name, self.candidates.surface.gather(1, slots.clamp_min(0))[slots >= 0].mean())

    def views(self, batch: Batch) -> dict[str, View]:
        views = {"anchor": View(batch["text"]), "positive": View(batch.partner(1)["text"])}
        for number in range(1, self.settings.hard_negatives + 1):
            views[f"negative_{number}"] = View(batch.partner(1 + number)["text"])
        return views

    def embed(self, view: View) -> Tensor:
        return self.head(self.encoder(view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        hard = [embeddings[f"negative_{number}"] for number in range(1, self.settings.hard_negatives + 1)]
        losses = info_nce(
            embeddings["anchor"],
            embeddings["positive"],
            negatives=torch.stack(hard, dim=1) if hard else None,
            negative_log_weight=self.settings.negative_log_weight,
            temperature=self.settings.temperature,
            pair=self.told_apart(batch, embeddings["anchor"].device),
            reduction="none",
        )
        if self.settings.weighting == "importance":
            return {"info_nce": (self.importance(batch).to(losses) * losses).sum()}
        return {"info_nce": losses.mean()}

    def told_apart(self, batch: Batch, device: torch.device) -> Callable[[slice, slice], Tensor]:
        """Which columns stand against which anchors, by tile: positives of all rows, then their negatives."""
        anchors, positives = batch.rows[:, 0], batch.rows[:, 1]
        columns = torch.cat([positives, batch.rows[:, 2:].flatten()])
        group = batch.data.group

        def keep(tile: slice, among: slice) -> Tensor:
            mine, theirs = anchors[tile, None], columns[None, among]
            kept = (mine != theirs) & (positives[tile, None] != theirs)
            if group is not None:
                kept &= group[mine] != group[theirs]
            if self.settings.mask_false_negatives:
                one, other = self.number[anchors[tile]], self.number[columns[among]]
                cosines = self.candidates.vectors[one] @ self.candidates.vectors[other].T
                kept &= (1 + cosines) / 2 <= self.least[one, None]
            return kept.to(device)

        return keep

    def importance(self, batch: Batch) -> Tensor:
        """(b,): w+ of each drawn positive times the candidates it was drawn from evenly, over their sum; 1 for a dropout positive."""
        anchors, positives = self.number[batch.rows[:, 0]], self.number[batch.rows[:, 1]]
        log_weights = self.log_positive[anchors]
        mine = self.candidates.rows[anchors] == positives[:, None]
        weights = (log_weights.exp() * mine).sum(dim=1) * log_weights.isfinite().sum(dim=1)
        weights = torch.where(anchors == positives, 1.0, weights)
        return weights / weights.sum()

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"info_nce": math.log(len(batch) * (1 + self.settings.hard_negatives))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size * (1 + self.settings.hard_negatives) - 1


def simcse_settings(settings: DebCSE.Settings) -> SimCSE.Settings:
    """SimCSE with what both methods have."""
    shared = type(settings).model_fields.keys() & SimCSE.Settings.model_fields.keys()
    return SimCSE.Settings(**{name: getattr(settings, name) for name in shared})


def pair_weights(
    semantic: Tensor,
    surface: Tensor,
    *,
    semantic_temperature: float,
    surface_temperature: float | None,
    floor: float,
    there: Tensor | None = None,
    positive: Tensor | None = None,
    negative: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-weights by which the candidates of n sentences are drawn as positives and as negatives; see `DebCSE` for the formulas.

    Args:
        semantic: (n, k), similarity in meaning, from 0 to 1.
        surface: (n, k), similarity in form, from 0 to 1.
        semantic_temperature: a positive number.
        surface_temperature: a positive number; None, or infinity, weighs by meaning alone.
        floor: in (0, 1]. A propensity, normalised over a sentence's candidates, counts at least so much; it is not normalised again.
        there: (n, k) bool, where there is a candidate at all; None: everywhere.
        positive: (n, k) bool, which candidates may be drawn as positives; None: all.
        negative: (n, k) bool, which may be drawn as negatives; None: all.

    Returns:
        Two (n, k), whose exponentials sum to 1 in each row; -inf where a candidate may not be drawn, and in all of a row that has none.

    Raises:
        TemperatureInvalid: a temperature is not positive.
        ArgumentInvalid: the floor is not in (0, 1].
        ShapesDiffer: the shapes do not fit.
        NonFinite: a similarity is NaN or infinite; names the first such sentence.
    """
    check_weights(semantic, surface, semantic_temperature, surface_temperature, floor)
    there = torch.ones_like(semantic, dtype=torch.bool) if there is None else there

    def weights(meaning: Tensor, form: Tensor, allowed: Tensor | None) -> Tensor:
        logits = meaning / semantic_temperature
        if surface_temperature is not None:
            by_form = (form / surface_temperature).masked_fill(~there, -math.inf).softmax(dim=1)
            logits = logits - by_form.clamp_min(floor).log()
        may = there if allowed is None else there & allowed
        logits = logits.masked_fill(~may, -math.inf)
        return logits.log_softmax(dim=1).masked_fill(~may, -math.inf)  # a row of -inf alone has no softmax

    return weights(semantic, surface, positive), weights(1 - semantic, 1 - surface, negative)


def gumbel(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Standard Gumbel noise, float64."""
    uniform = torch.rand(*shape, generator=generator, dtype=torch.float64).clamp_min(torch.finfo(torch.float64).tiny)
    return -(-uniform.log()).log()


def gumbel_top(log_weights: Tensor, noise: Tensor, k: int) -> LongTensor:
    """k draws a row without replacement, in proportion to the weights: (n, m) to the columns (n, k), first drawn first; -1 for no more.

    The largest of log-weight plus Gumbel noise (Kool, van Hoof and Welling, ICML 2019). Raises ShapesDiffer.
    """
    if log_weights.shape != noise.shape:
        raise ShapesDiffer(f"Noise is needed for each weight; got {tuple(log_weights.shape)} and {tuple(noise.shape)}.")
    keys, columns = (log_weights + noise).topk(k, dim=1)
    return columns.masked_fill(keys.isneginf(), -1)


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """(sum of w)² / sum of w² of each row: among how many candidates the weights really choose; 0 for a row without any."""
    weights = log_weights.exp()
    return weights.sum(dim=1).square() / weights.square().sum(dim=1).clamp_min(torch.finfo(weights.dtype).tiny)


def check_weights(
    semantic: Tensor, surface: Tensor, semantic_temperature: float, surface_temperature: float | None, floor: float
) -> None:
    if semantic.ndim != 2 or semantic.shape != surface.shape:
        raise ShapesDiffer(
            f"semantic and surface must both be (n, k); got {tuple(semantic.shape)} and {tuple(surface.shape)}."
        )
    for name, temperature in (("semantic", semantic_temperature), ("surface", surface_temperature)):
        if temperature is not None and not temperature > 0:
            raise TemperatureInvalid(
                f"{name}_temperature must be a positive number, since similarities are divided by it; got {temperature}."
            )
    if not 0 < floor <= 1:
        raise ArgumentInvalid(f"floor must lie above 0 and be at most 1; got {floor}.")
    for name, values in (("semantic", semantic), ("surface", surface)):
        broken = ~torch.isfinite(values).all(dim=1)
        if bool(broken.any()):
            raise NonFinite(f"{name} similarities hold NaN or infinity (first: sentence {int(broken.nonzero()[0])}).")

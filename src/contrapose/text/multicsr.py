"""MultiCSR: triplets that a language model wrote, curated by its own scores, with a mask over false negatives."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts, in_chunks, seeded, shuffled_batches, to_device
from contrapose.data.columns import Column
from contrapose.errors import ShapesDiffer
from contrapose.objectives import info_nce
from contrapose.text._contrast import contrastive_logits
from contrapose.text._curation import check_phi, curate, curated
from contrapose.text._frozen import FrozenVectors
from contrapose.text._generation import estimate, generate_triplets, open_prompts, parse_score, write_prompts
from contrapose.text._loading import find
from contrapose.text._pooling import at_least_float32
from contrapose.text.encoder import Head, TextEncoder, open_encoder
from contrapose.text.simcse import SimCSE, logits
from contrapose.training.method import Card, Method, Stage, StageRecord, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings

__all__ = [
    "MultiCSR",
    "contrastive_logits",
    "curate",
    "estimate",
    "generate_triplets",
    "keep_by_reference",
    "parse_score",
    "softmax_bce",
    "write_prompts",
]

AT_ONCE = 1024  # anchors whose masks are counted together
SAMPLED = 512  # rows among which the share of masked pairs is estimated


class MultiCSR(ViewMethod):
    r"""Learn sentence embeddings from triplets that a language model wrote, with filters against its wrong ones.

    Pick it when you have sentences of any domain without labels and a text generator that writes for each of them one that follows and one
    that contradicts it, and expect some to be wrong; or any triplets with scores; or triplets whose batches hide sentences of one meaning.
    Clean labelled triplets need none of this: take `simcse` with `positive` and `negative`.

    *Generation.* A generator writes the columns that are not there: `generator` is the folder or Hub name of a causal or sequence-to-sequence
    model, or the address of an OpenAI-compatible endpoint. In Python, `generate_triplets` takes any function and writes a CSV. With
    `contrast` $a$ each next token is chosen by $(1 + a)\, l^{+} - a\, l^{-}$, where $l^{-}$ are the logits under the opposite instruction, among
    tokens with $p^{+} \ge$ `plausible` $\cdot \max p^{+}$; 0 is plain greedy decoding.

    *Curation.* Of scores from 0 to 5 of (sentence, positive) and (sentence, negative) the larger one makes the positive; kept are triplets with
    the positive at `positive_line` or above, the negative at `negative_line` or below, and two scores that differ.

    *Training.* With $z_i, p_i, n_i$ of shape (b, d), and $c_{ij}$ the cosine of the same pair of texts by a frozen reference encoder,

    $$L = -\frac{1}{b} \sum_i \log \frac{e^{\cos(z_i, p_i)/\tau}}{\sum_j k_{ij} e^{\cos(z_i, p_j)/\tau} + \sum_j k_{i,b+j} e^{\cos(z_i, n_j)/\tau}},
      \quad k_{ij} = [c_{ij} \le \varphi \text{ or } j = i].$$

    A sentence's own negative may be masked. `phi=1` masks nothing. At chance $L = \log 2b$. A head, Linear and tanh, stands on the pooled state
    in training alone.

    **Example.** Triplets by a function of your own, then training on the file:

    ```python
    import contrapose
    from contrapose.text.multicsr import generate_triplets

    generate_triplets(premises, lambda prompts: [ask(prompt) for prompt in prompts], "triplets.csv")  # goes on where it was stopped
    run = contrapose.train("multicsr", data="triplets.csv")
    ```

    **Pitfalls.** Where paper and official code differ: `objective=bce_softmax` is the code's, a softmax over *all* pairs in which masked logits
    are 0 and not left out, under a binary cross-entropy of all 2b² entries. The code's reference has dropout in training, and its threshold is
    right for $\tau = 0.05$ alone; here it is in evaluation mode, and embeds each text once, before training. The contrast's coefficient
    and cut are a reconstruction: that part of the code is not published. Too low a $\varphi$ masks real negatives: the run says what share is
    masked. `reference=initial` needs an encoder whose cosines are spread; an anisotropic one masks nearly everything.

    "Large Language Models can Contrastively Refine their Generation for Better Sentence Representation Learning", NAACL 2024; official code
    Circle-Ming/MultiCSR at 596898f. Encoder and head are SimCSE's.
    """

    card = Card(
        modality="text",
        title="MultiCSR: curated triplets of a language model",
        paper="Large Language Models can Contrastively Refine their Generation for Better Sentence Representation Learning",
        venue="NAACL",
        year=2024,
        url="https://arxiv.org/abs/2310.10962",
        columns=(
            Column("text", "text", "A sentence (official files: sent0)."),
            Column("positive", "text", "What follows from it (sent1); else a generator writes it.", required=False),
            Column("negative", "text", "What contradicts it (hard_neg); else a generator.", required=False),
            Column("positive_score", "score", "How alike text and positive are, 0 to 5.", required=False),
            Column("negative_score", "score", "How alike text and negative are, 0 to 5.", required=False),
        ),
    )

    class Settings(MethodSettings):
        # the official README and run.sh, BERT-base
        batch_size: PositiveInt = Field(128, description="Triplets in a batch, over all processes; the contrast set.")
        epochs: PositiveFloat = Field(3.0, description="Passes over the data; fractions allowed.")
        learning_rate: PositiveFloat = Field(5e-5, description="Peak learning rate.")
        select_every: PositiveInt = Field(25, description="Steps between two scores on the development data.")
        temperature: PositiveFloat = Field(0.05, description="Divides the cosines.")
        objective: Literal["infonce", "bce_softmax"] = Field(
            "infonce", description="infonce leaves masked pairs out; bce_softmax is the official code's loss."
        )
        phi: float = Field(0.95, gt=-1, le=1, description="Pairs of a larger reference cosine are masked; 1: none.")
        reference: str = Field(
            "simcse",
            description="The frozen encoder of the mask: simcse (trained first, on the column text), initial (this one, before training), or any "
            "encoder's name or folder.",
        )
        reference_epochs: PositiveFloat = Field(1.0, description="Passes of reference=simcse over the sentences.")
        reference_learning_rate: NonNegativeFloat = Field(3e-5, description="Peak learning rate of reference=simcse.")
        # the official filter's type 15
        curate: bool = Field(True, description="Swap and drop triplets by their scores, where there are scores.")
        positive_line: float = Field(3.0, ge=0, le=5, description="Least score of a positive.")
        negative_line: float = Field(3.0, ge=0, le=5, description="Largest score of a negative.")
        require_gap: bool = Field(True, description="Drop triplets with two equal scores.")
        swap_equal: bool = Field(True, description="Swap equal scores, as the official filter does.")
        negative_limit: float | None = Field(
            None, ge=0, le=5, description="Drop negatives that score higher before swapping; official generation: 4."
        )
        generator: str | None = Field(
            None,
            description="Writes and scores what the data lack: folder or Hub name of a language model, or http(s) address of an "
            "OpenAI-compatible endpoint, such as http://localhost:8000/v1; empty: none.",
        )
        generator_model: str | None = Field(None, description="The model that the endpoint is asked for.")
        prompts: str | None = Field(None, description="Folder of entail.txt, contradict.txt, score.txt; empty: ours.")
        contrast: float = Field(0.0, ge=0, le=1, description="a of contrastive generation; 0: plain decoding.")
        plausible: float = Field(0.1, ge=0, le=1, description="Least probability of a token, as a share of the best.")
        max_new_tokens: PositiveInt = Field(256, description="Longest answer of the generator.")

    def build(self, facts: Facts) -> None:
        self.head = Head(self.encoder.dim)
        if self.settings.reference not in ("initial", "simcse"):
            find(self.settings.reference, None)  # one that is not there is refused before anything is written

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        if self.settings.generator is None:
            curated(data, self.settings)
        else:
            open_prompts(self.settings.prompts)

    @property
    def masks(self) -> bool:
        return self.settings.phi < 1

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        stages = [Stage("train")]
        if self.masks and self.settings.reference == "simcse":
            stages.insert(0, Stage("reference", settings=reference_settings(self.settings), method=SimCSE))
        return stages[len(finished)] if len(finished) < len(stages) else None

    def prepare(self, data: Data, previous: Method | None) -> None:
        """Triplets, and the reference's vectors of their texts: it is frozen, so that one pass serves all epochs."""
        found = curated(data, self.settings)
        self.rows, n = found.rows, len(found)
        self.place = torch.full((len(data),), -1)
        self.place[found.rows] = torch.arange(n)
        texts = {"anchor": found.anchors, "positive": found.positives, "negative": found.negatives}
        self.columns = {name: self.encoder.open_column(side) for name, side in texts.items()}
        every = [text for side in texts.values() for text in side]
        self.frozen = FrozenVectors(every, self.reference(previous)) if self.masks else None
        self.remarks = [*found.remarks, *self.mask_remarks(n)]

    def reference(self, previous: Method | None) -> TextEncoder:
        if previous is not None:
            return previous.encoder
        return self.encoder if self.settings.reference == "initial" else open_encoder(self.settings.reference)

    def reference_vectors(self, places: LongTensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of anchors, positives and negatives of some triplets, (b, d) each; nothing is alike where nothing is masked."""
        if not self.masks:
            return (torch.zeros(len(places), 1),) * 3
        return tuple(self.frozen[places + side * len(self.rows)] for side in range(3))

    def mask_remarks(self, n: int) -> list[str]:
        """What share of pairs the mask leaves out, by a sample of rows, and how many negatives of a sentence's own."""
        if not self.masks:
            return []
        places = torch.randperm(n, generator=seeded(0))[:SAMPLED]
        b = len(places)
        kept = keep_by_reference(*self.reference_vectors(places), phi=self.settings.phi)(slice(0, b), slice(0, 2 * b))
        own = int((~kept[torch.arange(b), torch.arange(b, 2 * b)]).sum())
        share = float((~kept).sum()) / (kept.numel() - b)
        return [
            f"the reference masks {share:.2%} of pairs, and the own negative of {own:,} of {b:,} sentences looked at"
        ]

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        return [self.rows[batch] for batch in shuffled_batches(len(self.rows), self.settings.batch_size, generator)]

    def views(self, batch: Batch) -> dict[str, View]:
        places = self.place[batch.rows]
        return {name: View(to_device(column[places], batch.device)) for name, column in self.columns.items()}

    def embed(self, view: View) -> Tensor:
        return self.head(self.encoder(view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        anchors, positives, negatives = (embeddings[name] for name in ("anchor", "positive", "negative"))
        reference = (side.to(anchors.device) for side in self.reference_vectors(self.place[batch.rows]))
        keep = keep_by_reference(*reference, phi=self.settings.phi, group=batch.group)
        self.watch_mask(keep, len(anchors))
        options = {"negatives": negatives, "temperature": self.settings.temperature}
        if self.settings.objective == "infonce":
            return {"info_nce": info_nce(anchors, positives, pair=keep, **options)}
        with torch.autocast(anchors.device.type, enabled=False):
            options["negatives"] = at_least_float32(negatives)
            scores = logits(at_least_float32(anchors), at_least_float32(positives), **options)
            return {"bce_softmax": softmax_bce(scores, keep(slice(0, len(scores)), slice(0, scores.shape[1])))}

    @torch.no_grad()
    def watch_mask(self, keep: Callable[[slice, slice], Tensor], b: int) -> None:
        """The share of masked pairs, and how many anchors are left without any negative: their loss is 0."""
        left = torch.cat([keep(rows, slice(0, 2 * b)).sum(dim=1) - 1 for rows in in_chunks(b, AT_ONCE)])
        alone = int((left == 0).sum())
        self.watch("masked", 1 - left.double().mean() / (2 * b - 1))
        self.watch("without_negatives", alone)
        if alone:
            warnings.warn(
                f"The mask leaves some sentences of a batch no negative, so that they teach nothing: phi={self.settings.phi} is too low "
                "for this reference encoder.",
                stacklevel=2,
            )

    def chance(self, batch: Batch) -> dict[str, float]:
        columns = 2 * len(batch)
        if self.settings.objective == "infonce":
            return {"info_nce": math.log(columns)}
        return {"bce_softmax": (math.log(columns) - (columns - 1) * math.log1p(-1 / columns)) / columns}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return 2 * batch_size - 1


def reference_settings(settings: MultiCSR.Settings) -> SimCSE.Settings:
    """Unsupervised SimCSE with what both methods share, and its own rate and epochs."""
    shared = settings.model_dump(include={*MethodSettings.model_fields, "temperature"})
    own = {"epochs": settings.reference_epochs, "learning_rate": settings.reference_learning_rate}
    return SimCSE.Settings(**{**shared, **own, "dropout_alone": True})


def keep_by_reference(
    anchors: Tensor, positives: Tensor, negatives: Tensor, *, phi: float, group: LongTensor | None = None
) -> Callable[[slice, slice], Tensor]:
    """Which pairs of b triplets are no false negatives, by a frozen encoder's vectors.

    Args:
        anchors: (b, d), of the reference encoder; not normalised.
        positives: (b, d), likewise.
        negatives: (b, d), likewise.
        phi: in (-1, 1]; a pair is kept where its cosine is at most phi. At 1 every pair is.
        group: (b,) integers; columns of an anchor's group are left out, but for its own negative.

    Returns:
        A function of a slice of the b anchors and one of the 2b columns, positives then negatives, that gives a tile of bool.
        An anchor's own positive is always kept.

    Raises:
        ShapesDiffer: the three have not one shape.
        ArgumentInvalid: phi is not in (-1, 1].
    """
    check_phi(phi)
    if not anchors.shape == positives.shape == negatives.shape:
        raise ShapesDiffer(
            f"The reference must see the same triplets as the trained encoder, three times (b, d); got {tuple(anchors.shape)}, "
            f"{tuple(positives.shape)} and {tuple(negatives.shape)}."
        )
    unit = functional.normalize(anchors, dim=-1)
    columns = functional.normalize(torch.cat([positives, negatives]), dim=-1)
    row = torch.arange(len(anchors), device=anchors.device)
    column = torch.arange(len(columns), device=anchors.device)

    def keep(tile: slice, among: slice) -> Tensor:
        kept = (unit[tile] @ columns[among].T).clamp(max=1) <= phi  # rounding must not mask what phi=1 keeps
        mine, theirs = row[tile, None], column[None, among]
        if group is not None:
            kept &= (group[mine] != group[theirs % len(row)]) | (theirs % len(row) == mine)
        return kept | (theirs == mine)

    return keep


def softmax_bce(scores: Tensor, keep: Tensor) -> Tensor:
    """The official code's loss: the binary cross-entropy of all entries of a softmax, in which a masked logit is 0 and stays.

    Args:
        scores: (b, 2b) logits, the positive of row i in column i.
        keep: (b, 2b) bool.

    Returns:
        A scalar, the mean over 2b² entries: about 1 / 2b of InfoNCE's scale. Where a probability rounds to 1, log(1 - p) is that of the
        nearest number below, without gradient; the official code gives infinity.

    Raises:
        ShapesDiffer: they are not both (b, 2b).
    """
    b = len(scores)
    if scores.shape != (b, 2 * b) or keep.shape != scores.shape:
        raise ShapesDiffer(f"scores and keep must both be (b, 2b); got {tuple(scores.shape)} and {tuple(keep.shape)}.")
    shares = (scores * keep).softmax(dim=1)
    own = torch.eye(b, 2 * b, dtype=torch.bool, device=scores.device)
    found = (scores * keep).log_softmax(dim=1)[own].sum()
    apart = (1 - shares).clamp_min(torch.finfo(shares.dtype).eps / 2).log().masked_fill(own, 0).sum()
    return -(found + apart) / scores.numel()

"""DSE: one vector a sentence that scores pairs nearly as well as a model that reads both at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from contrapose.data.batches import Batch, Data, Facts
from contrapose.data.columns import Column
from contrapose.errors import TargetsInvalid, TeacherInvalid
from contrapose.text._cross_encoder import CrossEncoder
from contrapose.text._heads import Projection
from contrapose.text._pair_encoder import PairEncoder, PairHead, pair_features
from contrapose.text._pair_task import (
    classes_of,
    distillation_loss,
    labelled_rows,
    outputs_of,
    reduce_logits,
    targets,
    task_loss,
    task_of,
    weights,
)
from contrapose.text._teacher import (
    SequenceClassifier,
    kept_scores,
    read_teacher_scores,
    weights_digest,
    write_teacher_scores,
)
from contrapose.text.data import texts_of
from contrapose.training.encoder import Encoder
from contrapose.training.method import Card, Method, Stage, StageRecord, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings

__all__ = [
    "DSE",
    "PairHead",
    "distillation_loss",
    "pair_features",
    "reduce_logits",
    "task_loss",
    "write_teacher_scores",
]


class DSE(ViewMethod):
    r"""Distil a slow scorer of sentence pairs into one vector a sentence and a cheap head for pairs.

    Pick it when you have pairs of texts with a score or a class, and want to score every query with every candidate: a model that reads
    both texts at once takes n · m passes for that, this one n + m. Without labels, use `simcse` or `esimcse`; where a cosine is all that is
    asked of the pairs, use `pairs`.

    Two stages. The teacher reads both sentences as one text and learns the labels (`teacher=train`); or it is any sequence classifier of
    transformers, or a file of its logits. Then the student, from the same pretrained encoder: with $u, v$ the vectors of the two
    sentences, both (b, d), $s = \mathrm{MLP}([u, v, u \circ v, |u - v|])$ its scores and $t$ the teacher's, both (b, c), and $y$ the labels,

    $$L = (1 - a)\, L_{\mathrm{task}}(s, y) + a\, \frac{1}{b} \sum_i \sum_c (s_{ic} - t_{ic})^2.$$

    Raw logits: no softmax, no temperature; summed over classes. $L_{\mathrm{task}}$ is the squared error of a `score`, the cross-entropy of
    the log-odds of a `label` of two classes, or the cross-entropy of several. A teacher with two logits gives their difference, the
    log-odds of the second class in alphabetical order. `distillation=0` or `teacher=none` is plain Siamese training.

    Rows whose column `labelled` is 0 have no label that counts: the student learns the teacher's score of them alone, and the teacher
    does not learn from them. `symmetric` scores both orders and takes the mean; the official code scores the given order.

    **Example.** Scores of pairs, and of every query with every candidate:

    ```python
    import contrapose

    run = contrapose.train("dse", data="pairs.csv", out="runs/dse")  # columns sentence1, sentence2, score
    scorer = run.model.encoder()
    scorer.score_pairs(["a cat"], ["a dog"])
    scorer.score_matrix(queries, candidates)  # (n, m), each text embedded once
    ```

    **Pitfalls.** Where paper and official code differ: the schedule counts optimiser steps; the code counts batches, and so goes half way
    with its accumulation of 2. Its 16 rows with 2 accumulated are `batch_size=32` here, since the loss is a mean over rows; `memory` bounds
    what a step takes. Its warm-up is 10 % of the steps: set `warmup_steps`. Logits in a file stand with the id of their pair and are
    refused for other data. The teacher trained here puts both texts into the first segment.

    Barkan et al., AAAI 2020; official code microsoft/Distilled-Sentence-Embedding at 7e3e87b.
    """

    card = Card(
        modality="text",
        title="DSE: distilled sentence embedding",
        paper="Scalable Attentive Sentence-Pair Modeling via Distilled Sentence Embedding",
        venue="AAAI",
        year=2020,
        url="https://arxiv.org/abs/1908.05161",
        columns=(
            Column("sentence1", "text", "One sentence of the pair."),
            Column("sentence2", "text", "The other."),
            Column("score", "score", "What the pair is rated: regression.", required=False),
            Column("label", "label", "The class of the pair: classification.", required=False),
            Column(
                "labelled", "number", "1: the label counts; 0: the teacher's score alone is learned.", required=False
            ),
        ),
        produces="pair scorer",
    )

    class Settings(MethodSettings):
        # the official code's defaults for the student
        batch_size: PositiveInt = Field(32, description="Pairs in a batch, over all processes.")
        epochs: PositiveFloat = Field(5.0, description="Passes over the data; fractions allowed.")
        learning_rate: NonNegativeFloat = Field(2e-5, description="Peak learning rate of the student.")
        weight_decay: NonNegativeFloat = Field(
            0.01, description="Decay of weight matrices; biases and norms have none."
        )
        distillation: float = Field(0.5, ge=0, le=1, description="Share a of the teacher in the loss; 0: labels alone.")
        teacher: str = Field(
            "train",
            description="train: a cross-encoder, here and first; none; a folder or Hub name of a sequence classifier; or FILE.npz of logits.",
        )
        teacher_epochs: PositiveFloat = Field(3.0, description="Passes of the teacher over the labelled pairs.")
        teacher_learning_rate: NonNegativeFloat = Field(2e-5, description="Peak learning rate of the teacher.")
        teacher_batch_size: PositiveInt = Field(32, description="Pairs in a batch of the teacher.")
        max_pair_tokens: PositiveInt = Field(128, description="The teacher reads so many tokens of a pair.")
        use_unlabelled: bool = Field(True, description="Learn the teacher's score of rows without label.")
        pooling: str | None = Field(
            "concat_top4_mean",
            description="Of the student; empty: the encoder's own. concat or mean, topK, mean, sqrt or max, _cls.",
        )
        projection: PositiveInt | None = Field(
            None, description="Size of a linear layer after the pooling; empty: none."
        )
        dropout: float = Field(0.1, ge=0, lt=1, description="On the vectors in training.")
        head: Literal["concat", "dot"] = Field(
            "concat", description="What the head sees of a pair: [u, v, uv, |u - v|], or u · v."
        )
        hidden: NonNegativeInt | None = Field(
            None, description="Width of the head's hidden layer; 0: none; empty: 512 for concat, none for dot."
        )
        symmetric: bool = Field(False, description="Score both orders of a pair and take the mean.")
        task: Literal["regression", "classification"] | None = Field(
            None, description="Which column counts where there are both score and label."
        )

        @property
        def taught(self) -> bool:
            return self.distillation > 0 and self.teacher != "none"

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        settings = self.settings
        rows = None if settings.taught and settings.use_unlabelled else labelled_rows
        stages = [Stage(rows=rows)]
        if settings.taught and settings.teacher == "train":
            shared = settings.model_dump(include={*MethodSettings.model_fields, "max_pair_tokens", "dropout", "task"})
            own = {"epochs": settings.teacher_epochs, "learning_rate": settings.teacher_learning_rate}
            own["batch_size"] = settings.teacher_batch_size
            stages.insert(
                0, Stage("teacher", CrossEncoder.Settings(**{**shared, **own}), rows=labelled_rows, method=CrossEncoder)
            )
        return stages[len(finished)] if len(finished) < len(stages) else None

    def build(self, facts: Facts) -> None:
        settings = self.settings
        self.task = task_of(facts, settings.task)
        self.classes = classes_of(facts, self.task)
        if settings.pooling is not None:
            self.encoder.put_pooling(settings.pooling)
        if settings.projection is not None:
            self.encoder.put_head(Projection(self.encoder.dim, settings.projection))
        self.encoder.normalise = False
        hidden = settings.hidden if settings.hidden is not None else {"concat": 512, "dot": 0}[settings.head]
        self.pair_head = PairHead(
            self.encoder.dim,
            outputs_of(facts, self.task),
            kind=settings.head,
            hidden=hidden,
            symmetric=settings.symmetric,
        )
        self.dropout = nn.Dropout(settings.dropout)
        self.teacher: Tensor | None = None  # (n, c) logits; `prepare` has them

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        if "labelled" in data.columns:
            said = data.columns["labelled"][torch.arange(len(data))]
            if not ((said == 0) | (said == 1)).all():
                row = int(((said != 0) & (said != 1)).int().argmax())
                raise TargetsInvalid(
                    f"{data.source}: column 'labelled' is {float(said[row]):g} in row {row}; it must be 0 or 1."
                )
            if not said.any() and (self.settings.distillation < 1 or self.settings.teacher == "train"):
                raise TargetsInvalid(
                    f"{data.source}: no row is labelled, so there is nothing to train on; set 'labelled' to 1 where the label counts."
                )
        if self.settings.taught and self.settings.teacher.endswith(".npz"):
            self.taught_by(data, None)

    def prepare(self, data: Data, previous: Method | None) -> None:
        self.teacher = self.taught_by(data, previous) if self.settings.taught else None

    def taught_by(self, data: Data, previous: Method | None) -> Tensor:
        """The teacher's logits of every row as the student learns them, (n, c). Raises TeacherInvalid."""
        first, second = (texts_of(data.columns[name]) for name in ("sentence1", "sentence2"))
        said, source = "Scoring with the teacher", self.settings.teacher
        if source == "train":
            logits = kept_scores(
                lambda rows: previous.logits(data, rows), first, second, weights_digest(previous.state_dict()), said
            )
        elif source.endswith(".npz"):
            logits = read_teacher_scores(source, first, second)
        else:
            read = SequenceClassifier(source, self.classes, self.settings.max_pair_tokens)
            logits = kept_scores(
                lambda rows: read(*([side[row] for row in rows.tolist()] for side in (first, second))),
                first,
                second,
                f"{read.digest} {read.order}",
                said,
            )
        reduced = reduce_logits(logits, self.task)
        if reduced.shape[1] != self.pair_head.outputs:
            needs = {"regression": "1", "binary": "1 or 2", "multiclass": str(len(self.classes))}[self.task]
            raise TeacherInvalid(
                f"The teacher {source} gives {logits.shape[1]} logits a pair and {self.task} needs {needs}."
            )
        return reduced

    def views(self, batch: Batch) -> dict[str, View]:
        return {"first": View(batch["sentence1"]), "second": View(batch["sentence2"])}

    def embed(self, view: View) -> Tensor:
        return self.dropout(self.encoder(view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        scores = self.pair_head(embeddings["first"], embeddings["second"])
        task = task_loss(scores, targets(batch, self.task), self.task, weights(batch))
        if self.teacher is None:
            return {"task": task}
        share, taught = self.settings.distillation, self.teacher[batch.rows].to(scores.device)
        self.watch("gap", (scores - taught).abs().mean())
        return {"task": (1 - share) * task, "distillation": share * distillation_loss(scores, taught)}

    def encoders(self) -> dict[str, Encoder]:
        return {"encoder": PairEncoder(self.encoder, self.pair_head, self.classes)}

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """The head's score; of several classes the cosine, since they have no order."""
        if self.pair_head.outputs > 1:
            return super().score(queries, candidates)
        return self.pair_head.matrix(queries, candidates)[..., 0]

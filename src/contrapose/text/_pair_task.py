"""What pairs of texts are rated with: a score, one of two classes, or one of several; and the losses of each."""

from __future__ import annotations

from typing import Literal

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts
from contrapose.errors import ArgumentInvalid, ShapesDiffer, TargetsInvalid

Task = Literal["regression", "binary", "multiclass"]
COLUMNS = {"regression": "score", "classification": "label"}


def task_of(facts: Facts, asked: Literal["regression", "classification"] | None = None) -> Task:
    """The task by the column that there is, or the one that was asked for. Raises TargetsInvalid."""
    there = [kind for kind, column in COLUMNS.items() if column in facts.columns]
    if asked is None and len(there) != 1:
        which = "both columns 'score' and 'label'" if there else "neither a column 'score' nor a column 'label'"
        mend = (
            "say by task=regression or task=classification which is meant"
            if there
            else "name one by --map score=COLUMN or --map label=COLUMN"
        )
        raise TargetsInvalid(f"The data have {which}; {mend}.")
    kind = asked or there[0]
    if kind not in there:
        raise TargetsInvalid(f"task={kind} needs a column '{COLUMNS[kind]}', which the data do not have.")
    if kind == "regression":
        return "regression"
    classes = facts.categories["label"]
    if len(classes) < 2:
        raise TargetsInvalid(
            f"Every label is '{classes[0]}', so there is nothing to tell apart; give pairs of two classes at least."
        )
    return "binary" if len(classes) == 2 else "multiclass"


def classes_of(facts: Facts, task: Task) -> tuple[str, ...]:
    """The names of the classes, sorted; none for regression."""
    return () if task == "regression" else tuple(facts.categories["label"])


def outputs_of(facts: Facts, task: Task) -> int:
    """Outputs of a scorer: one, or one a class where there are more than two."""
    return len(facts.categories["label"]) if task == "multiclass" else 1


def targets(batch: Batch, task: Task) -> Tensor:
    return batch["score" if task == "regression" else "label"]


def weights(batch: Batch) -> Tensor | None:
    """1 for the rows that have a label, 0 for those that have none; None where all have one."""
    return batch["labelled"] if "labelled" in batch else None  # noqa: SIM401 (no mapping)


def labelled_rows(data: Data) -> LongTensor:
    """The rows that have a label."""
    rows = torch.arange(len(data))
    return rows if "labelled" not in data.columns else rows[data.columns["labelled"][rows] > 0]


def task_loss(scores: Tensor, labels: Tensor, task: Task, weight: Tensor | None = None) -> Tensor:
    """The mean over b rows of the loss against labels.

    scores (b, c). "regression": squared error, labels (b,) or (b, 1). "binary": cross-entropy of the log-odds, labels 0 or 1 of the same
    shapes. "multiclass": cross-entropy of c logits, labels (b,) integers. `weight` (b,): 0 leaves a row out; with none left the loss is 0.
    Raises ArgumentInvalid for labels outside 0 … c − 1, ShapesDiffer.
    """
    if len(labels) != len(scores):
        raise ShapesDiffer(f"{len(scores)} rows of scores have {len(labels)} labels; one each is needed.")
    classes = {"regression": 0, "binary": 2, "multiclass": scores.shape[1]}[task]
    counted = labels if weight is None else labels[weight > 0]
    if classes and counted.numel() and not (int(counted.min()) >= 0 and int(counted.max()) < classes):
        raise ArgumentInvalid(
            f"labels are the numbers 0 to {classes - 1} of the classes; got {int(counted.min())} to {int(counted.max())}."
        )
    if task == "multiclass":
        each = functional.cross_entropy(scores, labels.reshape(-1).long(), reduction="none")
    else:
        loss = functional.mse_loss if task == "regression" else functional.binary_cross_entropy_with_logits
        each = loss(scores.squeeze(1), labels.reshape(-1).to(scores.dtype), reduction="none")
    if weight is None:
        return each.mean()
    weight = weight.to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp(min=1)


def distillation_loss(scores: Tensor, teacher: Tensor) -> Tensor:
    """Squared errors, summed over the c outputs and averaged over the b rows; both (b, c), raw logits. The teacher has no gradient."""
    if scores.shape != teacher.shape:
        raise ShapesDiffer(
            f"scores have shape {tuple(scores.shape)} and the teacher's {tuple(teacher.shape)}; they must agree."
        )
    return (scores - teacher.detach().to(scores.dtype)).square().sum(dim=1).mean()


def reduce_logits(logits: Tensor, task: Task) -> Tensor:
    """A teacher's logits as a student learns them: of two classes, (b, 2), the log-odds of the second, (b, 1); others as they are."""
    return logits[:, 1:] - logits[:, :1] if task == "binary" and logits.shape[1] == 2 else logits

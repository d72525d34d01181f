"""COCONUT's losses: what is rehearsed stays near the teacher and away from the student; audio meets text."""

from __future__ import annotations

import torch
from torch import LongTensor, Tensor
from torch.nn.functional import normalize

from contrapose.objectives import info_nce, log_partition, supervised
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = (
    "student", "teacher", "text", "labels", "is_rehearsal", "tau", "lambda_mm", "lambda_nspt", "ce_term", "acc_matrix", "task_sizes",
)  # fmt: skip
TASKS = "coconut, because accuracies over a sequence of tasks are no objective"
WAITS = {
    "nspt_num_anchors": "coconut, because no loss here counts its anchors",
    "acc_after_each_task": TASKS,
    "avg_acc": TASKS,
    "last_acc": TASKS,
    "forgetting": TASKS,
}
NSPT = "`log_partition(student, students, not_itself)` less the mean over teachers of the label"
CALLS = {
    "nspt": NSPT,
    "nspt_self_positive": NSPT,
    "nspt_grad_student": NSPT,
    "ntpt": "`log_partition(student, teachers, not_itself)` less the mean over teachers of the label",
    "nspt_proper": "`info_nce(student, teachers and students, index=a positive, pair=students of other labels)`",
    "supcon_student": "`supervised(students, labels=…)`, where new rows have labels of their own",
    "mm_supervised": "`supervised(audio, text, labels=…)`, and text before audio",
    "mm_instance": "`info_nce(audio, text, index=…)`, and text before audio",
    "total": f"{NSPT}; `supervised(audio, text, labels=…)`, and text before audio",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    student = leaf(given["student"])
    teacher, text = torch.tensor(given["teacher"]), torch.tensor(given["text"])
    labels, rehearsed = torch.tensor(given["labels"]), torch.tensor(given["is_rehearsal"])
    t = float(given["tau"])
    positive = rehearsed[:, None] & rehearsed & (labels[:, None] == labels)
    others = positive & ~torch.eye(len(labels), dtype=torch.bool)
    made = {
        "nspt": towards_teacher(student, teacher, student, others, t),
        "nspt_self_positive": towards_teacher(student, teacher, student, positive, t),
        "ntpt": towards_teacher(student, teacher, teacher, others, t),
        "nspt_proper": proper(student, teacher, labels, others, t),
        "supcon_student": among_students(student, labels, rehearsed, t) if bool(others.any()) else 0.0,
        "mm_supervised": (
            labelled(student, text, labels, ~rehearsed, t) + labelled(text, student, labels, ~rehearsed, t)
        )
        / 2,
        "mm_instance": (own_transcript(student, text, ~rehearsed, t) + own_transcript(text, student, ~rehearsed, t))
        / 2,
    }
    weights = {"mm_supervised": float(given["lambda_mm"]), "nspt": float(given["lambda_nspt"])}
    made["total"] = float(given["ce_term"]) + sum(weight * made[name] for name, weight in weights.items())
    return made | gradients(made["nspt"], nspt_grad_student=student)


def towards_teacher(anchors: Tensor, positives: Tensor, others: Tensor, positive: Tensor, t: float) -> Tensor:
    """Over anchors with a positive: the partition over all other rows, less the mean logit of the positives."""
    partition = log_partition(anchors, others, temperature=t, not_itself=True)
    share = positive.to(anchors) / positive.sum(1, keepdim=True).clamp_min(1)
    pull = (normalize(anchors, dim=1) * (share @ normalize(positives, dim=1))).sum(1) / t
    return mean_of(partition - pull, positive.any(1))


def proper(student: Tensor, teacher: Tensor, labels: LongTensor, positive: Tensor, t: float) -> Tensor:
    """Each positive stands in its own denominator, beside students of other labels alone."""
    anchor, place = positive.nonzero(as_tuple=True)
    columns = torch.cat([teacher, student])
    others = torch.cat([torch.zeros_like(positive), labels[:, None] != labels], 1)[anchor]
    each = info_nce(student[anchor], columns, index=place, pair=others, temperature=t, reduction="none")
    rows = student.new_zeros(len(student)).index_add(0, anchor, each) / positive.sum(1).clamp_min(1)
    return mean_of(rows, positive.any(1))


def among_students(student: Tensor, labels: LongTensor, rehearsed: Tensor, t: float) -> Tensor:
    """Rehearsed rows are positives of one another; a new row is nobody's, so it gets a label of its own."""
    alone = labels.max() + 1 + torch.arange(len(labels))
    return supervised(student, labels=torch.where(rehearsed, labels, alone), temperature=t)


def labelled(anchors: Tensor, keys: Tensor, labels: LongTensor, new: Tensor, t: float) -> Tensor:
    return supervised(anchors[new], keys, labels=labels[new], candidate_labels=labels, temperature=t)


def own_transcript(anchors: Tensor, keys: Tensor, new: Tensor, t: float) -> Tensor:
    return info_nce(anchors[new], keys, index=new.nonzero()[:, 0], temperature=t)


def mean_of(rows: Tensor, kept: Tensor) -> Tensor:
    return rows[kept].mean() if bool(kept.any()) else rows.sum() * 0

"""What goes wrong in training, and calls of the objectives that make no sense."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class NonFinite(ContraposeError):
    """NaN or infinity in a term of the objective, in a gradient or in the weights.

    **Why it matters.** One NaN spreads to every weight within a step; what follows is noise that looks like a run.

    **Example.** A learning rate of 10, or pixel values that hold NaN.

    **Mend.** The message names what and when; the last good checkpoint is kept. Lower the learning rate or raise the temperature, then
    start anew, or resume to see it again.
    """

    code = "CL-TRAIN-001"


class NoNegatives(ContraposeError):
    """Anchors would have no negatives.

    **Why it matters.** Without negatives the objective is 0 whatever the encoder does: the run would look perfect and learn nothing.

    **Example.** `--set batch_size=1`, or data in which every row has the same `group_id`.

    **Mend.** A larger batch, or groups that tell rows apart.
    """

    code = "CL-TRAIN-002"


class TemperatureInvalid(ContraposeError):
    """A temperature that is 0, negative, infinite or NaN.

    **Why it matters.** A negative temperature turns the objective upside down: positives are pushed apart and negatives together, while the
    loss looks as usual. At 0 or NaN every gradient is NaN.

    **Example.** `info_nce(anchors, positives, temperature=-0.5)`.

    **Mend.** A positive number: 0.05 is usual for sentences, 0.07 for images. For a learned one pass `log_temperature.exp()`, which stays
    positive.
    """

    code = "CL-TRAIN-003"


class ShapesDiffer(ContraposeError):
    """Arrays or modules that belong together do not fit: other numbers of rows or dimensions, or other parameters.

    **Why it matters.** Row i of one belongs to row i of the other. Cutting or broadcasting them to fit would train on wrong pairs.

    **Example.** 64 anchors with 63 positives; a queue of 128 dimensions for embeddings of 384.

    **Mend.** The message gives both shapes. Give one row per anchor, from encoders of one dimension.
    """

    code = "CL-TRAIN-004"


class ArgumentInvalid(ContraposeError):
    """An argument of an objective, a queue or a momentum copy outside what it allows.

    **Why it matters.** A value that is clipped or passed over in silence trains something other than what was asked for.

    **Example.** `similarity="cos"`; a momentum of 1.5.

    **Mend.** The message gives the value, and what is allowed.
    """

    code = "CL-TRAIN-005"


class DoubleBackward(ContraposeError):
    """A second derivative of an objective was asked for.

    **Why it matters.** The objectives compute their gradient tile by tile and keep no graph of it. A second derivative that is silently
    zero or partial would train on nothing.

    **Example.** `torch.autograd.grad(loss, embeddings, create_graph=True)` for a gradient penalty.

    **Mend.** Leave out `create_graph=True`, or write the term in plain torch.
    """

    code = "CL-TRAIN-006"


class NoPositives(ContraposeError):
    """No anchor has a positive.

    **Why it matters.** A loss over no positives is 0 whatever the encoder does: the run would look perfect and learn nothing.

    **Example.** `supervised(z, labels=torch.arange(8))`: every row has a label of its own.

    **Mend.** Batches in which labels repeat, or two views of every row.
    """

    code = "CL-TRAIN-007"


class MemoryTooSmall(ContraposeError):
    """The memory that was allowed does not hold a step, whatever is cut into chunks.

    **Why it matters.** The run would be killed by the system in its first step, without a word.

    **Example.** `--memory 100MB` for an encoder whose weights and optimiser take 350 MB.

    **Mend.** The message says what is needed: give more, or take a smaller batch or encoder.
    """

    code = "CL-TRAIN-008"


class CovarianceSingular(ContraposeError):
    """Channels that are to be whitened depend on each other: one is constant, one follows from the others, or there are too few rows.

    **Why it matters.** Whitening divides by how far channels vary on their own. Where they do not vary, that is a division by 0, and what
    comes out is infinite or rounding blown up to the size of the rest.

    **Example.** `--set groups=1 --set batch_size=64` for an encoder of 384 dimensions: 64 rows span 63 directions.

    **Mend.** More rows in a batch, more and so smaller groups, or `epsilon=1e-5`.
    """

    code = "CL-TRAIN-009"


class TeacherInvalid(ContraposeError):
    """A teacher's scores that do not belong to the pairs, or a teacher that cannot score them.

    **Why it matters.** A logit beside the wrong pair ruins distillation without a sign: the loss falls all the same.

    **Example.** `--set teacher=scores.npz`, made before the data were shuffled; a classifier of three classes for labels of two.

    **Mend.** The message names the row, or the number of outputs. Score the data anew with `write_teacher_scores`, or leave `teacher=train`.
    """

    code = "CL-TRAIN-010"

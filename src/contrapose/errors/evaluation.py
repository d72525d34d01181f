"""Evaluations that cannot be carried out."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class RelevantInvalid(ContraposeError):
    """The relevant candidates of a query cannot be used: there are none, or a number is no candidate's.

    **Why it matters.** A query without a right answer would count as a failure of every encoder, or be left out without a word.

    **Example.** Candidate 500 is relevant to query 3, and there are 464 candidates (0 to 463).

    **Mend.** Leave such queries out, or add the missing candidates; the message names the first query and how many there are.
    """

    code = "CL-EVAL-001"


class EvaluationShapesDiffer(ContraposeError):
    """Arrays of an evaluation do not fit: queries and candidates of other dimensions, scores of another shape, two systems of other rows.

    **Why it matters.** Comparing other rows or other spaces gives a number, and the number means nothing.

    **Example.** Queries of an encoder with 384 dimensions and candidates of one with 768.

    **Mend.** Embed both with the same encoder, and score both systems on the same rows in the same order.
    """

    code = "CL-EVAL-002"


class ValuesNotFinite(ContraposeError):
    """NaN or infinity among embeddings, scores or values per row.

    **Why it matters.** NaN compares false with everything: a broken encoder would rank first.

    **Example.** An encoder that overflowed in half precision.

    **Mend.** The message names the array and its first row; look at that row's input, or embed in fp32.
    """

    code = "CL-EVAL-003"


class TooFewValues(ContraposeError):
    """Too little for the figure asked for: an empty set, or a bootstrap of fewer than two values.

    **Why it matters.** The spread of one value is unknown; an interval of width 0 would look like certainty.

    **Example.** A test file with a single pair.

    **Mend.** Evaluate on more rows; a few hundred give intervals narrow enough to compare encoders.
    """

    code = "CL-EVAL-004"


class EvaluationSettingInvalid(ContraposeError):
    """A setting of an evaluation outside what it allows: a cut-off k below 1, no resamples, a confidence of 95 in place of 0.95.

    **Why it matters.** The figure would be empty, or carry a name that it does not deserve.

    **Example.** `ks=(0, 5)`.

    **Mend.** The message gives the value, and what is allowed.
    """

    code = "CL-EVAL-005"


class ResultInvalid(ContraposeError):
    """A saved result that cannot be read: not JSON, or parts of it are missing.

    **Why it matters.** A table with holes would hide which system was not measured.

    **Example.** A result file cut off while it was copied.

    **Mend.** Evaluate again: `contrapose evaluate RUN --on PROTOCOL=DATA`.
    """

    code = "CL-EVAL-006"


class ProtocolUnknown(ContraposeError):
    """There is no evaluation protocol of that name for the method's modality.

    **Why it matters.** A result must say how it was measured; a guess would say it wrongly.

    **Example.** `--on retreival=pairs.csv`.

    **Mend.** The message offers the nearest name.
    """

    code = "CL-EVAL-007"


class ProtocolDataInvalid(ContraposeError):
    """The data of an evaluation protocol are not as the protocol needs them.

    **Why it matters.** Relevance that cannot be read is relevance that is missing, and the score would be too low.

    **Example.** `--on retrieval=folder` where the folder has no `qrels/test.tsv`.

    **Mend.** The message names the file and the line, and what was expected.
    """

    code = "CL-EVAL-008"


class HeldOutLearned(ContraposeError):
    """What is to be predicted would be among what is learned from.

    **Why it matters.** A score on interactions that the encoder was trained on says nothing about the next one.

    **Example.** `--on next_item=purchases.csv --set leave_out=0` with the same file as `--data`.

    **Mend.** `leave_out=2` keeps each user's last two interactions out of training, the test's and the development data's; or measure on another file.
    """

    code = "CL-EVAL-080"

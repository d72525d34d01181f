"""Run folders, checkpoints and files that are written."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class RunExists(ContraposeError):
    """The output folder exists already.

    **Why it matters.** A run is never overwritten in silence: its weights may be hours of work.

    **Example.** The same `contrapose train … --out runs/first` a second time.

    **Mend.** Go on with `--resume`, or give another `--out`.
    """

    code = "CL-RUN-001"


class RunMissing(ContraposeError):
    """A folder that should be a run, and is not.

    **Why it matters.** There is nothing to resume, evaluate or report on.

    **Example.** `contrapose evaluate runs/frist --on retrieval=pairs.csv`.

    **Mend.** Give the folder that `--out` named; it holds a `config.yaml`.
    """

    code = "CL-RUN-002"


class ResumeChanged(ContraposeError):
    """A run is to be resumed with settings, data or an encoder other than those that it was started with.

    **Why it matters.** The result would belong to neither configuration.

    **Example.** `--resume --set temperature=0.1` on a run started with 0.05.

    **Mend.** Resume without the change (`contrapose train --resume --out RUN`), or start a new run under another name.
    """

    code = "CL-RUN-003"


class CheckpointBroken(ContraposeError):
    """A checkpoint that cannot be read: truncated, damaged, or of another method.

    **Why it matters.** Loading what can be loaded would continue from a mixture of old and fresh weights.

    **Example.** A disk that was full while the file was copied.

    **Mend.** Delete the named file and resume again: the checkpoint before it is used.
    """

    code = "CL-RUN-004"


class WriteFailed(ContraposeError):
    """A checkpoint or a result could not be written.

    **Why it matters.** The run stops rather than go on without a way back; the last good checkpoint is untouched.

    **Example.** A full disk, or a limit on file sizes.

    **Mend.** Make room, then `contrapose train --resume --out RUN`.
    """

    code = "CL-RUN-005"


class OutputExists(ContraposeError):
    """The file to be written exists already.

    **Why it matters.** Vectors of a large corpus can be hours of work; a file is never replaced in silence.

    **Example.** The same `contrapose embed … --out vectors.parquet` a second time.

    **Mend.** Delete or move the file, or give another `--out`.
    """

    code = "CL-RUN-006"


class EmbeddingChanged(ContraposeError):
    """Vectors of an embedding that was stopped are there, and they are of another model, of other data or of another column.

    **Why it matters.** Half of the file would come from each, and nothing in it would say so.

    **Example.** `contrapose embed runs/second …` to the `--out` at which `contrapose embed runs/first …` was stopped.

    **Mend.** Delete the hidden folder that the message names to start anew, or give another `--out`.
    """

    code = "CL-RUN-007"


class VectorFormatUnknown(ContraposeError):
    """The suffix of the output says no format that vectors are written in.

    **Why it matters.** The format follows the suffix; a file under the wrong one is read by nothing.

    **Example.** `contrapose embed runs/first texts.txt --out vectors.csv`.

    **Mend.** `.parquet` for rows with their vector and the columns of `--keep`; `.npy` for one float32 array of shape (n, d).
    """

    code = "CL-RUN-008"

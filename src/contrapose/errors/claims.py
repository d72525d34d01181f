"""Claims that are not there, or that lack their data."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class ClaimUnknown(ContraposeError):
    """There is no claim of that name.

    **Why it matters.** A claim is called as its method is; a misspelt name cannot be guessed safely.

    **Example.** `contrapose reproduce esimsce`.

    **Mend.** `contrapose reproduce` lists them all; the message offers the nearest.
    """

    code = "CL-CLAIM-001"


class ClaimDataMissing(ContraposeError):
    """The data of a claim are not where they were looked for, or some of their files are not.

    **Why it matters.** A verdict belongs to the data that it was reached on; others in their place would answer another question.

    **Example.** `contrapose reproduce esimcse` from an installed package, which brings no data: they stand in the repository.

    **Mend.** Give the folder that holds the named files by `--data FOLDER`; the message says where they are to be had.
    """

    code = "CL-CLAIM-002"


class ClaimFolderTaken(ContraposeError):
    """The output folder of a claim holds something else: another claim, or files that are none of its trials.

    **Why it matters.** A claim goes on with the trials that it finds in its folder; those of another would be mixed in, or lost.

    **Example.** `contrapose reproduce esimcse --out runs/first` where `runs/first` is a training run.

    **Mend.** Give another folder by `--out`, or none: the default is runs/claims/NAME.
    """

    code = "CL-CLAIM-003"


class TemperatureMissing(ContraposeError):
    """The method of a run has no temperature, so there is none to diagnose.

    **Why it matters.** The figures of a diagnosis are those of InfoNCE at a temperature; of another objective they would say nothing.

    **Example.** `contrapose diagnose runs/scorer` where the run's method is trained by regression.

    **Mend.** Diagnose a run of a method with the setting `temperature`; `contrapose methods NAME` lists a method's settings.
    """

    code = "CL-CLAIM-050"

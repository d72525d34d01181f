"""Names, settings and command lines that cannot be understood."""

from __future__ import annotations

from contrapose.errors.base import ContraposeError


class MethodUnknown(ContraposeError):
    """There is no method of that name.

    **Why it matters.** Method names are file names; a misspelt one cannot be guessed safely.

    **Example.** `contrapose train simsce …`.

    **Mend.** `contrapose methods` lists them all; the message offers the nearest.
    """

    code = "CL-SET-001"


class SettingUnknown(ContraposeError):
    """A setting that the method does not have.

    **Why it matters.** A misspelt setting that is passed over in silence leaves the default in force.

    **Example.** `--set temprature=0.1`.

    **Mend.** The message offers the nearest setting; `contrapose methods NAME` lists them with their meaning.
    """

    code = "CL-SET-002"


class SettingInvalid(ContraposeError):
    """A setting whose value is of the wrong type or out of range.

    **Why it matters.** A temperature of 0 or below, say, turns the objective upside down or into NaN, often without another sign.

    **Example.** `--set temperature=-0.5`.

    **Mend.** The message gives the value, and what is allowed.
    """

    code = "CL-SET-003"


class SettingsFileInvalid(ContraposeError):
    """A settings file that is not YAML, or not a table of names and values.

    **Why it matters.** Half of a settings file would be a silent default.

    **Example.** A line `temperature 0.05` without its colon.

    **Mend.** Write one `name: value` a line; the message names the line.
    """

    code = "CL-SET-004"


class UsageInvalid(ContraposeError):
    """A command line or a call that cannot be read: an unknown option, a missing argument, `--on` without its `=`.

    **Why it matters.** A guess would run something that was not asked for.

    **Example.** `contrapose train pairs --dat pairs.csv`.

    **Mend.** The message names the option; every command explains itself with `--help`.
    """

    code = "CL-SET-005"


class PackageMissing(ContraposeError):
    """Something was asked for that needs a package which is not installed.

    **Why it matters.** Optional packages are large, and most users need few of them; nothing is installed behind your back.

    **Example.** `mine_negatives(…)` without faiss.

    **Mend.** The message gives the one line that installs it.
    """

    code = "CL-SET-006"

"""The command line: thin. Names become encoders and files become data in `contrapose.api`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run a command. A mistake of the user's is one line on stderr and exit code 2; a run that was asked to stop exits as its signal says."""
    # must be set before the first import of the libraries that read them
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import typer.main

    from contrapose.cli.app import app
    from contrapose.errors import ContraposeError, UsageInvalid

    try:
        status = typer.main.get_command(app)(prog_name="contrapose", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        if message := error.format_message():
            refuse(UsageInvalid(f"{message} See `{context.command_path if context else 'contrapose'} --help`."))
        sys.exit(2)  # a bare `contrapose` has shown its help
    except ContraposeError as error:
        refuse(error)
    except (typer.Abort, KeyboardInterrupt):
        sys.exit(130)


def refuse(error: Exception) -> None:
    """One line and exit code 2; of several processes the first one speaks."""
    from contrapose.cli.app import is_first_process

    if is_first_process():
        print(f"contrapose: {error}", file=sys.stderr)
    sys.exit(2)

"""One page of all commands, from the same words that `contrapose COMMAND --help` prints."""

from __future__ import annotations

import typer
from pieces import table

from contrapose.cli.app import app


def pages() -> dict[str, str]:
    group = typer.main.get_command(app)
    root = typer.Context(group, info_name="contrapose")
    text = ["# Command line", group.help, group.epilog or ""]
    for name, command in group.commands.items():
        context = typer.Context(command, info_name=name, parent=root)
        usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
        text += [f"## contrapose {name}", f"```\n{usage}\n```", command.help]
        records = [parameter.get_help_record(context) for parameter in command.params if parameter.name != "help"]
        rows = [(f"`{written}`", explained) for written, explained in filter(None, records)]
        text += [table(("argument or option", ""), rows)] if rows else []
    return {"commands.md": "\n\n".join(text)}

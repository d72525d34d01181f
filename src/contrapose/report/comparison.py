"""comparison.html: several methods beside each other and beside the controls; one file, no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrapose.report.figures import ranking
from contrapose.report.html import command_parts, rendered
from contrapose.training.run_folder import write_text


def write_comparison(page: Mapping[str, Any], path: Path) -> None:
    """Write what `Comparison.page` gives, whole or not at all. Every text of the user's is escaped. Raises WriteFailed."""
    methods = set(page["methods"])
    figures = {
        f"measure-{number}": ranking(systems, methods) for number, systems in enumerate(page["systems"].values())
    }
    charts = dict(zip(figures, page["systems"], strict=True))
    command = command_parts(page["record"]["command"])
    write_text(path, rendered("comparison.html.j2", {**page, "figures": figures, "charts": charts, "command": command}))

"""diagnosis.html: the temperature of a run, what its loss hears at others, and trainings with them; one file, no network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contrapose.report.figures import over_temperatures
from contrapose.report.html import command_parts, rendered
from contrapose.training.run_folder import write_text


def write_diagnosis(page: Mapping[str, Any], path: Path) -> None:
    """Write what `Diagnosis.page` gives, whole or not at all. Every text of the user's is escaped. Raises WriteFailed."""
    trained, own = page["record"]["behaviour"]["trained"], page["record"]["temperature"]
    heard = {
        "Effective number of negatives": ("effective", trained["negatives"]),
        f"Share of the force on the hardest {trained['hardest']:,}": ("hardest", None),
        "Share of the force on rows of the anchor's label": ("same_label", None),
    }
    figures, hearing, trainings = {}, {}, {}
    for number, (title, (figure, most)) in enumerate(heard.items()):
        values = {at["temperature"]: at[figure] for at in trained["by_temperature"]}
        if None not in values.values():
            points = {
                temperature: dict.fromkeys(("value", "low", "high"), value) for temperature, value in values.items()
            }
            hearing[f"heard-{number}"] = title
            figures[f"heard-{number}"] = over_temperatures(points, own, most)
    for number, (measure, points) in enumerate(page["curves"].items()):
        trainings[f"trained-{number}"] = measure
        figures[f"trained-{number}"] = over_temperatures(points, own)
    command = command_parts(page["record"]["command"])
    filled = {**page, "figures": figures, "hearing": hearing, "trainings": trainings, "command": command}
    write_text(path, rendered("diagnosis.html.j2", filled))

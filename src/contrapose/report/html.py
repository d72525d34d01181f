"""report.html: what a run was trained on, whether the encoder got better, and how it went; one file, no network."""

from __future__ import annotations

import math
import secrets
import shlex
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from contrapose.report.figures import Figure, comparison, curve, pair_map
from contrapose.training.run_folder import RunFolder, counted, flattened, write_text

GEOMETRY = {
    "alignment": ("Alignment", "mean squared distance within pairs"),
    "uniformity": ("Uniformity", "lower is more evenly spread over the sphere"),
    "mean_cosine": ("Mean cosine", "of any two rows; 1 where all are one"),
    "effective_rank": ("Effective rank", "dimensions in use"),
}
CHARTED = 4  # metrics in the chart; the table has them all


def write_report(folder: RunFolder) -> Path:
    """Write `folder.report` from config.yaml, metrics.jsonl and results.json, whole or not at all; gives back its path.

    Every text of the user's is escaped, and the page's content security policy forbids every request. Without results the report says how
    to get some. Raises WriteFailed when the file cannot be written.
    """
    write_text(folder.report, rendered("report.html.j2", contents(folder)))
    return folder.report


def rendered(template: str, page: Mapping[str, Any]) -> str:
    """A page whole in itself, with Plotly in it, from a template of this folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(
        page, plotly=Markup(get_plotlyjs()), nonce=secrets.token_urlsafe(16)
    )


def contents(folder: RunFolder) -> dict[str, Any]:
    """What the template is filled with; figures by the id of the element that they are drawn in."""
    config, metrics = folder.config, folder.metrics()
    figures: dict[str, Figure] = {}
    evaluations = [evaluation(index, entry, figures) for index, entry in enumerate(folder.results())]
    return {
        "config": config,
        "evaluate": shlex.join(["contrapose", "evaluate", str(folder.path), "--on", "retrieval=pairs.csv"]),
        "outcome": outcome(evaluations[0]["result"]) if evaluations else None,
        "evaluations": evaluations,
        "curves": curves(metrics, config.get("select") or {}, figures),
        "stages": stages(metrics),
        "verdicts": verdicts(metrics),
        "steps": max((line["total_step"] for line in metrics), default=0),
        "time": time_split(metrics),
        "settings": settings(config),
        "command": command_parts(config["command"]),
        "figures": figures,
    }


# ----------------------------------------------------------------------------------------------------------- evaluation


def outcome(result: Mapping[str, Any]) -> dict[str, Any] | None:
    """Before and after in the first metric, with words that the intervals bear out; None when either is missing."""
    systems = result["systems"]
    metric = next(iter(systems.get("trained", {})), None)
    if metric is None or metric not in systems.get("untrained", {}):
        return None
    before, after = systems["untrained"][metric], systems["trained"][metric]
    controls = {
        name: scores[metric]
        for name, scores in systems.items()
        if name not in ("untrained", "trained") and metric in scores
    }
    control = max(controls, key=lambda name: controls[name]["value"], default=None)
    return {
        "metric": metric,
        "before": before,
        "after": after,
        "change": {1: "rose", 0: "went", -1: "fell"}[apart(after, before)],
        "overlap": apart(after, before) == 0,
        "control": control
        and {"name": control, "value": controls[control]["value"], "apart": apart(after, controls[control])},
    }


def apart(first: Mapping[str, float], second: Mapping[str, float]) -> int:
    """1 or -1 when the first score lies wholly above or below the second, 0 when their intervals overlap."""
    return (first["low"] > second["high"]) - (first["high"] < second["low"])


def evaluation(index: int, entry: Mapping[str, Any], figures: dict[str, Figure]) -> dict[str, Any]:
    """One protocol: its table and chart, and its map and neighbours where it has them."""
    result = entry["result"]
    systems = result["systems"]
    metrics = list(dict.fromkeys(metric for scores in systems.values() for metric in scores))
    chart = f"comparison-{index}"
    figures[chart] = comparison(systems, metrics[:CHARTED])
    drawn, maps = entry.get("map"), {}
    if drawn:
        texts = list(zip(drawn["queries"], drawn["candidates"], strict=True))
        for when in ("before", "after"):
            maps[when] = f"map-{index}-{when}"
            figures[maps[when]] = pair_map(drawn[when]["queries"], drawn[when]["candidates"], texts)
    examples = entry.get("examples") or []
    return {
        "result": result,
        "metrics": metrics,
        "chart": chart,
        "maps": maps,
        "method": drawn["method"] if drawn else None,
        "examples": examples,
        "found": {
            when: sum(bool(each[when]) and each[when][0]["right"] for each in examples) for when in ("before", "after")
        },
    }


# ------------------------------------------------------------------------------------------------------------- training


def curves(
    metrics: Sequence[Mapping[str, Any]], select: Mapping[str, Any], figures: dict[str, Figure]
) -> list[dict[str, str]]:
    """A panel for each figure that was logged: terms, development score, geometry, whatever was watched, learning rate."""
    logged = [line for line in metrics if "terms" in line]
    between = boundaries(logged)
    panels: list[dict[str, str]] = []

    def panel(
        title: str, note: str, steps: list[int], values: list[float], level: list[float | None] | None = None
    ) -> None:
        identifier = f"curve-{len(panels)}"
        figures[identifier] = curve(steps, values, level, between)
        panels.append({"id": identifier, "title": title, "last": number(values[-1]), "note": note})

    for name, steps, values, chance in series(logged, "terms", "chance"):
        known = [value for value in chance if value is not None]
        panel(
            name,
            f"at chance {number(known[-1])} (dashed)" if known else "smaller is better",
            steps,
            values,
            chance if known else None,
        )
    scored = [line for line in metrics if "selected" in line]
    if scored:
        said = ", ".join(f"{protocol} on {source}" for protocol, source in select.items())
        values = [line["selected"] for line in scored]
        panel(
            "Development score", f"best {number(max(values))}; {said}", [line["total_step"] for line in scored], values
        )
    geometry = {name: (steps, values) for name, steps, values, _ in series(logged, "geometry")}
    for name, (title, note) in GEOMETRY.items():
        if name in geometry:
            most = geometry["most_rank"][1] if name == "effective_rank" else None
            panel(title, f"{note}, of {most[-1]:.0f} (dashed)" if most else note, *geometry[name], most)
    for name, steps, values, _ in series(logged, "watched"):
        if len(set(values)) > 1:  # a constant stands among the settings
            panel(name, "watched, not minimised", steps, values)
    if logged:
        rates = [line["learning_rate"] for line in logged]
        panel("Learning rate", f"peak {number(max(rates))}", [line["total_step"] for line in logged], rates)
    return panels


def series(
    logged: Sequence[Mapping[str, Any]], group: str, beside: str | None = None
) -> list[tuple[str, list[int], list[float], list[float | None]]]:
    """Each name of a group of figures with its steps, its values and, at the same steps, the values of another group."""
    found = []
    for name in dict.fromkeys(name for line in logged for name in line.get(group, {})):
        lines = [line for line in logged if name in line.get(group, {})]
        others = [line.get(beside, {}).get(name) if beside else None for line in lines]
        found.append((name, [line["total_step"] for line in lines], [line[group][name] for line in lines], others))
    return found


def boundaries(logged: Sequence[Mapping[str, Any]]) -> list[int]:
    """The last logged step of every stage but the last."""
    return [one["total_step"] for one, next_one in pairwise(logged) if one["stage"] != next_one["stage"]]


def verdicts(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    """Each verdict on the run's health, with the steps from its first line of metrics to its last in a row; None where health was not read."""
    if not any("verdicts" in line for line in metrics):
        return None
    found: list[dict[str, Any]] = []
    standing: dict[tuple[str, str], dict[str, Any]] = {}
    for line in [line for line in metrics if "verdicts" in line]:
        now = {(line["stage"], kind): sentence for kind, sentence in line["verdicts"].items()}
        standing = {key: spell for key, spell in standing.items() if key in now}
        for key, sentence in now.items():
            if key not in standing:
                standing[key] = {"first": line["total_step"]}
                found.append(standing[key])
            standing[key] |= {"said": sentence, "last": line["total_step"]}
    return found


def stages(metrics: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(line["stage"] for line in metrics))


def time_split(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Seconds of training by part of a step, largest first, and rows a second; None when nothing was logged."""
    clocks = [line["clock"] for line in metrics if "clock" in line]
    total = sum(clock["seconds"] for clock in clocks)
    if not total:
        return None
    parts: dict[str, float] = {}
    for clock in clocks:
        for part, share in clock["share"].items():
            parts[part] = parts.get(part, 0.0) + share * clock["seconds"]
    parts = dict(sorted(parts.items(), key=lambda item: -item[1]))
    parts["everything else"] = max(0.0, total - sum(parts.values()))
    rows = sum(clock["rows_per_second"] * clock["seconds"] for clock in clocks)
    split = [{"part": part, "seconds": seconds, "share": seconds / total} for part, seconds in parts.items()]
    return {"total": duration(total), "rows_per_second": rows / total, "parts": split}


# ------------------------------------------------------------------------------------------------------------- settings


def settings(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Every setting by name, and those that the command sets: it leaves out what stands at its default."""
    words = shlex.split(config["command"])
    given = {value.split("=", 1)[0] for option, value in pairwise(words) if option == "--set"}
    every = flattened(
        {name: value for name, value in config.items() if name not in ("command", "settings")}
    ) | flattened(config["settings"])
    every = {name: counted(value) for name, value in every.items()}
    return {"changed": {name: value for name, value in every.items() if name in given}, "all": every}


def command_parts(command: str) -> list[str]:
    """The command cut before each option, so that it breaks where people would break it."""
    parts: list[list[str]] = [[]]
    for word in shlex.split(command):
        parts += [[word]] if word.startswith("--") else []
        parts[-1] += [] if word.startswith("--") else [word]
    return [shlex.join(part) for part in parts]


def number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−") if math.isfinite(value) else "not finite"


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"

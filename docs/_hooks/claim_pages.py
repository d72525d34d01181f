"""A page a claim, from its file and from the result that stands under results/claims; and the table of all verdicts."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pieces import table

from contrapose.claims.claim import Claim
from contrapose.claims.find import claims, find_claim
from contrapose.claims.result import ClaimResult, gain_of
from contrapose.claims.verdict import RULE

RESULTS = Path(__file__).parents[2] / "results" / "claims"


def pages() -> dict[str, str]:
    found = {name: (find_claim(name), result_of(name)) for name in claims()}
    return {"claims/index.md": index(found)} | {
        f"claims/{name}.md": page(name, claim, result) for name, (claim, result) in found.items()
    }


def result_of(name: str) -> ClaimResult | None:
    path = RESULTS / f"{name}.json"
    return ClaimResult.open(path) if path.is_file() else None


def index(found: Mapping[str, tuple[Claim, ClaimResult | None]]) -> str:
    rows = []
    for name, (_, result) in found.items():
        rows += [
            (
                f"[{name}]({name}.md)",
                verdict["says"],
                verdict["experiment"],
                f"**{verdict['verdict']}**",
                gain_of(verdict),
            )
            for verdict in (result.verdicts if result else [])
        ] or [(f"[{name}]({name}.md)", claims()[name], "", "not checked yet", "")]
    return "\n\n".join(
        [
            "# Claims",
            "What the papers claim, checked at small scale on data that anyone may have: `contrapose reproduce NAME`. Method and baseline get "
            "the same encoder, rows, steps, seeds and tuning grid. The grid is chosen on the development split; the test split is scored once. "
            "This page is made from the files under `results/claims`, which hold every seed.",
            f"**How a verdict falls.** {RULE} [More](../results.md#seeds-and-verdicts).",
            table(("claim", "statement", "experiment", "verdict", "gain over seeds"), rows),
            "A verdict is about the method at this scale, on these data. *Not seen* does not say that the paper is wrong, and *seen* does not "
            "say that the gain is as large as in the paper.",
        ]
    )


def page(name: str, claim: Claim, result: ClaimResult | None) -> str:
    title, summary = name, claims()[name]
    text = [f"# Claim: {title}", summary, claim.says, f"Method: [`{claim.method}`](../methods/{claim.method}.md)."]
    sources = dict.fromkeys([claim.source, *(each.source for each in claim.experiments if each.source is not None)])
    text += ["## Data", *(f"{each.words} Licence: {each.licence}. Source: <{each.url}>." for each in sources)]
    text += ["## Arms", table(("arm", "method", "what makes it"), [arm_row(arm) for arm in claim.arms])]
    text += [
        "## Measures",
        table(("measure", "better", "meaning"), [(m.name, m.better, m.meaning) for m in claim.measures]),
    ]
    if result is None:
        return "\n\n".join([*text, f"No result is committed yet: `contrapose reproduce {name}` makes one."])
    for experiment in result.experiments:
        text += section(result, experiment)
    return "\n\n".join([*text, made(result.record)])


def arm_row(arm: Any) -> tuple[str, str, str]:
    return arm.name, f"`{arm.method}`", ", ".join(f"`{name}={value}`" for name, value in arm.settings.items())


def section(result: ClaimResult, experiment: Mapping[str, Any]) -> list[str]:
    """An experiment: settings, what was tuned, the table, the verdicts."""
    head, *rows = result.cells(experiment)
    settings = ", ".join(f"`{name}={value}`" for name, value in experiment["settings"].items())
    grid = ", ".join(f"`{name}` in {', '.join(map(str, values))}" for name, values in experiment["grid"].items())
    chosen = "; ".join(
        f"{name}: {', '.join(f'`{key}={value}`' for key, value in arm['chosen'].items())}"
        for name, arm in experiment["arms"].items()
    )
    seeds = len(result.record["seeds"])
    return [
        f"## {experiment['name']}",
        f"{experiment['words']} All arms: {settings}; {experiment['precision']}.",
        f"Grid of every arm: {grid}; chosen by the mean {result.record['tuned_by']} of {experiment['tuning_seeds']} seed(s) on the "
        f"development split. Chosen: {chosen}.",
        table(head, rows),
        f"Mean and 95 % t interval over {seeds} seeds. A control without an interval has no seeds, or is the same for all of them.",
        table(
            ("verdict", "statement", "measure", "gain"),
            [
                (f"**{each['verdict']}**", each["says"], each["measure"], gain_of(each))
                for each in experiment["verdicts"]
            ],
        ),
    ]


def made(record: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return html.escape(
        f"Made on {record['date']} by `{record['command']}`: {record['processor_minutes']} minutes of processor time on {record['machine']}. {versions}."
    )

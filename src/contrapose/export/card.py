"""The model card: what stands in a model folder's README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from contrapose.export.model_folder import Model
from contrapose.training.run_folder import counted, flattened

# Of what comes with the package; of the rest only its owner can say.
KNOWN_LICENCES = {
    "minilm": "The encoder is all-MiniLM-L6-v2, under Apache-2.0.",
    "sample:latvian/train": "The data are Microsoft's documentation, under CC BY 4.0, as given by CodeXGLUE for computational use (C-UDA 1.0).",
}


def card_text(
    model: Model, config: Mapping[str, Any], results: Sequence[Mapping[str, Any]], usage: str, checked: str
) -> str:
    """The model card: data, method, settings, results with intervals, licence, how to use.

    `usage`: how the folder is loaded and by whom, in Markdown; `checked`: how exactly.
    """
    encoders = flattened(config["encoder"])
    every = {**encoders, **config["settings"]}
    settings = "\n".join(f"| {name} | {'–' if value is None else counted(value)} |" for name, value in every.items())
    tables = "\n\n".join(result_table(entry["result"]) for entry in results) or "Not evaluated."
    use = f"{usage}\n\n{checked}" if checked else usage
    names = [value for name, value in encoders.items() if name.rpartition(".")[2] == "name"]
    licences = " ".join(
        KNOWN_LICENCES[each] for each in dict.fromkeys([*names, config["data"]["source"]]) if each in KNOWN_LICENCES
    )
    return f"""---
library_name: contrapose
tags: [contrapose, {model.modality}, embeddings]
---
# {config["method"]} on {config["data"]["source"]}

{model.dim}-dimensional embeddings, trained by contrapose {config["contrapose"]} with the method `{config["method"]}` on {config["data"]["rows"]:,} rows of
`{config["data"]["source"]}` (SHA-256 of the data {config["data"]["fingerprint"][:16]}…), starting from the encoder `{config["encoder"]["name"]}`.

## Use

{use}

## Results

{tables}

## Settings

| setting | value |
|---|---|
{settings}

## Licence

The weights are derived from those of `{config["encoder"]["name"]}` and from the data named above: their licences apply. No other is added. {licences}
"""


def result_table(result: Mapping[str, Any]) -> str:
    """A result as Markdown: a metric a row, a system a column, each mean with its 95 % interval."""
    systems = result["systems"]
    lines = [f"{result['description']} Data: `{result['data']}`, {result['rows']:,} rows.", ""]
    lines += ["| | " + " | ".join(systems) + " |", "|---" * (len(systems) + 1) + "|"]
    for metric in dict.fromkeys(name for scores in systems.values() for name in scores):
        found = [scores.get(metric) for scores in systems.values()]
        cells = [f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" if s else "–" for s in found]
        lines.append(f"| {metric} | " + " | ".join(cells) + " |")
    return "\n".join(lines)

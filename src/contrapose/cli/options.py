"""Options that several commands share, and how their words are read."""

from __future__ import annotations

from typing import Annotated

import typer

from contrapose.errors import UsageInvalid

Source = "A file (.txt .csv .tsv .jsonl .parquet, also .gz), hf:OWNER/NAME or sample:NAME."
On = Annotated[
    list[str],
    typer.Option(
        "--on",
        metavar="PROTOCOL=DATA",
        help="Evaluate before and after, beside the controls. retrieval=pairs.csv (columns anchor, positive) or a BEIR folder; "
        "sts=rated.csv (sentence1, sentence2, score); pair_labels=pairs.csv (anchor, positive, label 1 or 0, perhaps domain); "
        "probe=labelled.csv, a linear classifier, probe_folds=labelled.csv, the same in ten folds, or knn=labelled.csv (text, label, "
        "and split, train or test; without split a quarter is drawn for testing); pair_probe=pairs.csv (sentence1, sentence2, label) or "
        "pair_regression=rated.csv (sentence1, sentence2, score); zero_shot=rows.npz predicts each modality of a row from the others. Repeatable, each protocol once.",
    ),
]
Map = Annotated[
    list[str],
    typer.Option(
        "--map", metavar="NEEDED=YOURS", help="The method's column is called otherwise in your file. Repeatable."
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="What to start from: minilm (offline), a Hub name, or a folder. For several modalities one for each column: picture=image:resnet,words=text:minilm,sound=vectors.",
        show_default=False,
    ),
]
DropEmpty = Annotated[bool, typer.Option("--drop-empty", help="Leave out rows in which a needed column is empty.")]


def pairs_of(options: list[str], option: str) -> dict[str, str]:
    """["a=b"] to {"a": "b"}. Raises UsageInvalid for one without its `=` or value, and for a name with two values."""
    pairs: dict[str, str] = {}
    for each in options:
        name, _, value = each.partition("=")
        if not name or not value:
            raise UsageInvalid(f"{option} {each} has no value; write {option} NAME=VALUE.")
        if pairs.get(name, value) != value:
            what = "column" if option == "--map" else "protocol"
            later = (
                f" Score the other data afterwards: contrapose evaluate RUN --on {each}." if option == "--on" else ""
            )
            raise UsageInvalid(
                f"{option} {name} is given as {pairs[name]} and as {value}; give each {what} once.{later}"
            )
        pairs[name] = value
    return pairs


def settings_of(options: list[str]) -> dict[str, str]:
    """Of a setting that is named twice the last value counts; `NAME=` empties it. Raises UsageInvalid for one without its `=`."""
    for each in options:
        if not each.partition("=")[0] or "=" not in each:
            raise UsageInvalid(f"--set {each} has no value; write --set NAME=VALUE.")
    return dict(each.split("=", 1) for each in options)

"""The command that looks at a run's temperature."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contrapose.cli.options import Map, Source, pairs_of, settings_of
from contrapose.errors import UsageInvalid


def diagnose(
    run: Annotated[Path, typer.Argument(help="A run's folder; its method needs a temperature.")],
    on: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help=f"Rows to look at in place of the run's own; with a column label for tolerance and kNN. {Source}",
            show_default=False,
        ),
    ] = None,
    map: Map = [],
    temperatures: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,…",
            help="Which to look at; 0.02,0.05,0.1,0.2,0.5,1 when left out. The run's own is always among them.",
            show_default=False,
        ),
    ] = None,
    rows: Annotated[int, typer.Option(min=3, help="Rows to look at, evenly spaced over the data.")] = 5000,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Train the method anew with each temperature and seed, and measure.")
    ] = False,
    score: Annotated[
        list[str],
        typer.Option(
            metavar="PROTOCOL=DATA",
            help="Development data that also score the sweep's trainings: retrieval=dev.csv. Repeatable.",
        ),
    ] = [],
    seeds: Annotated[
        int, typer.Option(min=3, help="Seeds of each temperature; their spread decides what is noise.")
    ] = 3,
    set: Annotated[
        list[str],
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the sweep's trainings: steps=100. Repeatable."),
    ] = [],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of diagnosis.html, result.json and the sweep's trials; RUN/diagnosis when left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Is a run's temperature right? What its loss hears at this one and at others; with --sweep, what training with others gives.

    A contrastive loss divides similarities by its temperature, and so decides which negatives it hears: at a low one only the hardest, which
    spreads embeddings evenly but pushes apart what belongs together; at a high one all alike, which keeps neighbours near but hardly
    spreads them. The best is between. Without training, on the run's own embeddings:

    - *uniformity*, how evenly they spread (lower is more even), and *tolerance*, how near rows of one label stay;
    - for each temperature, from how many negatives an anchor is pushed in effect, how much of the force the hardest 1 % bear, and how much
      of it lies on rows of the anchor's own label, which are no negatives at all.

    With **--sweep** the method is trained with each temperature, the same seeds, rows and steps for each, and uniformity, tolerance and
    kNN accuracy stand side by side; in words, whether a difference is more than seed noise. Ctrl-C saves, and the same command goes on.

    **Examples**

    `contrapose diagnose runs/faq`

    `contrapose diagnose runs/faq --on labelled.csv --map anchor=question --map label=topic`

    `contrapose diagnose runs/faq --temperatures 0.02,0.05,0.1 --sweep --score retrieval=dev.csv --set steps=100`
    """
    chosen = None if temperatures is None else numbers_of(temperatures)
    from rich.console import Console

    from contrapose.diagnosis import PAGE
    from contrapose.diagnosis import diagnose as diagnosed
    from contrapose.training.interrupts import Stopped

    if not sweep and (score or set):
        raise UsageInvalid("--score and --set are of the sweep's trainings; add --sweep, or leave them out.")
    try:
        result = diagnosed(
            run,
            on=on,
            columns=pairs_of(map, "--map"),
            temperatures=chosen,
            rows=rows,
            sweep=sweep,
            score=pairs_of(score, "--score"),
            settings=settings_of(set),
            seeds=seeds,
            out=out,
        )
    except Stopped as stopped:
        typer.echo(f"The sweep was {stopped}. The same command goes on.", err=True)
        raise typer.Exit(128 + stopped.signal_number) from None
    except KeyboardInterrupt:  # between two trainings
        typer.echo("The sweep was stopped; what was trained is kept. The same command goes on.", err=True)
        raise
    Console().print(result)
    typer.echo(f"page  {result.record['folder']}/{PAGE}")


def numbers_of(text: str) -> list[float]:
    """ "0.05,0.1" to numbers. Raises UsageInvalid."""
    try:
        return [float(each) for each in text.split(",")]
    except ValueError:
        raise UsageInvalid(f"--temperatures {text} is no list of numbers; write --temperatures 0.05,0.1,0.5.") from None

"""The commands that train more than once: compare and reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from contrapose.cli.options import DropEmpty, Encoder, Map, On, Source, pairs_of, settings_of


def compare(
    methods: Annotated[list[str], typer.Argument(help="Two methods or more; `contrapose methods` lists them.")],
    data: Annotated[str, typer.Option(help=Source)],
    on: On,
    select: Annotated[
        list[str],
        typer.Option(metavar="PROTOCOL=DATA", help="Development data that choose from the grid. Repeatable."),
    ] = [],
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="NAME=A,B",
            help="Try each of these values with every method, and all combinations of several --grid. Needs --select.",
        ),
    ] = [],
    seeds: Annotated[int, typer.Option(min=3, help="Seeds of each method; their spread decides what is noise.")] = 3,
    encoder: Encoder = None,
    map: Map = [],
    set: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting of all methods: steps=200, encoder.layers=4; or of one: esimcse.queue_size=64. Repeatable.",
        ),
    ] = [],
    drop_empty: DropEmpty = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the trials, result.json and comparison.html; under runs/compare when left out.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Compare methods on your own data: the same encoder, rows, budget, grid and seeds for each.

    A table with the mean of each method, its interval over seeds, time and memory, beside the controls; and in words whether a
    difference is more than seed noise. Ctrl-C saves, and the same command goes on; so it does with more methods and more seeds.

    **Examples**

    `contrapose compare simcse esimcse --data sentences.txt --on sts=test.csv --set steps=200`

    `contrapose compare simcse esimcse --data sentences.txt --on sts=test.csv --select sts=dev.csv --grid learning_rate=1e-5,3e-5`
    """
    from rich.console import Console

    from contrapose import api
    from contrapose.training.interrupts import Stopped

    try:
        result = api.compare(
            methods,
            data,
            on=pairs_of(on, "--on"),
            select=pairs_of(select, "--select"),
            encoder=encoder,
            columns=pairs_of(map, "--map"),
            drop_empty=drop_empty,
            settings=settings_of(set),
            grid={name: values.split(",") for name, values in pairs_of(grid, "--grid").items()},
            seeds=seeds,
            out=out,
        )
    except Stopped as stopped:
        typer.echo(f"The comparison was {stopped}. The same command goes on.", err=True)
        raise typer.Exit(128 + stopped.signal_number) from None
    except KeyboardInterrupt:  # between two trainings
        typer.echo("The comparison was stopped; what was trained is kept. The same command goes on.", err=True)
        raise
    Console().print(result)
    typer.echo(f"page  {result.record['folder']}/comparison.html")


def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="A claim, called as its method is; none lists them.", show_default=False)
    ] = None,
    seeds: Annotated[int, typer.Option(min=3, help="Seeds of each arm; their spread decides the verdict.")] = 3,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the trials and result.json; runs/claims/NAME when left out.", show_default=False),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with the claim's data files; the repository's when left out.", show_default=False),
    ] = None,
) -> None:
    """Check a paper's central claim at small scale, or list the claims.

    Method and baseline get the same encoder, rows, steps, seeds and tuning grid. The grid is chosen on the development split; the
    test split is scored once, beside the untrained encoder and a classical rule. The interval of the gain over seeds decides:
    *seen*, *not seen* or *inconclusive*. Ctrl-C saves, and the same command goes on; so does a larger --seeds.

    **Examples**

    `contrapose reproduce`

    `contrapose reproduce esimcse`

    `contrapose reproduce esimcse --seeds 5 --out runs/claims/esimcse --data benchmarks/data/stsb_en`
    """
    if name is None:
        from contrapose.cli.listing import show_claims

        show_claims()
        return
    from contrapose.claims.find import find_claim

    find_claim(name)  # a misspelt one is refused before anything heavy is loaded
    from rich.console import Console

    from contrapose import api
    from contrapose.training.interrupts import Stopped

    try:
        result = api.reproduce(name, seeds=seeds, out=out, data=data)
    except Stopped as stopped:
        typer.echo(f"The claim was {stopped}. The same command goes on.", err=True)
        raise typer.Exit(128 + stopped.signal_number) from None
    except KeyboardInterrupt:  # between two trainings
        typer.echo("The claim was stopped; what was trained is kept. The same command goes on.", err=True)
        raise
    Console().print(result)

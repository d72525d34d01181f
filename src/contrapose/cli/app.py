"""Every command and what it explains of itself. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from contrapose.cli.claims import compare, reproduce
from contrapose.cli.diagnose import diagnose
from contrapose.cli.options import DropEmpty, Encoder, Map, On, Source, pairs_of, settings_of
from contrapose.errors import UsageInvalid

app = typer.Typer(
    name="contrapose",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Contrastive representation learning for every modality: your data, a published method, an encoder, and proof that it got better.",
    epilog="Start with `contrapose demo`, or `contrapose methods`.",
)


@app.command()
def train(
    method: Annotated[
        str | None, typer.Argument(help="A method's name; `contrapose methods` lists them.", show_default=False)
    ] = None,
    data: Annotated[str | None, typer.Option(help=Source, show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; a new one under runs/ when left out.", show_default=False)
    ] = None,
    encoder: Encoder = None,
    map: Map = [],
    set: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A setting: temperature=0.05, encoder.layers=4; NAME= empties one. Repeatable, the last counts.",
        ),
    ] = [],
    settings: Annotated[
        Path | None, typer.Option(help="Settings from a YAML file; --set overrides it.", show_default=False)
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            help="What the tensors of a step may take, such as 4GB: batches go through the encoder in chunks that fit. The loss stays that of the whole batch.",
            show_default=False,
        ),
    ] = None,
    on: On = [],
    select: Annotated[
        str | None,
        typer.Option(
            metavar="PROTOCOL=DATA",
            help="Keep the weights that score best on this development data.",
            show_default=False,
        ),
    ] = None,
    drop_empty: DropEmpty = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with the run in --out. Nothing else need be given, and what is must agree."
        ),
    ] = False,
) -> None:
    """Train an encoder.

    Writes a run folder: config.yaml, metrics.jsonl, checkpoints/, model/ and report.html. Ctrl-C saves and says how to go on.

    **Examples**

    `contrapose train pairs --data pairs.csv`  (columns anchor and positive)

    `contrapose train pairs --data faq.jsonl --map anchor=question --map positive=answer --on retrieval=held_out.jsonl --out runs/faq`

    `contrapose train pairs --data pairs.csv --encoder bert-base-uncased --set temperature=0.02 --set batch_size=128`

    `contrapose train pairs --data pairs.csv --set batch_size=8192 --memory 4GB`

    `contrapose train --resume --out runs/faq`
    """
    from contrapose import api
    from contrapose.training.interrupts import Stopped
    from contrapose.training.settings import read_settings

    try:
        chosen = {
            "encoder": encoder,
            "columns": pairs_of(map, "--map"),
            "on": pairs_of(on, "--on"),
            "select": pairs_of([select], "--select") if select else None,
            "drop_empty": drop_empty,
            "settings": {
                **(read_settings(settings) if settings else {}),
                **settings_of(set),
                **({} if memory is None else {"memory": memory}),
            },
        }
        if resume and out is None:
            raise UsageInvalid("--resume needs the run's folder: contrapose train --resume --out runs/faq.")
        if not resume and (method is None or data is None):
            raise UsageInvalid("train needs a method and --data: contrapose train pairs --data pairs.csv.")
        run = (
            api.resume(out, method=method, data=data, **chosen)
            if resume
            else api.train(method, data, out=out, **chosen)
        )
    except Stopped as stopped:
        raise typer.Exit(128 + stopped.signal_number) from None
    if is_first_process():
        run.show()


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder of the run.")] = Path("runs/demo"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a demo that was stopped.")] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of everything random; 0 when left out.", show_default=False)
    ] = None,
) -> None:
    """An English sentence encoder learns Latvian from 6,900 real translation pairs, in minutes on a laptop.

    It is `contrapose train pairs` on a sample that comes with the package; the command is printed, to be tried with your own file.
    """
    from contrapose import api
    from contrapose.training.interrupts import Stopped

    try:
        seeded = {} if seed is None else {"seed": seed}
        run = api.resume(out, settings=seeded) if resume else api.demo(out, **seeded)
    except Stopped as stopped:
        raise typer.Exit(128 + stopped.signal_number) from None
    run.show()


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run's folder.")],
    on: On = [],
    map: Map = [],
) -> None:
    """Score a trained run beside the controls: the untrained encoder and TF-IDF. The result is added to the run.

    **Example**

    `contrapose evaluate runs/faq --on retrieval=new_pairs.csv`

    `contrapose evaluate runs/faq --on probe=labelled.csv --on knn=labelled.csv --map label=topic`
    """
    from contrapose import api

    if not on:
        raise UsageInvalid(
            "evaluate needs --on PROTOCOL=DATA: contrapose evaluate runs/faq --on retrieval=new_pairs.csv."
        )
    api.evaluate(run, pairs_of(on, "--on"), columns=pairs_of(map, "--map") or None).show()


@app.command()
def embed(
    run: Annotated[Path, typer.Argument(help="A run's folder, or its model folder.")],
    data: Annotated[str, typer.Argument(help=Source)],
    out: Annotated[Path, typer.Option(help="vectors.parquet (rows with their vector) or vectors.npy.")],
    column: Annotated[
        str | None, typer.Option(help="The column to embed; `text`, or the only one.", show_default=False)
    ] = None,
    keep: Annotated[
        list[str], typer.Option("--keep", metavar="COLUMN", help="A column to carry along, such as an id. Repeatable.")
    ] = [],
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        typer.Option(help="Of the matrix products; auto: bfloat16 where the processor has it, about twice as fast."),
    ] = "auto",
) -> None:
    """Embed a corpus, streamed: it may be larger than memory. Stopped at any time, the same command goes on.

    **Example**

    `contrapose embed runs/faq documents.parquet --column body --keep id --out vectors.parquet`
    """
    from contrapose import api
    from contrapose.training.interrupts import Stopped

    try:
        written = api.embed(run, data, out, column=column, keep=keep, precision=precision)
    except Stopped as stopped:
        raise typer.Exit(128 + stopped.signal_number) from None
    typer.echo(f"{written}")


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="A method, for its columns, settings and paper.", show_default=False)
    ] = None,
) -> None:
    """List the methods by the data they need, or explain one.

    **Examples**

    `contrapose methods`

    `contrapose methods pairs`
    """
    from contrapose.cli.listing import show_method, show_methods

    show_methods() if name is None else show_method(name)


@app.command()
def check(
    data: Annotated[str, typer.Argument(help=Source)],
    method: Annotated[str, typer.Option(help="The method that the data is for.")] = "pairs",
    encoder: Annotated[str | None, typer.Option(help="The encoder whose tokeniser counts.", show_default=False)] = None,
    map: Map = [],
    set: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="NAME=VALUE", help="As for train: batch_size and encoder.max_tokens matter here."
        ),
    ] = [],
) -> None:
    """Say what is wrong with data, by row, before anything is trained.

    Rows, lengths and how many would be truncated; empty, NaN and duplicate rows; three decoded examples; false negatives in a batch.

    **Example**

    `contrapose check pairs.csv --method pairs --map anchor=english --map positive=latvian`
    """
    from contrapose import api

    report = api.check(data, method, encoder=encoder, columns=pairs_of(map, "--map"), settings=settings_of(set))
    typer.echo(report.to_text())
    raise typer.Exit(1 if report.problems else 0)


@app.command()
def report(run: Annotated[Path, typer.Argument(help="A run's folder.")]) -> None:
    """Write report.html anew: one file to look at and to pass on, without network requests."""
    from contrapose import api

    typer.echo(f"{api.write_report(run)}")


for command in (compare, diagnose, reproduce):
    app.command()(command)


def is_first_process() -> bool:
    """Whether this is the only process, or the first of those that torchrun started: the one that speaks."""
    return os.environ.get("RANK", "0") == "0"

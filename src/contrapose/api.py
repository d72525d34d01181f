"""The public calls: here names become encoders and files become data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from lightning_fabric.loggers import Logger, TensorBoardLogger

import contrapose
from contrapose import catalogue
from contrapose.claims.compare import compare_methods
from contrapose.claims.comparison import Comparison
from contrapose.claims.reproduce import reproduce
from contrapose.data.check import CheckReport
from contrapose.data.table import Table
from contrapose.diagnosis import diagnose
from contrapose.errors import ColumnMissing, UsageInvalid, nearest
from contrapose.export.checked import write_checked
from contrapose.export.model_folder import Model, load
from contrapose.export.vectors import checked_precision, embed_corpus, refuse_out
from contrapose.opening import (
    apart_from_encoder,
    facts_of,
    has_name,
    of_method,
    open_encoder,
    options_of,
    rooms_of,
    said,
)
from contrapose.report import html
from contrapose.report.comparison import write_comparison
from contrapose.run import Run
from contrapose.training.command import command_of, how_to_go_on
from contrapose.training.encoder import Encoder, Encoders, together
from contrapose.training.interrupts import Stopped, stopped_at_once
from contrapose.training.loop import fit
from contrapose.training.method import Method
from contrapose.training.plan import refuse_misfits
from contrapose.training.precision import Precision
from contrapose.training.progress import Reporter, Silent, Terminal
from contrapose.training.run_folder import RunFolder, flattened
from contrapose.training.settings import parse_settings
from contrapose.training.setup import closed, make_fabric

__all__ = [
    "Model",
    "Run",
    "check",
    "compare",
    "demo",
    "diagnose",
    "embed",
    "evaluate",
    "load",
    "methods",
    "open_run",
    "reproduce",
    "resume",
    "train",
    "write_report",
]


def train(
    method: str,
    data: Any,
    *,
    encoder: Any = None,
    out: Path | str | None = None,
    columns: Mapping[str, str] | None = None,
    on: Mapping[str, Any] | None = None,
    select: Mapping[str, Any] | None = None,
    drop_empty: bool = False,
    resume: bool = False,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
    settings: Mapping[str, Any] | None = None,
    **more_settings: Any,
) -> Run:
    """Train an encoder with a published method, and prove that it got better.

    `data`: a path, `hf:owner/name`, `sample:name`, a list, a dict of columns, a DataFrame or a dataset; columns are found by name, and
    `columns={"anchor": "english"}` says which of yours is meant. `out`: a new folder; None: the first free one of runs/METHOD-1, ….
    `encoder`: a name, a folder, `{"name": …, "layers": 4}`, an `Encoder`, or `(module, tokeniser)`; None: the offline default. For several
    modalities `{"picture": "vectors", "words": "text:minilm"}`.
    `on={"retrieval": "test.csv"}` evaluates before and after; `select={"retrieval": "dev.csv"}` keeps the weights that score best there.
    Further keywords are the method's settings. Any Fabric logger can be passed; TensorBoard and metrics.jsonl are always written.
    `resume=True` goes on with the run in `out`, whose arguments are to be given again; `contrapose train --resume --out OUT` needs none.

    Raises a ContraposeError before anything is written for bad data, settings or names, and Stopped with the state saved after Ctrl-C.
    """
    kind = catalogue.find_method(method)
    rooms = rooms_of(kind.card.modality)
    flat, options = apart_from_encoder({**flattened(settings or {}), **flattened(more_settings)})
    chosen = parse_settings(kind.Settings, flat, owner=f"method '{method}'")
    folder = RunFolder(out or free_folder(method))
    if not resume:
        folder.refuse_existing()

    elsewhere = rooms.evaluation.protocol_columns([*(on or {}), *(select or {})])
    named = of_method(columns, kind, elsewhere)
    table = rooms.data.read_data(data, rename=named, needs=kind.card.columns, drop_empty=drop_empty)
    pristine: Encoder | Encoders = open_encoder(kind.card.modality, encoder, options, table)
    opened = rooms.data.open_data(table, kind.card, pristine)
    protocols, selectors = (
        [rooms.evaluation.open_protocol(name, source, columns, table) for name, source in (wanted or {}).items()]
        for wanted in (on, select)
    )
    refuse_misfits(kind(chosen, copy.deepcopy(pristine)), opened, [*protocols, *selectors])
    given = {"data": {"data": data}, "select": select or {}, "on": on or {}}
    config = {
        "contrapose": contrapose.__version__,
        "method": method,
        "data": {**facts_of(table), "columns": dict(columns or {}), "drop_empty": drop_empty},
        "encoder": pristine.record(),
        "settings": chosen.model_dump(mode="json"),
        "select": {name: said(source) for name, source in given["select"].items()} or None,
        "on": {name: said(source) for name, source in given["on"].items()} or None,
        "from_python": [name for name, sources in given.items() if not all(map(has_name, sources.values()))] or None,
    }
    config["command"] = command_of(
        config, folder.path, kind.Settings(), options_of(kind.card.modality, config["encoder"])
    )
    fabric = make_fabric(chosen.precision, [TensorBoardLogger(folder.tensorboard, name="", version=""), *loggers])
    if resume:
        folder = RunFolder.open(folder.path)
        folder.refuse_changes(config)
        folder.last_checkpoint()  # a damaged one is refused before anything is said
    elif fabric.is_global_zero:
        RunFolder.create(folder.path, config)
    fabric.barrier()  # no process goes on before there is a run

    reporter: Reporter = Terminal() if progress and fabric.is_global_zero else Silent()
    with saying_how_to_go_on(config, folder.path, reporter), stopped_at_once(folder.saved_step):
        dropped = f" ({table.dropped} with an empty column left out)" if table.dropped else ""
        reporter.say(f"{table.source}: {len(table):,} rows{dropped}. Encoder: {pristine}.")
        with closed(fabric.loggers):
            trained = fit(
                lambda which, with_settings: which(with_settings, copy.deepcopy(pristine)),
                kind,
                chosen,
                opened,
                folder,
                select=partial(mean_score, selectors) if selectors else None,
                fabric=fabric,
                reporter=reporter,
            )
        model = None
        if fabric.is_global_zero:
            model = conclude(folder, trained, pristine, protocols, table, reporter)
        fabric.barrier()
    return Run(folder, model if config["encoder"].get("own_module") else None)  # others are loaded when asked for


def mean_score(selectors: Sequence[Any], model: Method) -> float:
    """What the best weights are chosen by: the mean over the development data's protocols."""
    return sum(protocol.score(together(model.encoders())) for protocol in selectors) / len(selectors)


@contextmanager
def saying_how_to_go_on(config: Mapping[str, Any], out: Path, reporter: Reporter) -> Iterator[None]:
    """A run that is stopped says what to do with it."""
    try:
        yield
    except Stopped as stopped:
        reporter.say(f"The run was {stopped}. {how_to_go_on(config, out)}")
        raise
    except KeyboardInterrupt:
        reporter.say(f"The run was stopped at once; what was saved last is kept. {how_to_go_on(config, out)}")
        raise


def compare(
    methods: Sequence[str],
    data: Any,
    *,
    on: Mapping[str, Any],
    select: Mapping[str, Any] | None = None,
    encoder: Any = None,
    columns: Mapping[str, str] | None = None,
    drop_empty: bool = False,
    settings: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: int = 3,
    out: Path | str | None = None,
    progress: bool = True,
) -> Comparison:
    """Which of several methods wins on your data: the same encoder, rows, budget, tuning grid and seeds for each.

    `on`: the test data by protocol, scored once for each method and seed, beside the controls. `grid={"learning_rate": [1e-5, 5e-5]}` tries
    every combination with each method on `select`, the development data. `settings` are shared by all; `{"simcse.temperature": 0.1}` is of
    one method alone. `seeds`: three at least. `out`: the folder of trials, result.json and comparison.html; None: runs/compare/METHOD-METHOD.
    What was stopped goes on by the same call, and takes more methods and seeds. Other arguments as for `train`.

    Raises a ContraposeError before anything is trained for bad data, settings or names, and Stopped with everything saved after Ctrl-C.
    """
    folder = Path(out) if out is not None else Path("runs") / "compare" / "-".join(methods)
    result = compare_methods(
        methods, data, on=on, select=select, encoder=encoder, columns=columns, drop_empty=drop_empty, settings=settings,
        grid=grid, seeds=seeds, folder=folder, progress=progress,
    )  # fmt: skip
    write_comparison(result.page(), folder / "comparison.html")
    return result


def conclude(
    folder: RunFolder,
    trained: Method,
    pristine: Encoder | Encoders,
    protocols: Sequence[Any],
    table: Table,
    reporter: Reporter,
) -> Model:
    """Evaluate beside the controls, export, report."""
    encoders = trained.eval().to("cpu").encoders()
    entries = []
    for protocol in protocols:
        reporter.say(f"Evaluating {protocol.name} on {protocol.source} …")
        entries.append(protocol.evaluate({"untrained": pristine, "trained": together(encoders)}))
    folder.write_results(entries)
    model = write_checked(folder, encoders, table, entries)
    html.write_report(folder)
    return model


def resume(
    out: Path | str,
    *,
    method: str | None = None,
    data: str | None = None,
    encoder: str | None = None,
    columns: Mapping[str, str] | None = None,
    on: Mapping[str, Any] | None = None,
    select: Mapping[str, Any] | None = None,
    drop_empty: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
    loggers: Sequence[Logger] = (),
) -> Run:
    """Go on with a stopped run, as its config.yaml says; nothing else need be given, and what is given must agree with it.

    Raises RunMissing when there is no run, ResumeChanged when something differs, UsageInvalid for data that were handed over in memory.
    """
    folder = RunFolder.open(out)
    config = folder.config
    if config.get("from_python"):
        raise UsageInvalid(
            f"{out} took from Python what no file holds ({', '.join(config['from_python'])}). {how_to_go_on(config, folder.path)}"
        )
    if method is not None:  # before its settings are looked at
        folder.refuse_changes({**config, "method": method})
    return train(
        config["method"],
        data or config["data"]["source"],
        encoder={**config["encoder"], "name": encoder} if isinstance(encoder, str) else config["encoder"],
        out=out,
        columns={**config["data"]["columns"], **(columns or {})},
        on=on or config["on"],
        select=select or config["select"],
        drop_empty=drop_empty or config["data"]["drop_empty"],
        resume=True,
        progress=progress,
        loggers=loggers,
        settings={**config["settings"], **flattened(settings or {})},
    )


def demo(out: Path | str = "runs/demo", seed: int = 0) -> Run:
    """An English encoder learns Latvian: `train("pairs", …)` on the sample that comes with the package."""
    return train(
        "pairs",
        "sample:latvian/train",
        columns={"anchor": "english", "positive": "latvian"},
        select={"retrieval": "sample:latvian/dev"},
        on={"retrieval": "sample:latvian/test"},
        out=out,
        settings={"seed": seed, "encoder.max_tokens": 48, **DEMO},
    )


DEMO = {"epochs": 1.5}  # chosen on the development split


def evaluate(run: Run | Path | str, on: Mapping[str, Any], *, columns: Mapping[str, str] | None = None) -> Run:
    """Score a run beside the controls and add the results to it. `columns` as for `train`; None: those that it was trained with."""
    folder = RunFolder.open(run.path if isinstance(run, Run) else run)
    config = folder.config
    kind = catalogue.find_method(config["method"])
    rooms = rooms_of(kind.card.modality)
    named = columns if columns is not None else config["data"]["columns"]
    trained_beside = rooms.evaluation.protocol_columns([*(config["on"] or {}), *(config["select"] or {})])
    table = None  # of a run on data from Python: TF-IDF is then fitted on what is evaluated, and the result says so
    if "data" not in (config.get("from_python") or ()):
        table = rooms.data.read_data(
            config["data"]["source"],
            rename=of_method(config["data"]["columns"], kind, trained_beside),
            needs=kind.card.columns,
            drop_empty=config["data"]["drop_empty"],
        )
    protocols = [rooms.evaluation.open_protocol(name, source, named, table) for name, source in on.items()]
    untrained = open_encoder(kind.card.modality, config["encoder"], {}, table)
    systems = {"untrained": untrained, "trained": together(load(folder.path).encoders)}
    new = [protocol.evaluate(systems) for protocol in protocols]
    again = {(entry["protocol"], entry["data"]) for entry in new}
    folder.write_results([entry for entry in folder.results() if (entry["protocol"], entry["data"]) not in again] + new)
    html.write_report(folder)
    return Run(folder)


def embed(
    run: Run | Path | str,
    data: Any,
    out: Path | str,
    *,
    column: str | None = None,
    keep: Sequence[str] = (),
    precision: Precision = "auto",
) -> Path:
    """Embed a corpus into .parquet or .npy, streamed and resumable. `keep` columns are carried along (Parquet).

    `precision` of the matrix products: "auto" is bfloat16 where the processor has it and the first rows' vectors have cosines of at least
    0.999 with those in float32, which is said. The vectors themselves are float32 always.
    """
    refuse_out(Path(out))
    model = run.model if isinstance(run, Run) else load(run)
    data_room = rooms_of(model.modality).data
    table = data_room.read_data(data)
    names = [name for name in (model.modality, *table.columns) if name in table.columns]  # "text", "image"
    if column is None and model.modality not in table.columns and len(table.columns) > 1:
        raise UsageInvalid(
            f"{table.source} has the columns {', '.join(table.columns)}; say which to embed with --column."
        )
    for name in [*([column] if column else []), *keep]:
        if name not in table.columns:
            raise ColumnMissing(f"{table.source} has no column '{name}'; {nearest(name, table.columns)}")
    column = column or names[0]
    data_room.refuse_values(table, column)
    encode = partial(
        model.encode, encoder=column if column in model.encoders else None
    )  # of several, the one that reads it
    values = data_room.values_of(table, column, model.encoder(column if column in model.encoders else None))
    chosen = checked_precision(encode, values, precision)
    return embed_corpus(
        partial(encode, progress=False, precision=chosen),
        values,
        Path(out),
        identity=f"{model.fingerprint} {table.fingerprint} {column} {chosen}",
        columns={name: table[name] for name in keep},
    )


def check(
    data: Any,
    method: str = "pairs",
    *,
    encoder: Any = None,
    columns: Mapping[str, str] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> CheckReport:
    """What is wrong with data, by row, before anything is trained."""
    kind = catalogue.find_method(method)
    flat, options = apart_from_encoder(settings or {})
    chosen = parse_settings(kind.Settings, flat, owner=f"method '{method}'")
    rooms = rooms_of(kind.card.modality)
    table = rooms.data.read_data(data, rename=columns, needs=kind.card.columns, strict=False)
    opened = open_encoder(kind.card.modality, encoder, options, table)
    return rooms.data.check_data(table, kind.card, opened, chosen.batch_size)


def write_report(run: Run | Path | str) -> Path:
    """Write a run's report.html anew; its path."""
    return html.write_report(RunFolder.open(run.path if isinstance(run, Run) else run))


def open_run(path: Path | str) -> Run:
    """A run on disk. Raises RunMissing when there is none."""
    return Run(RunFolder.open(path))


def methods() -> dict[str, catalogue.Listing]:
    """Every method by name."""
    return catalogue.methods()


def free_folder(method: str) -> Path:
    """The first of runs/METHOD-1, runs/METHOD-2, … that is not there."""
    number = 1
    while (path := Path("runs") / f"{method}-{number}").exists():
        number += 1
    return path

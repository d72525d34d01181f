"""The public calls: here names become encoders and files become data."""

from __future__ import annotations

import copy
import importlib
import shlex
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml
from lightning_fabric.loggers import Logger, TensorBoardLogger

import contrapose
from contrapose import catalogue
from contrapose.claims.reproduce import reproduce
from contrapose.data.check import CheckReport
from contrapose.data.columns import GROUP
from contrapose.data.readers import read
from contrapose.data.table import Table
from contrapose.errors import ColumnMissing, SettingsFileInvalid, UsageInvalid, nearest
from contrapose.export.model_folder import Model, card_text, largest_difference, load, write_model
from contrapose.export.vectors import embed_corpus, refuse_out
from contrapose.report.html import write_report
from contrapose.run import Run
from contrapose.training.encoder import Encoder
from contrapose.training.interrupts import Stopped
from contrapose.training.loop import fit
from contrapose.training.method import Method
from contrapose.training.plan import refuse_without_negatives
from contrapose.training.progress import Reporter, Silent, Terminal
from contrapose.training.run_folder import RunFolder, flattened
from contrapose.training.settings import parse_settings
from contrapose.training.setup import make_fabric

CHECKED_VALUES = 64  # compared at export

__all__ = [
    "Model",
    "Run",
    "check",
    "demo",
    "embed",
    "evaluate",
    "load",
    "methods",
    "open_run",
    "report",
    "reproduce",
    "resume",
    "train",
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
    `columns={"anchor": "english"}` says which of yours is meant.
    `encoder`: a name, a folder, `{"name": …, "layers": 4}`, an `Encoder`, or `(module, tokeniser)`; None: the offline default.
    `on={"retrieval": "test.csv"}` evaluates before and after; `select={"retrieval": "dev.csv"}` keeps the weights that score best there.
    Further keywords are the method's settings. Any Fabric logger can be passed; TensorBoard and metrics.jsonl are always written.

    Raises a ContraposeError before anything is written for bad data, settings or names, and Stopped with the state saved after Ctrl-C.
    """
    kind = catalogue.find_method(method)
    rooms = rooms_of(kind.card.modality)
    flat = {**flattened(settings or {}), **flattened(more_settings)}
    options = {name.removeprefix("encoder."): flat.pop(name) for name in list(flat) if name.startswith("encoder.")}
    chosen = parse_settings(kind.Settings, flat, owner=f"method '{method}'")
    folder = RunFolder(out or free_folder(method))
    if not resume:
        folder.refuse_existing()

    pristine: Encoder = rooms.encoder.open_encoder(encoder, options)
    elsewhere = rooms.evaluation.protocol_columns([*(on or {}), *(select or {})])
    table = read(data, rename=of_method(columns, kind, elsewhere), needs=kind.card.columns, drop_empty=drop_empty)
    opened = rooms.data.open_data(table, kind.card, pristine)
    refuse_without_negatives(kind(chosen), opened)
    protocols = [rooms.evaluation.open_protocol(name, source, columns, table) for name, source in (on or {}).items()]
    selectors = [
        rooms.evaluation.open_protocol(name, source, columns, table) for name, source in (select or {}).items()
    ]
    config = {
        "contrapose": contrapose.__version__,
        "method": method,
        "data": {
            "source": table.source,
            "rows": len(table),
            "fingerprint": table.fingerprint,
            "columns": dict(columns or {}),
            "drop_empty": drop_empty,
        },
        "encoder": pristine.record(),
        "settings": chosen.model_dump(mode="json"),
        "select": {name: str(source) for name, source in (select or {}).items()} or None,
        "on": {name: str(source) for name, source in (on or {}).items()} or None,
    }
    config["command"] = command_of(config, folder, kind)
    if resume:
        folder = RunFolder.open(folder.path)
        folder.refuse_changes(config)
        folder.last_checkpoint()  # a damaged one is refused before anything is said
    else:
        folder = RunFolder.create(folder.path, config)

    reporter: Reporter = Terminal() if progress else Silent()
    said(reporter, pristine, table)
    tensorboard = TensorBoardLogger(folder.path / "tensorboard", name="", version="")
    fabric = make_fabric(chosen.precision, [tensorboard, *loggers])

    def create(which: type[Method], with_settings: Any) -> Method:
        return which(with_settings, copy.deepcopy(pristine))

    def score(model: Method) -> float:
        return sum(protocol.score(next(iter(model.encoders().values()))) for protocol in selectors) / len(selectors)

    try:
        trained = fit(
            create, kind, chosen, opened, folder, select=score if selectors else None, fabric=fabric, reporter=reporter
        )
    except Stopped as stopped:
        reporter.say(
            f"The run was {stopped}. Go on with: contrapose train --resume --out {shlex.quote(str(folder.path))}"
        )
        raise
    if fabric.is_global_zero:
        conclude(folder, trained, pristine, protocols, table, reporter)
    fabric.barrier()
    return Run(folder)


def said(reporter: Reporter, encoder: Encoder, table: Table) -> None:
    """What is about to be trained on what."""
    dropped = f" ({table.dropped} with an empty column left out)" if table.dropped else ""
    reporter.say(f"{table.source}: {len(table):,} rows{dropped}. Encoder: {encoder}.")


def conclude(
    folder: RunFolder, trained: Method, pristine: Encoder, protocols: Sequence[Any], table: Table, reporter: Reporter
) -> None:
    """Evaluate beside the controls, export, report."""
    encoders = trained.eval().to("cpu").encoders()
    entries = []
    for protocol in protocols:
        reporter.say(f"Evaluating {protocol.name} on {protocol.source} …")
        entries.append(protocol.evaluate({"untrained": pristine, "trained": next(iter(encoders.values()))}))
    folder.write_results(entries)
    export(folder, encoders, table, entries)
    write_report(folder)


def export(folder: RunFolder, encoders: dict[str, Encoder], table: Table, entries: Sequence[Mapping[str, Any]]) -> None:
    """Write `model/`, read it back, compare, and say in its card how far the vectors differ."""
    config = folder.config
    card = catalogue.find_method(config["method"]).card
    model = Model(encoders, card.modality, config["method"])
    write_model(model, folder.model)
    column = next(column.name for column in card.columns if column.required)
    values = table[column][:CHECKED_VALUES]
    differences = rooms_of(card.modality).encoder.compare_export(folder.model, model.encoder(), values)
    differences["contrapose.load"] = largest_difference(model.encoder(), load(folder.model).encoder(), values)
    checked = " ".join(
        f"Read back by {reader}, the unit vectors of {len(values)} training rows differ by at most {difference:.1e}."
        for reader, difference in differences.items()
    )
    write_model(model, folder.model, card_text(model, config, entries, checked))


def resume(out: Path | str, *, progress: bool = True, loggers: Sequence[Logger] = ()) -> Run:
    """Go on with a stopped run, as its config.yaml says. Raises RunMissing when there is none."""
    config = RunFolder.open(out).config
    if not isinstance(config["data"]["source"], str) or config["data"].get("in_memory"):
        raise UsageInvalid(
            f"{out} was trained on data from Python; call contrapose.train(…, resume=True) with the same data."
        )
    return train(
        config["method"],
        config["data"]["source"],
        encoder=config["encoder"],
        out=out,
        columns=config["data"]["columns"],
        on=config["on"],
        select=config["select"],
        drop_empty=config["data"]["drop_empty"],
        resume=True,
        progress=progress,
        loggers=loggers,
        settings=config["settings"],
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
    table = read(
        config["data"]["source"],
        rename=of_method(config["data"]["columns"], kind, trained_beside),
        needs=kind.card.columns,
        drop_empty=config["data"]["drop_empty"],
    )
    protocols = [rooms.evaluation.open_protocol(name, source, named, table) for name, source in on.items()]
    systems = {"untrained": rooms.encoder.open_encoder(config["encoder"], {}), "trained": load(folder.path).encoder()}
    new = [protocol.evaluate(systems) for protocol in protocols]
    again = {(entry["protocol"], entry["data"]) for entry in new}
    folder.write_results([entry for entry in folder.results() if (entry["protocol"], entry["data"]) not in again] + new)
    write_report(folder)
    return Run(folder)


def embed(
    run: Run | Path | str, data: Any, out: Path | str, *, column: str | None = None, keep: Sequence[str] = ()
) -> Path:
    """Embed a corpus into .parquet or .npy, streamed and resumable. `keep` columns are carried along (Parquet)."""
    path = run.path if isinstance(run, Run) else Path(run)
    refuse_out(Path(out))
    model, table = load(path), read(data)
    names = [name for name in ("text", *table.columns) if name in table.columns]
    if column is None and "text" not in table.columns and len(table.columns) > 1:
        raise UsageInvalid(
            f"{table.source} has the columns {', '.join(table.columns)}; say which to embed with --column."
        )
    for name in [*([column] if column else []), *keep]:
        if name not in table.columns:
            raise ColumnMissing(f"{table.source} has no column '{name}'; {nearest(name, table.columns)}")
    column = column or names[0]
    return embed_corpus(
        partial(model.encode, progress=False),
        table[column],
        Path(out),
        identity=f"{model.fingerprint} {table.fingerprint} {column}",
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
    flat = flattened(settings or {})
    options = {name.removeprefix("encoder."): flat.pop(name) for name in list(flat) if name.startswith("encoder.")}
    chosen = parse_settings(kind.Settings, flat, owner=f"method '{method}'")
    return rooms_of(kind.card.modality).data.check_data(
        read(data, rename=columns, needs=kind.card.columns, strict=False),
        kind.card,
        rooms_of(kind.card.modality).encoder.open_encoder(encoder, options),
        chosen.batch_size,
    )


def report(run: Run | Path | str) -> Path:
    """Write a run's report.html anew."""
    return write_report(RunFolder.open(run.path if isinstance(run, Run) else run))


def open_run(path: Path | str) -> Run:
    """A run on disk. Raises RunMissing when there is none."""
    return Run(RunFolder.open(path))


def methods() -> dict[str, catalogue.Listing]:
    """Every method by name."""
    return catalogue.methods()


def rooms_of(modality: str) -> SimpleNamespace:
    """A modality's data, encoder and evaluation modules."""
    return SimpleNamespace(
        **{room: importlib.import_module(f"contrapose.{modality}.{room}") for room in ("data", "encoder", "evaluation")}
    )


def of_method(columns: Mapping[str, str] | None, kind: type[Method], elsewhere: Collection[str]) -> dict[str, str]:
    """The renamings without those that are meant for a protocol's data alone, whose columns are `elsewhere`."""
    own = {GROUP, *(column.name for column in kind.card.columns)}
    return {name: yours for name, yours in (columns or {}).items() if name in own or name not in elsewhere}


def free_folder(method: str) -> Path:
    """The first of runs/METHOD-1, runs/METHOD-2, … that is not there."""
    number = 1
    while (path := Path("runs") / f"{method}-{number}").exists():
        number += 1
    return path


def read_settings(path: Path) -> dict[str, Any]:
    """Names and values of a YAML file. Raises SettingsFileInvalid naming the line."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsFileInvalid(f"{path} cannot be read ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise SettingsFileInvalid(f"{path}{place} is not YAML; write one `name: value` a line.") from None
    if not isinstance(values, dict):
        raise SettingsFileInvalid(f"{path} holds no names and values; write one `name: value` a line.")
    return flattened(values)


def command_of(config: Mapping[str, Any], folder: RunFolder, kind: type[Method]) -> str:
    """The command line that repeats a run, settings at their default left out."""
    words = [
        "contrapose",
        "train",
        config["method"],
        "--data",
        config["data"]["source"],
        "--encoder",
        config["encoder"]["name"],
    ]
    for needed, yours in config["data"]["columns"].items():
        words += ["--map", f"{needed}={yours}"]
    for name, value in config["encoder"].items():
        if name in ("layers", "pooling", "max_tokens") and value is not None:
            words += ["--set", f"encoder.{name}={value}"]
    defaults = kind.Settings().model_dump(mode="json")
    for name, value in config["settings"].items():
        if value != defaults[name]:
            words += ["--set", f"{name}={value}"]
    for option in ("select", "on"):
        for protocol, source in (config[option] or {}).items():
            words += [f"--{option}", f"{protocol}={source}"]
    if config["data"]["drop_empty"]:
        words.append("--drop-empty")
    return shlex.join([*words, "--out", str(folder.path)])

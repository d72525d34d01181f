"""The public call that looks at the temperature of a run: names become encoders and files become rows to look at."""

from __future__ import annotations

import copy
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from contrapose.catalogue import find_method
from contrapose.claims.diagnosis import Diagnosis
from contrapose.claims.reproduce import FEWEST, RESULT, circumstances, mark, trials_folder
from contrapose.claims.sweep import NAME, LookedAt, SweepTask, encoders_of, sweep_temperatures
from contrapose.data.batches import Facts
from contrapose.data.columns import GROUP, Column
from contrapose.errors import ProtocolDataInvalid, TemperatureInvalid, TemperatureMissing, TooFewValues, UsageInvalid
from contrapose.evaluation.behaviour import behaviour
from contrapose.evaluation.labelled import divide
from contrapose.export.model_folder import load
from contrapose.opening import content_of, facts_of, of_method, rooms_of, said
from contrapose.report.diagnosis import write_diagnosis
from contrapose.training.bar import Bar
from contrapose.training.method import Method
from contrapose.training.run_folder import RunFolder, flattened, write_text
from contrapose.training.settings import MethodSettings, parse_settings

if TYPE_CHECKING:
    from contrapose.run import Run

TEMPERATURES = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
PAGE = "diagnosis.html"
ROWS = 5000  # looked at, evenly spaced
MOST_NEGATIVES = 4095  # where a method does not say how many an anchor has: the paper's queue
LABELS = (
    Column("label", "label", "What the rows are, for tolerance and kNN.", required=False),
    Column("split", "label", "'train' or 'test', for kNN.", required=False),
)


def diagnose(
    run: Run | Path | str,
    *,
    on: Any = None,
    columns: Mapping[str, str] | None = None,
    temperatures: Sequence[float] | None = None,
    rows: int = ROWS,
    sweep: bool = False,
    score: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    seeds: int = FEWEST,
    out: Path | str | None = None,
    progress: bool = True,
) -> Diagnosis:
    """Is the temperature of a run right? What its loss hears at this one and at others, and what training with others gives.

    Without training, the run's encoder embeds its data, or `on`: uniformity, alignment where rows have a positive, tolerance where they have a
    column `label`, and for each temperature the entropy of the relative penalties, the effective number of negatives, the share of the force
    on the hardest 1 % and on rows of the anchor's own label. Each anchor has as many negatives as in training. The encoder's output is looked
    at; a projection head that training puts between it and the loss is not.

    `sweep=True` also trains the method anew with each temperature, `seeds` times, with the run's other settings (`settings` override them) and
    without choosing weights on development data, and measures uniformity, tolerance and kNN accuracy on the same rows, and every protocol
    of `score={"retrieval": "dev.csv"}`. Without a column `split` a quarter of the rows of each label is told by the others. What was stopped
    goes on by the same call.

    Args:
        run: a finished run, or its folder.
        on: rows to look at, as `train` takes data; None: those that the run was trained on. A column `label` is used where there is one.
        columns: as for `train`: `{"label": "topic"}`.
        temperatures: which to look at; None: 0.02, 0.05, 0.1, 0.2, 0.5, 1 and the run's own, which is always among them.
        rows: how many rows to look at, evenly spaced over the data.
        sweep: train with each temperature.
        score: development data by protocol, for the sweep.
        settings: of the sweep's trainings, such as `{"steps": 100}`.
        seeds: of each temperature, three at least.
        out: the folder of result.json, diagnosis.html and the trials; None: `diagnosis` in the run's folder.
        progress: show bars.

    Raises:
        RunMissing: there is no run.
        ModelFolderInvalid: the run has not finished.
        TemperatureMissing: its method has no setting `temperature`.
        TemperatureInvalid: a temperature is not a positive number.
        ProtocolDataInvalid: no two rows have the same label, or kNN has too few of one.
        ClaimFolderTaken: `out` holds something else.
        UsageInvalid: data that only Python held and no `on`, fewer than three seeds, fewer than two temperatures in a sweep.
        Stopped: after Ctrl-C in a sweep, with everything saved.
    """
    folder = RunFolder.open(getattr(run, "path", run))
    config = folder.config
    kind = find_method(config["method"])
    refuse_without_temperature(kind, config)
    own = temperature_of(folder)
    tried = asked(temperatures, own, sweep, seeds)
    out = trials_folder(NAME, out, folder.path / "diagnosis")
    model, rooms = load(folder.path), rooms_of(kind.card.modality)
    if "data" in (config.get("from_python") or ()) and (on is None or sweep):
        raise UsageInvalid(
            f"{folder.path} was trained on data that only Python held, so they cannot be read again: give rows to look at (on=…), "
            "and train the sweep's method on a file."
        )
    seen = rows_to_look_at(kind, config, on, columns, rows, sweep, model.encoders)
    pristine = rooms.encoder.open_encoder(config["encoder"], {})
    task = chosen = None
    if sweep:
        overridden = {**config["settings"], **flattened(settings or {})}
        chosen = parse_settings(kind.Settings, overridden, owner=f"method '{config['method']}'").model_dump(mode="json")
        task = task_of_sweep(kind, config, pristine, seen, columns, score or {})
    count = negatives_of(kind, config, pristine, seen)
    systems = {"untrained": encoders_of(pristine), "trained": model.encoders}
    found = {name: measured(seen, encoders, tried, count, progress) for name, encoders in systems.items()}
    swept = None if task is None else sweep_temperatures(config["method"], tried, task, chosen, seeds, out, progress)
    mark(out, NAME)
    words = {"on": on, "map": columns, "score": score, "set": settings}
    result = Diagnosis(
        {
            "what": "diagnosis",
            "run": str(folder.path),
            "method": config["method"],
            "encoder": config["encoder"]["name"],
            "temperature": own,
            "looked_at": {"source": seen.source, "total": seen.total, "columns": list(seen.columns)},
            "behaviour": found,
            "sweep": swept,
            "command": command_of(folder.path, words, temperatures, rows, seeds if sweep else None, out),
            **circumstances(),
            "folder": str(out),
        }
    )
    write_text(out / RESULT, result.to_json() + "\n")
    write_diagnosis(result.page(), out / PAGE)
    return result


def refuse_without_temperature(kind: type[Method], config: Mapping[str, Any]) -> None:
    if not any(column.required for column in kind.card.columns):
        raise UsageInvalid(
            f"The method '{config['method']}' compares several modalities at once, and a diagnosis is of rows of one, or of pairs: what its loss "
            "hears cannot be told from cosines. Train with several temperatures instead, and hold the scores side by side: --set temperature=0.05 --on zero_shot=DATA."
        )
    if "temperature" not in kind.Settings.model_fields:
        raise TemperatureMissing(
            f"The method '{config['method']}' has no setting 'temperature', so there is none to diagnose; its settings: "
            f"{', '.join(name for name in kind.Settings.model_fields if name not in MethodSettings.model_fields) or 'none of its own'}."
        )


def temperature_of(folder: RunFolder) -> float | None:
    """The temperature that the run ended with: what it learned or chose where it says so, otherwise its setting."""
    watched = [line["watched"]["temperature"] for line in folder.metrics() if "temperature" in line.get("watched", {})]
    found = watched[-1] if watched else folder.config["settings"].get("temperature")
    return None if found is None else float(f"{found:.6g}")  # a learned one is float32


def asked(temperatures: Sequence[float] | None, own: float | None, sweep: bool, seeds: int) -> list[float]:
    """The temperatures to look at with the run's own, in order. Raises TemperatureInvalid, UsageInvalid."""
    given = [float(f"{each:.6g}") for each in (TEMPERATURES if temperatures is None else temperatures)]
    for each in given:
        if not (math.isfinite(each) and each > 0):
            raise TemperatureInvalid(
                f"temperatures must be positive numbers, since similarities are divided by them; got {each:g}."
            )
    tried = sorted({*given, *(() if own is None else (own,))})
    if not tried or (sweep and len(tried) < 2):
        raise UsageInvalid(
            f"{'A sweep takes two temperatures or more' if sweep else 'No temperature is given'}: 0.05,0.1,0.5."
        )
    if sweep and seeds < FEWEST:
        raise UsageInvalid(f"seeds is {seeds}; a difference needs {FEWEST} or more: their spread decides it.")
    return tried


def rows_to_look_at(
    kind: type[Method],
    config: Mapping[str, Any],
    on: Any,
    columns: Mapping[str, str] | None,
    rows: int,
    sweep: bool,
    encoders: Mapping[str, Any],
) -> LookedAt:
    """The run's data or others, read and checked, with the columns that are embedded, and labels where there are any."""
    if rows < 3:
        raise UsageInvalid(f"rows is {rows}; a diagnosis looks at 3 rows or more, and at a few thousand to say much.")
    data = rooms_of(kind.card.modality).data
    required = [column for column in kind.card.columns if column.required]
    first = required[0]
    positives = [each for each in required[1:] if each.name == "positive" or each.name in encoders][:1]
    needs = (first, *(replace(each, required=on is None) for each in positives), *LABELS)
    named = {**(config["data"]["columns"] if on is None else {}), **(columns or {})}
    known = {GROUP, *(column.name for column in needs)}
    table = data.read_data(
        config["data"]["source"] if on is None else on,
        rename={name: yours for name, yours in named.items() if name in known or name in (columns or {})},
        needs=needs,
        drop_empty=config["data"]["drop_empty"],
    )
    if len(table) < 3:
        raise TooFewValues(
            f"{table.source} has {len(table)} rows; a diagnosis looks at 3 or more, and at a few thousand to say much."
        )
    every = slice(None, None, -(-len(table) // rows))
    labels = [str(label) for label in table["label"][every]] if "label" in table else None
    if labels is not None and len(set(labels)) == len(labels):
        raise ProtocolDataInvalid(
            f"{table.source}: no two of the {len(labels):,} rows looked at have the same 'label', so tolerance is not defined. "
            "Look at more --rows, or at data without that column."
        )
    group = None if table.group is None else table.group[every]
    labelled = None
    if sweep and labels is not None:
        labelled = divide(
            labels,
            list(table["split"][every]) if "split" in table else None,
            source=table.source,
            where=lambda row: table.where(row * every.step),
            groups=[] if group is None else [[number if number >= 0 else None for number in group.tolist()]],
        )
    codes = {label: code for code, label in enumerate(sorted(set(labels or ())))}
    return LookedAt(
        table.source,
        len(table),
        (first.name, *(each.name for each in positives if each.name in table)),
        lambda column, encoder: data.values_of(table, column, encoder)[every],
        None if labels is None else torch.tensor([codes[label] for label in labels]),
        group,
        labelled,
        {"fingerprint": table.fingerprint, "step": every.step},
    )


def task_of_sweep(
    kind: type[Method],
    config: Mapping[str, Any],
    pristine: Any,
    seen: LookedAt,
    columns: Mapping[str, str] | None,
    score: Mapping[str, Any],
) -> SweepTask:
    """What the sweep trains on, as the run did, and what it is scored by."""
    rooms = rooms_of(kind.card.modality)
    named = {**config["data"]["columns"], **(columns or {})}
    table = rooms.data.read_data(
        config["data"]["source"],
        rename=of_method(config["data"]["columns"], kind, [*config["data"]["columns"]]),
        needs=kind.card.columns,
        drop_empty=config["data"]["drop_empty"],
    )
    protocols = [rooms.evaluation.open_protocol(name, source, named, table) for name, source in score.items()]
    facts = {
        **facts_of(table),
        "columns": config["data"]["columns"],
        "encoder": pristine.record(),
        "looked_at": {**seen.identity, "columns": list(seen.columns), "labelled": seen.labelled and seen.labelled.how},
        "score": {name: content_of(source, rooms.data.read_data) for name, source in score.items()},
    }
    return SweepTask(rooms.data.open_data(table, kind.card, pristine), pristine, seen, protocols, facts)


def negatives_of(kind: type[Method], config: Mapping[str, Any], pristine: Any, seen: LookedAt) -> int:
    """How many negatives an anchor of a full training batch had, as far as there are so many rows to look at."""
    chosen = kind.Settings(**config["settings"])
    trained_on = config["data"]["rows"]
    facts = Facts(trained_on, tuple(column.name for column in kind.card.columns if column.required))
    count = kind(chosen, copy.deepcopy(pristine)).negatives(min(chosen.batch_size, trained_on), facts) or MOST_NEGATIVES
    return max(1, min(count, -(-seen.total // seen.identity["step"]) - 1))


def measured(
    seen: LookedAt, encoders: Mapping[str, Any], temperatures: Sequence[float], negatives: int, progress: bool
) -> dict[str, Any]:
    """The meters of one system, as JSON values."""
    vectors = seen.vectors(encoders, progress)
    given = {"temperatures": temperatures, "negatives": negatives, "labels": seen.labels, "group": seen.group}
    with Bar("Looking", len(vectors[0]), shown=progress) as bar:
        return asdict(behaviour(*vectors, **given, advance=bar.advance))


def command_of(
    run: Path,
    words: Mapping[str, Any],
    temperatures: Sequence[float] | None,
    rows: int,
    seeds: int | None,
    out: Path,
) -> str:
    """The command that repeats a diagnosis; data that only Python holds are named by their kind."""
    said_on = [] if words["on"] is None else ["--on", said(words["on"])]
    given = ["contrapose", "diagnose", str(run), *said_on]
    for option in ("map", "score", "set"):
        for name, value in (words[option] or {}).items():
            given += [f"--{option}", f"{name}={said(value) if option == 'score' else value}"]
    given += [] if temperatures is None else ["--temperatures", ",".join(f"{each:g}" for each in temperatures)]
    given += [] if rows == ROWS else ["--rows", str(rows)]
    given += [] if seeds is None else ["--sweep", "--seeds", str(seeds)]
    return shlex.join([*given, *([] if out == run / "diagnosis" else ["--out", str(out)])])

"""Several methods on the user's own data: the same encoder, budget, grid and seeds for each, and which differences are more than noise."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from contrapose.catalogue import find_method
from contrapose.claims.claim import Arm, Experiment, Figures, Split
from contrapose.claims.comparison import Comparison
from contrapose.claims.progress import TrialBar
from contrapose.claims.reproduce import (
    FEWEST,
    RESULT,
    TRIALS,
    circumstances,
    device_of,
    mark,
    run_arm,
    trials_folder,
    trials_of,
)
from contrapose.claims.trials import Trials
from contrapose.claims.verdict import INTERVAL, over_seeds
from contrapose.data.batches import Data
from contrapose.errors import UsageInvalid
from contrapose.opening import (
    apart_from_encoder,
    content_of,
    facts_of,
    of_method,
    open_encoder,
    options_of,
    rooms_of,
    said,
)
from contrapose.training.command import command_of_comparison
from contrapose.training.encoder import Encoder, Encoders, together
from contrapose.training.interrupts import interrupts
from contrapose.training.method import Method
from contrapose.training.plan import refuse_misfits
from contrapose.training.run_folder import write_text
from contrapose.training.settings import MethodSettings
from contrapose.training.setup import make_fabric, precision_said

NAME = "comparison"
TUNING_SEEDS = 3


class Measures(Protocol):
    """A protocol on its data: one number of an encoder, named `scored`, and the whole result beside the controls."""

    name: str
    source: str
    scored: str

    def score(self, encoder: Encoder) -> float: ...

    def evaluate(self, systems: Mapping[str, Encoder]) -> dict[str, Any]: ...


class OwnData:
    """What the trainings of a comparison stand on: a `Task` of the user's data, encoder and protocols.

    `data`: the training rows by method, as its columns. `protocols`: what is measured on each split; "dev" may have none.
    `facts`: what tells these data from others, as JSON values.
    """

    def __init__(
        self,
        data: Mapping[type[Method], Data],
        encoder: Encoder | Encoders,
        protocols: Mapping[Split, Sequence[Measures]],
        facts: Mapping[str, Any],
    ) -> None:
        self._data, self._encoder, self._protocols, self._facts = data, encoder, protocols, facts
        self.protocols = [protocol for split in protocols.values() for protocol in split]

    def data(self, method: type[Method]) -> Data:
        return self._data[method]

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, copy.deepcopy(self._encoder))

    def measure(self, model: Method, split: Split) -> Figures:
        system = together(model.eval().to("cpu").encoders())
        return {measure_name(protocol): protocol.score(system) for protocol in self._protocols[split]}

    def controls(self, split: Split) -> dict[str, Figures]:
        """Of every protocol; what only one of them knows stands in that one's column alone."""
        found: dict[str, Figures] = {}
        for protocol in self._protocols[split]:
            systems = protocol.evaluate({"untrained": self._encoder, "again": self._encoder})["result"]["systems"]
            for name, metrics in systems.items():
                if name != "again":
                    found.setdefault(name, {})[measure_name(protocol)] = headline(metrics, protocol.scored)
        return found

    def facts(self) -> dict[str, Any]:
        return dict(self._facts)


def measure_name(protocol: Measures) -> str:
    return f"{protocol.name}: {protocol.scored}"


def headline(metrics: Mapping[str, Mapping[str, float]], scored: str) -> float:
    """The number that `score` gives, out of a result: the figure of that name, over all sub-sets, or the mean over both directions."""
    for name in (scored, f"{scored} all"):
        if name in metrics:
            return metrics[name]["value"]
    return float(np.mean([score["value"] for name, score in metrics.items() if name.startswith(f"{scored} ")]))


def compare_methods(
    methods: Sequence[str],
    data: Any,
    *,
    on: Mapping[str, Any],
    select: Mapping[str, Any] | None,
    encoder: Any,
    columns: Mapping[str, str] | None,
    drop_empty: bool,
    settings: Mapping[str, Any] | None,
    grid: Mapping[str, Sequence[Any]] | None,
    seeds: int,
    folder: Path,
    progress: bool,
) -> Comparison:
    """`contrapose.compare`, but for the page."""
    kinds = comparable(methods, on, select, grid, seeds)
    rooms = rooms_of(kinds[methods[0]].card.modality)
    values, options = apart_from_encoder(settings or {})
    asked = {**values}
    own = {name: {} for name in methods}
    for name in [name for name in values if name.partition(".")[0] in own]:
        method, _, setting = name.partition(".")
        own[method][setting] = values.pop(name)
    elsewhere = rooms.evaluation.protocol_columns([*on, *(select or {})])
    tables = {
        kind: rooms.data.read_data(
            data, rename=of_method(columns, kind, elsewhere), needs=kind.card.columns, drop_empty=drop_empty
        )
        for kind in kinds.values()
    }
    table = next(iter(tables.values()))
    pristine = open_encoder(kinds[methods[0]].card.modality, encoder, options, table)
    given: dict[Split, Mapping[str, Any]] = {"dev": select or {}, "test": on}
    protocols = {
        split: [rooms.evaluation.open_protocol(name, source, columns, table) for name, source in wanted.items()]
        for split, wanted in given.items()
    }
    contents = {
        split: {name: content_of(source, rooms.data.read_data) for name, source in wanted.items()}
        for split, wanted in given.items()
    }
    facts = {**facts_of(table), "columns": dict(columns or {}), "encoder": pristine.record(), **contents}
    opened = {kind: rooms.data.open_data(rows, kind.card, pristine) for kind, rows in tables.items()}
    arms = [Arm(name, name, own[name]) for name in methods]
    task = OwnData(opened, pristine, protocols, facts)
    result = compare_arms(arms, task, values, grid or {}, seeds, folder, progress)
    config = {
        "data": {"source": table.source, "columns": dict(columns or {}), "drop_empty": drop_empty},
        "encoder": pristine.record(),
        **{
            option: {name: said(source) for name, source in (wanted or {}).items()}
            for option, wanted in (("on", on), ("select", select))
        },
        "settings": asked,
        "grid": dict(grid or {}),
        "seeds": seeds,
    }
    result.record["folder"] = str(folder)
    result.record["command"] = command_of_comparison(
        methods, config, folder, options_of(kinds[methods[0]].card.modality, config["encoder"])
    )
    write_text(folder / RESULT, result.to_json() + "\n")
    return result


def comparable(
    methods: Sequence[str],
    on: Mapping[str, Any],
    select: Mapping[str, Any] | None,
    grid: Mapping[str, Sequence[Any]] | None,
    seeds: int,
) -> dict[str, type[Method]]:
    """The methods by name. Raises MethodUnknown, and UsageInvalid where they cannot be compared so."""
    kinds = {name: find_method(name) for name in methods}
    modalities = sorted({kind.card.modality for kind in kinds.values()})
    if len(kinds) < 2 or len(kinds) < len(methods):
        raise UsageInvalid(f"A comparison takes two methods or more, each once; got {', '.join(methods) or 'none'}.")
    if len(modalities) > 1:
        raise UsageInvalid(
            f"{', '.join(methods)} learn from other kinds of data ({', '.join(modalities)}), so nothing can be the same for all of them."
        )
    if not on:
        raise UsageInvalid("A comparison needs data to be measured on: --on sts=rated.csv.")
    if seeds < FEWEST:
        raise UsageInvalid(f"seeds is {seeds}; a difference needs {FEWEST} or more: their spread decides it.")
    if any(len(choices) > 1 for choices in (grid or {}).values()) and not select:
        raise UsageInvalid("A grid is chosen on development data, never on the test data: give --select sts=dev.csv.")
    return kinds


def compare_arms(
    arms: Sequence[Arm],
    task: OwnData,
    settings: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    seeds: int,
    folder: Path,
    progress: bool = True,
) -> Comparison:
    """Train every arm with every seed, tune it on the development split where there is a grid, score the test split once.

    Trials gather in `folder`; a comparison that was stopped goes on, and takes more arms and seeds.
    """
    experiment = Experiment(NAME, "", lambda _: task, settings, grid, minutes=1.0, tuning_seeds=TUNING_SEEDS)
    count = len(arms) * trials_of(experiment, seeds)
    folder = trials_folder(NAME, folder, folder)
    with interrupts(at_once=True), TrialBar(count, count, shown=progress) as bar:
        trials = Trials(experiment, task, folder / TRIALS, bar)
        for arm in arms:  # every setting is checked before anything is trained
            kind = find_method(arm.method)
            for point in experiment.points:
                values = trials.settings(kind, arm, point, 0)
                refuse_misfits(task.create(kind, values), task.data(kind), task.protocols)
        mark(folder, NAME)
        trained = {arm.name: run_arm(arm, trials, seeds, mean_over_measures) for arm in arms}
        for arm in arms:
            chosen = trained[arm.name]["chosen"]
            trained[arm.name]["bytes"] = max(
                (trials.memory(arm, chosen, seed) or 0 for seed in range(seeds)), default=0
            )
        controls = {name: [figures] for name, figures in task.controls("test").items()}
    fabric = make_fabric(settings.get("precision", "auto"))
    return Comparison(
        {
            "what": "comparison",
            "task": task.facts(),
            "seeds": list(range(seeds)),
            "interval": INTERVAL,
            "settings": dict(settings),
            "grid": {name: list(values) for name, values in grid.items()},
            "controls": controls,
            "arms": trained,
            "differences": differences(trained),
            "precision": precision_said(fabric),
            "device": device_of(fabric.device),
            **circumstances(),
        }
    )


def mean_over_measures(seeds: list[Figures]) -> float:
    """What a point of the grid is chosen by, as `select` does."""
    return float(np.mean([list(figures.values()) for figures in seeds]))


def differences(arms: Mapping[str, Any]) -> list[dict[str, Any]]:
    """In each measure, the best arm against every other: the gain of every seed, its interval, and whether it is more than seed noise."""
    found = []
    for measure in next(iter(arms.values()))["test"][0]:
        values = {name: np.array([figures[measure] for figures in arm["test"]]) for name, arm in arms.items()}
        first, *others = sorted(values, key=mean_of(values), reverse=True)
        for other in others:
            gains = values[first] - values[other]
            gain = over_seeds(gains)
            found.append(
                {
                    "measure": measure,
                    "first": first,
                    "second": other,
                    "gains": gains.tolist(),
                    "gain": gain._asdict(),
                    "more_than_noise": gain.low > 0,
                }
            )
    return found


def mean_of(values: Mapping[str, np.ndarray]) -> Callable[[str], float]:
    return lambda name: float(values[name].mean())

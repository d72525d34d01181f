"""One method trained with each of several temperatures: the same encoder, rows, steps and seeds."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import LongTensor, Tensor

from contrapose.catalogue import find_method
from contrapose.claims.claim import Arm, Experiment, Figures, Split
from contrapose.claims.compare import Measures, measure_name
from contrapose.claims.progress import TrialBar
from contrapose.claims.reproduce import TRIALS, device_of, mark, run_arm, trials_folder
from contrapose.claims.trials import Trials
from contrapose.claims.verdict import INTERVAL
from contrapose.data.batches import Data
from contrapose.evaluation.labelled import Labelled
from contrapose.evaluation.probes import NEIGHBOURS, knn_probe
from contrapose.geometry import alignment, tolerance, uniformity
from contrapose.training.encoder import Encoder, together
from contrapose.training.interrupts import interrupts
from contrapose.training.method import Method
from contrapose.training.plan import refuse_misfits
from contrapose.training.settings import MethodSettings
from contrapose.training.setup import make_fabric, precision_said

NAME = "diagnosis"  # of the folder's owner
KNN = f"kNN accuracy (k = {NEIGHBOURS})"


@dataclass(frozen=True)
class LookedAt:
    """The rows whose embeddings are measured: n of a table.

    columns: what is embedded, one or two names; of two, the second belongs to the first, row by row. values(column, encoder): its raw
    values as `encode` takes them. labels and group: (n,) integers or None. labelled: which rows vote and which are told, for kNN.
    identity: what tells these rows from others, as JSON values.
    """

    source: str
    total: int
    columns: tuple[str, ...]
    values: Callable[[str, Encoder], Sequence[Any]]
    labels: LongTensor | None
    group: LongTensor | None
    labelled: Labelled | None
    identity: Mapping[str, Any]

    def vectors(self, encoders: Mapping[str, Encoder], progress: bool) -> list[Tensor]:
        """(n, d) of each column, by the encoder of its name or the only one."""
        first = next(iter(encoders.values()))
        chosen = [encoders.get(column, first) for column in self.columns]
        return [
            torch.from_numpy(encoder.encode(self.values(column, encoder), progress=progress))
            for column, encoder in zip(self.columns, chosen, strict=True)
        ]

    def figures(self, encoders: Mapping[str, Encoder]) -> Figures:
        """The meters, and kNN accuracy where there are labels."""
        vectors = self.vectors(encoders, progress=False)
        found = {"uniformity": uniformity(vectors[0])}
        if len(vectors) > 1:
            found["alignment"] = alignment(*vectors)
        if self.labels is not None:
            directed = vectors[0].any(dim=1)  # a vector of zeros has no direction
            rows, labels = vectors[0][directed], self.labels[directed]
            found["tolerance"] = tolerance(rows, labels)
            found["same-label cosine"] = tolerance(rows, labels, mean_over="same_label")
        if self.labelled is not None:
            train, test = (vectors[0][rows] for rows in (self.labelled.train, self.labelled.test))
            found[KNN] = float((knn_probe(train, self.labelled.known, test) == self.labelled.truth).mean())
        return found


class SweepTask:
    """What the trainings of a sweep stand on: a `Task` of one method's data, an encoder, rows to look at and protocols that score."""

    def __init__(
        self,
        data: Data,
        encoder: Encoder,
        looked_at: LookedAt,
        protocols: Sequence[Measures],
        facts: Mapping[str, Any],
    ) -> None:
        self._data, self._encoder, self._looked_at, self._facts = data, encoder, looked_at, facts
        self.protocols = protocols

    def data(self, method: type[Method]) -> Data:
        return self._data

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        return method(settings, copy.deepcopy(self._encoder))

    def measure(self, model: Method, split: Split) -> Figures:
        return self.figures(model.eval().to("cpu").encoders())

    def controls(self, split: Split) -> dict[str, Figures]:
        return {"untrained": self.figures(encoders_of(self._encoder))}

    def facts(self) -> dict[str, Any]:
        return dict(self._facts)

    def figures(self, encoders: Mapping[str, Encoder]) -> Figures:
        scores = {measure_name(protocol): float(protocol.score(together(encoders))) for protocol in self.protocols}
        return {**self._looked_at.figures(encoders), **scores}


def encoders_of(system: Any) -> dict[str, Encoder]:
    """By name: several of a modality with several, or the only one."""
    return {"encoder": system} if isinstance(system, Encoder) else dict(system.items())


def sweep_temperatures(
    method: str,
    temperatures: Sequence[float],
    task: SweepTask,
    settings: Mapping[str, Any],
    seeds: int,
    folder: Path,
    progress: bool = True,
) -> dict[str, Any]:
    """Train the method with every temperature and seed, and measure; as JSON values, the arms by temperature as text.

    A temperature that the method could learn stands still. Trials gather in `folder`; a sweep that was stopped goes on, and takes more
    temperatures and seeds. Raises before anything is trained what a setting or the data are refused for.
    """
    kind = find_method(method)
    still = {"learn_temperature": False} if "learn_temperature" in kind.Settings.model_fields else {}
    arms = [Arm(f"{each:g}", method, {"temperature": each, **still}) for each in temperatures]
    shared = {name: value for name, value in settings.items() if name not in ("seed", "temperature", *still)}
    experiment = Experiment("temperatures", "", lambda _: task, shared, {}, minutes=1.0)
    folder = trials_folder(NAME, folder, folder)
    count = len(arms) * seeds
    with interrupts(at_once=True), TrialBar(count, count, shown=progress) as bar:
        trials = Trials(experiment, task, folder / TRIALS, bar)
        for arm in arms:  # every setting is checked before anything is trained
            refuse_misfits(task.create(kind, trials.settings(kind, arm, {}, 0)), task.data(kind), task.protocols)
        mark(folder, NAME)
        trained = {arm.name: run_arm(arm, trials, seeds, no_tuning) for arm in arms}
    fabric = make_fabric(shared.get("precision", "auto"))
    return {
        "task": task.facts(),
        "settings": shared,
        "seeds": list(range(seeds)),
        "interval": INTERVAL,
        "untrained": task.controls("test")["untrained"],
        "arms": trained,
        "precision": precision_said(fabric),
        "device": device_of(fabric.device),
    }


def no_tuning(seeds: list[Figures]) -> float:
    """An arm of a single point has nothing to choose."""
    return float(np.mean([list(figures.values()) for figures in seeds]))

"""What a claim is: the paper's words, data, arms that are trained alike, controls, measures, and what decides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike

from contrapose.errors import ClaimDataMissing

if TYPE_CHECKING:
    from contrapose.data.batches import Data
    from contrapose.training.method import Method
    from contrapose.training.settings import MethodSettings

Split = Literal["dev", "test"]
Figures = dict[str, float]  # measure → value

REPOSITORY_DATA = Path(__file__).parents[3] / "benchmarks" / "data"  # there in a clone, not in an installed package


@dataclass(frozen=True)
class Measure:
    """A figure of a trained model. `better`: which way it improves; "nearer 0" is for a bias, whose sign does not count."""

    name: str
    meaning: str
    better: Literal["larger", "smaller", "nearer 0"] = "larger"

    def gain(self, arm: ArrayLike, baseline: ArrayLike) -> np.ndarray:
        """By how much each of the arm's n values is better than the baseline's; below 0 where it is worse."""
        arm, baseline = np.asarray(arm, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
        if self.better == "nearer 0":
            return np.abs(baseline) - np.abs(arm)
        return arm - baseline if self.better == "larger" else baseline - arm


@dataclass(frozen=True)
class Arm:
    """A method as one side of a comparison. `settings` are what makes it this arm; they are not tuned."""

    name: str
    method: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Statement:
    """A sentence of the paper, and the comparison that decides it: `arm` against `baseline` in one measure.

    The baseline is another arm, or one of the claim's `controls`.
    `least`: the smallest gain that would bear it out, in the measure's unit; chosen before the test split is scored.
    """

    says: str
    measure: str
    arm: str
    baseline: str
    least: float = 0.0


@dataclass(frozen=True)
class Source:
    """The data of a claim: a folder with these files, in the repository or at a public address.

    `words`: what they are. `licence`: under which terms, and whose work it is.
    """

    name: str
    files: tuple[str, ...]
    words: str
    licence: str
    url: str
    in_repository: bool = True

    def is_in(self, folder: Path | str) -> bool:
        """Whether a folder holds all the files."""
        return all((Path(folder).expanduser() / name).is_file() for name in self.files)

    def find(self, given: Path | str | None = None) -> Path:
        """The folder that was given, or the repository's. Raises ClaimDataMissing, saying where the data are to be had."""
        folder = Path(given).expanduser() if given is not None else REPOSITORY_DATA / self.name
        missing = [name for name in self.files if not (folder / name).is_file()]
        if not missing and (given is not None or self.in_repository):
            return folder
        have = (
            f"They are in contrapose's repository under benchmarks/data/{self.name}"
            if self.in_repository
            else "Get them"
        )
        lacks = f"{folder} is no folder" if not folder.is_dir() else f"{folder} has no {', '.join(missing)}"
        wanting = lacks if given is not None or self.in_repository else "they are not in the repository"
        raise ClaimDataMissing(
            f"The claim needs the data '{self.name}' ({', '.join(self.files)}), and {wanting}. "
            f"{have} ({self.url}); give their folder by --data FOLDER."
        )


class Task(Protocol):
    """What the trainings of an experiment stand on: rows to learn from, a fresh encoder for each training, splits to measure on.

    Nothing is fitted on "dev" or "test"; "dev" chooses among the grid, "test" is measured once for what was chosen.
    """

    def data(self, method: type[Method]) -> Data:
        """The training rows, as the method's columns."""

    def create(self, method: type[Method], settings: MethodSettings) -> Method:
        """The method with a fresh encoder. Random weights come from torch's own generator, which the loop has seeded with the run's seed."""

    def measure(self, model: Method, split: Split) -> Figures:
        """The measures of a trained model on a split: all that mean something there."""

    def controls(self, split: Split) -> dict[str, Figures]:
        """Controls that need no encoder by name: what a classical rule reaches. The untrained encoder is measured beside them."""

    def facts(self) -> dict[str, Any]:
        """What the result says of data and encoder, as JSON values."""


@dataclass(frozen=True)
class Experiment:
    """All arms on one task: the same encoder, rows, settings, seeds and grid.

    `settings` are shared by all arms. Each arm tries every combination of `grid` with the first `tuning_seeds` seeds (1 to 3), and keeps the
    one with the best mean on the development split. `minutes`: of three seeds on two cores, for the time estimate. `source`: other data than
    the claim's; where they may not be in the repository, the experiment is left out unless they are given.
    """

    name: str
    words: str
    task: Callable[[Path], Task]
    settings: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    minutes: float
    tuning_seeds: int = 3
    source: Source | None = None

    @property
    def points(self) -> list[dict[str, Any]]:
        """Every combination of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


@dataclass(frozen=True)
class Claim:
    """The central claim of a paper, small enough to be checked by anyone.

    `method`: whose claim it is; also the claim's name, and its file's. `says`: the claim in a sentence or two. `tuned_by`: the measure whose development value chooses among the grid. Of the statements, the
    first are the central ones.
    """

    method: str
    says: str
    source: Source
    measures: tuple[Measure, ...]
    tuned_by: str
    arms: tuple[Arm, ...]
    statements: tuple[Statement, ...]
    experiments: tuple[Experiment, ...]
    controls: tuple[str, ...] = ()  # of every experiment's task, or "untrained": those that statements speak of

    def measure(self, name: str) -> Measure:
        return next(measure for measure in self.measures if measure.name == name)

    def find(self, given: Path | str | None) -> list[tuple[Experiment, Path]]:
        """The experiments whose data are there, each with its folder: the one that was given, or the repository's.

        A folder that holds the data of some experiment need not hold those that are in the repository. Raises ClaimDataMissing.
        """
        own = [experiment.source for experiment in self.experiments if experiment.source is not None]
        serves_others = given is not None and any(source.is_in(given) for source in own)
        found = []
        for experiment in self.experiments:
            source = experiment.source or self.source
            here = given is not None and source.is_in(given)
            if experiment.source is not None and not here and not source.in_repository:
                continue
            elsewhere = not here and (serves_others or experiment.source is not None)
            found.append((experiment, source.find(None if elsewhere else given)))
        return found

"""Check a paper's central claim: tune every arm on the development split, score the test split once, let the seeds decide."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from contrapose.catalogue import find_method
from contrapose.claims.claim import Arm, Claim, Experiment, Figures, Measure
from contrapose.claims.find import find_claim
from contrapose.claims.progress import TrialBar
from contrapose.claims.result import ClaimResult
from contrapose.claims.trials import Trials
from contrapose.claims.verdict import INTERVAL, RULE, decide, over_seeds
from contrapose.errors import ClaimFolderTaken, UsageInvalid, WriteFailed
from contrapose.training.interrupts import interrupts
from contrapose.training.run_folder import write_text
from contrapose.training.setup import make_fabric, precision_said

FEWEST = 3  # seeds: the spread of two says too little
MARKER, RESULT, TRIALS = "claim.txt", "result.json", "trials"  # in the folder of a claim
VERSIONS = ("contrapose", "torch", "lightning-fabric", "transformers", "numpy", "scipy", "scikit-learn")


def reproduce(
    name: str,
    *,
    seeds: int = FEWEST,
    out: Path | str | None = None,
    data: Path | str | None = None,
    progress: bool = True,
) -> ClaimResult:
    """Check the claim of a method at small scale and say the verdict: seen, not seen or inconclusive.

    `seeds`: 0, 1, … of each arm; three at least. `out`: the folder of trials and result.json; None: runs/claims/NAME. A claim that was
    stopped, or that is asked for with more seeds, goes on with what is there. `data`: the folder with the claim's files; None: the
    repository's.

    Raises ClaimUnknown, UsageInvalid, ClaimDataMissing or ClaimFolderTaken before anything is trained or written, and Stopped after
    Ctrl-C with everything saved.
    """
    return check(find_claim(name), seeds=seeds, out=out, data=data, progress=progress)


def check(
    claim: Claim,
    *,
    seeds: int = FEWEST,
    out: Path | str | None = None,
    data: Path | str | None = None,
    progress: bool = True,
) -> ClaimResult:
    """`reproduce` of a claim in hand, which may be your own."""
    if seeds < FEWEST:
        raise UsageInvalid(f"seeds is {seeds}; a verdict needs {FEWEST} or more: the spread over seeds decides it.")
    folder = trials_folder(claim.method, out, Path("runs") / "claims" / claim.method)
    placed = claim.find(data)
    there = [experiment for experiment, _ in placed]
    tasks = [experiment.task(place) for experiment, place in placed]
    counts = [len(claim.arms) * trials_of(experiment, seeds) for experiment in there]
    weights = [weight_of(claim, experiment) for experiment in there]
    whole = sum(count * weight for count, weight in zip(counts, weights, strict=True))
    with interrupts(at_once=True), TrialBar(sum(counts), whole, shown=progress) as bar:  # a training has its own within
        # data are read and encoders opened for all experiments before anything is written or trained
        ready = [Trials(experiment, task, folder / TRIALS, bar) for experiment, task in zip(there, tasks, strict=True)]
        mark(folder, claim.method)
        experiments = [run_experiment(claim, trials, seeds) for trials in ready]
    result = ClaimResult(record(claim, seeds, experiments))
    write_text(folder / RESULT, result.to_json() + "\n")
    return result


def trials_folder(name: str, out: Path | str | None, default: Path) -> Path:
    """The folder to work in, which need not be there. Raises ClaimFolderTaken when it is something else's."""
    folder = Path(out).expanduser() if out is not None else default
    marker = folder / MARKER
    mine = marker.is_file() and marker.read_text(encoding="utf-8").strip() == name
    if not mine and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ClaimFolderTaken(f"{folder} holds something else than trials of '{name}'; give another folder by --out.")
    return folder


def mark(folder: Path, name: str) -> None:
    """Make the folder, and say in it whose it is. Raises WriteFailed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteFailed(
            f"{folder} could not be made ({error.strerror}); give one that can be written by --out."
        ) from None
    write_text(folder / MARKER, f"{name}\n")


def trials_of(experiment: Experiment, seeds: int) -> int:
    """How many trainings an arm needs: the grid with the seeds that tune, then what was chosen with the other seeds."""
    tuned = min(experiment.tuning_seeds, seeds)
    return len(experiment.points) * tuned + seeds - tuned


def weight_of(claim: Claim, experiment: Experiment) -> float:
    """Minutes of one trial, as the experiment says."""
    return experiment.minutes / (len(claim.arms) * trials_of(experiment, FEWEST))


def run_experiment(claim: Claim, trials: Trials, seeds: int) -> dict[str, Any]:
    """Every arm, the controls beside them, and the verdicts, as JSON values."""
    experiment, task = trials.experiment, trials.task
    weight, goodness = weight_of(claim, experiment), partial(goodness_of, claim.measure(claim.tuned_by))
    arms = {arm.name: run_arm(arm, trials, seeds, goodness, weight) for arm in claim.arms}
    untrained = [trials.untrained(claim.arms[0], seed, "test") for seed in range(seeds)]
    controls = {"untrained": untrained} | {name: [figures] for name, figures in task.controls("test").items()}
    fabric = make_fabric(experiment.settings.get("precision", "auto"))
    return {
        "name": experiment.name,
        "words": experiment.words,
        "task": trials.facts,
        "settings": dict(experiment.settings),
        "precision": precision_said(fabric),
        "device": device_of(fabric.device),
        "grid": {name: list(values) for name, values in experiment.grid.items()},
        "tuning_seeds": min(experiment.tuning_seeds, seeds),
        "controls": controls,
        "arms": arms,
        "verdicts": verdicts(claim, arms, controls),
    }


def run_arm(
    arm: Arm, trials: Trials, seeds: int, goodness: Callable[[list[Figures]], float], weight: float = 1.0
) -> dict[str, Any]:
    """Tune an arm on the development split, and measure what was chosen on the test split with every seed.

    `goodness` of what was measured on the development split, one a seed. A grid of one point leaves nothing to tune.
    """
    experiment, points = trials.experiment, trials.experiment.points
    tuned = min(experiment.tuning_seeds, seeds) if len(points) > 1 else 0
    tuning = []
    for point in points if tuned else ():
        dev = []
        for seed in range(tuned):
            trials.bar.trial(said(experiment, arm, point, seed), weight)
            dev.append(trials.figures(arm, point, seed, "dev"))
        tuning.append({"settings": point, "dev": dev})
    chosen = best(tuning, goodness) if tuned else points[0]
    test = []
    for seed in range(seeds):
        if seed >= tuned:
            trials.bar.trial(said(experiment, arm, chosen, seed), weight)
        test.append(trials.figures(arm, chosen, seed, "test"))
    trials.bar.close()
    done = [(point, seed) for point in points for seed in range(seeds if point == chosen else tuned)]
    for point, seed in done:
        trials.forget_weights(arm, point, seed)
    spent = [trials.spent(arm, point, seed) for point, seed in done]
    whole = trials.settings(find_method(arm.method), arm, chosen, 0).model_dump(mode="json", exclude={"seed"})
    return {
        "method": arm.method,
        "what_makes_it": dict(arm.settings),
        "tuning": tuning,
        "chosen": chosen,
        "settings": whole,
        "test": test,
        "minutes": round(sum(seconds for seconds, _ in spent) / 60, 2),
        "processor_minutes": round(sum(seconds for _, seconds in spent) / 60, 2),
    }


def best(tuning: list[dict[str, Any]], goodness: Callable[[list[Figures]], float]) -> dict[str, Any]:
    """The point of the grid that is best on the development split; of equal ones the first."""
    return max(tuning, key=lambda tried: goodness(tried["dev"]))["settings"]


def goodness_of(measure: Measure, seeds: list[Figures]) -> float:
    """The mean over seeds, larger is better."""
    return float(measure.gain([figures[measure.name] for figures in seeds], 0.0).mean())


def verdicts(
    claim: Claim, arms: Mapping[str, Any], controls: Mapping[str, list[Figures]] | None = None
) -> list[dict[str, Any]]:
    """Each statement with the gain of every seed, its interval and what that decides. A control without seeds stands beside every seed."""
    tests = dict(controls or {}) | {name: arm["test"] for name, arm in arms.items()}
    found = []
    for statement in claim.statements:
        arm, baseline = (
            [figures[statement.measure] for figures in tests[name]] for name in (statement.arm, statement.baseline)
        )
        gains = claim.measure(statement.measure).gain(arm, baseline)
        gain = over_seeds(gains)
        found.append(
            {
                **asdict(statement),
                "gains": gains.tolist(),
                "gain": gain._asdict(),
                "verdict": decide(gain, statement.least),
            }
        )
    return found


def record(claim: Claim, seeds: int, experiments: list[dict[str, Any]]) -> dict[str, Any]:
    """Everything that the result says, as JSON values."""
    card, source = find_method(claim.method).card, claim.source
    spent = [arm for experiment in experiments for arm in experiment["arms"].values()]
    return {
        "claim": claim.method,
        "says": claim.says,
        "paper": {"title": card.paper, "venue": card.venue, "year": card.year, "url": card.url},
        "command": f"contrapose reproduce {claim.method} --seeds {seeds}",
        "seeds": list(range(seeds)),
        "interval": INTERVAL,
        "rule": RULE,
        "data": {"name": source.name, "words": source.words, "licence": source.licence, "url": source.url},
        "measures": {
            measure.name: {"better": measure.better, "meaning": measure.meaning} for measure in claim.measures
        },
        "tuned_by": claim.tuned_by,
        "experiments": experiments,
        "minutes": round(sum(arm["minutes"] for arm in spent), 1),
        "processor_minutes": round(sum(arm["processor_minutes"] for arm in spent), 1),
        **circumstances(),
    }


def circumstances() -> dict[str, Any]:
    """On what, with what and when."""
    return {
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads",
        "versions": {"python": platform.python_version(), **versions()},
        "date": date.today().isoformat(),
    }


def said(experiment: Experiment, arm: Arm, point: Mapping[str, Any], seed: int) -> str:
    """A trial in words."""
    return " · ".join(
        [experiment.name, arm.name, *(f"{name} {value}" for name, value in point.items()), f"seed {seed}"]
    )


def device_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # what the claim's modality does not need
            continue
    return found

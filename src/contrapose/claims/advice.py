"""What follows from a diagnosis of temperature, in words, by rules that are stated beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from contrapose.claims.verdict import over_seeds

HEARS_ONE = 2.0  # effective negatives below which a loss hears little but the hardest
HEARS_ALL = 0.9  # part of the negatives from which on it hears all of them alike
OWN_LABEL = 0.5  # part of the force on rows of the anchor's own label
TOGETHER = -0.1  # uniformity above which all rows are nearly one
FOLLOWS = 0.9  # rank correlation of temperature and uniformity from which on one follows the other
METERS = (
    "uniformity",
    "alignment",
    "tolerance",
    "same-label cosine",
)  # of which none is better for being larger or smaller

RULES = (
    f"The loss hears little but the hardest negative where the effective number of negatives is below {HEARS_ONE:g}, and all of them alike "
    f"where it is above {HEARS_ALL:.0%} of their number. It works against the labels where more than {OWN_LABEL:.0%} of the force is on rows of "
    f"the anchor's own label. All rows are nearly one where uniformity is above {TOGETHER:g}. Uniformity follows the temperature where their "
    f"rank correlation is at least {FOLLOWS:g} in every seed. One temperature is better than another where the whole 95 % t interval of the "
    "paired differences of equal seeds lies above 0; anything else is no difference beyond seed noise. Uniformity, tolerance and alignment "
    "are no scores: what serves best has a middling value of each."
)


def advice(record: Mapping[str, Any]) -> list[str]:
    """Sentences, the most telling first. `record`: of a `Diagnosis`."""
    swept = record["sweep"] is not None
    said = of_sweep(record) if swept else []
    said += [*of_spread(record), *of_hearing(record), *of_labels(record)]
    if not swept:
        said.append("Which temperature serves best these figures cannot say; --sweep trains with each and measures.")
    return said


def of_spread(record: Mapping[str, Any]) -> list[str]:
    before, after = (record["behaviour"][name]["uniformity"] for name in ("untrained", "trained"))
    said = [f"Training took uniformity from {before:.2f} to {after:.2f} (lower is more even)."]
    zeros, rows = (record["behaviour"]["trained"][name] for name in ("zero_rows", "rows"))
    if zeros:
        said.append(
            f"{zeros:,} of {rows:,} rows have a vector of zeros, which says nothing of them; tolerance leaves them out."
        )
    if after > TOGETHER:
        said.append("All rows point nearly one way: look at the run's health line before its temperature.")
    return said


def of_hearing(record: Mapping[str, Any]) -> list[str]:
    own, trained = record["temperature"], record["behaviour"]["trained"]
    if own is None:
        return [
            "The run's own temperature is not known, so nothing is said of it; the table has those that were asked for."
        ]
    at = next(each for each in trained["by_temperature"] if each["temperature"] == own)
    many = trained["negatives"]
    said = [
        f"At this run's temperature, {own:g}, an anchor is pushed from {at['effective']:.1f} of its {many:,} negatives in effect; "
        f"{the_hardest(trained)} {at['hardest']:.0%} of the force."
    ]
    if at["effective"] < HEARS_ONE:
        said.append(
            "The loss hears little but the hardest negative, as a triplet loss does: where such a one belongs to the anchor after all "
            "(a duplicate, the same meaning), it is pushed away with full force. A higher temperature or a group_id spares it."
        )
    elif at["effective"] > HEARS_ALL * many:
        said.append(
            "The loss pushes from all negatives nearly alike, hard or easy; a lower temperature makes it choose."
        )
    return said


def the_hardest(trained: Mapping[str, Any]) -> str:
    return "the hardest alone bears" if trained["hardest"] == 1 else f"the hardest {trained['hardest']:,} bear"


def of_labels(record: Mapping[str, Any]) -> list[str]:
    own, trained = record["temperature"], record["behaviour"]["trained"]
    if trained["tolerance"] is None:
        return [
            f"{record['looked_at']['source']} has no column 'label', so tolerance is left out, and so is what the hardest negatives are; "
            "labelled rows are given by --on DATA, a column of another name by --map label=YOURS."
        ]
    hardest, chance = trained["hardest_same_label"], trained["all_same_label"]
    these = (
        "Of the hardest negatives"
        if trained["hardest"] == 1
        else f"Of the {trained['hardest']:,} hardest negatives of each anchor"
    )
    said = f"{these} {hardest:.0%} have the anchor's label, of all negatives {chance:.0%}"
    at = next((each for each in trained["by_temperature"] if each["temperature"] == own), None)
    if at is None:
        return [f"{said}."]
    said = f"{said}; at {own:g} rows of the anchor's label bear {at['same_label']:.0%} of the force."
    if at["same_label"] > OWN_LABEL:
        said += " Most of it pushes apart what has one label: if that is what should stay together, raise the temperature or give a group_id."
    return [said]


def of_sweep(record: Mapping[str, Any]) -> list[str]:
    sweep, own = record["sweep"], record["temperature"]
    values = {
        measure: {float(name): np.array([each[measure] for each in arm["test"]]) for name, arm in sweep["arms"].items()}
        for measure in next(iter(sweep["arms"].values()))["test"][0]
    }
    scored = {measure: by for measure, by in values.items() if measure not in METERS}
    said = [sentence for measure, by in scored.items() for sentence in ranked(measure, by, own)]
    if scored:
        said.append(
            "The best of several is chosen on the rows that it is scored on, which flatters it: score the winner on other rows."
        )
    else:
        said.append("Nothing here scores the trainings: give labels (--on DATA) or a protocol (--score PROTOCOL=DATA).")
    return [*said, trend(values["uniformity"])]


def ranked(measure: str, by: Mapping[float, np.ndarray], own: float | None) -> list[str]:
    """The best temperature by one score, those that no seed noise tells from it, and what the run's own loses to it."""
    best = max(by, key=lambda temperature: by[temperature].mean())
    gains = {each: over_seeds(by[best] - by[each]) for each in by if each != best}
    tied = [each for each, gain in gains.items() if gain.low <= 0]
    if len(tied) == len(gains):
        return [f"{measure}: no difference beyond seed noise between any of the temperatures {listed(by)}."]
    said = f"{measure}: the best mean is {by[best].mean():.3f}, at temperature {best:g}"
    said += f"; no difference beyond seed noise to {listed(tied)}" if tied else ""
    said += f"; worse beyond it: {listed(each for each in gains if each not in tied)}."
    if best in (min(by), max(by)):
        said += " It lies at the end of what was tried, so go on beyond it."
    if own not in gains:
        return [said]
    gain = gains[own]
    figures = f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"
    change = "gains" if gain.low > 0 else "makes no difference beyond seed noise:"
    return [said, f"{measure}: {best:g} in place of this run's {own:g} {change} {figures}."]


def trend(uniformities: Mapping[float, np.ndarray]) -> str:
    from scipy.stats import spearmanr

    order = sorted(uniformities)
    seeds = np.array([uniformities[each] for each in order]).T
    found = [float(spearmanr(order, seed).statistic) if len(set(seed)) > 1 else 0.0 for seed in seeds]
    figures = ", ".join(f"{each:.2f}" for each in found)
    if min(found) >= FOLLOWS:
        return f"The lower the temperature, the more even the embeddings: rank correlation of temperature and uniformity by seed {figures}."
    return f"Uniformity does not rise with the temperature in every seed: rank correlation by seed {figures}."


def listed(temperatures: Sequence[float] | Any) -> str:
    return ", ".join(f"{each:g}" for each in sorted(temperatures))

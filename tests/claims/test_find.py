"""Every file that counts as a claim is one, and what stands under results/ is of the claims as they are now."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from contrapose.catalogue import find_method
from contrapose.claims.find import claims, find_claim
from contrapose.claims.reproduce import FEWEST
from contrapose.claims.result import ClaimResult
from contrapose.claims.verdict import decide, over_seeds
from contrapose.errors import ClaimUnknown
from contrapose.training.settings import parse_settings

RESULTS = Path(__file__).parents[2] / "results" / "claims"


@pytest.mark.parametrize("name", claims())
def test_each_listing_is_a_claim_of_its_method(name: str) -> None:
    claim = find_claim(name)
    assert claim.method == name
    assert claims()[name]
    for experiment in claim.experiments:
        assert 1 <= experiment.tuning_seeds <= FEWEST  # so that more seeds never change what was chosen
        for arm in claim.arms:
            for point in experiment.points:
                kind = find_method(arm.method)
                parse_settings(kind.Settings, {**experiment.settings, **arm.settings, **point}, owner=arm.name)


@pytest.mark.parametrize("name", claims())
def test_statements_speak_of_arms_and_measures_that_there_are(name: str) -> None:
    claim = find_claim(name)
    arms, measures = {arm.name for arm in claim.arms}, {measure.name for measure in claim.measures}
    assert claim.statements
    assert claim.tuned_by in measures
    for statement in claim.statements:
        assert {statement.arm, statement.baseline} <= arms | {*claim.controls}
        assert statement.arm in arms
        assert statement.measure in measures


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(ClaimUnknown, match="did you mean 'esimcse'"):
        find_claim("esimsce")


def test_the_frame_is_no_claim() -> None:
    assert not {"claim", "find", "reproduce", "verdict"} & set(claims())


@pytest.mark.parametrize("name", claims())
def test_a_committed_result_is_of_the_claim_as_it_is(name: str) -> None:
    path = RESULTS / f"{name}.json"
    if not path.is_file():  # a claim may be written before it is run; its page says so
        return
    claim, result = find_claim(name), ClaimResult.open(path)
    assert result.record["claim"] == name
    ran = {found["name"] for found in result.experiments}
    for experiment in claim.experiments:  # one whose data may not be in the repository need not have been run
        assert experiment.name in ran or not (experiment.source or claim.source).in_repository
    there = [experiment for experiment in claim.experiments if experiment.name in ran]
    for experiment, found in zip(there, result.experiments, strict=True):
        assert found["name"] == experiment.name
        assert found["settings"] == dict(experiment.settings)
        assert found["grid"] == {setting: list(values) for setting, values in experiment.grid.items()}
        assert {arm: each["what_makes_it"] for arm, each in found["arms"].items()} == {
            arm.name: dict(arm.settings) for arm in claim.arms
        }
        for statement, verdict in zip(claim.statements, found["verdicts"], strict=True):
            assert {key: verdict[key] for key in asdict(statement)} == asdict(statement)


@pytest.mark.parametrize("name", claims())
def test_a_committed_verdict_follows_from_its_seeds(name: str) -> None:
    path = RESULTS / f"{name}.json"
    for verdict, tests in (
        (verdict, experiment["controls"] | {name: arm["test"] for name, arm in experiment["arms"].items()})
        for experiment in (ClaimResult.open(path).experiments if path.is_file() else [])
        for verdict in experiment["verdicts"]
    ):
        arm, baseline = ([seed[verdict["measure"]] for seed in tests[verdict[side]]] for side in ("arm", "baseline"))
        gains = find_claim(name).measure(verdict["measure"]).gain(arm, baseline)
        assert len(gains) >= 3
        assert verdict["gains"] == pytest.approx(gains.tolist())
        assert verdict["verdict"] == decide(over_seeds(gains), verdict["least"])

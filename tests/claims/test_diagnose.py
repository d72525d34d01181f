"""A diagnosis of small text runs, through the real loop."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import contrapose
from contrapose.claims.sweep import KNN
from contrapose.diagnosis import negatives_of, rows_to_look_at
from contrapose.errors import (
    ClaimFolderTaken,
    ContraposeError,
    ProtocolDataInvalid,
    RunMissing,
    SettingUnknown,
    TemperatureInvalid,
    UsageInvalid,
)
from contrapose.text.pairs import Pairs
from tests.text.tiny import WORDS


@pytest.fixture(scope="module")
def run(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `pairs` on rows of three topics; the column of topics is called otherwise, and one topic's name is one to escape."""
    folder = tmp_path_factory.mktemp("data")
    drawn, names = random.Random(0), ["pets", "places", "<b>"]
    rows = []
    for row in range(60):
        topic = row % 3
        words = WORDS[8 * topic : 8 * topic + 8]
        rows.append(
            {side: " ".join(drawn.choices(words, k=4)) for side in ("anchor", "positive")} | {"topic": names[topic]}
        )
    (folder / "pairs<b>.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    out = folder / "run"
    settings = {"steps": 3, "batch_size": 16, "precision": "fp32", "learn_temperature": True}
    contrapose.train("pairs", folder / "pairs<b>.jsonl", encoder=tiny_bert, out=out, progress=False, settings=settings)
    return out


LABEL = {"label": "topic"}


@pytest.fixture(scope="module")
def swept(run: Path, tmp_path_factory: pytest.TempPathFactory) -> contrapose.api.Diagnosis:
    out = tmp_path_factory.mktemp("swept") / "diagnosis"
    return contrapose.diagnose(
        run, columns=LABEL, temperatures=[1.0], sweep=True, settings={"steps": 2}, out=out, progress=False
    )


def test_the_runs_own_temperature_is_the_one_it_learned(run: Path) -> None:
    found = contrapose.diagnose(run, temperatures=[0.5], progress=False).record
    watched = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["watched"]["temperature"]
    assert found["temperature"] == pytest.approx(watched)
    assert found["temperature"] != 0.05
    assert [at["temperature"] for at in found["behaviour"]["trained"]["by_temperature"]] == [found["temperature"], 0.5]


def test_without_labels_the_rest_stands(run: Path) -> None:
    result = contrapose.diagnose(run, progress=False)
    trained = result.record["behaviour"]["trained"]
    assert (trained["tolerance"], trained["negatives"]) == (None, 15)
    assert trained["alignment"] is not None
    assert any("no column 'label'" in line for line in result.lines())
    assert [row[0] for row in result.meters()] == ["", "uniformity", "alignment"]
    assert len(result.by_temperature()[0]) == 4
    assert (run / "diagnosis" / "result.json").is_file()


def test_the_page_is_whole_and_escapes_what_is_the_users(run: Path) -> None:
    contrapose.diagnose(run, progress=False)
    page = (run / "diagnosis" / "diagnosis.html").read_text(encoding="utf-8")
    assert "pairs&lt;b&gt;.jsonl" in page
    assert "pairs<b>" not in page
    assert page.count("http-equiv") == 1
    assert 'id="heard-1"' in page


def test_other_rows_can_be_looked_at(run: Path, tmp_path: Path) -> None:
    rows = [{"question": text, "label": number % 2} for number, text in enumerate(WORDS)]
    found = contrapose.diagnose(run, on=rows, columns={"anchor": "question"}, out=tmp_path / "d", progress=False).record
    assert found["looked_at"]["columns"] == ["anchor"]
    assert found["behaviour"]["trained"]["alignment"] is None
    assert found["behaviour"]["trained"]["all_same_label"] == pytest.approx(0.48, abs=0.05)
    assert "--map anchor=question" in found["command"]


def test_fewer_rows_are_spaced_over_the_data(run: Path) -> None:
    found = contrapose.diagnose(run, columns=LABEL, rows=20, progress=False).record
    assert found["behaviour"]["trained"]["rows"] == 20


def test_every_temperature_is_trained_alike_and_stands_still(swept: contrapose.api.Diagnosis) -> None:
    arms = swept.record["sweep"]["arms"]
    own, other = arms.values()
    assert list(arms) == [f"{swept.record['temperature']:g}", "1"]
    assert {name: value for name, value in own["settings"].items() if name != "temperature"} == {
        name: value for name, value in other["settings"].items() if name != "temperature"
    }
    assert (other["settings"]["temperature"], other["settings"]["learn_temperature"], other["settings"]["steps"]) == (
        1.0,
        False,
        2,
    )
    assert [len(arm["test"]) for arm in arms.values()] == [3, 3]


def test_a_sweep_measures_spread_tolerance_and_neighbours(swept: contrapose.api.Diagnosis) -> None:
    figures = swept.record["sweep"]["arms"]["1"]["test"][0]
    assert list(figures) == ["uniformity", "alignment", "tolerance", "same-label cosine", KNN]
    assert swept.record["sweep"]["untrained"].keys() == figures.keys()
    assert [row[0] for row in swept.swept()[1:]] == ["untrained", f"{swept.record['temperature']:g} (this run's)", "1"]


def test_a_sweep_goes_on_and_trains_nothing_twice(run: Path, swept: contrapose.api.Diagnosis) -> None:
    out = Path(swept.record["folder"])
    before = {path: path.stat().st_mtime_ns for path in out.rglob("config.yaml")}
    again = contrapose.diagnose(
        run, columns=LABEL, temperatures=[1.0, 0.3], sweep=True, settings={"steps": 2}, out=out, progress=False
    )
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(out.rglob("config.yaml"))) == len(before) + 3
    assert again.record["sweep"]["arms"]["1"]["test"] == swept.record["sweep"]["arms"]["1"]["test"]


def test_a_sweep_is_scored_by_protocols_too(run: Path, tmp_path: Path) -> None:
    pairs = [{"anchor": a, "positive": b} for a, b in zip(WORDS[:10], WORDS[10:20], strict=True)]
    found = contrapose.diagnose(
        run,
        temperatures=[1.0],
        sweep=True,
        score={"retrieval": pairs},
        settings={"steps": 1},
        out=tmp_path / "d",
        progress=False,
    )
    assert "retrieval: accuracy@1" in found.record["sweep"]["arms"]["1"]["test"][0]
    assert any(line.startswith("retrieval: accuracy@1: ") for line in found.lines())


def test_negatives_are_no_more_than_the_rows_allow(run: Path) -> None:
    config = contrapose.open_run(run).config
    seen = rows_to_look_at(Pairs, config, None, None, 5, False, {})
    assert negatives_of(Pairs, config, None, seen) == 4


REFUSED = {
    "temperature 0": ({"temperatures": [0.1, 0.0]}, TemperatureInvalid, "got 0"),
    "two seeds": ({"sweep": True, "seeds": 2}, UsageInvalid, "seeds is 2"),
    "one temperature": ({"sweep": True, "temperatures": []}, UsageInvalid, "two temperatures"),
    "two rows": ({"rows": 2}, UsageInvalid, "3 rows"),
    "labels all different": (
        {"on": [{"anchor": word, "label": word} for word in WORDS]},
        ProtocolDataInvalid,
        f"no two of the {len(WORDS)}",
    ),
    "a setting that is not there": ({"sweep": True, "settings": {"stepz": 3}}, SettingUnknown, "'steps'"),
    "a folder of something else": ({"out": Path(__file__).parent}, ClaimFolderTaken, "--out"),
}


@pytest.mark.parametrize(("given", "error", "named"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(run: Path, given: dict, error: type[ContraposeError], named: str) -> None:
    with pytest.raises(error, match=named):
        contrapose.diagnose(run, progress=False, **given)


def test_no_run_no_diagnosis(tmp_path: Path) -> None:
    with pytest.raises(RunMissing, match=r"config\.yaml"):
        contrapose.diagnose(tmp_path)


def test_data_that_only_python_held_need_rows_to_look_at(tiny_bert: Path, tmp_path: Path) -> None:
    texts = [{"anchor": a, "positive": b} for a, b in zip(WORDS, reversed(WORDS), strict=True)]
    contrapose.train("pairs", texts, encoder=tiny_bert, out=tmp_path / "run", steps=1, batch_size=8, progress=False)
    with pytest.raises(UsageInvalid, match="only Python held"):
        contrapose.diagnose(tmp_path / "run", progress=False)
    assert (
        contrapose.diagnose(tmp_path / "run", on=texts, progress=False)
        .record["command"]
        .endswith("'a list from Python'")
    )

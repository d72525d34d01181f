"""Methods beside each other on data of one's own, through the real loop."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import contrapose
from contrapose.claims.compare import differences, headline
from contrapose.claims.comparison import Comparison
from contrapose.errors import ClaimFolderTaken, ContraposeError, MethodUnknown, SettingUnknown, UsageInvalid
from tests.text.tiny import WORDS

SHARED = {"steps": 4, "batch_size": 8, "precision": "fp32", "esimcse.queue_size": 8}


def sentences(rows: int, seed: int) -> list[str]:
    drawn = random.Random(seed)
    return [" ".join(drawn.choices(WORDS, k=drawn.randint(2, 9))) for _ in range(rows)]


@pytest.fixture(scope="module")
def asked(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Everything but the folder; the test file's name is one that a page must escape."""
    folder = tmp_path_factory.mktemp("data")
    files = {split: folder / f"{split}<b>.jsonl" for split in ("dev", "test")}
    for number, file in enumerate(files.values()):
        sides = zip(sentences(30, 10 + number), sentences(30, 20 + number), strict=True)
        rows = [{"sentence1": a, "sentence2": b, "score": row % 6} for row, (a, b) in enumerate(sides)]
        file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "sentences.txt").write_text("\n".join(sentences(40, 1)), encoding="utf-8")
    return {
        "methods": ["simcse", "esimcse"],
        "data": folder / "sentences.txt",
        "on": {"sts": files["test"]},
        "select": {"sts": files["dev"]},
        "encoder": tiny_bert,
        "settings": SHARED,
        "grid": {"learning_rate": [0.001, 0.01]},
        "progress": False,
    }


@pytest.fixture(scope="module")
def folder(asked: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "comparison"
    contrapose.compare(**asked, out=out)
    return out


@pytest.fixture(scope="module")
def result(folder: Path) -> Comparison:
    return Comparison(json.loads((folder / "result.json").read_text(encoding="utf-8")))


def test_all_methods_share_what_is_not_their_own(result: Comparison) -> None:
    simcse, esimcse = (result.record["arms"][name]["settings"] for name in ("simcse", "esimcse"))
    shared = (simcse.keys() & esimcse.keys()) - {"learning_rate"}
    assert {name: simcse[name] for name in shared} == {name: esimcse[name] for name in shared}
    assert (simcse["steps"], simcse["batch_size"], esimcse["queue_size"]) == (4, 8, 8)


def test_the_grid_is_chosen_on_the_development_data(result: Comparison) -> None:
    for arm in result.record["arms"].values():
        means = {
            point["settings"]["learning_rate"]: sum(figures["sts: spearman"] for figures in point["dev"])
            for point in arm["tuning"]
        }
        assert set(means) == {0.001, 0.01}
        assert arm["chosen"] == {"learning_rate": max(means, key=means.get)}


def test_every_seed_is_there_beside_the_controls(result: Comparison) -> None:
    assert [len(arm["test"]) for arm in result.record["arms"].values()] == [3, 3]
    assert list(result.record["controls"]) == ["untrained", "TF-IDF, words", "TF-IDF, characters"]
    assert [row[0] for row in result.cells()[1:4]] == list(result.record["controls"])


def test_the_untrained_control_is_what_training_starts_from(result: Comparison, asked: dict[str, Any]) -> None:
    from contrapose.text.encoder import TextEncoder
    from contrapose.text.evaluation import open_protocol

    encoder = TextEncoder.open(str(asked["encoder"]))
    score = open_protocol("sts", asked["on"]["sts"], None, None).score(encoder)
    assert result.record["controls"]["untrained"][0]["sts: spearman"] == pytest.approx(score, abs=1e-6)


def test_time_and_memory_stand_in_the_table(result: Comparison) -> None:
    for row in result.cells()[4:]:
        assert row[-2].endswith((" s", " min"))
        assert row[-1].endswith(" GB")


def test_the_same_call_with_more_seeds_trains_these_alone(
    folder: Path, result: Comparison, asked: dict[str, Any]
) -> None:
    before = {path.name for path in (folder / "trials" / "comparison").iterdir()}
    again = contrapose.compare(**{**asked, "seeds": 4}, out=folder)
    new = {path.name for path in (folder / "trials" / "comparison").iterdir()} - before
    assert all("-seed-3-" in name for name in new)
    assert len(new) == 2
    for name, arm in result.record["arms"].items():
        assert again.record["arms"][name]["test"][:3] == arm["test"]


def test_the_page_escapes_names_and_asks_nothing_of_a_network(folder: Path) -> None:
    page = (folder / "comparison.html").read_text(encoding="utf-8")
    head = page[: page.index("<script")]
    assert "test&lt;b&gt;.jsonl" in head
    assert "<b>.jsonl" not in head
    assert "default-src 'none'" in head
    assert "://" not in head


def test_the_command_repeats_the_comparison(result: Comparison, folder: Path) -> None:
    words = result.record["command"]
    assert words.startswith("contrapose compare simcse esimcse --data ")
    for part in ("--grid learning_rate=0.001,0.01", "--seeds 3", "--set esimcse.queue_size=8", f"--out {folder}"):
        assert part in words


def arm(*values: float) -> dict[str, Any]:
    return {"test": [{"sts: spearman": value} for value in values]}


def test_a_difference_beyond_seed_noise_and_one_within_it() -> None:
    found = differences({"low": arm(0.1, 0.2, 0.3), "high": arm(0.4, 0.5, 0.6), "near": arm(0.3, 0.62, 0.5)})
    assert [(each["first"], each["second"], each["more_than_noise"]) for each in found] == [
        ("high", "near", False),
        ("high", "low", True),
    ]
    assert found[1]["gains"] == pytest.approx([0.3, 0.3, 0.3])


def test_words_say_which_is_which() -> None:
    arms = {"low": arm(0.1, 0.2, 0.31), "high": arm(0.4, 0.5, 0.6), "near": arm(0.3, 0.62, 0.5)}
    controls = {"untrained": [{"sts: spearman": 0.05}], "TF-IDF": [{"sts: spearman": 0.35}]}
    lines = Comparison(
        {"arms": arms, "differences": differences(arms), "controls": controls, "seeds": [0, 1, 2]}
    ).lines()
    assert lines[0].startswith("sts: spearman: no difference beyond seed noise between high and near, +0.027 [")
    assert lines[1].startswith("sts: spearman: high is better than low, by +0.297 [")
    assert lines[2] == "sts: spearman: the best control is TF-IDF, 0.350; not ahead of it: low, high, near."


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        ({"spearman": {"value": 0.5}, "spearman wmean": {"value": 0.1}}, 0.5),
        ({"spearman all": {"value": 0.4}, "spearman mean": {"value": 0.1}}, 0.4),
        ({"spearman a→b": {"value": 0.2}, "spearman b→a": {"value": 0.4}, "other": {"value": 9.0}}, 0.3),
    ],
    ids=["one figure", "over all sub-sets", "two directions"],
)
def test_the_headline_is_what_score_gives(metrics: dict[str, dict[str, float]], expected: float) -> None:
    assert headline(metrics, "spearman") == pytest.approx(expected)


BAD: dict[str, tuple[dict[str, Any], type[ContraposeError], str]] = {
    "one method": ({"methods": ["simcse"]}, UsageInvalid, "two methods or more"),
    "a method twice": ({"methods": ["simcse", "simcse"]}, UsageInvalid, "each once"),
    "an unknown method": ({"methods": ["simcse", "esimce"]}, MethodUnknown, "did you mean 'esimcse'"),
    "nothing to measure on": ({"on": {}}, UsageInvalid, "--on sts=rated.csv"),
    "two seeds": ({"seeds": 2}, UsageInvalid, "3 or more"),
    "a grid without development data": ({"select": None}, UsageInvalid, "--select"),
    "a setting that one has not": ({"settings": {"queue_size": 4}}, SettingUnknown, "arm 'simcse'"),
}


@pytest.mark.parametrize(("changed", "error", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_compared_is_refused_and_nothing_is_written(
    asked: dict[str, Any], tmp_path: Path, changed: dict[str, Any], error: type[ContraposeError], said: str
) -> None:
    with pytest.raises(error, match=said):
        contrapose.compare(**{**asked, **changed}, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ClaimFolderTaken, match="holds something else"):
        contrapose.compare(**asked, out=tmp_path)

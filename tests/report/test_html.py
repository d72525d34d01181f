"""The report of small run folders, read back as a browser would parse it."""

from __future__ import annotations

import copy
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest

from contrapose.errors import WriteFailed
from contrapose.report.figures import literal
from contrapose.report.html import write_report
from contrapose.training.run_folder import RunFolder

HOSTILE = "</script><img src=x onerror=alert(1)>"
COMMAND = (
    "contrapose train pairs --data pairs.csv --set temperature=0.1 --set encoder.max_tokens=48 --out 'runs/my first'"
)
CONFIG = {
    "contrapose": "0.1.0",
    "method": "pairs",
    "data": {"source": "pairs.csv", "rows": 6986, "fingerprint": "9f2c", "columns": {}, "drop_empty": False},
    "encoder": {"name": "minilm", "layers": None, "pooling": "avg", "max_tokens": 48},
    "settings": {"temperature": 0.1, "batch_size": 64},
    "select": {"retrieval": "dev.csv"},
    "on": None,
    "command": COMMAND,
}


class Page(HTMLParser):
    """Tags with their attributes, the text that is shown, and the scripts and styles."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.shown: list[str] = []
        self.within = ""
        self.feed(file.read_text(encoding="utf-8"))
        self.text = " ".join("".join(self.shown).split())
        self.figures = json.loads(re.search(r"^const figures = (.*);$", self.scripts[-1], re.MULTILINE)[1])

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.within = tag

    def handle_endtag(self, tag: str) -> None:
        self.within = ""

    def handle_data(self, data: str) -> None:
        {"script": self.scripts, "style": self.styles}.get(self.within, self.shown).append(data)


def score(value: float, spread: float = 0.04) -> dict[str, float]:
    return {"name": "accuracy@1", "value": value, "low": value - spread, "high": value + spread, "n": 464}


def entry(untrained: float = 0.08, control: float = 0.26, trained: float = 0.71) -> dict:
    scores = {"untrained": untrained, "TF-IDF, characters": control, "trained": trained}
    systems = {name: {"accuracy@1": score(value)} for name, value in scores.items()}
    nearest = [{"text": "wrong", "score": 0.9, "right": False}, {"text": "correct", "score": 0.8, "right": True}]
    return {
        "protocol": "retrieval",
        "data": "test.csv",
        "result": {
            "protocol": "retrieval",
            "data": "test.csv",
            "rows": 464,
            "description": "Exact, by cosine.",
            "systems": systems,
        },
        "examples": [{"query": "a question", "answer": "correct", "before": nearest[:1], "after": nearest}],
        "map": {
            "method": "t-SNE",
            "queries": ["one", "two"],
            "candidates": ["viens", "divi"],
            "before": {"queries": [[0, 1], [2, 3]], "candidates": [[4, 5], [6, 7]]},
            "after": {"queries": [[0, 0], [1, 1]], "candidates": [[0, 0.1], [1, 1.1]]},
        },
    }


def figures_of(protocol: str, data: str, systems: dict[str, dict[str, float]]) -> dict:
    """An entry of a protocol that has a table alone."""
    scores = {name: {metric: score(value) for metric, value in own.items()} for name, own in systems.items()}
    described = f"How {protocol} was measured."
    record = {"protocol": protocol, "data": data, "rows": 100, "description": described, "systems": scores}
    return {"protocol": protocol, "data": data, "result": record}


def logged(
    step: int, loss: float, stage: str = "train", watched: float = 0.05, term: str = "info_nce", **verdicts: str
) -> dict:
    return {
        "stage": stage,
        "step": step,
        "total_step": step,
        "terms": {term: loss},
        "chance": {term: math.log(64)},
        "learning_rate": 1e-4,
        "geometry": {
            "alignment": 0.5,
            "uniformity": -3.0,
            "mean_cosine": 0.2,
            "effective_rank": 40.0,
            "most_rank": 63.0,
        },
        "verdicts": verdicts,
        "watched": {"temperature": watched},
        "clock": {"seconds": 2.0, "rows_per_second": 49.0, "share": {"encode": 0.25, "backward": 0.5}},
    }


METRICS = [logged(10, 3.0), {"stage": "train", "total_step": 15, "selected": 0.5}, logged(20, 1.0)]


def write(path: Path, *, config: dict | None = None, metrics: list = METRICS, results: list | None = None) -> Page:
    folder = RunFolder.create(path, config or CONFIG)
    for line in metrics:
        folder.append_metrics(line)
    if results is not None:
        folder.write_results(results)
    return Page(write_report(folder))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    return write(tmp_path_factory.mktemp("runs") / "fine", results=[entry()])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Page:
    """A run in which every text that a user can give is an attack."""
    config = copy.deepcopy(CONFIG) | {"method": HOSTILE, "contrapose": HOSTILE, "select": {HOSTILE: HOSTILE}}
    config["data"] |= {"source": f"{HOSTILE}.csv", "fingerprint": HOSTILE, "columns": {HOSTILE: HOSTILE}}
    config["encoder"]["name"] = config["settings"][HOSTILE] = HOSTILE
    config["command"] = f"contrapose train --data '{HOSTILE}' --set temperature=0.1"
    result = entry()
    result["protocol"] = result["data"] = HOSTILE
    systems = {f"{name}{HOSTILE * (name[0] == 'T')}": {HOSTILE: score(0.5)} for name in result["result"]["systems"]}
    result["result"] |= {"protocol": HOSTILE, "data": HOSTILE, "description": HOSTILE, "systems": systems}
    found = [{"text": HOSTILE, "score": 0.9, "right": True}]
    result["examples"] = [{"query": HOSTILE, "answer": HOSTILE, "before": found, "after": found}]
    result["map"] |= {"method": HOSTILE, "queries": [HOSTILE] * 2, "candidates": [HOSTILE] * 2}
    metrics = [
        logged(10, 3.0, HOSTILE, term=HOSTILE),
        {"stage": "x", "total_step": 15, "selected": 0.5},
        logged(20, 1.0, "b", term=HOSTILE, collapsed=f"collapsed: {HOSTILE}"),
    ]
    return write(tmp_path_factory.mktemp("runs") / "hostile", config=config, metrics=metrics, results=[result])


def tags(page: Page) -> set[str]:
    return {tag for tag, _ in page.tags}


def data(page: Page, title: str) -> list[dict]:
    """The traces of a training panel."""
    label = next(
        a["aria-label"]
        for tag, a in page.tags
        if tag == "div" and (a.get("aria-label") or "").startswith(f"{title} over the steps")
    )
    identifier = next(a["id"] for _, a in page.tags if a.get("aria-label") == label)
    return page.figures[identifier]["data"]


# ------------------------------------------------------------------------------------------------------------- escaping


def test_hostile_texts_make_no_tags(hostile: Page, page: Page) -> None:
    assert tags(hostile) == tags(page)
    assert len(hostile.scripts) == len(page.scripts) == 2


def test_hostile_texts_make_no_attributes(hostile: Page) -> None:
    names = {name for _, attributes in hostile.tags for name in attributes}
    assert not {name for name in names if name.startswith("on")}
    assert "src" not in names


def test_hostile_texts_are_shown_as_they_stand(hostile: Page) -> None:
    titles = [
        f"Trained with {HOSTILE} on 6,986 rows of {HOSTILE}.csv, {HOSTILE} went",
        f"belongs to: {HOSTILE}",
        f"{HOSTILE} ✓ right",
        f"collapsed: {HOSTILE}.",
    ]
    for shown in titles:
        assert shown in hostile.text


def test_plotly_gets_no_markup_from_hostile_texts(hostile: Page) -> None:
    """Plotly reads labels and hover texts as HTML of a kind: once the breaks of ours are gone, no tag is left."""
    texts: list[str] = []

    def collect(value: object) -> None:
        for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            collect(child)
        if isinstance(value, str):
            texts.append(value.replace("<br>", ""))

    collect(hostile.figures)
    assert any("&lt;img src=x" in text for text in texts)
    assert not [text for text in texts if "<" in text.replace("<extra></extra>", "")]


def test_literal_keeps_plotly_from_reading_links_and_entities() -> None:
    assert literal("<a href='https://x.y'>&amp;</a>") == "&lt;a href='https://x.y'&gt;&amp;amp;&lt;/a&gt;"


def test_literal_breaks_and_cuts_long_texts() -> None:
    lines = literal("word " * 200).split("<br>")
    assert max(map(len, lines)) <= 48
    assert sum(map(len, lines)) <= 400
    assert lines[-1].endswith("…")


# -------------------------------------------------------------------------------------------------- one file, no network


def test_nothing_is_asked_of_the_network(page: Page) -> None:
    fetched = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action")
    ]
    assert fetched == ["data:,"]
    assert not re.search(r"url\(|@import", "".join(page.styles))


def test_policy_forbids_requests_and_scripts_of_others(page: Page) -> None:
    policy = next(
        a["content"] for tag, a in page.tags if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    nonces = {a.get("nonce") for tag, a in page.tags if tag == "script"}
    assert policy.startswith("default-src 'none'; ")
    assert [f"script-src 'nonce-{nonce}'" for nonce in nonces] == re.findall(r"script-src [^;]*", policy)
    assert set(re.findall(r"[a-z]+:", policy)) == {"data:", "blob:"}


def test_plotly_stands_in_the_file_once(page: Page) -> None:
    assert sum(len(script) > 1_000_000 for script in page.scripts) == 1


def test_figures_are_valid_plotly_figures_and_each_has_its_place(page: Page) -> None:
    for figure in page.figures.values():
        go.Figure(figure)
    assert page.figures.keys() == {a["id"] for _, a in page.tags if a.get("class") == "plot"}


# ------------------------------------------------------------------------------------------------------------- headline


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ({"trained": 0.71}, "minilm rose from 0.08 to 0.71 in accuracy@1. The best control"),
        ({"untrained": 0.6, "trained": 0.4}, "minilm fell from 0.60 to 0.40 in accuracy@1. The best control"),
        (
            {"untrained": 0.68},
            "minilm went from 0.68 to 0.71 in accuracy@1. The 95 % intervals before and after overlap: no clear change.",
        ),
        ({}, "The best control (TF-IDF, characters) scores 0.26: the trained encoder is ahead of it."),
        ({"control": 0.72}, "scores 0.72: its 95 % interval overlaps that of the trained encoder."),
        ({"control": 0.9}, "scores 0.90: the trained encoder is behind it."),
    ],
)
def test_headline_says_what_the_intervals_bear_out(tmp_path: Path, scores: dict, said: str) -> None:
    assert said in write(tmp_path / "run", results=[entry(**scores)]).text


def test_headline_says_what_was_trained_on_what(page: Page) -> None:
    assert "Trained with pairs on 6,986 rows of pairs.csv, minilm" in page.text


def test_headline_without_the_untrained_encoder_claims_no_change(tmp_path: Path) -> None:
    result = entry()
    del result["result"]["systems"]["untrained"]
    assert "minilm is scored below." in write(tmp_path / "run", results=[result]).text


@pytest.mark.parametrize("results", [None, []])
def test_without_results_the_report_says_how_to_evaluate(tmp_path: Path, results: list | None) -> None:
    page = write(tmp_path / "my run", results=results)
    assert "minilm has not been evaluated yet." in page.text
    assert f"contrapose evaluate '{tmp_path}/my run' --on retrieval=pairs.csv" in page.text


def test_run_stopped_before_its_first_step_has_a_report(tmp_path: Path) -> None:
    assert write(tmp_path / "run", metrics=[]).figures == {}


# -------------------------------------------------------------------------------------------------------------- results


def test_table_has_every_score_with_its_interval(page: Page) -> None:
    assert "accuracy@1 0.080[0.040, 0.120] 0.260[0.220, 0.300] 0.710[0.670, 0.750]" in page.text


def test_system_without_a_metric_has_a_dash(tmp_path: Path) -> None:
    result = entry()
    result["result"]["systems"]["trained"]["mrr"] = score(0.8)
    assert "mrr – – 0.800[0.760, 0.840]" in write(tmp_path / "run", results=[result]).text


def test_every_protocol_has_its_table_its_chart_and_its_words(tmp_path: Path) -> None:
    accuracies = {"untrained": 0.6, "TF-IDF, words": 0.7, "majority class": 0.5, "trained": 0.8}
    probe = figures_of("probe", "labelled.csv", {name: {"accuracy": value} for name, value in accuracies.items()})
    sts = figures_of(
        "sts", "rated.csv", {name: {"spearman": 0.6, "length gap": -0.07} for name in ("untrained", "trained")}
    )
    page = write(tmp_path / "run", results=[probe, entry(), sts])
    for told in (
        "in accuracy. The best control (TF-IDF, words) scores 0.70: the trained encoder is ahead of it.",
        "Before and after: probe on labelled.csv",
        "accuracy 0.600[0.560, 0.640] 0.700[0.660, 0.740] 0.500[0.460, 0.540] 0.800[0.760, 0.840]",
        "How probe was measured.",
        "Before and after: sts on rated.csv",
        "length gap -0.070[-0.110, -0.030] -0.070[-0.110, -0.030]",
        "How sts was measured.",
    ):
        assert told in page.text
    assert page.text.count("on a map") == page.text.count("Nearest neighbours") == 1  # of the retrieval alone
    assert {"comparison-0", "comparison-1", "comparison-2"} <= page.figures.keys()
    (gap,) = [trace["x"][1] for trace in page.figures["comparison-2"]["data"] if trace.get("name") == "trained"]
    assert gap == -0.07


def test_chart_has_the_intervals(page: Page) -> None:
    trained = next(trace for trace in page.figures["comparison-0"]["data"] if trace.get("name") == "trained")
    assert trained["x"] == [0.71]
    assert trained["error_x"]["array"] == pytest.approx([0.04])
    assert trained["error_x"]["arrayminus"] == pytest.approx([0.04])


def test_map_joins_each_pair(page: Page) -> None:
    lines, candidates, queries, picked = page.figures["map-0-before"]["data"]
    assert (lines["x"], lines["y"]) == ([0, 4, None, 2, 6, None], [1, 5, None, 3, 7, None])
    assert (queries["x"], candidates["y"], picked["x"]) == ([0, 2], [5, 7], [])


def test_map_shows_both_texts_of_a_pair(page: Page) -> None:
    for trace in page.figures["map-0-after"]["data"][1:3]:
        assert trace["hovertext"][1] == "two<br>— belongs to —<br>divi"


def test_right_neighbours_are_marked_by_a_word(page: Page) -> None:
    assert "0.90 wrong 0.80 correct ✓ right" in page.text
    assert "Before 0.90 wrong No right one among these." in page.text


def test_neighbours_are_counted(page: Page) -> None:
    assert "A right one comes first for 0 of them before training and for 0 after." in page.text


def test_result_without_examples_and_map_has_no_such_sections(tmp_path: Path) -> None:
    result = entry() | {"examples": [], "map": None}
    text = write(tmp_path / "run", results=[result]).text
    assert "Nearest neighbours" not in text
    assert "on a map" not in text


# ------------------------------------------------------------------------------------------------------------- training


def test_term_stands_beside_its_chance_level(page: Page) -> None:
    chance, loss = data(page, "info_nce")
    assert (loss["x"], loss["y"]) == ([10, 20], [3.0, 1.0])
    assert chance["y"] == pytest.approx([math.log(64)] * 2)
    assert chance["line"]["dash"] == "dash"


def test_term_without_a_chance_level_has_no_dashed_line(tmp_path: Path) -> None:
    page = write(tmp_path / "run", metrics=[logged(10, 3.0) | {"chance": {}}])
    assert len(data(page, "info_nce")) == 1


def test_development_scores_stand_at_their_steps(page: Page) -> None:
    (scores,) = data(page, "Development score")
    assert (scores["x"], scores["y"]) == ([15], [0.5])


def test_rank_stands_beside_the_most_possible(page: Page) -> None:
    most, rank = data(page, "Effective rank")
    assert (most["y"], rank["y"]) == ([63.0, 63.0], [40.0, 40.0])


def test_a_verdict_on_health_stands_at_the_top_with_its_steps_and_its_newest_sentence(tmp_path: Path) -> None:
    spells = [
        {},
        {"collapsed": "collapsed: rank 9"},
        {"collapsed": "collapsed: rank 1", "above": "above chance: 5"},
        {},
        {"collapsed": "collapsed: rank 2"},
    ]
    lines = [logged(10 * number, 1.0, **verdicts) for number, verdicts in enumerate(spells, start=1)]
    page = write(tmp_path / "run", metrics=lines, results=[entry()])
    said = [
        "Health, steps 20 to 30: collapsed: rank 1.",
        "Health, step 30: above chance: 5.",
        "Health, step 50: collapsed: rank 2.",
    ]
    places = [page.text.index(sentence) for sentence in said]
    assert places == sorted(places)
    assert places[-1] < page.text.index("Before and after")
    assert "No alarm" not in page.text


def test_a_run_without_a_verdict_says_so_and_one_whose_health_was_not_read_claims_nothing(
    page: Page, tmp_path: Path
) -> None:
    assert "No alarm" in page.text
    old = [{name: value for name, value in line.items() if name != "verdicts"} for line in METRICS]
    assert "No alarm" not in write(tmp_path / "run", metrics=old).text


def test_watched_figures_are_drawn_when_they_change(tmp_path: Path, page: Page) -> None:
    changing = write(tmp_path / "run", metrics=[logged(10, 3.0), logged(20, 1.0, watched=0.04)])
    assert data(changing, "temperature")[0]["y"] == [0.05, 0.04]
    assert "watched, not minimised" not in page.text


def test_stages_are_divided_where_they_change(tmp_path: Path) -> None:
    page = write(
        tmp_path / "run", metrics=[logged(10, 3.0, "teacher"), logged(20, 2.0, "teacher"), logged(30, 1.0, "student")]
    )
    assert "in the stages teacher, student" in page.text
    assert [line["x0"] for line in page.figures["curve-0"]["layout"]["shapes"]] == [20]


def test_figures_that_are_not_finite_are_said_to_be_so(tmp_path: Path) -> None:
    page = write(tmp_path / "run", metrics=[logged(10, 3.0), logged(20, math.nan)])
    assert "not finiteinfo_nce" in page.text


def test_time_is_split_by_part(page: Page) -> None:
    assert "4.0 s of training at 49 rows a second." in page.text
    assert "backward2.050 % encode1.025 % everything else1.025 %" in page.text


# ------------------------------------------------------------------------------------------------------------- settings


def test_settings_of_the_command_come_first(page: Page) -> None:
    changed, everything = page.text.split("All 14 settings")
    assert "settingvalue encoder.max_tokens48temperature0.1" in changed
    assert "batch_size64" in everything


def test_run_at_its_defaults_says_so(tmp_path: Path) -> None:
    page = write(tmp_path / "run", config=CONFIG | {"command": "contrapose train pairs --data pairs.csv"})
    assert "Every setting stands at its default." in page.text


def test_command_can_be_copied_as_it_was(page: Page) -> None:
    assert COMMAND in page.text


# ------------------------------------------------------------------------------------------------------- whole or not at all


def test_failure_leaves_the_old_report(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.report.write_text("old")
    folder.write_results([entry() | {"map": {"method": "cut short"}}])
    with pytest.raises(KeyError):
        write_report(folder)
    assert folder.report.read_text() == "old"


def test_report_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.report.mkdir()
    with pytest.raises(WriteFailed, match="could not be written"):
        write_report(folder)
    assert [path.name for path in sorted(folder.path.iterdir())] == ["checkpoints", "config.yaml", "report.html"]

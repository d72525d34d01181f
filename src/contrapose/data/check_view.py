"""The report of `check` for the terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from contrapose.data.check import CheckReport, FalseNegatives, Lengths, TextSummary


def view(report: CheckReport) -> RenderableType:
    parts: list[RenderableType] = [_headline(report)]
    if report.texts:
        parts += ["", _lengths(report)]
    if report.false_negatives is not None:
        parts += ["", _false_negatives(report.false_negatives, report.groups)]
    if report.texts:
        title = "Examples, as the encoder sees them" if report.limit else "Examples"
        parts += ["", Text(title, "bold"), *_examples(report)]
    return Group(*parts, "", *_problems(report))


def _headline(report: CheckReport) -> Text:
    groups = "" if report.groups is None else f" in {report.groups:,} groups"
    line = Text(_clean(report.source), "bold")
    return line.append(f": {report.rows:,} rows{groups}; columns {', '.join(map(_clean, report.columns))}", "not bold")


def _lengths(report: CheckReport) -> Grid:
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    grid.add_column("column")
    for name in ("", "min", "median", "95 %", "max"):
        grid.add_column(name, justify="left" if not name else "right")
    grid.add_column("repeated", justify="right")
    if report.limit:
        grid.add_column(f"cut at {report.limit}", justify="right")
    for text in report.texts:
        grid.add_row(Text(_clean(text.column)), "characters", *_numbers(text.characters), f"{text.repeated:,}")
        if text.tokens is not None:
            grid.add_row("", "tokens", *_numbers(text.tokens), "", _cut(text, report.rows))
    return grid


def _numbers(lengths: Lengths) -> list[str]:
    return [f"{value:,.0f}" for value in (lengths.smallest, lengths.median, lengths.percentile_95, lengths.largest)]


def _cut(text: TextSummary, rows: int) -> str:
    return f"{text.cut:,} ({100 * text.cut / rows:.1f} %)"


def _false_negatives(found: FalseNegatives, groups: int | None) -> Text:
    line = f"False negatives: {100 * found.share:.3g} % of in-batch pairs share a text"
    if groups is not None:
        line += " or a group"
    if found.masked:
        line += f"; {100 * found.masked:.3g} % share a group and are masked"
    return Text(f"{line}; {found.left:.3g} left in a batch of {found.batch_size:,}.")


def _examples(report: CheckReport) -> list[Text]:
    places = max(len(example.place) for example in report.examples)
    names = max(len(_clean(text.column)) for text in report.texts)
    lines = []
    for example in report.examples:
        for number, (name, text) in enumerate(example.texts.items()):
            place = "" if number else example.place
            line = f"{place:<{places}}  {_clean(name):<{names}}  {_clean(text)}"
            lines.append(Text(line, no_wrap=True, overflow="ellipsis"))
    return lines


def _problems(report: CheckReport) -> list[Text]:
    if not report.problems:
        return [Text("No problems found.", "green")]
    lines = []
    for problem in report.problems:
        mark, style = ("refused", "red") if problem.stops else ("warning", "yellow")
        line = Text(f"{mark}: ", style)
        if problem.rows:
            line.append(f"{problem.places}: ", "default")
        lines.append(line.append(_clean(problem.message), "default"))
    return lines


def _clean(text: str) -> str:
    """A text of the user's on one line, without control characters."""
    return "".join(character if character.isprintable() else " " for character in text)

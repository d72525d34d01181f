"""Small pieces of Markdown that several of the made pages share."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence

LABEL = re.compile(r"\*\*([A-Z][^*]+)\.\*\*\s*")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a `|` inside a cell is escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in line) + " |" for line in lines
    )


def sections(docstring: str | None) -> dict[str, str]:
    """A docstring as its first line (""), its unlabelled paragraphs ("text") and its labelled ones: `**Mend.** …` under "Mend"."""
    summary, _, rest = inspect.cleandoc(docstring or "").partition("\n\n")
    parts = {"": summary}
    label = "text"
    for paragraph in re.split(r"\n{2,}", rest.strip()):
        if found := LABEL.match(paragraph):
            label, paragraph = found[1], paragraph[found.end() :]
        parts[label] = f"{parts[label]}\n\n{paragraph}" if label in parts else paragraph
    return {name: text for name, text in parts.items() if text}

"""The pages that are made from the code, so that none of them can fall behind it: methods, claims, golden values, errors, commands, the API reference.

MkDocs calls `on_config` (names the pages in the navigation), `on_files` (adds them) and `on_page_content` (turns formulas into MathML,
which browsers draw by themselves: no script is loaded from anywhere).
"""

from __future__ import annotations

import html
import re

import claim_pages
import command_page
import error_pages
import golden_page
import method_pages
import reference_pages
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

Pages = dict[str, str]  # path below docs/ -> Markdown; the first of a section is its index

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
made: Pages = {}


def on_config(config: MkDocsConfig) -> None:
    """Make every page, and put each section's pages below its entry in the navigation."""
    made.clear()
    for part in (method_pages, claim_pages, golden_page, error_pages, command_page, reference_pages):
        pages = part.pages()
        made.update(pages)
        index = next(iter(pages))
        entry = next(entry for entry in config.nav if index in entry.values())
        if len(pages) > 1:
            title = next(iter(entry))
            entry[title] = list(pages)


def on_files(files: Files, config: MkDocsConfig) -> None:
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))


def on_page_content(content: str, **_: object) -> str:
    return FORMULA.sub(mathml, content)


def mathml(formula: re.Match[str]) -> str:
    display = "block" if formula[1] == "div" else "inline"
    return convert(html.unescape(formula[2]), display=display)

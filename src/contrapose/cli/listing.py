"""What `contrapose methods` and `contrapose reproduce` print when they list."""

from __future__ import annotations

import inspect

from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from contrapose.catalogue import find_method, methods
from contrapose.claims.find import claims

ANY_COLUMNS = "Two or more modalities, a column each: --encoder picture=vectors,sound=vectors names them."
KINDS_OF_DATA = {
    "text": "Texts",
    "code": "Source code",
    "image": "Images",
    "image_text": "Images with texts",
    "multimodal": "Several modalities",
    "points": "Point clouds",
    "volume": "Volumes (CT, MR)",
    "graph": "Graphs",
    "series": "Time series",
    "sequence": "Click sequences",
    "speech": "Speech",
    "generation": "Text generation",
    "tabular": "Tables",
}


def show_methods() -> None:
    """A table a modality; imports no method."""
    console = Console()
    listings = methods().values()
    for modality in dict.fromkeys(listing.modality for listing in listings):
        table = Table(
            title=KINDS_OF_DATA.get(modality, modality),
            title_justify="left",
            box=None,
            show_header=False,
            padding=(0, 2),
        )
        for listing in listings:
            if listing.modality == modality:
                table.add_row(listing.name, listing.summary)
        console.print(table)
    console.print("\n`contrapose methods NAME` explains one.", markup=False)


def show_method(name: str) -> None:
    """Docstring, columns, settings and paper of one method."""
    kind = find_method(name)
    card, console = kind.card, Console()
    console.print(Markdown(f"# {card.title}\n\n{inspect.cleandoc(kind.__doc__ or '')}"))
    columns = Table("column", "kind", "", title="Columns", title_justify="left")
    for column in card.columns:
        columns.add_row(column.name, column.kind, column.help + ("" if column.required else " Optional."))
    if not card.columns:
        columns.add_row("any", "any", ANY_COLUMNS)
    settings = Table("setting", "default", "", title="Settings (--set name=value)", title_justify="left")
    for setting, field in kind.Settings.model_fields.items():
        settings.add_row(setting, "" if field.default is None else str(field.default), field.description)
    console.print(columns, settings)
    console.print(f"Gives: {card.produces}. Paper: {card.paper}, {card.venue}, {card.year}. {card.url}", markup=False)


def show_claims() -> None:
    """A line a claim; imports none."""
    console = Console()
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, says in claims().items():
        table.add_row(name, says)
    console.print(table)
    console.print("\n`contrapose reproduce NAME` checks one.", markup=False)

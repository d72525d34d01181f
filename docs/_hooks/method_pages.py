"""A page a method, from its class: docstring, card and settings. And the table by the data that one has.

A method's docstring is its first line, when to pick it, the formula (from the first paragraph with a displayed `$$` or the one that leads to
it), and labelled paragraphs where there is more to say: `**When not.**`, `**Example.**`, `**Pitfalls.**`.
"""

from __future__ import annotations

import re
from typing import Any

from pieces import sections, table

from contrapose.catalogue import Listing, find_method, methods
from contrapose.claims.find import claims
from contrapose.cli.listing import ANY_COLUMNS, KINDS_OF_DATA
from contrapose.training.method import Card, Method

TYPES = {"integer": "int", "number": "float", "string": "str", "boolean": "bool", "array": "list", "object": "dict"}
BOUNDS = {"exclusiveMinimum": ">", "minimum": "≥", "exclusiveMaximum": "<", "maximum": "≤"}


def pages() -> dict[str, str]:
    ours = [listing for listing in methods().values() if listing.module.startswith("contrapose.")]
    kinds = {listing.name: find_method(listing.name) for listing in ours}
    return {"methods/index.md": index(ours, kinds)} | {
        f"methods/{name}.md": page(name, kind) for name, kind in kinds.items()
    }


def index(ours: list[Listing], kinds: dict[str, type[Method]]) -> str:
    text = [
        "# Methods",
        "By the data that you have. Each needs the columns named here, found by name and never by order, and comes from the paper on its page; "
        "`contrapose methods` prints the same list.",
    ]
    for modality in dict.fromkeys(listing.modality for listing in ours):
        rows = [
            (
                f"[{listing.name}]({listing.name}.md)",
                listing.summary,
                named(kinds[listing.name].card),
                kinds[listing.name].card.produces,
            )
            for listing in ours
            if listing.modality == modality
        ]
        text += [f"## {KINDS_OF_DATA.get(modality, modality)}", table(("method", "", "columns", "gives"), rows)]
    return "\n\n".join(text)


def named(card: Card) -> str:
    return (
        "a column for each modality"
        if not card.columns
        else ", ".join(f"`{column.name}`" + ("" if column.required else " (optional)") for column in card.columns)
    )


def page(name: str, kind: type[Method]) -> str:
    parts, card = sections(kind.__doc__), kind.card
    when, formula = before_formula(parts.get("text", ""))
    ordered = {
        "When to pick it": parts.get("When to pick it", when),
        "When not": parts.get("When not"),
        "Data": data(card),
        "Example": parts.get("Example", example(name, card)),
        "Formula": parts.get("Formula", formula),
        "Settings": settings(kind.Settings),
        "Pitfalls": parts.get("Pitfalls"),
        "Claim": f"[What the paper claims, checked](../claims/{name}.md)." if name in claims() else None,
        "Reference": f"*{card.paper}*. {card.venue}, {card.year}. <{card.url}>",
    }
    head = f"# {card.title}\n\n{parts['']} Name: `{name}`. Gives: {card.produces}."
    return "\n\n".join([head, *(f"## {title}\n\n{text}" for title, text in ordered.items() if text)])


def before_formula(text: str) -> tuple[str, str]:
    """The paragraphs before the first that holds mathematics, and the others."""
    paragraphs = re.split(r"\n{2,}", text)
    first = next((place for place, paragraph in enumerate(paragraphs) if "$" in paragraph), len(paragraphs))
    return "\n\n".join(paragraphs[:first]), "\n\n".join(paragraphs[first:])


def data(card: Card) -> str:
    rows = [
        (f"`{column.name}`", column.kind, "yes" if column.required else "no", column.help) for column in card.columns
    ]
    if not card.columns:
        rows.append(
            (
                "any",
                "any",
                "yes",
                ANY_COLUMNS.replace(
                    "--encoder picture=vectors,sound=vectors", "`--encoder picture=vectors,sound=vectors`"
                ),
            )
        )
    rows.append(("`group_id`", "any", "no", "Rows with the same value are never each other's negatives."))
    return table(("column", "kind", "needed", ""), rows)


def example(name: str, card: Card) -> str:
    """The shortest use, for a file whose columns are called as the method calls them."""
    needed = ", ".join(f"`{column.name}`" for column in card.columns if column.required)
    if not card.columns:
        return several(name)
    return f"""With a file that has the column{"s" if "," in needed else ""} {needed}:

```sh
contrapose check data.csv --method {name}
contrapose train {name} --data data.csv --out runs/{name}
```

```python
import contrapose

run = contrapose.train("{name}", data="data.csv", out="runs/{name}")
run.model.save("model")
```"""


def several(name: str) -> str:
    """The shortest use of a method whose columns are the user's."""
    return f"""With a file whose columns are the modalities, here `picture` and `sound`:

```sh
contrapose check data.npz --method {name}
contrapose train {name} --data data.npz --encoder picture=vectors,sound=vectors --out runs/{name}
```

```python
import contrapose

encoder = {{"picture": "vectors", "sound": "vectors"}}
run = contrapose.train("{name}", data="data.npz", encoder=encoder, out="runs/{name}")
run.model.save("model")
```"""


def settings(kind: type) -> str:
    """The method's own settings first, then those that every method has."""
    properties = kind.model_json_schema()["properties"]
    own = [name for name in properties if name in vars(kind).get("__annotations__", {})]
    rows = []
    for name in [*own, *(name for name in properties if name not in own)]:
        schema = properties[name]
        types, ranges = read_schema(schema)
        default = schema.get("default")
        rows.append(
            (f"`{name}`", types, "empty" if default is None else f"`{default}`", ranges, schema.get("description", ""))
        )
    return "`--set name=value`, or a keyword from Python.\n\n" + table(("name", "type", "default", "range", ""), rows)


def read_schema(schema: dict[str, Any]) -> tuple[str, str]:
    """The type and the range of a setting, in words."""
    if "anyOf" in schema:
        read = [read_schema(choice) for choice in schema["anyOf"] if choice.get("type") != "null"]
        empty = ["empty"] if any(choice.get("type") == "null" for choice in schema["anyOf"]) else []
        return " or ".join([types for types, _ in read] + empty), "; ".join(ranges for _, ranges in read if ranges)
    if "enum" in schema:
        return TYPES[schema["type"]], ", ".join(f"`{value}`" for value in schema["enum"])
    return TYPES.get(schema.get("type", ""), "any"), ", ".join(
        f"{sign} {schema[bound]:g}" for bound, sign in BOUNDS.items() if bound in schema
    )

"""A page an error, from its docstring, in the order in which it is written there; and the table of all of them."""

from __future__ import annotations

from pieces import sections, table

from contrapose import errors

FAMILIES = {
    "CL-DATA": "Data",
    "CL-SET": "Settings, methods and names",
    "CL-RUN": "Runs and checkpoints",
    "CL-MODEL": "Models and weights",
    "CL-TRAIN": "Training",
    "CL-EVAL": "Evaluation",
    "CL-CLAIM": "Claims",
    "CL-ENV": "The machine and its packages",
}


def pages() -> dict[str, str]:
    kinds = sorted(all_kinds(errors.ContraposeError), key=lambda kind: kind.code)
    return {"errors/index.md": index(kinds)} | {f"errors/{kind.code.lower()}.md": page(kind) for kind in kinds}


def all_kinds(kind: type[Exception]) -> set[type[Exception]]:
    return {deeper for each in kind.__subclasses__() for deeper in {each} | all_kinds(each)}


def page(kind: type[Exception]) -> str:
    parts = sections(kind.__doc__)
    text = [f"# {kind.code}: {kind.__name__}", parts.pop("")]
    for label, paragraph in parts.items():
        text += [paragraph] if label == "text" else [f"## {label}", paragraph]
    return "\n\n".join(text)


def index(kinds: list[type[Exception]]) -> str:
    text = [
        "# Errors",
        "Every error that contrapose raises on purpose has a code that never changes, and a page. Its message names the place (file, line, "
        "column, setting), says what was expected, and how to mend it; the command line prints it on one line and exits with 2. From Python, "
        "`contrapose.errors.ContraposeError` catches them all.",
    ]
    for family in dict.fromkeys(kind.code.rpartition("-")[0] for kind in kinds):
        rows = [
            (f"[{kind.code}]({kind.code.lower()}.md)", f"`{kind.__name__}`", sections(kind.__doc__)[""])
            for kind in kinds
            if kind.code.startswith(f"{family}-")
        ]
        text += [f"## {FAMILIES.get(family, family)}", table(("code", "name", "what it means"), rows)]
    return "\n\n".join(text)

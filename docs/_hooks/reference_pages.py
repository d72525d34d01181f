"""A page of the API reference for each part of the package, from the top of the house to its ground; mkdocstrings fills them in."""

from __future__ import annotations

from pathlib import Path

import contrapose

PACKAGE = Path(contrapose.__file__).parent
FIRST = ("api", "run")
ELSEWHERE = {"errors", "cli", "samples"}  # have pages of their own, or no code


def pages() -> dict[str, str]:
    """The public calls first, then every other folder and file of the package by name."""
    parts = sorted(path for path in PACKAGE.glob("[a-z]*") if path.suffix == ".py" or (path / "__init__.py").exists())
    others = {path.stem: modules(path) for path in parts if path.stem not in {*FIRST, *ELSEWHERE}}
    first = {"reference/index.md": page("API reference", [f"contrapose.{name}" for name in FIRST])}
    return first | {f"reference/{name}.md": page(f"contrapose.{name}", found) for name, found in others.items()}


def modules(path: Path) -> list[str]:
    """The module itself, or a folder's public modules."""
    if path.suffix == ".py":
        return [f"contrapose.{path.stem}"]
    return [f"contrapose.{path.name}.{module.stem}" for module in sorted(path.glob("[a-z]*.py"))]


def page(title: str, found: list[str]) -> str:
    return "\n\n".join([f"# {title}", *(f"::: {module}" for module in found)])

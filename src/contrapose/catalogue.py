"""Which methods there are: file names, so that nothing has to be imported to list them."""

from __future__ import annotations

import ast
import importlib
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from contrapose.errors import MethodUnknown, nearest

if TYPE_CHECKING:
    from contrapose.training.method import Method

ROOMS = {"data", "views", "encoder", "evaluation"}  # what every modality's folder holds beside its methods
PACKAGE = Path(__file__).parent


@dataclass(frozen=True)
class Listing:
    """A method by name: its modality, what it is for in one line, and where its class is."""

    name: str
    modality: str
    summary: str
    module: str


def methods() -> dict[str, Listing]:
    """Every method by name: the files of the modality folders, and what other packages register as `contrapose.methods`."""
    found = {}
    for room in sorted(PACKAGE.glob("*/data.py")):
        if not (room.parent / "encoder.py").is_file():  # no modality: data alone do not make one
            continue
        for path in sorted(room.parent.glob("[a-z]*.py")):
            if path.stem not in ROOMS:
                modality = room.parent.name
                found[path.stem] = Listing(path.stem, modality, summary(path), f"contrapose.{modality}.{path.stem}")
    for entry in registered():
        found.setdefault(
            entry.name, Listing(entry.name, entry.value.split(".")[0], "from another package", entry.module)
        )
    return found


def registered() -> list[EntryPoint]:
    return list(entry_points(group="contrapose.methods"))


def summary(path: Path) -> str:
    """The first line of the docstring of the class that has a card."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and any(
            isinstance(part, ast.Assign) and part.targets[0].id == "card" for part in node.body
        ):
            return (ast.get_docstring(node) or "").split("\n")[0]
    return ""


def find_method(name: str) -> type[Method]:
    """The class of a method. Raises MethodUnknown, naming the nearest, when there is none."""
    from contrapose.training.method import Method

    known = methods()
    if name not in known:
        raise MethodUnknown(f"There is no method '{name}'; {nearest(name, known)} `contrapose methods` lists them.")
    for entry in registered():
        if entry.name == name and known[name].module == entry.module:
            return entry.load()
    module = importlib.import_module(known[name].module)
    kinds = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Method)]
    return next(kind for kind in kinds if kind.__module__ == module.__name__)

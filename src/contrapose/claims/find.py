"""Which claims there are: files that say `claim = Claim(…)`, so that nothing has to be imported to list them."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import TYPE_CHECKING

from contrapose.errors import ClaimUnknown, nearest

if TYPE_CHECKING:
    from contrapose.claims.claim import Claim


def claims() -> dict[str, str]:
    """Name → the first line of its file: what is claimed."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        if any(isinstance(part, ast.Assign) and ast.unparse(part.targets[0]) == "claim" for part in module.body):
            found[path.stem] = (ast.get_docstring(module) or "").split("\n")[0]
    return found


def find_claim(name: str) -> Claim:
    """Raises ClaimUnknown, naming the nearest, when there is none."""
    known = claims()
    if name not in known:
        raise ClaimUnknown(f"There is no claim '{name}'; {nearest(name, known)} `contrapose reproduce` lists them.")
    return importlib.import_module(f"contrapose.claims.{name}").claim

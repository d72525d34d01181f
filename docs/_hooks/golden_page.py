"""The page of golden values, from the recipes that make them again in the tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # the tests are no package that is installed

from tests.golden import table


def pages() -> dict[str, str]:
    return {"golden.md": table.page()}

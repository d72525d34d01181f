"""contrapose: one contrastive representation-learning library for every modality.

import contrapose

run = contrapose.train("pairs", data="pairs.csv")
run.model.encode(["a sentence"])
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contrapose.api import (
        Model,
        Run,
        check,
        compare,
        diagnose,
        embed,
        evaluate,
        load,
        methods,
        open_run,
        reproduce,
        train,
        write_report,
    )

__version__ = version("contrapose")
__all__ = [
    "Model",
    "Run",
    "check",
    "compare",
    "diagnose",
    "embed",
    "evaluate",
    "load",
    "methods",
    "open_run",
    "reproduce",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used: `import contrapose` alone loads no torch."""
    if name in __all__:
        from contrapose import api

        return getattr(api, name)
    raise AttributeError(f"module 'contrapose' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

"""The base of the family, and the help that every message can give."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ContraposeError(Exception):
    """The base of the family: catch it to catch everything that contrapose raises on purpose."""

    code = "CL-000"

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

    def __str__(self) -> str:
        return f"{self.args[0]} [{self.code}]"

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows: the sentence alone, as the command line does."""
        return [str(self)]


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'known'?` for the closest of the known names, or the whole list when none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known: {', '.join(known)}." if known else "there is none."

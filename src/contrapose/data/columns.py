"""What a method asks of the data: columns by name, each of a kind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

GROUP = "group_id"  # an optional column of any table: rows with the same value are never each other's negatives

Kind = Literal["text", "image", "label", "number", "score", "domain", "series", "time", "node"]


@dataclass(frozen=True)
class Column:
    """A column that a method asks for; it stands in the method's Card.

    `kind` says what its values must be: "text" a text that is not blank; "number" and "score" a finite number; "label",
    "domain", "image" and "node" any value that is there, "series" numbers over time, "time" a number, or a date and time. A column that is not
    `required` may be absent; where it is present, its values are held to the same.
    """

    name: str
    kind: Kind
    help: str
    required: bool = True

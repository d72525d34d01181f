"""Images with texts: pixels decoded once, texts tokenised once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contrapose.data.batches import Data
from contrapose.data.check import CheckReport
from contrapose.data.columns import Column
from contrapose.data.plain import plain_columns
from contrapose.data.table import Table
from contrapose.image import data as images
from contrapose.text import data as texts
from contrapose.training.method import Card

if TYPE_CHECKING:
    from contrapose.image_text.encoder import Pair

CAPTIONS = ("captions.csv", "captions.tsv", "captions.jsonl", "captions.parquet")


def read_data(
    source: Any,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Sequence[Column] = (),
    drop_empty: bool = False,
    strict: bool = True,
) -> Table:
    """Images with texts as a table.

    source: a folder with captions.csv (or .tsv, .jsonl, .parquet) in it, whose column "image" holds paths within the folder and whose column
        "text" holds what they show; or whatever `contrapose.image.data.read_data` takes, with both columns.
    rename, needs, drop_empty, strict: as for `contrapose.data.readers.read`.

    Raises what `contrapose.image.data.read_data` raises.
    """
    if isinstance(source, (str, Path)) and (folder := Path(source).expanduser()).is_dir():
        source = next((folder / name for name in CAPTIONS if (folder / name).is_file()), source)
    return images.read_data(source, rename=rename, needs=needs, drop_empty=drop_empty, strict=strict)


def open_data(table: Table, card: Card, encoder: Pair) -> Data:
    """A checked table as what a method trains on: each column as its encoder opens it, labels as codes, numbers as float32."""
    encoded = [column for column in card.columns if column.kind in ("image", "text")]
    columns, categories = plain_columns(table, [column for column in card.columns if column not in encoded])
    opened = {
        column.name: encoder[column.kind].open_column(values_of(table, column.name, encoder[column.kind]))
        for column in encoded
        if column.name in table
    }
    return Data({**columns, **opened}, len(table), table.group, categories, table.source, table.fingerprint)


def check_data(table: Table, card: Card, encoder: Pair, batch_size: int) -> CheckReport:
    """What is wrong with images and texts for a method, by row: every image is decoded."""
    return images.check_data(table, card, encoder["image"], batch_size)


def values_of(table: Table, column: str, encoder: Any) -> Sequence[Any]:
    """A column's values as an encoder takes them."""
    return images.ImageValues(table, column) if images.holds_images(table, column) else table[column]


def refuse_values(table: Table, column: str) -> None:
    """Raises ValueKind for a column that holds neither images nor texts."""
    if not images.holds_images(table, column):
        texts.refuse_values(table, column)

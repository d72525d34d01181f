"""A run's model folder: written, read back, compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from contrapose.catalogue import find_method
from contrapose.data.table import Table
from contrapose.errors import EncoderNotRebuildable
from contrapose.export.card import card_text
from contrapose.export.model_folder import Model, largest_difference, load, write_model
from contrapose.opening import rooms_of
from contrapose.training.encoder import Encoder
from contrapose.training.run_folder import RunFolder

CHECKED_VALUES = 64  # compared


def write_checked(
    folder: RunFolder, encoders: dict[str, Encoder], table: Table, entries: Sequence[Mapping[str, Any]]
) -> Model:
    """Write `model/`, read it back, compare, and say in its card how far the vectors differ."""
    config = folder.config
    card = find_method(config["method"]).card
    room = rooms_of(card.modality)
    model = Model(encoders, card.modality, config["method"])
    write_model(model, folder.model)
    usage, checked = [], []
    for name, encoder in encoders.items():
        column = name if name in table else next(column.name for column in card.columns if column.required)
        values = room.data.values_of(table, column, encoder)[:CHECKED_VALUES]
        differences = room.encoder.compare_export(model.folder_of(name, folder.model), encoder, values)
        with suppress(EncoderNotRebuildable):  # a module of the user's own; the card says how it is loaded
            differences["contrapose.load"] = largest_difference(encoder, load(folder.model).encoder(name), values)
        usage.append(room.encoder.usage(encoder))
        of = f" of '{name}'" if len(encoders) > 1 else ""
        checked += [
            f"Read back by {reader}, the unit vectors of {len(values)} training rows{of} differ by at most {difference:.1e}."
            for reader, difference in differences.items()
        ]
    write_model(
        model, folder.model, card_text(model, config, entries, "\n\n".join(dict.fromkeys(usage)), " ".join(checked))
    )
    return model

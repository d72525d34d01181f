"""A graph as data: its rows are the nodes of the type that is to be embedded."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from contrapose.data.batches import Data
from contrapose.data.check import CheckReport, Problem
from contrapose.data.columns import Column
from contrapose.errors import ColumnMissing, ColumnUnknown, DataFormatUnknown, NodeUnknown, UsageInvalid, nearest
from contrapose.graph._graph import Graph, MetaPath
from contrapose.graph._reading import FORM, read_folder, read_hetero
from contrapose.training.method import Card

if TYPE_CHECKING:
    from contrapose.graph.encoder import GraphEncoder

__all__ = ["NODE", "Graph", "MetaPath", "Nodes", "check_data", "open_data", "read_data", "refuse_values", "values_of"]

NODE = Column("node", "node", "A node of the type that is to be embedded, by its number.")


class Nodes:
    """The nodes of a graph's target type, as a table of one column: `nodes["node"]` are their numbers, 0 to n - 1.

    `graph` is the whole graph, on which their vectors depend. `fingerprint` is that of the whole graph.
    """

    columns = (NODE.name,)
    dropped = 0
    group = None

    def __init__(self, graph: Graph) -> None:
        self.graph, self.source = graph, graph.source

    @property
    def fingerprint(self) -> str:
        return self.graph.fingerprint

    def __len__(self) -> int:
        return self.graph.counts[self.graph.target]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> range:
        if name not in self.columns:
            raise ColumnMissing(f"{self.source} has no column '{name}'; {nearest(name, self.columns)}")
        return range(len(self))

    def where(self, row: int) -> str:
        return f"{self.graph.target} {row} of {self.source}"

    def __repr__(self) -> str:
        others = ", ".join(f"{count:,} {name}" for name, count in self.graph.counts.items())
        return f"Nodes({self.source}: {others})"


def read_data(
    source: Any,
    *,
    rename: Mapping[str, str] | None = None,
    needs: Sequence[Column] = (),
    drop_empty: bool = False,
    strict: bool = True,
) -> Nodes:
    """A graph: a folder as `read_folder` describes it, torch-geometric's HeteroData, or a `Graph`.

    rename: `{"node": "paper"}` says which type is to be embedded. Nothing of a graph can be dropped, so `drop_empty` is refused.
    Raises DataFileMissing, DataFormatUnknown, DataDamaged, GraphInvalid, ColumnUnknown, UsageInvalid.
    """
    named = dict(rename or {})
    target = named.pop(NODE.name, None)
    if named:
        raise ColumnUnknown(
            f"a graph has the one column 'node', which may be mapped to a type of nodes; got {', '.join(named)}."
        )
    if drop_empty:
        raise UsageInvalid("a graph has no empty rows to drop; leave out drop_empty.")
    if isinstance(source, Nodes):
        source = source.graph
    if isinstance(source, (str, os.PathLike)):
        return Nodes(read_folder(Path(source), target))
    if hasattr(source, "node_types") and hasattr(source, "edge_types"):
        return Nodes(read_hetero(source, target))
    if not isinstance(source, Graph):
        raise DataFormatUnknown(f"the data are a {type(source).__name__}; give a folder or a HeteroData. {FORM}")
    kept = source if target is None else Graph(source.counts, source.features, source.edges, target, source.source)
    return Nodes(kept)


def open_data(table: Nodes, card: Card, encoder: GraphEncoder) -> Data:
    """The numbers of the nodes, int64; what belongs to them stands in the encoder, whose graph this must be.

    Raises NodeUnknown when the encoder was made for another graph.
    """
    refuse_other_graph(table, encoder)
    nodes = torch.arange(len(table))
    return Data({NODE.name: nodes}, len(table), None, {}, table.source, table.fingerprint)


def check_data(table: Nodes, card: Card, encoder: GraphEncoder, batch_size: int) -> CheckReport:
    """What is wrong with a graph for a method: nodes that a meta-path leaves alone."""
    refuse_other_graph(table, encoder)
    problems = []
    for path in encoder.paths:
        alone = np.flatnonzero(np.diff(table.graph.half(path).indptr) == 0)
        if len(alone):
            shown = ", ".join(map(str, alone[:5])) + (f" and {len(alone) - 5:,} more" if len(alone) > 5 else "")
            message = f"{len(alone):,} nodes have no path {path}: over it they are like themselves alone."
            problems.append(Problem(message, len(alone), f"{table.graph.target} {shown}", False))
    return CheckReport(
        source=table.source, rows=len(table), columns=tuple(table.columns), groups=None, limit=None, texts=(), examples=(),
        false_negatives=None, problems=tuple(problems),
    )  # fmt: skip


def values_of(table: Nodes, column: str, encoder: Any) -> Sequence[int]:
    """The numbers of the nodes."""
    return table[column]


def refuse_values(table: Nodes, column: str) -> None:
    """Raises ColumnMissing for another column than `node`; every node has a number."""
    table[column]


def refuse_other_graph(table: Nodes, encoder: GraphEncoder) -> None:
    """Raises NodeUnknown unless the encoder's graph is the table's."""
    if encoder.fingerprint != table.fingerprint:
        raise NodeUnknown(
            f"the encoder was made for another graph ({encoder.source}) than {table.source}, so it has no vectors of its nodes; leave "
            "the encoder out, and one is made."
        )

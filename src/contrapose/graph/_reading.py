"""A graph from a folder of tables, or from torch-geometric's HeteroData."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml
from scipy.sparse import csr_matrix, load_npz

from contrapose.data.faults import numbers
from contrapose.errors import DataDamaged, DataFileMissing, DataFormatUnknown, GraphInvalid
from contrapose.graph._graph import Graph

NODES, EDGES, FACTS = "nodes", "edges", "graph.yaml"
KNOWN = ("target", "metapaths", "nodes")
FORM = (
    "A graph's folder holds edges/TYPE-TYPE.csv (or .npy, .npz), and where there are features nodes/TYPE.npz (or .npy, .csv), and "
    "graph.yaml with `target: TYPE`."
)


def read_folder(folder: Path, target: str | None = None) -> Graph:
    """A graph from a folder.

    edges/paper-author.csv: a header, then two node numbers a line; or .npy, integers (2, e); or .npz, SciPy's sparse incidence (papers,
    authors). nodes/paper.npz: SciPy's sparse features, a row a node; or .npy, dense; or .csv, a header and numbers. graph.yaml, all of it
    optional: `target: paper`, `metapaths: [paper-author-paper]`, `nodes: {author: 7167}` for a type without features whose last nodes have
    no edge. target: instead of the file's.

    Raises DataFileMissing, DataFormatUnknown, DataDamaged, GraphInvalid, each naming file and place.
    """
    if not folder.is_dir():
        raise DataFileMissing(f"{folder} is no folder. {FORM}")
    facts = _facts(folder / FACTS)
    edge_files = sorted(file for file in (folder / EDGES).glob("*") if file.suffix in EDGE_READERS)
    if not edge_files:
        raise DataFormatUnknown(f"{folder} has no edges in {EDGES}/. {FORM}")
    edges, files, least = {}, {}, {}
    refuse_twice(edge_files)
    for file in edge_files:
        pair = tuple(file.stem.split("-"))
        if len(pair) != 2 or not all(pair):
            raise DataFormatUnknown(
                f"{file}: the name says which types the edges join, as in paper-author{file.suffix}."
            )
        edges[pair], shape = EDGE_READERS[file.suffix](file)
        if file.suffix == ".csv":
            files[pair] = str(file)
        for name, there, stated in zip(pair, edges[pair], shape or (0, 0), strict=True):
            least[name] = max(least.get(name, 0), int(there.max(initial=-1)) + 1, stated)
    node_files = sorted(file for file in (folder / NODES).glob("*") if file.suffix in NODE_READERS)
    refuse_twice(node_files)
    features = {file.stem: NODE_READERS[file.suffix](file) for file in node_files}
    for file in node_files:
        if not features[file.stem].shape[1]:
            raise DataDamaged(
                f"{file} has no column, so it says nothing of any node; leave the file out, and nodes get one-hot features."
            )
    counts = {**least, **(facts.get("nodes") or {}), **{n: f.shape[0] for n, f in features.items()}}
    target = target or facts.get("target") or only(counts, str(folder))
    return Graph(counts, features, edges, str(target), str(folder), tuple(facts.get("metapaths") or ()), files)


def refuse_twice(files: Sequence[Path]) -> None:
    """Raises DataFormatUnknown where two files say the same thing: paper.npz and paper.npy."""
    seen: dict[str, Path] = {}
    for file in files:
        if seen.setdefault(file.stem, file) != file:
            raise DataFormatUnknown(f"{seen[file.stem]} and {file} hold the same; keep one of the two.")


def read_hetero(data: Any, target: str | None = None) -> Graph:
    """A graph from a HeteroData: `data["paper"].x`, dense or sparse, and `data["paper", "to", "author"].edge_index`.

    target: the type to embed; None: the one that has labels `y`, where one alone has. Relations between the same two types are joined.
    """
    source = f"a {type(data).__name__} from Python"
    edges: dict[tuple[str, str], np.ndarray] = {}
    for first, _, second in data.edge_types:
        index = data[first, _, second].edge_index.detach().cpu().numpy().astype(np.int64)
        there = edges.get((first, second), np.empty((2, 0), np.int64))
        edges[first, second] = np.concatenate([there, index], axis=1)
    features, counts = {}, {}
    for name in data.node_types:
        store = data[name]
        x = getattr(store, "x", None)
        if x is not None:
            features[name] = csr_matrix(
                (x.to_dense() if x.layout != _strided() else x).detach().cpu().numpy().astype(np.float64)
            )
        used = [edges[pair][side].max(initial=-1) + 1 for pair in edges for side in (0, 1) if pair[side] == name]
        counts[name] = int(features[name].shape[0] if x is not None else store.num_nodes or max(used, default=0))
    labelled = [name for name in data.node_types if getattr(data[name], "y", None) is not None]
    target = target or (labelled[0] if len(labelled) == 1 else only(counts, source))
    return Graph(counts, features, edges, target, source)


def only(counts: Mapping[str, int], source: str) -> str:
    """The one type that there is. Raises GraphInvalid where there are several."""
    if len(counts) == 1:
        return next(iter(counts))
    raise GraphInvalid(
        f"{source} has the node types {', '.join(sorted(counts))} and does not say which is to be embedded; write `target: TYPE` into "
        "graph.yaml, or map it: --map node=TYPE."
    )


def _strided() -> Any:
    import torch

    return torch.strided


def _facts(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        facts = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataDamaged(f"{file} is no YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(facts, dict) or set(facts) - set(KNOWN):
        raise DataFormatUnknown(f"{file} may say {', '.join(KNOWN)}, and nothing else.")
    paths, nodes = facts.get("metapaths") or [], facts.get("nodes") or {}
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise DataFormatUnknown(
            f"{file}: metapaths is {paths!r}, and is a list of names, as in [paper-author-paper, paper-subject-paper]."
        )
    if not isinstance(nodes, dict):
        raise DataFormatUnknown(
            f"{file}: nodes is {nodes!r}, and says how many nodes a type has, as in {{author: 7167}}."
        )
    for name, count in nodes.items():
        if type(count) is not int or count < 1:
            raise DataFormatUnknown(f"{file}: nodes of type '{name}' are {count!r}; give a whole number from 1 on.")
    return {**facts, "nodes": {str(name): count for name, count in nodes.items()}}


def _csv(file: Path) -> pa.Table:
    try:
        return pyarrow.csv.read_csv(file)
    except pa.ArrowInvalid as error:
        raise DataDamaged(f"{file} cannot be read as CSV: {' '.join(str(error).split())}.") from None


def _edges_csv(file: Path) -> tuple[np.ndarray, None]:
    table = _csv(file)
    if table.num_columns != 2:
        raise DataDamaged(
            f"{file} has {table.num_columns} columns; edges have two, a node number in each, below a header."
        )
    return np.stack([_whole_numbers(file, table, column) for column in range(2)]), None


def _whole_numbers(file: Path, table: pa.Table, column: int) -> np.ndarray:
    values = table.column(column)
    if pa.types.is_integer(values.type) and not values.null_count:
        return values.to_numpy().astype(np.int64)
    said = values.to_pylist()
    whole = ((isinstance(value, float) and value.is_integer()) or str(value).lstrip("-").isdigit() for value in said)
    wrong = next((row for row, right in enumerate(whole) if not right), 0)
    shown = said[wrong] if said else "nothing"
    raise DataDamaged(
        f"{file}, line {wrong + 2}: column {column + 1} is {shown!r}, no node number; nodes are numbered from 0."
    )


def _edges_npy(file: Path) -> tuple[np.ndarray, None]:
    edges = _array(file)
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise DataDamaged(f"{file}: edges are integers of shape (2, e); got {edges.dtype} {edges.shape}.")
    return edges.astype(np.int64), None


def _edges_npz(file: Path) -> tuple[np.ndarray, tuple[int, int]]:
    matrix = _sparse(file).tocoo()
    return np.stack([matrix.row, matrix.col]).astype(np.int64), matrix.shape


def _nodes_csv(file: Path) -> csr_matrix:
    table = _csv(file)
    for name, column in zip(table.column_names, table.columns, strict=True):
        if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)) or column.null_count:
            row = int(np.isnan(numbers(column)).argmax())
            raise DataDamaged(
                f"{file}, line {row + 2}: column '{name}' is {column[row].as_py()!r}, no number; features are numbers, a column each."
            )
    return csr_matrix(np.stack([column.to_numpy().astype(np.float64) for column in table.columns], axis=1))


def _nodes_npy(file: Path) -> csr_matrix:
    features = _array(file)
    if features.ndim != 2 or features.dtype.kind not in "iufb":
        raise DataDamaged(
            f"{file}: features are numbers of shape (nodes, features); got {features.dtype} {features.shape}."
        )
    return csr_matrix(features.astype(np.float64))


def _array(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        reason = "it is pickled" if "pickle" in str(error) else error  # NumPy's words would say how to load one
        raise DataDamaged(
            f"{file} is no NumPy array that can be read without running code from it ({reason})."
        ) from None


def _sparse(file: Path) -> csr_matrix:
    try:
        return csr_matrix(load_npz(file), dtype=np.float64)
    except Exception as error:  # zipfile's, NumPy's and SciPy's own, whichever part is damaged
        pickled = "pickle" in str(error)  # NumPy's words would say how to load one
        reason = "it would have to be unpickled, which runs code from it" if pickled else error
        raise DataDamaged(f"{file} is no sparse matrix as scipy.sparse.save_npz writes it ({reason}).") from None


EDGE_READERS: dict[str, Callable[[Path], tuple[np.ndarray, tuple[int, int] | None]]] = {
    ".csv": _edges_csv,
    ".npy": _edges_npy,
    ".npz": _edges_npz,
}
NODE_READERS: dict[str, Callable[[Path], csr_matrix]] = {".csv": _nodes_csv, ".npy": _nodes_npy, ".npz": _sparse}

"""What an encoder needs of a graph: sparse features, neighbourhoods and hops, made once, kept on disk, and saved beside the weights."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix, diags, load_npz, save_npz
from torch import Tensor, nn

from contrapose.data.cache import cache_folder, written_whole
from contrapose.errors import ModelFolderInvalid, SettingInvalid
from contrapose.graph._graph import Graph, MetaPath
from contrapose.graph._options import EncoderOptions
from contrapose.graph._sparse import PARTS, Adjacency, Sparse
from contrapose.graph.views import Orientation, neighbours, without_edges, without_features

FORMAT = 2  # of cached neighbourhoods
FILE, FACTS = "graph.safetensors", "graph.json"


class Structure(nn.Module):
    """The constant part of a graph encoder.

    `features` by type: Sparse (n, f); a type without has one-hot ones. `masked_features`: the target's. `neighbours`, `masked`: an Adjacency of each
    meta-path. `hops` by "type>type": who stands beside whom, for contexts.
    """

    def __init__(
        self,
        facts: dict[str, Any],
        features: dict[str, Sparse],
        hops: dict[str, Sparse],
        neighbours: Sequence[Adjacency],
        masked: Sequence[Adjacency] = (),
        masked_features: Sparse | None = None,
    ) -> None:
        super().__init__()
        self.facts = facts
        self.target: str = facts["target"]
        self.counts: dict[str, int] = facts["counts"]
        self.paths = [MetaPath.parse(said) for said in facts["metapaths"]]
        self.features, self.hops = nn.ModuleDict(features), nn.ModuleDict(hops)
        self.neighbours, self.masked = nn.ModuleList(neighbours), nn.ModuleList(masked)
        self.masked_features = masked_features

    @classmethod
    def of(cls, graph: Graph, options: EncoderOptions) -> Structure:
        """Found in the graph, with a progress bar; neighbourhoods are kept in the cache folder.

        Raises MetaPathInvalid, and SettingInvalid where options do not fit the meta-paths.
        """
        paths, orientation, n = graph.metapaths(options.metapaths), options.orientation, graph.counts[graph.target]
        top_k, rates = each(paths, options.top_k, "top_k"), each(paths, options.edge_mask, "edge_mask")
        if max(top_k) > n and options.top_k != EncoderOptions().top_k:
            raise SettingInvalid(
                f"encoder.top_k={max(top_k)} is more than the {n:,} nodes of {graph.source}; keep at most all."
            )
        draw = np.random.default_rng(options.seed)
        types = sorted({name for path in paths for walk in path.contexts for name in walk})
        copies: dict[str, Any] = {}
        if options.masked:
            own = graph.features.get(graph.target)
            full = csr_matrix(diags(np.ones(n))) if own is None else scaled_rows(own)
            copies = {"masked": [], "masked_features": Sparse.of(without_features(full, options.feature_mask, draw))}
        found = []
        for path, k, rate in zip(paths, top_k, rates, strict=True):
            kept = cached_neighbours(graph, path, k)
            found.append(Adjacency.of(kept, orientation))
            if options.masked:
                less = without_edges(kept, rate, draw)
                kept.data[:] = 1  # edges of the copies have weight 1
                copies["masked"].append(Adjacency.of(less, orientation, like=kept))
                del (
                    less
                )  # with `kept` the largest there is: not to stand beside the next path's, nor beside the features
            del kept
        features = {name: Sparse.of(scaled_rows(graph.features[name])) for name in types if name in graph.features}
        pairs = {pair for path in paths for walk in path.contexts for pair in itertools.pairwise(walk)}
        hops = {f"{first}>{second}": Sparse.of(graph.incidence(first, second)) for first, second in sorted(pairs)}
        facts = {
            "format": 1, "target": graph.target, "counts": {name: graph.counts[name] for name in types},
            "metapaths": [str(path) for path in paths], "orientation": orientation, "source": graph.source, "fingerprint": graph.fingerprint,
        }  # fmt: skip
        return cls(facts, features, hops, found, **copies)

    def together(self, x: Tensor) -> Tensor:
        """The mean over meta-paths of their adjacencies' products with x, (n, d)."""
        return sum(adjacency(x) for adjacency in self.neighbours) / len(self.neighbours)

    def save(self, folder: Path) -> None:
        """graph.safetensors and graph.json."""
        # named_buffers gives what two names share once, as the parts of a symmetric matrix
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.named_buffers()}
        shapes = {name: list(module.shape) for name, module in self.named_modules() if isinstance(module, Sparse)}
        save_file(tensors, folder / FILE)
        (folder / FACTS).write_text(json.dumps({**self.facts, "shapes": shapes}, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Structure:
        """What `save` wrote. Raises ModelFolderInvalid."""
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            tensors = load_file(folder / FILE)
            matrices = {name: _matrix(name, tuple(shape), tensors) for name, shape in facts.pop("shapes").items()}
            hops = _under(matrices, "hops")
            neighbours, masked = (
                [
                    _adjacency(f"{name}.{number}", matrices, tensors, facts["orientation"])
                    for number in range(len(facts["metapaths"]))
                    if f"{name}.{number}.scale" in tensors
                ]
                for name in ("neighbours", "masked")
            )
            return cls(facts, _under(matrices, "features"), hops, neighbours, masked, matrices.get("masked_features"))
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelFolderInvalid(
                f"{folder} holds no graph of an encoder ({error}). Copy the folder again, or export it anew."
            ) from None


def each(paths: Sequence[MetaPath], values: Sequence[Any], name: str) -> Sequence[Any]:
    """A value for each meta-path: the one that there is, or as many. Raises SettingInvalid."""
    if len(values) not in (1, len(paths)):
        raise SettingInvalid(
            f"encoder.{name} has {len(values)} values for {len(paths)} meta-paths ({', '.join(map(str, paths))}); give one for all, or one each."
        )
    return list(values) * (len(paths) if len(values) == 1 else 1)


def scaled_rows(features: csr_matrix) -> csr_matrix:
    """Each row over its sum, as for words of a text; features with values below 0 are no counts and stay as they are."""
    if (features.data < 0).any():
        return features
    total = np.asarray(features.sum(axis=1)).ravel()
    return csr_matrix(diags(np.divide(1.0, total, out=np.zeros(len(total)), where=total > 0)) @ features)


def cached_neighbours(graph: Graph, path: MetaPath, k: int) -> csr_matrix:
    """`neighbours`, found in the cache folder by the graph's content, the path and k; made and kept there otherwise."""
    key = hashlib.sha256(f"{FORMAT} {graph.fingerprint} {path} {k}".encode()).hexdigest()
    file = cache_folder() / "metapaths" / f"{key}.npz"
    try:
        return csr_matrix(load_npz(file))
    except (OSError, ValueError, BadZipFile, EOFError):
        found = neighbours(graph, path, k).astype(np.float32)  # exact up to 2^24 paths between two nodes
    with written_whole(file) as part, open(part, "wb") as opened:
        save_npz(opened, found, compressed=False)
    return found


def _under(matrices: dict[str, Sparse], name: str) -> dict[str, Sparse]:
    return {place.partition(".")[2]: matrix for place, matrix in matrices.items() if place.startswith(f"{name}.")}


def _matrix(name: str, shape: tuple[int, int], tensors: dict[str, Tensor]) -> Sparse:
    parts = {part: tensors[f"{name}.{part}"] for part in PARTS if f"{name}.{part}" in tensors}
    for part, back in zip(PARTS[:3], PARTS[3:], strict=True):
        parts.setdefault(back, parts[part])
    return Sparse(shape, parts)


def _adjacency(
    name: str, matrices: dict[str, Sparse], tensors: dict[str, Tensor], orientation: Orientation
) -> Adjacency:
    rest, shared = (matrices.get(f"{name}.{part}") for part in ("rest", "shared"))
    which, own = (tensors.get(f"{name}.{part}") for part in ("which", "own"))
    return Adjacency(tensors[f"{name}.scale"], rest, shared, which, own, orientation=orientation)

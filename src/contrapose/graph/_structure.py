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
from contrapose.graph._sparse import PARTS, Sparse
from contrapose.graph.views import neighbours, normalised, without_edges, without_features

FORMAT = 1  # of cached neighbourhoods
FILE, FACTS = "graph.safetensors", "graph.json"


class Structure(nn.Module):
    """The constant part of a graph encoder.

    `features` by type: Sparse (n, f); a type without has one-hot ones. `masked_features`: the target's. `neighbours`, `masked` (P) and
    `together`: adjacencies (N, N), normalised. `hops` by "type>type": who stands beside whom, for contexts.
    """

    def __init__(self, facts: dict[str, Any], matrices: dict[str, Sparse]) -> None:
        super().__init__()
        self.facts = facts
        self.target: str = facts["target"]
        self.counts: dict[str, int] = facts["counts"]
        self.paths = [MetaPath.parse(said) for said in facts["metapaths"]]
        self.features, self.hops = (nn.ModuleDict(_under(matrices, folder)) for folder in ("features", "hops"))
        self.neighbours, self.masked = (
            nn.ModuleList(_under(matrices, folder).values()) for folder in ("neighbours", "masked")
        )
        self.masked_features, self.together = matrices.get("masked_features"), matrices["together"]

    @classmethod
    def of(cls, graph: Graph, options: EncoderOptions) -> Structure:
        """Found in the graph, with a progress bar; neighbourhoods are kept in the cache folder.

        Raises MetaPathInvalid, and SettingInvalid where options do not fit the meta-paths.
        """
        paths = graph.metapaths(options.metapaths)
        top_k, rates = each(paths, options.top_k, "top_k"), each(paths, options.edge_mask, "edge_mask")
        if max(top_k) > (n := graph.counts[graph.target]) and options.top_k != EncoderOptions().top_k:
            raise SettingInvalid(
                f"encoder.top_k={max(top_k)} is more than the {n:,} nodes of {graph.source}; keep at most all."
            )
        draw = np.random.default_rng(options.seed)
        kept = [cached_neighbours(graph, path, k) for path, k in zip(paths, top_k, strict=True)]
        adjacencies = [normalised(each_kept, options.orientation) for each_kept in kept]
        types = {name for path in paths for walk in path.contexts for name in walk}
        matrices = {
            f"features/{name}": scaled_rows(graph.features[name]) for name in sorted(types) if name in graph.features
        }
        matrices["together"] = csr_matrix(sum(adjacencies) / len(adjacencies))
        matrices |= {f"neighbours/{number}": adjacency for number, adjacency in enumerate(adjacencies)}
        if options.masked:
            own = f"features/{graph.target}"
            n = graph.counts[graph.target]
            full = matrices.get(own, csr_matrix(diags(np.ones(n))))
            matrices["masked_features"] = without_features(full, options.feature_mask, draw)
            for number, (adjacency, rate) in enumerate(zip(kept, rates, strict=True)):
                matrices[f"masked/{number}"] = normalised(without_edges(adjacency, rate, draw), options.orientation)
        for path in paths:
            for first, second in {pair for walk in path.contexts for pair in itertools.pairwise(walk)}:
                matrices.setdefault(f"hops/{first}>{second}", graph.incidence(first, second))
        facts = {
            "format": 1, "target": graph.target, "counts": {name: graph.counts[name] for name in sorted(types)},
            "metapaths": [str(path) for path in paths], "source": graph.source, "fingerprint": graph.fingerprint,
        }  # fmt: skip
        return cls(facts, {name: Sparse.of(matrix) for name, matrix in matrices.items()})

    def save(self, folder: Path) -> None:
        """graph.safetensors and graph.json."""
        matrices = self.matrices()
        tensors = {f"{name}|{part}": getattr(matrix, part) for name, matrix in matrices.items()
                   for part in (PARTS[:3] if matrix.symmetric else PARTS)}  # fmt: skip
        shapes = {name: list(matrix.shape) for name, matrix in matrices.items()}
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, folder / FILE)
        (folder / FACTS).write_text(json.dumps({**self.facts, "shapes": shapes}, indent=2), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Structure:
        """What `save` wrote. Raises ModelFolderInvalid."""
        try:
            facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
            tensors = load_file(folder / FILE)
            matrices = {name: _matrix(name, tuple(shape), tensors) for name, shape in facts.pop("shapes").items()}
            return cls(facts, matrices)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ModelFolderInvalid(
                f"{folder} holds no graph of an encoder ({error}). Copy the folder again, or export it anew."
            ) from None

    def matrices(self) -> dict[str, Sparse]:
        found = {f"features/{name}": matrix for name, matrix in self.features.items()}
        found |= {f"neighbours/{number}": matrix for number, matrix in enumerate(self.neighbours)}
        found |= {f"masked/{number}": matrix for number, matrix in enumerate(self.masked)}
        found |= {f"hops/{name}": matrix for name, matrix in self.hops.items()} | {"together": self.together}
        return found | ({} if self.masked_features is None else {"masked_features": self.masked_features})


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
        found = neighbours(graph, path, k)
    with written_whole(file) as part, open(part, "wb") as opened:
        save_npz(opened, found, compressed=False)
    return found


def _under(matrices: dict[str, Sparse], folder: str) -> dict[str, Sparse]:
    return {name.partition("/")[2]: matrix for name, matrix in matrices.items() if name.startswith(f"{folder}/")}


def _matrix(name: str, shape: tuple[int, int], tensors: dict[str, Tensor]) -> Sparse:
    parts = {part: tensors[f"{name}|{part}"] for part in PARTS if f"{name}|{part}" in tensors}
    for part, back in zip(PARTS[:3], PARTS[3:], strict=True):
        parts.setdefault(back, parts[part])
    return Sparse(shape, parts)

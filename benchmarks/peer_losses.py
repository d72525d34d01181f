"""The loss functions of other libraries, loaded from an installed package, or from their files alone in a folder beside the project.

Most of these packages do not import next to a CPU build of PyTorch (they want torchvision, timm, loguru), though their losses need
none of it. So where the import fails, the file with the loss is loaded without running the package around it: names that its
`__init__` would have offered are looked up where that file says they are from, and libraries that are not installed are stand-ins.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor, LongTensor], Tensor]
TEMPERATURE = 0.1


@dataclass(frozen=True)
class Peer:
    """A library: the name it is installed by, the modules with its losses, and these as functions of (first, second, labels).

    Losses are by (objective, name). Of the objective "named alike" are further uses of them, which may be losses of their own.
    """

    distribution: str
    modules: tuple[str, ...]
    losses: Callable[..., dict[tuple[str, str], Loss]]


@dataclass(frozen=True)
class Found:
    """A peer that was found: its version or commit, how it was loaded, its losses by (objective, name)."""

    version: str
    loaded: str
    losses: dict[tuple[str, str], Loss]


def open_clip(loss: ModuleType) -> dict[tuple[str, str], Loss]:
    clip = loss.ClipLoss()  # its model normalises, and hands it unit rows and 1 / temperature

    def symmetric(first: Tensor, second: Tensor, labels: LongTensor) -> Tensor:
        return clip(functional.normalize(first, dim=-1), functional.normalize(second, dim=-1), 1 / TEMPERATURE)

    return {("info_nce", "open_clip ClipLoss"): symmetric}


def sentence_transformers(losses: ModuleType) -> dict[tuple[str, str], Loss]:
    ranking = losses.MultipleNegativesRankingLoss(
        torch.nn.Identity(),
        scale=1 / TEMPERATURE,
        directions=("query_to_doc", "doc_to_query"),
        partition_mode="per_direction",
    )
    one_way = losses.MultipleNegativesRankingLoss(torch.nn.Identity(), scale=1 / TEMPERATURE)
    every = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    joint = losses.MultipleNegativesRankingLoss(torch.nn.Identity(), scale=1 / TEMPERATURE, directions=every)
    return {
        (kind, f"sentence-transformers MultipleNegativesRankingLoss{which}"): (
            lambda first, second, _, loss=loss: loss.compute_loss_from_embeddings([first, second], None)
        )
        for kind, which, loss in (
            ("info_nce", ", both directions", ranking),
            ("named alike", " as it stands", one_way),
            ("named alike", ", four directions at once", joint),
        )
    }


def stable_pretraining(multimodal: ModuleType, joint: ModuleType) -> dict[tuple[str, str], Loss]:
    clip, nt_xent = multimodal.CLIPLoss(TEMPERATURE), joint.NTXEntLoss(TEMPERATURE)
    return {
        ("info_nce", "stable-pretraining CLIPLoss"): lambda first, second, _: clip(first, second),
        ("nt_xent", "stable-pretraining NTXEntLoss"): lambda first, second, _: nt_xent(first, second),
    }


def lightly(module: ModuleType) -> dict[tuple[str, str], Loss]:
    nt_xent = module.NTXentLoss(TEMPERATURE)
    return {("nt_xent", "lightly NTXentLoss"): lambda first, second, _: nt_xent(first, second)}


def solo_learn(simclr: ModuleType) -> dict[tuple[str, str], Loss]:
    def both_views(first: Tensor, second: Tensor, labels: LongTensor) -> Tensor:
        return simclr.simclr_loss_func(torch.cat([first, second]), torch.arange(len(first)).repeat(2), TEMPERATURE)

    return {
        ("nt_xent", "solo-learn simclr_loss_func"): both_views,
        ("named alike", "solo-learn simclr_loss_func with labels"): lambda first, _, labels: simclr.simclr_loss_func(
            first, labels, TEMPERATURE
        ),
    }


def pytorch_metric_learning(losses: ModuleType) -> dict[tuple[str, str], Loss]:
    labelled = losses.NTXentLoss(TEMPERATURE)
    views = losses.SelfSupervisedLoss(labelled)
    alike, supervised = losses.SelfSupervisedLoss(losses.SupConLoss(TEMPERATURE)), losses.SupConLoss(TEMPERATURE)
    return {
        ("nt_xent", "pytorch-metric-learning NTXentLoss"): lambda first, second, _: views(first, second),
        ("nt_xent", "pytorch-metric-learning SupConLoss, two views"): lambda first, second, _: alike(first, second),
        ("named alike", "pytorch-metric-learning NTXentLoss with labels"): lambda first, _, labels: labelled(
            first, labels
        ),
        ("supervised", "pytorch-metric-learning SupConLoss"): lambda first, _, labels: supervised(first, labels),
    }


PEERS = {
    "open_clip": Peer("open_clip_torch", ("open_clip.loss",), open_clip),
    "sentence-transformers": Peer(
        "sentence-transformers", ("sentence_transformers.sentence_transformer.losses",), sentence_transformers
    ),
    "lightly": Peer("lightly", ("lightly.loss.ntx_ent_loss",), lightly),
    "solo-learn": Peer("solo-learn", ("solo.losses.simclr",), solo_learn),
    "stable-pretraining": Peer(
        "stable-pretraining",
        ("stable_pretraining.losses.multimodal", "stable_pretraining.losses.joint_embedding"),
        stable_pretraining,
    ),
    "pytorch-metric-learning": Peer(
        "pytorch-metric-learning", ("pytorch_metric_learning.losses",), pytorch_metric_learning
    ),
}


def find_peers(folder: Path | None) -> tuple[dict[str, Found], dict[str, str]]:
    """The peers that are installed or lie in `folder` or a folder in it, and for each other one why it was not found."""
    found, missing = {}, {}
    for name, peer in PEERS.items():
        modules, version, loaded = _find(peer, folder)
        if modules:
            found[name] = Found(version, loaded, peer.losses(*modules))
        else:
            missing[name] = loaded
    return found, missing


def find_module(name: str, folder: Path | None) -> tuple[ModuleType | None, str]:
    """The first module of a peer and its version, or None and why it was not found."""
    modules, version, loaded = _find(PEERS[name], folder)
    return (modules[0], version) if modules else (None, loaded)


def _find(peer: Peer, folder: Path | None) -> tuple[list[ModuleType], str, str]:
    """Its modules, its version and how it was loaded; or none, and why."""
    package = peer.modules[0].partition(".")[0]
    root = _root(package, folder)
    if root is None:
        return [], "", f"no package {package}" + (f" in {folder}" if folder else "; give --peers FOLDER")
    modules, loaded = _load(peer.modules, package, root)
    return modules, _version(peer.distribution, root), loaded


def _root(package: str, folder: Path | None) -> Path | None:
    """The folder that holds the package: `folder`, one in it, or the environment's."""
    for root in [] if folder is None else [folder, *sorted(each for each in folder.iterdir() if each.is_dir())]:
        if (root / package).is_dir():
            return root.resolve()
    spec = importlib.util.find_spec(package)
    return None if spec is None or spec.origin is None else Path(spec.origin).parents[1]


def _load(names: tuple[str, ...], package: str, root: Path) -> tuple[list[ModuleType], str]:
    sys.path.insert(0, str(root))
    try:
        return [importlib.import_module(name) for name in names], "package"
    except Exception as fault:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
        with _alone(package):
            return [importlib.import_module(name) for name in names], f"file alone ({type(fault).__name__}: {fault})"
    finally:
        sys.path.remove(str(root))


def _version(distribution: str, root: Path) -> str:
    for each in importlib.metadata.distributions(path=[str(root)]):
        if each.name.lower().replace("_", "-") == distribution.lower().replace("_", "-"):
            return each.version
    git = ["git", "-C", str(root), "rev-parse"]
    top = subprocess.run([*git, "--show-toplevel"], capture_output=True, text=True, check=False).stdout.strip()
    if top and Path(top) == root:
        return "commit " + subprocess.run([*git, "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
    return "version unknown"


@contextlib.contextmanager
def _alone(package: str) -> Iterator[None]:
    """Within: folders of `package` are modules whose `__init__` is read and not run, and what is not installed is a stand-in."""
    shells, absent = _Shells(package), _StandIns()
    sys.meta_path.insert(0, shells)
    sys.meta_path.append(absent)
    try:
        yield
    finally:
        sys.meta_path.remove(shells)
        sys.meta_path.remove(absent)
        for name in absent.made:
            sys.modules.pop(name, None)


class _Shells(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] != self.package:
            return None
        for folder in sys.path if path is None else path:
            place = Path(folder) / name.rpartition(".")[2]
            if place.is_dir():
                spec = importlib.machinery.ModuleSpec(name, self, is_package=True)
                spec.submodule_search_locations = [str(place)]
                return spec
        return None  # a file: the usual way

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        source = Path(module.__path__[0]) / "__init__.py"
        sources = {
            alias.asname or alias.name: (statement.module, alias.name)
            for statement in (ast.parse(source.read_text(encoding="utf-8")).body if source.is_file() else [])
            if isinstance(statement, ast.ImportFrom) and statement.level == 1 and statement.module
            for alias in statement.names
        }

        def lookup(name: str) -> Any:
            if name not in sources:
                raise AttributeError(name)
            where, original = sources[name]
            return getattr(importlib.import_module(f"{module.__name__}.{where}"), original)

        module.__getattr__ = lookup


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self) -> None:
        self.made: list[str] = []

    def find_spec(self, name: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec:
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        self.made.append(module.__name__)
        module.__getattr__ = _absent


def _absent(name: str) -> type:
    if name.startswith("__"):
        raise AttributeError(name)
    return type(name, (), {})

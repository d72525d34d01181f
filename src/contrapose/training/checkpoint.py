"""Checkpoints: one safetensors file each, tensors and JSON together, written to a temporary name and renamed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from contrapose.errors import CheckpointBroken, WriteFailed

FORMAT = 1


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able facts whole or not at all; an older file of that name is replaced.

    Raises WriteFailed, with the old file untouched, when the disk says no.
    """
    temporary = path.with_name(path.name + ".writing")
    owned: dict[int, str] = {}
    whole = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        storage = tensor.untyped_storage().data_ptr()
        # safetensors refuses tied weights; each gets a copy and loading writes the same values twice
        whole[name] = tensor.clone() if storage in owned and tensor.numel() else tensor
        owned[storage] = name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(whole, temporary, metadata={"contrapose": json.dumps({"format": FORMAT, **facts})})
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        temporary.unlink(missing_ok=True)
        raise WriteFailed(
            f"{path} could not be written ({error}); what was saved before is untouched. Make room, then go on with --resume."
        ) from None


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and facts of `write_checkpoint`. Raises CheckpointBroken for a file that is truncated, damaged or not ours."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["contrapose"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CheckpointBroken(
            f"{path} is not a whole checkpoint ({error}). Delete this file and resume again: the one before it is used."
        ) from None


def section(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors under `name:`, without the prefix."""
    return {key.removeprefix(f"{name}:"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}:")}


def load_weights(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Load strictly. Raises CheckpointBroken naming the first tensor that is missing, unknown or of another shape."""
    own = module.state_dict()
    for name in sorted(own.keys() | tensors.keys()):
        if name not in tensors or name not in own:
            raise CheckpointBroken(
                f"{path} {'lacks' if name in own else 'has an unknown'} tensor '{name}': it belongs to another method or encoder."
            )
        if own[name].shape != tensors[name].shape:
            shapes = f"{tuple(tensors[name].shape)}, expected {tuple(own[name].shape)}"
            raise CheckpointBroken(f"{path}: tensor '{name}' has shape {shapes}: it belongs to other settings.")
    module.load_state_dict(dict(tensors), strict=True)

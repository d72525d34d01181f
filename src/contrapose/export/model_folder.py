"""`model/`: the whole embedding function in one folder, with a card; loaded by contrapose and, where the form allows it, by others."""

from __future__ import annotations

import hashlib
import importlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from contrapose.errors import ModelFolderInvalid, RunExists, WeightsChanged, WriteFailed
from contrapose.training.encoder import Encoder
from contrapose.training.precision import Precision
from contrapose.training.run_folder import write_text

RECORD = "contrapose.json"


@dataclass
class Model:
    """A trained embedding model: one encoder, or several by name (image and text).

    `model.encode(["a sentence"])` gives float32 vectors of shape (n, dim); `model.save("folder")` writes what `contrapose.load` reads.
    """

    encoders: dict[str, Encoder]
    modality: str
    method: str
    fingerprint: str = ""  # of the weights, where they stand in a folder

    @property
    def dim(self) -> int:
        return self.encoder().dim

    def encoder(self, name: str | None = None) -> Encoder:
        """The encoder of that name; without a name, the first."""
        return self.encoders[name or next(iter(self.encoders))]

    def folder_of(self, name: str, folder: Path) -> Path:
        """Where an encoder stands in a model folder: alone in the folder itself, otherwise in one of its name."""
        return folder if len(self.encoders) == 1 else folder / name

    def encode(
        self,
        values: Sequence[Any],
        *,
        encoder: str | None = None,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of raw values (texts, images, …), float32 of shape (n, dim).

        `precision` is that of the matrix products. "bfloat16", or "auto" where the hardware has it, is more than twice as fast for many
        texts; MiniLM's vectors then have a cosine of at least 0.9999 with the exact ones.
        """
        return self.encoder(encoder).encode(values, batch_size=batch_size, progress=progress, precision=precision)

    def similarity(self, queries: Sequence[Any], candidates: Sequence[Any]) -> np.ndarray:
        """Cosines of raw values, shape (n, m); largest is closest."""
        first, second = self.encode(queries), self.encode(candidates)
        return unit(first) @ unit(second).T

    def save(self, path: Path | str) -> Path:
        """Write the model folder. Raises RunExists when there is something at `path`."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunExists(f"{path} exists already; give the model another folder.")
        write_model(self, path)
        return path

    def __repr__(self) -> str:
        names = ", ".join(f"{name}: {encoder.dim} dimensions" for name, encoder in self.encoders.items())
        return f"Model({self.method}; {names})"


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def write_model(model: Model, path: Path, card: str | None = None) -> None:
    """Write a model folder whole or not at all, replacing what stands there; one folder an encoder where there are several.

    Raises WriteFailed, with nothing left behind, when the disk says no.
    """
    temporary = path.with_name(path.name + ".writing")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        model.fingerprint = write_files(model, temporary, card)
        shutil.rmtree(path, ignore_errors=True)
        temporary.rename(path)
    except (OSError, SafetensorError) as error:
        raise WriteFailed(
            f"{path} could not be written ({error}). Make room; training goes on with --resume, and loses nothing."
        ) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_files(model: Model, folder: Path, card: str | None) -> str:
    """Every file of a model folder; the fingerprint of the weights."""
    folder.mkdir(parents=True)
    for name, encoder in model.encoders.items():
        encoder.save(model.folder_of(name, folder))
    record = {
        "format": 1,
        "modality": model.modality,
        "method": model.method,
        "encoders": {
            name: {"folder": str(model.folder_of(name, Path())), **encoder.record()}
            for name, encoder in model.encoders.items()
        },
        "sha256": {str(file.relative_to(folder)): sha256(file) for file in sorted(folder.rglob("*.safetensors"))},
    }
    write_text(folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False))
    if card is not None:
        write_text(folder / "README.md", card)
    return fingerprint_of(record)


def fingerprint_of(record: Mapping[str, Any]) -> str:
    return "+".join(record["sha256"].values())


def load(path: Path | str) -> Model:
    """The model in a model folder or a run folder; on the processor, in evaluation mode.

    Raises ModelFolderInvalid when there is none, WeightsChanged when the weights are not those that were saved.
    """
    path = Path(path)
    folder = path if (path / RECORD).is_file() else path / "model"
    if path.is_file() or not (folder / RECORD).is_file():
        raise ModelFolderInvalid(refusal(path))
    record = read_record(folder / RECORD)
    for name, expected in record["sha256"].items():
        file = folder / name
        found = sha256(file) if file.is_file() else "no such file"
        if found != expected:
            raise WeightsChanged(
                f"{file} is not what was saved: SHA-256 {found[:12]}…, expected {expected[:12]}…. Copy the folder again, or export it anew."
            )
    encoders = {
        name: load_encoder(record["modality"], folder / facts["folder"], facts)
        for name, facts in record["encoders"].items()
    }
    return Model(encoders, record["modality"], record["method"], fingerprint_of(record))


def load_encoder(modality: str, folder: Path, record: Mapping[str, Any]) -> Encoder:
    """An encoder of a modality; one of another modality within it, in the folder "encoder", is loaded first and stands in its record."""
    if record.get("modality"):
        record = {**record, "encoder": load_encoder(record["modality"], folder / "encoder", record["encoder"])}
    return importlib.import_module(f"contrapose.{modality}.encoder").load_encoder(folder, record)


def read_record(file: Path) -> dict[str, Any]:
    """What a model folder says of itself. Raises ModelFolderInvalid when the file is damaged."""
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if record.keys() >= {"modality", "method", "encoders", "sha256"}:
            return record
    except (ValueError, AttributeError):
        pass
    raise ModelFolderInvalid(f"{file} is not what was saved. Copy the folder again, or export it anew.")


def refusal(path: Path) -> str:
    """Why `path` is no model of ours, and what to do."""
    if not path.exists():
        return f"{path} is not there; give a run folder or its model folder."
    if (path / "config.yaml").is_file():
        return (
            f"{path} has no model yet: the run has not finished. Go on with it: contrapose train --resume --out {path}"
        )
    pickled = [path] if path.is_file() else sorted(path.glob("*"))
    pickled = [file for file in pickled if file.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
    if pickled:
        return (
            f"{pickled[0]} is a pickle, which can run any code when it is loaded, so contrapose loads none. Convert it where you trust it: "
            f"transformers' AutoModel.from_pretrained(…).save_pretrained(FOLDER) writes model.safetensors."
        )
    return f"{path} is neither a run nor a model folder of contrapose: it has no {RECORD}. As an encoder to start from, give it to --encoder."


def sha256(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def largest_difference(first: Encoder, second: Encoder, values: Sequence[Any]) -> float:
    """The largest difference of any component of the unit vectors that two encoders give."""
    a, b = (unit(encoder.encode(values, progress=False)) for encoder in (first, second))
    return float(np.abs(a - b).max()) if len(values) else 0.0

"""Folders of pretrained networks, as transformers writes them: what is refused of them, and transformers without its chatter."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contrapose.errors import ModelFolderInvalid, WeightsPickled

PICKLES = {".bin", ".pt", ".pth", ".pkl", ".ckpt"}


def refuse_without_weights(folder: Path) -> None:
    """Raises ModelFolderInvalid where there is no config.json or no safetensors, WeightsPickled where there are pickles alone."""
    if not (folder / "config.json").is_file():
        raise ModelFolderInvalid(
            f"{folder} has no config.json, so it holds no network; give a folder written by save_pretrained."
        )
    if not any((folder / name).is_file() for name in ("model.safetensors", "model.safetensors.index.json")):
        pickled = sorted(file for file in folder.iterdir() if file.suffix in PICKLES)
        if pickled:
            raise WeightsPickled(pickle_refused(pickled[0]))
        raise ModelFolderInvalid(
            f"{folder} has no model.safetensors, the one form of weights that contrapose reads. Where its weights are a pickle, load the "
            "model once in a sandbox that you trust, with transformers, and write it with save_pretrained(FOLDER, safe_serialization=True)."
        )


def pickle_refused(file: Path) -> str:
    """Why a pickle is not loaded, and what to do."""
    return (
        f"{file} is a pickle, which runs any code that it holds when it is loaded, so contrapose loads none. Load it once in a sandbox that "
        "you trust, with transformers, and write it with save_pretrained(FOLDER, safe_serialization=True)."
    )


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its bars and reports: what matters of them is said by our errors."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()

"""A teacher's logits for pairs of texts: from a file, from a sequence classifier, from a stage before; each with the id of its pair."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import LongTensor, Tensor

from contrapose.data.cache import cache_folder, file_digest
from contrapose.distributed import all_processes, gather_rows, rank, world_size
from contrapose.errors import TeacherInvalid, WriteFailed
from contrapose.text._loading import find, load_tokenizer
from contrapose.training.bar import Bar
from contrapose.training.pretrained import quiet, refuse_without_weights

AT_ONCE = 256  # pairs between two updates of the progress bar


def pair_ids(first: Sequence[str], second: Sequence[str]) -> np.ndarray:
    """(n,) texts of 32 characters that name each pair by its content: the start of a SHA-256."""
    said = (f"{len(a.encode())} {a}{b}".encode() for a, b in zip(first, second, strict=True))
    return np.array([hashlib.sha256(each).hexdigest()[:32] for each in said], dtype="<U32")


def write_teacher_scores(path: Path | str, logits: Any, first: Sequence[str], second: Sequence[str]) -> Path:
    """Write the logits (n, c) of n pairs, with the id of each pair, for `dse` to learn from (`teacher=FILE.npz`). Raises WriteFailed."""
    path, logits = Path(path), np.asarray(logits)
    if logits.ndim != 2 or len(logits) != len(first):
        raise TeacherInvalid(f"{len(first)} pairs need logits of shape ({len(first)}, classes); got {logits.shape}.")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            np.savez(file, logits=logits, pairs=pair_ids(first, second))
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise WriteFailed(f"{path} could not be written ({error.strerror}). Make room, or give another file.") from None
    return path


def read_teacher_scores(path: Path | str, first: Sequence[str], second: Sequence[str]) -> Tensor:
    """The logits in a file, float32 (n, c). Raises TeacherInvalid when it is of other pairs, in another order, or holds NaN."""
    try:
        with np.load(path, allow_pickle=False) as file:
            logits, pairs = file["logits"], file["pairs"]
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise TeacherInvalid(
            f"{path} holds no teacher scores ({error}); write_teacher_scores(PATH, logits, first, second) makes such a file."
        ) from None
    ids = pair_ids(first, second)
    if logits.ndim != 2 or len(logits) != len(ids) or len(pairs) != len(ids):
        raise TeacherInvalid(
            f"{path} has logits of shape {logits.shape} for {len(ids):,} pairs; a row a pair is needed."
        )
    if (other := pairs != ids).any():
        row = int(other.argmax())
        raise TeacherInvalid(
            f"{path} was made from other pairs, or in another order: row {row} is of another pair ({int(other.sum()):,} such rows in all). "
            "Score the data anew."
        )
    return checked(torch.from_numpy(np.asarray(logits, dtype=np.float32)), str(path))


def checked(logits: Tensor, source: str) -> Tensor:
    """The logits. Raises TeacherInvalid for NaN or infinity."""
    broken = ~torch.isfinite(logits).all(dim=1)
    if broken.any():
        raise TeacherInvalid(
            f"{source}: the teacher's logits hold NaN or infinity (first in row {int(broken.int().argmax())})."
        )
    return logits


def kept_scores(
    score: Callable[[LongTensor], Tensor], first: Sequence[str], second: Sequence[str], teacher: str, said: str
) -> Tensor:
    """The logits of all pairs, each process scoring its share; kept in the cache by the teacher's digest and the pairs.

    `score`: row numbers to logits (b, c). `teacher`: what identifies it.
    """
    key = hashlib.sha256("\n".join([teacher, *pair_ids(first, second)]).encode()).hexdigest()
    path = cache_folder() / "teacher" / f"{key}.npz"
    if all_processes(path.is_file()):
        return read_teacher_scores(path, first, second)
    mine = torch.arange(len(first)).tensor_split(world_size())[rank()]
    parts = []
    with Bar(said, len(mine)) as bar:
        for rows in mine.split(AT_ONCE):
            parts.append(score(rows).float())
            bar.advance(len(rows))
    logits = checked(gather_rows(torch.cat(parts)), "the teacher")
    if rank() == 0:
        write_teacher_scores(path, logits.numpy(), first, second)
    return logits


def weights_digest(state: dict[str, Tensor]) -> str:
    """SHA-256 of a state dict's names and values."""
    digest = hashlib.sha256()
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


class SequenceClassifier:
    """Any sequence classifier of transformers as a teacher: pairs of texts to logits, in the order of `classes`.

    `name`: a folder or a model of the Hub. Outputs whose names are those of the classes are put in their order; others are taken as they
    stand. Raises what `find` raises, WeightsPickled, TeacherInvalid.
    """

    def __init__(self, name: str, classes: Sequence[str], max_tokens: int) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification

        folder, _ = find(name)
        refuse_without_weights(folder)
        with quiet(), torch.random.fork_rng():
            try:
                self.model, report = AutoModelForSequenceClassification.from_pretrained(
                    folder,
                    dtype=torch.float32,
                    use_safetensors=True,
                    output_loading_info=True,
                    local_files_only=True,
                    trust_remote_code=False,
                )
            except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
                raise TeacherInvalid(f"{folder} is no sequence classifier: {str(error).splitlines()[0]}") from None
        if report["missing_keys"]:
            raise TeacherInvalid(
                f"{folder} lacks {len(report['missing_keys'])} of a classifier's tensors (first: {sorted(report['missing_keys'])[0]}), "
                "so it was never trained to score pairs; fine-tune it first, or leave teacher=train."
            )
        self.model.eval()
        self.tokenizer = load_tokenizer(folder, self.model.get_input_embeddings().num_embeddings)
        self.max_tokens = max_tokens
        self.digest = " ".join(file_digest(file) for file in sorted(folder.glob("*.safetensors"))) + f" {max_tokens}"
        names = [str(self.model.config.id2label[number]) for number in range(self.model.config.num_labels)]
        known = sorted(names) == sorted(classes)
        self.order = [names.index(name) for name in classes] if known else list(range(len(names)))

    def __call__(self, first: Iterable[str], second: Iterable[str]) -> Tensor:
        """(b, c) logits."""
        encoded = self.tokenizer(
            list(first), list(second), truncation=True, max_length=self.max_tokens, padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            return self.model(**encoded).logits[:, self.order]

"""The vectors of a dictionary's entries: the mean of their definitions', made even in all directions where that is wanted."""

from __future__ import annotations

import hashlib
import warnings
from typing import Any, Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import LongTensor, Tensor

from contrapose.data.cache import cache_folder, written_whole
from contrapose.distributed import all_processes, broadcast_object, gather_rows, rank, world_size
from contrapose.errors import CovarianceSingular, DictionaryInvalid, NonFinite, ShapesDiffer
from contrapose.text._teacher import weights_digest
from contrapose.text.encoder import TextEncoder
from contrapose.training.bar import Bar
from contrapose.training.evaluating import evaluating

Isotropy = Literal["none", "ica", "whiten", "normalise"]
SCALES = {"ica": 100.0, "whiten": 100.0, "normalise": 8.0}  # ICA's is the official code's
AT_ONCE = 1024  # definitions between two updates of the progress bar
FORMAT = 1  # of the cached files; a new number leaves the old ones unread
TOLERANCE = 1e-4  # of FastICA, the official code's


def entry_vectors(definitions: Tensor, entry: LongTensor, entries: int) -> Tensor:
    """The mean of the vectors of each entry's definitions: definitions (n, d) and the number of their entry (n,) to (entries, d).

    Raises ShapesDiffer, and DictionaryInvalid for an entry without definition and for a number that is no entry's.
    """
    if definitions.ndim != 2 or entry.shape != definitions.shape[:1]:
        raise ShapesDiffer(
            f"Definitions (n, d) need the numbers (n,) of their entries; got {tuple(definitions.shape)} and {tuple(entry.shape)}."
        )
    if entry.numel() and not 0 <= int(entry.min()) <= int(entry.max()) < entries:
        raise DictionaryInvalid(
            f"entries are numbered 0 to {entries - 1}; got {int(entry.min())} to {int(entry.max())}."
        )
    counts = torch.bincount(entry, minlength=entries)
    if (counts == 0).any():
        raise DictionaryInvalid(
            f"Entry {int((counts == 0).int().argmax())} has no definition ({int((counts == 0).sum())} such entries in all); leave it out."
        )
    sums = definitions.new_zeros(entries, definitions.shape[1]).index_add_(0, entry, definitions)
    return sums / counts.to(sums.dtype)[:, None]


def isotropised(
    entries: Tensor, kind: Isotropy, *, scale: float | None = None, seed: int = 42, iterations: int = 1000
) -> tuple[Tensor, bool]:
    """Entry vectors (E, d) made even in all directions, and whether that converged.

    - `ica`: each coordinate less its mean and over its standard deviation, then FastICA with all d components (logcosh, unit
      variance), times `scale`: uncorrelated coordinates of variance scale². Signs and order of the components follow from `seed`.
    - `whiten`: uncorrelated coordinates of variance scale² as well, the nearest to the centred ones (ZCA); no independence is looked for.
    - `normalise`: the mean taken off, and every vector given the length `scale`.
    - `none`: as they are.

    `scale`: None: 100 for ica and whiten, 8 for normalise. Through the dot product it is an inverse temperature.
    Raises NonFinite, CovarianceSingular for a constant coordinate or one that follows from others, DictionaryInvalid where E <= d.
    """
    if not torch.isfinite(entries).all():
        broken = (~torch.isfinite(entries)).any(dim=1).int().argmax()
        raise NonFinite(f"The vector of entry {int(broken)} holds NaN or infinity.")
    if kind == "none":
        return entries, True
    centred, scale = entries - entries.mean(dim=0), SCALES[kind] if scale is None else scale
    if kind == "normalise":
        return scale * torch.nn.functional.normalize(centred, dim=1), True
    refuse_few_entries(len(entries), entries.shape[1], kind)
    deviations = centred.square().mean(dim=0).sqrt()
    noise = entries.abs().amax(dim=0) * torch.finfo(entries.dtype).eps * 8  # of the mean that was taken off
    if (deviations <= noise).any():
        constant = int((deviations <= noise).int().argmax())
        raise CovarianceSingular(
            f"Coordinate {constant} of the {len(entries):,} entry vectors is constant, so it cannot be brought to variance 1; "
            "set isotropy=normalise, or take another encoder or pooling."
        )
    return _ica(centred / deviations, scale, seed, iterations) if kind == "ica" else (_zca(centred) * scale, True)


def _zca(centred: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    if values[0] <= values[-1] * torch.finfo(values.dtype).eps * len(values):
        raise CovarianceSingular(
            f"The {len(centred):,} entry vectors do not span their {len(values)} dimensions, so they cannot be whitened; "
            "set isotropy=normalise, or give more entries."
        )
    return centred @ (vectors * values.rsqrt()) @ vectors.T


def _ica(standard: Tensor, scale: float, seed: int, iterations: int) -> tuple[Tensor, bool]:
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    ica = FastICA(
        n_components=standard.shape[1],
        whiten="unit-variance",
        fun="logcosh",
        tol=TOLERANCE,
        max_iter=iterations,
        random_state=seed,
    )
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        sources = ica.fit_transform(standard.cpu().numpy())
    if not np.isfinite(sources).all():
        raise CovarianceSingular(
            f"The {len(standard):,} entry vectors do not span their {standard.shape[1]} dimensions, so ICA finds no components; "
            "set isotropy=normalise, or give more entries."
        )
    converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in said)
    return torch.from_numpy(sources).to(standard) * scale, converged


def refuse_few_entries(entries: int, dim: int, kind: Isotropy) -> None:
    """Raises DictionaryInvalid where fewer entries than dimensions leave ICA and whitening without a solution."""
    if kind in ("ica", "whiten") and entries <= dim:
        raise DictionaryInvalid(
            f"isotropy={kind} needs more entries than the {dim} dimensions of the encoder, and there are {entries:,}; "
            "give more entries, or set isotropy=normalise."
        )


def kept_entry_vectors(encoder: TextEncoder, definitions: Any, entry: LongTensor, entries: int) -> Tensor:
    """`entry_vectors` of a column of tokens by a frozen encoder, (entries, d) on the processor, each process encoding its share.

    In evaluation mode; kept in the cache by the encoder's weights, its pooling and the tokens.
    """
    digest = hashlib.sha256(f"{FORMAT} {encoder.pooling} {weights_digest(encoder.state_dict())}".encode())
    for rows in torch.arange(len(entry)).split(AT_ONCE):
        tokens = definitions[rows]
        for part in (tokens.lengths, tokens.ids, entry[rows]):
            digest.update(part.numpy().tobytes())
    path = cache_folder() / "entries" / f"{digest.hexdigest()}.safetensors"
    found = _read(path)
    if all_processes(found is not None):
        return found
    mine, parts = torch.arange(len(entry)).tensor_split(world_size())[rank()], []
    with evaluating(encoder, encoder.device), Bar("Encoding definitions", len(mine)) as bar:
        for rows in mine.split(AT_ONCE):
            parts.append(encoder(definitions[rows].to(encoder.device)))
            bar.advance(len(rows))
    vectors = entry_vectors(gather_rows(torch.cat(parts)).cpu(), entry, entries)
    if rank() == 0:
        _write(path, vectors)
    return vectors


def kept_isotropised(entries: Tensor, kind: Isotropy, **options: Any) -> tuple[Tensor, bool]:
    """`isotropised` on the first process alone, handed to the others; kept in the cache, since FastICA takes minutes for 100,000 entries."""
    if kind != "ica":
        return isotropised(entries, kind, **options)
    answer = None
    if rank() == 0:
        digest = hashlib.sha256(f"{FORMAT} {kind} {sorted(options.items())}".encode())
        digest.update(entries.contiguous().numpy().tobytes())
        path = cache_folder() / "entries" / f"{digest.hexdigest()}-ica.safetensors"
        found = _read(path)
        answer = (found, True) if found is not None else isotropised(entries, kind, **options)
        if found is None and answer[1]:  # what did not converge is said each time
            _write(path, answer[0])
    return broadcast_object(answer)


def _read(path: Any) -> Tensor | None:
    try:
        return load_file(path)["entries"]
    except (OSError, SafetensorError, KeyError):
        return None


def _write(path: Any, entries: Tensor) -> None:
    with written_whole(path) as part:
        save_file({"entries": entries.contiguous()}, part)

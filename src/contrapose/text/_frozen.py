"""Vectors of a frozen encoder: computed once, kept on disk, mapped into memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import LongTensor, Tensor

from contrapose.data.cache import cache_folder, written_whole
from contrapose.distributed import broadcast_object, rank
from contrapose.errors import NonFinite
from contrapose.text._candidates import cache_key
from contrapose.text.encoder import TextEncoder


class FrozenVectors:
    """What an encoder that is no longer trained makes of texts, in evaluation mode: `vectors[numbers]` is float32 (…, d).

    Each distinct text is embedded once; of several processes the first one works. Raises NonFinite.
    """

    def __init__(self, texts: Sequence[str], encoder: TextEncoder) -> None:
        distinct = list(dict.fromkeys(texts))
        place = {text: number for number, text in enumerate(distinct)}
        self.numbers = torch.tensor([place[text] for text in texts])
        key = broadcast_object(cache_key(distinct, encoder, "vectors") if rank() == 0 else None)
        path = cache_folder() / "vectors" / f"{key}.npy"
        if rank() == 0 and not path.is_file():
            vectors = encoder.encode(distinct)
            if not np.isfinite(vectors).all():
                row = int((~np.isfinite(vectors)).any(axis=1).argmax())
                raise NonFinite(f"The reference encoder's vector of {distinct[row]!r} holds NaN or infinity.")
            with written_whole(path) as part, part.open("wb") as file:
                np.save(file, vectors)
        broadcast_object(None)  # the others wait
        self._vectors = np.load(path, mmap_mode="r") if path.is_file() else encoder.encode(distinct)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, rows: LongTensor) -> Tensor:
        """The vectors of some of the texts, by their places among those that were given."""
        return torch.from_numpy(np.array(self._vectors[self.numbers[rows].numpy()]))

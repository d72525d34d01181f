"""Encoders of images and of texts that can grow: a tower of their own, then blocks that both share."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from contrapose.image.data import ImageValues, Pixels, decoded
from contrapose.image_text._architecture import Architecture
from contrapose.image_text._towers import ImagePatches, Tower, WordVectors
from contrapose.text.data import TokenColumn, Tokens, mask_of, tokenise, tokenised
from contrapose.training.bar import Bar
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision

WEIGHTS = "model.safetensors"
BLOCK = 256  # rows encoded at once
GROWING = "growing"


class HashedWords:
    """A tokeniser without a vocabulary: words in lower case, each by its CRC-32 in one of `buckets` buckets; 0 is padding.

    Nothing is learned from texts, so that it stays the same while data arrive. Two words in one bucket are one word to it.
    """

    def __init__(self, buckets: int) -> None:
        self.buckets = buckets

    def __call__(
        self, texts: Sequence[str], truncation: bool = True, max_length: int | None = None, **_: Any
    ) -> dict[str, list[list[int]]]:
        ids = [[1 + zlib.crc32(word.encode()) % (self.buckets - 1) for word in text.lower().split()] for text in texts]
        return {"input_ids": [row[:max_length] if truncation else row for row in ids]}

    def get_vocab(self) -> dict[str, int]:
        """What tells it from other tokenisers."""
        return {"hashed words, buckets": self.buckets}


class GrowingImages(Encoder):
    """Images (b, c, size, size), uint8 or floats from 0 to 1, to vectors (b, dim), through a vision transformer that can grow."""

    def __init__(
        self,
        built: Architecture,
        dim: int,
        size: int,
        channels: int,
        patch: int,
        seed: int,
        shared: Tower | None = None,
    ) -> None:
        """`shared`: the blocks that the other encoder has too; None: its own of that depth."""
        super().__init__()
        self.built, self.dim, self.size, self.channels, self.patch, self.seed = built, dim, size, channels, patch, seed
        self.first = ImagePatches(size, channels, patch, built.width)
        self.tower = Tower(built, built.image)
        self.shared = Tower(built, built.shared) if shared is None else shared
        self.norm, self.projection = nn.LayerNorm(built.width), nn.Linear(built.width, dim, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        weight = self.projection.weight
        images = images.to(weight.device)
        pixels = images.to(weight.dtype) / 255 if images.dtype == torch.uint8 else images.to(weight.dtype)
        return self.projection(self.norm(self.shared(self.tower(self.first(pixels)))[:, 0]))

    def encode(
        self,
        values: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Unit vectors of images, as `contrapose.image.encoder.ImageEncoder.encode` takes them. Raises ImageInvalid."""

        def inputs(start: int, stop: int) -> Tensor:
            return torch.from_numpy(decoded(values[start:stop], self.size, self.channels, start))

        return unit_vectors(self, len(values), inputs, batch_size, progress, precision)

    def open_column(self, values: ImageValues) -> Pixels:
        return Pixels.open(values, self.size, self.channels)

    def record(self) -> dict[str, Any]:
        own = {"size": self.size, "channels": self.channels, "patch": self.patch}
        return {"name": GROWING, "reads": "image", **asdict(self.built), "dim": self.dim, "seed": self.seed, **own}

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors, the shared blocks too."""
        save_weights(self, Path(folder))

    def __repr__(self) -> str:
        return f"a growing transformer on {self.size} x {self.size} pixels"


class GrowingTexts(Encoder):
    """Tokens of b texts to vectors (b, dim), through a transformer that can grow."""

    def __init__(
        self, built: Architecture, dim: int, buckets: int, max_tokens: int, seed: int, shared: Tower | None = None
    ) -> None:
        """`shared`: the blocks that the other encoder has too; None: its own of that depth."""
        super().__init__()
        self.built, self.dim, self.buckets, self.max_tokens, self.seed = built, dim, buckets, max_tokens, seed
        self.tokenizer = HashedWords(buckets)
        self.first = WordVectors(buckets, max_tokens, built.width)
        self.tower = Tower(built, built.text)
        self.shared = Tower(built, built.shared) if shared is None else shared
        self.norm, self.projection = nn.LayerNorm(built.width), nn.Linear(built.width, dim, bias=False)

    def forward(self, tokens: Tokens) -> Tensor:
        ids, _ = tokens.to(self.projection.weight.device).padded(0)
        mask = mask_of(tokens.lengths.to(ids.device) + 1)  # the class token before them
        states = self.shared(self.tower(self.first(ids), mask), mask)
        return self.projection(self.norm(states[:, 0]))

    def encode(
        self,
        values: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Unit vectors of texts. Raises TextInvalid."""

        def inputs(start: int, stop: int) -> Tokens:
            return tokenised(list(values[start:stop]), tokenise, self.tokenizer, self.max_tokens, start)

        return unit_vectors(self, len(values), inputs, batch_size, progress, precision)

    def open_column(self, values: Sequence[str]) -> TokenColumn:
        column = TokenColumn.open(values, self.tokenizer, self.max_tokens)
        column.texts = values
        return column

    def record(self) -> dict[str, Any]:
        own = {"buckets": self.buckets, "max_tokens": self.max_tokens}
        return {"name": GROWING, "reads": "text", **asdict(self.built), "dim": self.dim, "seed": self.seed, **own}

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors, the shared blocks too."""
        save_weights(self, Path(folder))

    def __repr__(self) -> str:
        return f"a growing transformer on words in {self.buckets:,} buckets"


def growing_pair(
    images: dict[str, Any], texts: dict[str, Any], built: Architecture
) -> tuple[GrowingImages, GrowingTexts]:
    """Two encoders with an architecture, whose shared blocks are the same modules. `images`, `texts`: further arguments of each."""
    first = GrowingImages(built, **images)
    return first, GrowingTexts(built, **texts, shared=first.shared)


def unit_vectors(
    encoder: Encoder, rows: int, inputs: Any, batch_size: int | None, progress: bool, precision: Precision
) -> np.ndarray:
    """Float32 unit vectors (rows, dim) of what `inputs(start, stop)` gives."""
    vectors, device, at_once = (
        np.empty((rows, encoder.dim), np.float32),
        next(encoder.parameters()).device,
        batch_size or BLOCK,
    )
    with evaluating(encoder, device, precision), Bar("Encoding", rows, shown=progress) as bar:
        for start in range(0, rows, at_once):
            stop = min(start + at_once, rows)
            found = functional.normalize(encoder(inputs(start, stop).to(device)).float(), dim=-1)
            vectors[start:stop] = found.cpu().numpy()
            bar.advance(stop - start)
    return vectors


def save_weights(module: nn.Module, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}
    save_file(tensors, str(folder / WEIGHTS))

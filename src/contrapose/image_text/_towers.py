"""Transformer towers that can grow without changing what they compute, and the inheritance of their weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from contrapose.errors import ArchitectureInvalid, ArgumentInvalid
from contrapose.image_text._architecture import Architecture


def residual_mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """x + W₂ relu(W₁ x + b₁) + b₂ for rows x (n, d), W₁ (hidden, d), W₂ (d, hidden).

    A hidden unit more, with zeros in its column of W₂, changes nothing; nor does a whole block with W₂ = 0 and b₂ = 0.
    """
    return x + functional.linear(functional.relu(functional.linear(x, w1, b1)), w2, b2)


def inherit(old: Tensor, fresh: Tensor, momentum: float) -> Tensor:
    """A grown tensor: `momentum` old + (1 - momentum) fresh where the old one stands, in the first rows and columns; fresh elsewhere.

    Parameter inheriting with momentum (GrowCLIP, abstract; the formula is a reconstruction). `old` has no dimension larger than `fresh`.
    momentum 1 keeps what was learned as it is, 0 forgets it. Raises ArgumentInvalid for a momentum outside [0, 1], ArchitectureInvalid where
    `old` does not fit into `fresh`.
    """
    if not 0 <= momentum <= 1:
        raise ArgumentInvalid(f"momentum is {momentum}; it is a share of the old weights, from 0 to 1.")
    if old.ndim != fresh.ndim or any(before > after for before, after in zip(old.shape, fresh.shape, strict=True)):
        raise ArchitectureInvalid(
            f"A tensor of shape {tuple(old.shape)} does not fit into one of shape {tuple(fresh.shape)}; an architecture grows in every dimension or stays."
        )
    grown, corner = fresh.clone(), tuple(slice(0, size) for size in old.shape)
    grown[corner] = momentum * old + (1 - momentum) * fresh[corner]
    return grown


class Attention(nn.Module):
    """Multi-head attention over b sequences, (b, t, width) to the same; `mask` (b, t) is True where there is something to look at."""

    def __init__(self, built: Architecture) -> None:
        super().__init__()
        inner = built.heads * built.head
        self.head = built.head
        self.query, self.key, self.value = (nn.Linear(built.width, inner) for _ in range(3))
        self.out = nn.Linear(inner, built.width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, t, _ = x.shape
        query, key, value = (
            part(x).view(b, t, -1, self.head).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        seen = None if mask is None else mask[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A residual block of a transformer, norms first."""

    def __init__(self, built: Architecture) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(built.width), nn.LayerNorm(built.width)
        self.attention = Attention(built)
        self.inner, self.outer = nn.Linear(built.width, built.hidden), nn.Linear(built.hidden, built.width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.outer(functional.relu(self.inner(self.norm2(x))))

    @torch.no_grad()
    def silence(self, hidden: int = 0, inner: int = 0) -> None:
        """What stands behind the first `hidden` units and the first `inner` dimensions of attention says nothing: its outgoing weights are 0.

        Their incoming weights stay random: with both at 0 nothing would ever be learned.
        """
        self.outer.weight[:, hidden:] = 0
        self.attention.out.weight[:, inner:] = 0
        if not hidden and not inner:
            self.outer.bias.zero_()
            self.attention.out.bias.zero_()


class Tower(nn.Module):
    """Blocks one behind the other, a norm, and the first place's state: (b, t, width) to (b, width)."""

    def __init__(self, built: Architecture, depth: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(built) for _ in range(depth))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            x = block(x, mask)
        return x


class ImagePatches(nn.Module):
    """Pixels (b, c, s, s) from 0 to 1 to (b, 1 + patches, width): a linear map of each patch, a place, and a class token before them."""

    def __init__(self, size: int, channels: int, patch: int, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.first = nn.Parameter(0.02 * torch.randn(width))
        self.places = nn.Parameter(0.02 * torch.randn(1 + (size // patch) ** 2, width))

    def forward(self, pixels: Tensor) -> Tensor:
        patches = self.patches(2 * pixels - 1).flatten(2).transpose(1, 2)
        return torch.cat([self.first.expand(len(patches), 1, -1), patches], dim=1) + self.places


class WordVectors(nn.Module):
    """Ids (b, t) to (b, 1 + t, width): a vector a word and a place, and a class token before them."""

    def __init__(self, buckets: int, places: int, width: int) -> None:
        super().__init__()
        self.words = nn.Embedding(buckets, width)
        self.first = nn.Parameter(0.02 * torch.randn(width))
        self.places = nn.Parameter(0.02 * torch.randn(1 + places, width))
        nn.init.normal_(self.words.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        words = self.words(ids)
        return torch.cat([self.first.expand(len(ids), 1, -1), words], dim=1) + self.places[: 1 + ids.shape[1]]


@torch.no_grad()
def grow(fresh: nn.Module, old: nn.Module, momentum: float) -> None:
    """Give a freshly made, larger module the weights of a smaller one of the same kind.

    Matrices are inherited with `momentum`; vectors (biases, gains, places of a class token) and embeddings as they are. What is new says nothing:
    added blocks, hidden units and heads have outgoing weights of 0. So with momentum 1 nothing that is computed changes.
    Raises ArchitectureInvalid, which names the tensor, where `old` does not fit.
    """
    before, after = dict(old.named_modules()), dict(fresh.named_modules())
    for name, module in after.items():
        if isinstance(module, Block):
            was = before.get(name)
            inside = (0, 0) if was is None else (was.inner.out_features, was.attention.out.in_features)
            module.silence(*inside)
    weights, kept = dict(old.named_parameters()), dict(fresh.named_parameters())
    for name, tensor in weights.items():
        if name not in kept:
            raise ArchitectureInvalid(
                f"{name}, of shape {tuple(tensor.shape)}, has no place in the new architecture; it can grow, not shrink."
            )
        whole = tensor.ndim < 2 or isinstance(after[name.rpartition(".")[0]], (nn.Embedding, WordVectors, ImagePatches))
        try:
            kept[name].copy_(inherit(tensor, kept[name], 1.0 if whole else momentum))
        except ArchitectureInvalid as error:
            raise ArchitectureInvalid(f"{name}: {error.args[0]}") from None

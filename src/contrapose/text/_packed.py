"""A batch of texts as one long row without padding: on a processor the fastest way through a BERT-like transformer.

All tokens of a batch go through the matrix products together, so that no padding is computed, the products are as large as they can be and
the gradient of the word embeddings, as large as the vocabulary, is made once. Attention alone has to know where a text ends; it runs in
tiles of texts of nearly the same length. Matrix products are in the precision of autocast, sums, norms and softmax in that of the weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import LongTensor, Tensor, nn
from torch.autograd.function import once_differentiable

from contrapose.text._blocks import Block
from contrapose.text._pooling import Pooling, pool, reads_last_layer_alone
from contrapose.text.data import Tokens, chunks, mask_of
from contrapose.training.dropout import draw, dropout, keep, scale_of

TILE_ROWS, TILE_TOKENS = 32, 2048
WHOLE = 64  # tokens: a batch is filled up to a multiple of them, since the library of products plans, and keeps, every new size
NARROWEST = 16  # places of a text in a tile, at least: below, torch's softmax does not use the width of the processor and takes 7 times as long


@dataclass(frozen=True)
class Tile:
    """Neighbouring texts of a packed batch whose attention is computed together, padded to the longest of them.

    A place is a token of the tile or a padding: `mask` (b, t) is True on tokens, `bias` (b, 1, 1, t) is −inf on padding, or None where there
    is none. `first` counts the places of the tiles before this one.
    """

    mask: Tensor
    bias: Tensor | None
    first: int

    def of(self, rows: Tensor, each: int = 1) -> Tensor:
        """This tile's part of (places · each, …)."""
        return rows[self.first * each : (self.first + self.mask.numel()) * each]


class Order(NamedTuple):
    """How the rows of (total · parts · h, size) stand in tiles of (parts, b, h, t, size)."""

    into: LongTensor  # the row at each place of the tiles
    back: LongTensor  # the place of each row
    padding: LongTensor  # the places where no row belongs


class Tiles:
    """The tiles of a packed batch of (b,) lengths; the nearer neighbours are in length, the less is padded."""

    def __init__(self, lengths: LongTensor) -> None:
        self.tiles: list[Tile] = []
        first = 0
        for rows in chunks(lengths.tolist(), TILE_ROWS, TILE_TOKENS):
            mask = mask_of(lengths[rows], NARROWEST)
            bias = None if mask.all() else torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)[:, None, None]
            self.tiles.append(Tile(mask, bias, first))
            first += mask.numel()
        self.real = torch.cat([tile.mask.flatten() for tile in self.tiles])
        self.token = (self.real.cumsum(0) - 1).clamp_(min=0)  # at each place; on padding the one before it
        self.orders: dict[tuple[int, int], Order] = {}

    def order(self, parts: int, heads: int) -> Order:
        """The same for all blocks, so it is made once."""
        if (parts, heads) not in self.orders:
            row = torch.arange(parts * heads).view(parts, 1, heads, 1)
            into, back, padding = [], [], []
            for tile in self.tiles:
                b, t = tile.mask.shape
                token = tile.of(self.token).view(1, b, 1, t)
                into.append((token * (parts * heads) + row).flatten())
                place = torch.arange(into[-1].numel()).view(parts, b, heads, t) + tile.first * parts * heads
                place = place.permute(1, 3, 0, 2)  # (b, t, parts, h)
                back.append(place[tile.mask].flatten())
                padding.append(place[~tile.mask].flatten())
            self.orders[parts, heads] = Order(*(torch.cat(of_tiles) for of_tiles in (into, back, padding)))
        return self.orders[parts, heads]

    def spread(self, packed: Tensor) -> list[Tensor]:
        """(total, d) to (b, t, d) a tile. What stands on padding has no gradient, so whoever uses it is to mask it."""
        rows = _Spread.apply(packed, self.token, self.real)
        return [tile.of(rows).view(*tile.mask.shape, -1) for tile in self.tiles]


class _Spread(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor, token: LongTensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        return packed.index_select(0, token)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.saved_tensors[0]], None, None


def packed_vectors(transformer: nn.Module, blocks: Sequence[Block], tokens: Tokens, pooling: Pooling) -> Tensor:
    """(b, d) of b texts that are sorted by length."""
    tiles = Tiles(tokens.lengths)
    states = packed_states(transformer, blocks, tokens, tiles)
    if reads_last_layer_alone(pooling):
        states = states[-1:]
    of_tiles = zip(*(tiles.spread(state) for state in states), strict=True)
    return torch.cat([pool(of_tile, tile.mask, pooling) for tile, of_tile in zip(tiles.tiles, of_tiles, strict=True)])


def packed_states(transformer: nn.Module, blocks: Sequence[Block], tokens: Tokens, tiles: Tiles) -> list[Tensor]:
    """The hidden states of a packed batch, (total, d) each: of the embeddings and after every block."""
    total = len(tokens.ids)
    starts = tokens.lengths.cumsum(0) - tokens.lengths
    positions = torch.arange(total) - starts.repeat_interleave(tokens.lengths) + first_position(transformer)
    ids, positions = (
        nn.functional.pad(each, (0, -total % WHOLE), value=int(each[0])) for each in (tokens.ids, positions)
    )
    x = transformer.embeddings(input_ids=ids[None], position_ids=positions[None])[0]
    if hasattr(transformer, "embeddings_project"):  # ELECTRA's, from the size of the embeddings to that of the blocks
        x = transformer.embeddings_project(x).to(x.dtype)
    states = [x]
    for block in blocks:
        states.append(through(block, states[-1], tiles, total))
    return [state[:total] for state in states]


def through(block: Block, x: Tensor, tiles: Tiles, total: int) -> Tensor:
    """One block, (n, d) to (n, d); of the rows the first `total` are tokens, which the others have no part in."""
    of_weights, of_mixed, of_down = block.dropouts
    dtype = block.mix.weight.dtype
    y = _Attention.apply(block.query_key_value(x.to(dtype))[:total], tiles, block.heads, of_weights)
    y = nn.functional.pad(y, (0, 0, 0, len(x) - total))
    x = block.mixed_norm(x + dropout(block.mix(y), of_mixed).to(x.dtype))
    y = block.activation(block.up(x.to(dtype)))
    return block.norm(x + dropout(block.down(y), of_down).to(x.dtype))


def first_position(transformer: nn.Module) -> int:
    """The position of a text's first token: 0, or in RoBERTa's family the one after the padding's."""
    padding = transformer.embeddings.position_embeddings.padding_idx
    return 0 if padding is None else padding + 1


class _Attention(torch.autograd.Function):
    """Attention within each text: (total, 3 · h · size), queries, keys and values, to (total, h · size).

    Written out, since torch's own knows no dropout on a processor and takes twice as long for short texts.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, tiles: Tiles, heads: int, p: float) -> Tensor:
        size = states.shape[1] // (3 * heads)
        rows = states.view(-1, size).index_select(0, tiles.order(3, heads).into)
        output = rows.new_empty(len(rows) // 3, size)
        exact = torch.promote_types(states.dtype, torch.float32)
        ctx.tiles, ctx.heads, ctx.scale = tiles, heads, scale_of(p)
        seen = [rows]
        for tile in tiles.tiles:
            b, t = tile.mask.shape
            query, key, value = tile.of(rows, 3 * heads).view(3, b * heads, t, size)
            scores = torch.bmm(query, key.transpose(1, 2)).to(exact)
            if tile.bias is None:
                scores = scores.mul_(size**-0.5)
            else:
                scores = torch.add(tile.bias.to(exact), scores.view(b, heads, t, t), alpha=size**-0.5).view_as(scores)
            weights = scores.softmax(-1).to(states.dtype)
            mask = draw(weights.numel(), p, weights.dtype).view_as(weights) if p else None
            kept = weights if mask is None else keep(weights, mask, ctx.scale)
            torch.bmm(kept, value, out=tile.of(output, heads).view_as(value))
            if ctx.needs_input_grad[0]:
                seen += [weights, mask]
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(*seen)
        return output.index_select(0, tiles.order(1, heads).back).view(len(states), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        tiles, heads = ctx.tiles, ctx.heads
        rows, *seen = ctx.saved_tensors
        size = rows.shape[1]
        into, _, padding = tiles.order(1, heads)
        above = gradient.reshape(-1, size).index_select(0, into).index_fill_(0, padding, 0)
        below = torch.empty_like(rows)
        exact = torch.promote_types(rows.dtype, torch.float32)
        for tile, weights, mask in zip(tiles.tiles, seen[::2], seen[1::2], strict=True):
            b, t = tile.mask.shape
            query, key, value = tile.of(rows, 3 * heads).view(3, b * heads, t, size)
            d_query, d_key, d_value = tile.of(below, 3 * heads).view(3, b * heads, t, size)
            d_output = tile.of(above, heads).view_as(value)
            kept = weights if mask is None else keep(weights, mask, ctx.scale)
            torch.bmm(kept.transpose(1, 2), d_output, out=d_value)
            d_weights = torch.bmm(d_output, value.transpose(1, 2))
            d_weights = (d_weights if mask is None else keep(d_weights, mask, ctx.scale)).to(exact)
            d_scores = torch._softmax_backward_data(d_weights, weights.to(exact), -1, exact)
            d_scores = d_scores.mul_(size**-0.5).to(rows.dtype)
            torch.bmm(d_scores, key, out=d_query)
            torch.bmm(d_scores.transpose(1, 2), query, out=d_key)
        states = below.index_select(0, tiles.order(3, heads).back).view(len(gradient), -1)
        return states, None, None, None

"""The transformer of SASRec as MCLRec's code builds it: causal, post-norm, of which the state at the last item alone is asked for."""

from __future__ import annotations

import math

import torch
from torch import LongTensor, Tensor, nn
from torch.nn import functional

from contrapose.training.dropout import Dropout

EPSILON = 1e-12  # of the layer norms, as in the official code


class Block(nn.Module):
    """Attention and a feed-forward layer, each followed by dropout, the sum with its input, and a layer norm."""

    def __init__(self, dim: int, heads: int, inner: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.out = nn.Linear(dim, dim)
        self.attended = nn.LayerNorm(dim, eps=EPSILON)
        self.wide, self.narrow = nn.Linear(dim, inner), nn.Linear(inner, dim)
        self.fed = nn.LayerNorm(dim, eps=EPSILON)
        self.dropout, self.attention_dropout = Dropout(dropout), Dropout(attention_dropout)

    def forward(self, asking: Tensor, answering: Tensor, visible: Tensor) -> Tensor:
        """`asking` (b, q, dim) attends to `answering` (b, t, dim) where `visible` (b, 1, q, t) is True; (b, q, dim)."""
        query, key, value = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.query(asking), *self.key_value(answering).chunk(2, dim=-1))
        )
        rate = self.attention_dropout.p if self.training else 0.0
        if (
            rate and query.device.type == "cpu"
        ):  # where torch's own way is no faster, and its masks cost more than all else
            scores = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
            context = self.attention_dropout(scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)) @ value
        else:
            context = functional.scaled_dot_product_attention(query, key, value, visible, dropout_p=rate)
        states = self.attended(self.dropout(self.out(context.transpose(1, 2).flatten(-2))) + asking)
        return self.fed(self.dropout(self.narrow(functional.gelu(self.wide(states)))) + states)


class LastState(nn.Module):
    """Items (b, t), 0 for none, to the state at each row's last place, (b, dim).

    The last block asks for that place alone: what it makes of the others reaches nothing.
    """

    def __init__(
        self,
        items: int,
        max_length: int,
        dim: int,
        layers: int,
        heads: int,
        inner: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.items = nn.Embedding(items + 1, dim, padding_idx=0)
        self.places = nn.Embedding(max_length, dim)
        self.norm, self.dropout = nn.LayerNorm(dim, eps=EPSILON), Dropout(dropout)
        self.blocks = nn.ModuleList(Block(dim, heads, inner, dropout, attention_dropout) for _ in range(layers))
        for module in self.modules():
            if isinstance(
                module, (nn.Linear, nn.Embedding)
            ):  # row 0 too, as in the official code: it is a class of the next item there
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, items: LongTensor, lengths: LongTensor) -> Tensor:
        t = items.shape[1]
        states = self.dropout(self.norm(self.items(items) + self.places.weight[:t]))
        places = torch.arange(t, device=items.device)
        real = (items > 0)[:, None, None, :]  # (b, 1, 1, t)
        last = lengths - 1
        if len(self.blocks) > 1:
            seen = real & (places <= places[:, None])  # (b, 1, t, t)
            # A place that sees nothing, which no other sees either, looks at itself: an empty softmax is NaN.
            seen = seen | ((places == places[:, None]) & ~seen.any(dim=-1, keepdim=True))
            for block in self.blocks[:-1]:
                states = block(states, states, seen)
        asking = states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2]))
        real = real | ((places == last[:, None, None, None]) & ~real.any(dim=-1, keepdim=True))
        return self.blocks[-1](asking, states, real).squeeze(1)

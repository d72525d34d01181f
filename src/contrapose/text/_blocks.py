"""The blocks of a BERT-like transformer as plain tensors, whatever transformers calls their parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

# Tokens meet in attention alone, positions are given, and a norm stands after each sum.
FAMILIES = {"bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"}


@dataclass(frozen=True)
class Product:
    """A linear layer, in the precision of its product: weight (out, in) and bias (out,)."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True)
class Block:
    """One block: x = mixed_norm(x + mix(attention(query_key_value(x)))), then x = norm(x + down(activation(up(x)))).

    `query_key_value` is one product, (3 · heads · size, d). The three dropouts: of the attention's weights, after `mix`, after `down`.
    """

    heads: int
    query_key_value: Product
    mix: Product
    mixed_norm: nn.LayerNorm
    up: Product
    activation: Callable[[Tensor], Tensor]
    down: Product
    norm: nn.LayerNorm
    dropouts: tuple[float, float, float]


def has_blocks(transformer: nn.Module) -> bool:
    """Whether `blocks_of` knows all that a transformer does: it is one of transformers' own, and nothing was put in place of its layers."""
    config = getattr(transformer, "config", None)
    if getattr(config, "model_type", None) not in FAMILIES or getattr(config, "is_decoder", False):
        return False
    if not type(transformer).__module__.startswith("transformers.models."):
        return False
    own = {nn.Linear, nn.LayerNorm}
    return all(type(module) in own for module in transformer.modules() if isinstance(module, tuple(own)))


def blocks_of(transformer: nn.Module) -> list[Block]:
    """The blocks in the precision of autocast where it is on; gradients flow to the transformer's weights."""
    casts = torch.is_autocast_enabled("cpu")
    dtype = torch.get_autocast_dtype("cpu") if casts else next(transformer.parameters()).dtype
    if transformer.config.model_type == "distilbert":
        return [_distilbert(layer, dtype) for layer in transformer.transformer.layer]
    return [_bert(layer, dtype) for layer in transformer.encoder.layer]


def _bert(layer: Any, dtype: torch.dtype) -> Block:
    inner, mixed = layer.attention.self, layer.attention.output
    return Block(
        heads=inner.num_attention_heads,
        query_key_value=_product(dtype, inner.query, inner.key, inner.value),
        mix=_product(dtype, mixed.dense),
        mixed_norm=mixed.LayerNorm,
        up=_product(dtype, layer.intermediate.dense),
        activation=layer.intermediate.intermediate_act_fn,
        down=_product(dtype, layer.output.dense),
        norm=layer.output.LayerNorm,
        dropouts=(_rate(inner.dropout), _rate(mixed.dropout), _rate(layer.output.dropout)),
    )


def _distilbert(layer: Any, dtype: torch.dtype) -> Block:
    inner = layer.attention
    return Block(
        heads=inner.n_heads,
        query_key_value=_product(dtype, inner.q_lin, inner.k_lin, inner.v_lin),
        mix=_product(dtype, inner.out_lin),
        mixed_norm=layer.sa_layer_norm,
        up=_product(dtype, layer.ffn.lin1),
        activation=layer.ffn.activation,
        down=_product(dtype, layer.ffn.lin2),
        norm=layer.output_layer_norm,
        dropouts=(_rate(inner.dropout), 0.0, _rate(layer.ffn.dropout)),
    )


def _product(dtype: torch.dtype, *layers: nn.Linear) -> Product:
    weight, bias = layers[0].weight, layers[0].bias
    if len(layers) > 1:
        weight, bias = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight", "bias"))
    return Product(weight.to(dtype), bias.to(dtype))


def _rate(dropout: nn.Dropout) -> float:
    return dropout.p if dropout.training else 0.0

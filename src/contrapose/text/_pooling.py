"""From the hidden states of a transformer to one vector a text."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from contrapose.errors import PoolingUnavailable, nearest

Pooling = str  # one of POOLINGS, "cls", or a pooling of the top layers
POOLINGS = ("cls_before_pooler", "avg", "avg_top2", "avg_first_last", "avg_first_last_embedding")
OWN_POOLER = "cls"  # the first token of the last layer, through the pooler of the checkpoint
TOP = re.compile(r"(concat|mean)_top(\d+)_(mean|sqrt|max)(_cls)?")
FROM_END = re.compile(r"last_([1-9]\d*)")  # one token of the last layer, counted from the end of the text

# Which hidden states a pooling averages before it looks at the tokens; 0 is the embedding layer.
LAYERS: dict[str, tuple[int, ...]] = {
    "cls_before_pooler": (-1,),
    OWN_POOLER: (-1,),
    "avg": (-1,),
    "avg_top2": (-2, -1),
    "avg_first_last": (1, -1),
    "avg_first_last_embedding": (0, -1),
}


class TopLayers(NamedTuple):
    """The pooling "concat_top4_mean": how the top layers are joined, how many, what is taken over the tokens, and whether of the first as well."""

    joined: Literal["concat", "mean"]
    layers: int
    over: Literal["mean", "sqrt", "max"]
    with_first: bool


def top_layers(pooling: str) -> TopLayers | None:
    """What the name of a pooling of the top layers says; None for another name."""
    found = TOP.fullmatch(pooling)
    return TopLayers(found[1], int(found[2]), found[3], bool(found[4])) if found and int(found[2]) else None


def pool(hidden_states: Sequence[Tensor], mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text, (b, d), from the hidden states of all layers, each (b, t, d), the embedding layer's first, and the mask (b, t).

    - `cls_before_pooler`: the first token of the last layer, without a trained head.
    - `avg`: the mean of the last layer over the text's tokens.
    - `avg_top2`: the mean over tokens of the mean of the last two layers.
    - `avg_first_last`: the same of the first transformer layer and the last one.
    - `avg_first_last_embedding`: the same of the embedding layer and the last one, which is what the SimCSE paper's code did by accident
      (its issue 285) and ESimCSE's copy still does.

    - `cls`: the first token of the last layer; the encoder puts it through the checkpoint's own pooler.
    - `concat_topK_mean`, `mean_topK_mean`: the top K layers one after another, (b, K · d), or their mean; then the mean over the tokens
      but the first ([CLS]). In the place of the last word `sqrt` is the sum over the square root of the number of tokens, and `max` the
      largest value of each dimension. With `_cls` at the end the first token counts as well.
    - `last_K`: the Kth token from the end of the last layer, the closing special token included; of a shorter text the first.

    The names are those of SimCSE (Gao, Yao & Chen, EMNLP 2021); the top layers are those of DSE (Barkan et al., AAAI 2020). float16 and bfloat16 are summed, and returned, in float32. A text whose
    mask is empty, or holds nothing but a first token that does not count, has the zero vector. Padding stands on the right. Raises PoolingUnavailable for an unknown pooling or too few layers.
    """
    chosen = [hidden_states[number] for number in layers_of(pooling, len(hidden_states))]
    if pooling in ("cls_before_pooler", OWN_POOLER):
        return at_least_float32(chosen[0][:, 0])
    if found := FROM_END.fullmatch(pooling):
        place = (mask.sum(dim=1) - int(found[1])).clamp(min=0)
        return at_least_float32(chosen[0][torch.arange(len(place), device=place.device), place])
    if top := top_layers(pooling):
        return _pool_top([at_least_float32(states) for states in chosen], mask, top)
    states = at_least_float32(chosen[0])
    for other in chosen[1:]:
        states = states + at_least_float32(other)
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / (len(chosen) * weights.sum(1).clamp(min=1))


def _pool_top(chosen: list[Tensor], mask: Tensor, top: TopLayers) -> Tensor:
    states = torch.cat(chosen, dim=-1) if top.joined == "concat" else torch.stack(chosen).mean(dim=0)
    if not top.with_first:
        states, mask = states[:, 1:], mask[:, 1:]
    real = mask.bool().unsqueeze(-1)
    count = real.sum(dim=1)
    if top.over == "max":
        if not states.shape[1]:
            return states.new_zeros(len(states), states.shape[-1])
        return states.masked_fill(~real, -torch.inf).amax(dim=1).masked_fill(count == 0, 0.0)
    summed = states.masked_fill(~real, 0.0).sum(dim=1)
    return summed / count.clamp(min=1).to(states.dtype) ** (1.0 if top.over == "mean" else 0.5)


def layers_of(pooling: str, available: int) -> tuple[int, ...]:
    """The hidden states that a pooling reads. Raises PoolingUnavailable when it is unknown or needs more than are `available`."""
    top = top_layers(pooling)
    if FROM_END.fullmatch(pooling):
        return (-1,)
    if pooling not in LAYERS and top is None:
        known = [*POOLINGS, OWN_POOLER, "concat_top4_mean"]
        raise PoolingUnavailable(f"There is no pooling '{pooling}'; {nearest(pooling, known)}")
    wanted = tuple(range(-top.layers, 0)) if top else LAYERS[pooling]
    if max(-min(wanted), max(wanted) + 1) > available:
        raise PoolingUnavailable(
            f"Pooling '{pooling}' needs the hidden states of more layers than the {available} that this encoder gives; "
            "take more layers, or pooling 'avg'."
        )
    return wanted


def reads_last_layer_alone(pooling: Pooling) -> bool:
    top = top_layers(pooling)
    return top.layers == 1 if top else LAYERS.get(pooling, (-1,)) == (-1,)


def at_least_float32(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))

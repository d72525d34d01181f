"""From the hidden states of a transformer to one vector a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from contrapose.errors import PoolingUnavailable, nearest

Pooling = Literal["cls_before_pooler", "avg", "avg_top2", "avg_first_last", "avg_first_last_embedding"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)

# Which hidden states a pooling averages before it looks at the tokens; 0 is the embedding layer.
LAYERS: dict[str, tuple[int, ...]] = {
    "cls_before_pooler": (-1,),
    "avg": (-1,),
    "avg_top2": (-2, -1),
    "avg_first_last": (1, -1),
    "avg_first_last_embedding": (0, -1),
}


def pool(hidden_states: Sequence[Tensor], mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector a text, (b, d), from the hidden states of all layers, each (b, t, d), the embedding layer's first, and the mask (b, t).

    - `cls_before_pooler`: the first token of the last layer, without a trained head.
    - `avg`: the mean of the last layer over the text's tokens.
    - `avg_top2`: the mean over tokens of the mean of the last two layers.
    - `avg_first_last`: the same of the first transformer layer and the last one.
    - `avg_first_last_embedding`: the same of the embedding layer and the last one, which is what the SimCSE paper's code did by accident
      (its issue 285) and ESimCSE's copy still does.

    The names are those of SimCSE (Gao, Yao & Chen, EMNLP 2021). float16 and bfloat16 are summed, and returned, in float32. A text whose
    mask is empty has the zero vector. Padding stands on the right. Raises PoolingUnavailable for an unknown pooling or too few layers.
    """
    chosen = [hidden_states[number] for number in layers_of(pooling, len(hidden_states))]
    if pooling == "cls_before_pooler":
        return _at_least_float32(chosen[0][:, 0])
    states = _at_least_float32(chosen[0])
    for other in chosen[1:]:
        states = states + _at_least_float32(other)
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(1) / (len(chosen) * weights.sum(1).clamp(min=1))


def layers_of(pooling: str, available: int) -> tuple[int, ...]:
    """The hidden states that a pooling reads. Raises PoolingUnavailable when it is unknown or needs more than are `available`."""
    if pooling not in LAYERS:
        raise PoolingUnavailable(f"There is no pooling '{pooling}'; {nearest(pooling, POOLINGS)}")
    wanted = LAYERS[pooling]
    if max(-min(wanted), max(wanted) + 1) > available:
        raise PoolingUnavailable(
            f"Pooling '{pooling}' needs the hidden states of more layers than the {available} that this encoder gives; "
            "take more layers, or pooling 'avg'."
        )
    return wanted


def reads_last_layer_alone(pooling: Pooling) -> bool:
    return LAYERS[pooling] == (-1,)


def _at_least_float32(states: Tensor) -> Tensor:
    return states.to(torch.promote_types(states.dtype, torch.float32))

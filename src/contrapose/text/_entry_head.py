"""The layer between a definition's pooled state and the vectors of entries, from the checkpoint's own weights where it has them."""

from __future__ import annotations

from typing import Literal

import torch
from safetensors import safe_open
from torch import Tensor, nn

from contrapose.text._layout import read_layout
from contrapose.text._loading import find
from contrapose.text.encoder import TextEncoder

Activation = Literal["tanh", "gelu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"tanh": nn.Tanh, "gelu": nn.GELU}
# Where checkpoints keep such a layer: BERT's pooler; the masked-language-model heads of RoBERTa and of BERT.
LAYERS: dict[Activation, tuple[str, ...]] = {
    "tanh": ("pooler.dense",),
    "gelu": ("lm_head.dense", "cls.predictions.transform.dense"),
}
OF_ROBERTA = ("roberta", "camembert")


class EntryHead(nn.Sequential):
    """act(W p + b), (b, d) to (b, d): tanh or the exact GELU. Fresh weights are N(0, 0.02²), as BERT starts them."""

    def __init__(self, dim: int, activation: Activation = "tanh") -> None:
        super().__init__(nn.Linear(dim, dim), ACTIVATIONS[activation]())
        nn.init.normal_(self[0].weight, std=0.02)
        nn.init.zeros_(self[0].bias)


def activation_of(encoder: TextEncoder) -> Activation:
    """GELU for the RoBERTa family, whose checkpoints have no trained pooler; tanh for every other."""
    kind = getattr(getattr(encoder.transformer, "config", None), "model_type", "")
    return "gelu" if any(name in kind for name in OF_ROBERTA) else "tanh"


def checkpoint_head(encoder: TextEncoder, activation: Activation) -> tuple[EntryHead, bool]:
    """The head of an encoder, and whether its weights are those of the checkpoint that it was opened from."""
    head = EntryHead(encoder.dim, activation)
    found = _checkpoint_layer(encoder, LAYERS[activation])
    if found is None:
        return head, False
    weight, bias = found
    head.load_state_dict({"0.weight": weight, "0.bias": bias})
    return head, True


def _checkpoint_layer(encoder: TextEncoder, names: tuple[str, ...]) -> tuple[Tensor, Tensor] | None:
    if encoder.origin is None:
        return None
    folder, _ = find(encoder.origin["name"], encoder.origin["revision"])
    for path in sorted(read_layout(folder, transformer_alone=True).transformer.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            stored = list(file.keys())
            for name in names:
                weights = [key for key in stored if key == f"{name}.weight" or key.endswith(f".{name}.weight")]
                if not weights or weights[0].replace(".weight", ".bias") not in stored:
                    continue
                weight, bias = (file.get_tensor(weights[0].replace(".weight", part)) for part in (".weight", ".bias"))
                if weight.shape == (encoder.dim, encoder.dim):
                    return weight.to(torch.float32), bias.to(torch.float32)
    return None

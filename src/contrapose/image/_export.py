"""What a saved encoder of images is worth to others: transformers reads it back, and its page says how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from contrapose.image._backbones import pooled
from contrapose.image.data import decoded
from contrapose.training.pretrained import quiet

if TYPE_CHECKING:
    from contrapose.image.encoder import ImageEncoder


def compare_export(folder: Path, encoder: ImageEncoder, values: Sequence[Any]) -> dict[str, float]:
    """Reader to the largest difference of any component of the unit vectors that it gives for images from the folder, and ours.

    Empty where no other reader can build the network.
    """
    if not encoder.is_plain:
        return {}
    from transformers import AutoModel

    with torch.random.fork_rng(devices=[]), quiet():
        network = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in (encoder.mean, encoder.std))
    shown = (torch.from_numpy(decoded(values, encoder.size, encoder.channels)) / 255 - mean) / std
    with torch.inference_mode():
        theirs = nn.functional.normalize(pooled(network(shown), encoder.pooling), dim=-1).numpy()
    ours = nn.functional.normalize(torch.from_numpy(encoder.encode(values, progress=False)), dim=-1).numpy()
    return {"transformers": float(np.abs(ours - theirs).max(initial=0.0))}


def usage(encoder: ImageEncoder) -> str:
    """How a folder that `save` wrote is used, in Markdown: by contrapose and, where the form allows it, by transformers."""
    if encoder.record().get("own_module"):
        return f"""```python
from contrapose.image.encoder import ImageEncoder
from safetensors.torch import load_model

module = ...  # a {encoder.record()["name"]}, built as for the training
load_model(module, "path/to/this/folder/model.safetensors")
encoder = ImageEncoder(module, size={encoder.size}, channels={encoder.channels})
vectors = encoder.encode(["an image.png"])
```

The network is a module of one's own, which neither `contrapose.load` nor transformers can build."""
    loaded = """```python
import contrapose

model = contrapose.load("path/to/this/folder")
vectors = model.encode(["an image.png"])
```"""
    if not encoder.is_plain:
        return f"{loaded}\n\ntransformers cannot build this network by itself, so `AutoModel` cannot load this folder."
    read = {"cls": "last_hidden_state[:, 0]", "avg": "last_hidden_state.mean(1)"}[encoder.pooling]
    read = "last_hidden_state.mean((2, 3))" if encoder.record().get("family") == "resnet" else read
    return f"""{loaded}

The network alone in transformers, for pixels from 0 to 1 as a tensor (b, {encoder.channels}, {encoder.size}, {encoder.size}):

```python
import torch
from transformers import AutoModel

mean, std = (torch.tensor(each).view(1, -1, 1, 1) for each in ({list(encoder.mean)}, {list(encoder.std)}))
network = AutoModel.from_pretrained("path/to/this/folder").eval()
vectors = network((pixels - mean) / std).{read}
```"""

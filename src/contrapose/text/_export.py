"""Model folders of text encoders in the hands of others: who reads them, how, and whether the vectors are the same."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from contrapose.training.pretrained import quiet

if TYPE_CHECKING:
    from contrapose.text.encoder import TextEncoder

LOADED = """```python
import contrapose

model = contrapose.load("path/to/this/folder")
vectors = model.encode(["a sentence"])
```"""


def compare_export(folder: Path, encoder: TextEncoder, texts: Sequence[str]) -> dict[str, float]:
    """Reader to the largest difference of any component of the unit vectors that it gives for `texts` from the folder, and ours.

    Empty where no other reader is installed or none can read this encoder.
    """
    if not encoder.exports_to_sentence_transformers or importlib.util.find_spec("sentence_transformers") is None:
        return {}
    from sentence_transformers import SentenceTransformer

    with torch.random.fork_rng(), quiet():  # it draws fresh weights for a pooler that nothing uses
        reader = SentenceTransformer(str(folder), device="cpu")
        theirs = reader.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
    ours = nn.functional.normalize(torch.from_numpy(encoder.encode(texts, progress=False)), dim=-1).numpy()
    return {"sentence-transformers": float(np.abs(ours - theirs).max(initial=0.0))}


def usage(encoder: TextEncoder) -> str:
    """How a folder that `save` wrote is used, in Markdown: by contrapose and, where the form allows it, by sentence-transformers."""
    record = encoder.record()
    if record.get("own_module"):
        return f"""```python
from contrapose.text.encoder import TextEncoder
from safetensors.torch import load_model

module = ...  # a {record["name"]}, built as for the training
load_model(module, "path/to/this/folder/model.safetensors")
encoder = TextEncoder(module, tokeniser, pooling="{encoder.pooling}", max_tokens={encoder.max_tokens})
vectors = encoder.encode(["a sentence"])
```

The encoder is a module of one's own, which neither `contrapose.load` nor sentence-transformers can build."""
    if record.get("domains"):
        routed = LOADED.replace('["a sentence"]', f'[{{"text": "a sentence", "domain": "{record["domains"][0]}"}}]')
        return f"{routed}\n\nIt routes by domain ({', '.join(record['domains'])}); `model.encoder().plain(DOMAIN)` is an ordinary encoder, which others load."
    if not encoder.exports_to_sentence_transformers:
        lacking = f"pooling `{encoder.pooling}`" if record.get("head") is None else "head of this kind"
        return f"{LOADED}\n\nsentence-transformers has no {lacking}, so it cannot load this folder."
    return f"""{LOADED}

The same in sentence-transformers:

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("path/to/this/folder").encode(["a sentence"])
```"""

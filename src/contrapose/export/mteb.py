"""A model as mteb takes it, for the Massive Text Embedding Benchmark and for tasks of your own in its form."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from contrapose.errors import PackageMissing, UsageInvalid, nearest
from contrapose.export.model_folder import Model, unit
from contrapose.training.precision import Precision

if TYPE_CHECKING:
    from mteb.models import ModelMeta


class MTEBEncoder:
    """What `mteb.evaluate` takes: `mteb.evaluate(MTEBEncoder(contrapose.load("runs/faq")), tasks)`.

    A plain model folder can be given to mteb as a `SentenceTransformer` too. This one is for the models that sentence-transformers has no form
    for (routed by domain, with a head that scores pairs), and is faster on a processor: texts are packed by length, whatever batches mteb makes.

    Texts are cut at the encoder's own `max_tokens`, as in mteb's other models; the protocol `sts` cuts none, and may differ where texts are
    long. Similarity is cosine, and of a model that scores pairs (`dse`) its score; mteb's `cosine_…` figures stay those of the vectors.

    Args:
        model: What `contrapose.load` returns, or `run.model`.
        name: What mteb lists it as, OWNER/NAME; None: contrapose/METHOD.
        query: The encoder of queries, by name, where the model has several; None: the first.
        document: The encoder of documents and of all other texts; None: that of queries.
        values: From mteb's texts to what the encoder takes; None: the texts. For a model that is routed by domain:
            `lambda texts: [{"text": text, "domain": "law"} for text in texts]`; say so in `name`.
        precision: Of the matrix products.

    Raises:
        PackageMissing: Without mteb.
        UsageInvalid: For an encoder that the model has not, or a name without a slash.
    """

    def __init__(
        self,
        model: Model,
        *,
        name: str | None = None,
        query: str | None = None,
        document: str | None = None,
        values: Callable[[list[str]], Sequence[Any]] | None = None,
        precision: Precision = "float32",
    ) -> None:
        if importlib.util.find_spec("mteb") is None:
            raise PackageMissing("evaluating with mteb needs it: pip install 'contrapose[mteb]'.")
        for asked in {query, document} - {None, *model.encoders}:
            raise UsageInvalid(f"The model has no encoder '{asked}'; {nearest(asked, model.encoders)}")
        name = name or f"contrapose/{model.method}"
        if name.count("/") != 1:
            raise UsageInvalid(
                f"mteb lists models as OWNER/NAME; got '{name}'. Give for example name='me/{model.method}'."
            )
        self.model, self.values, self.precision = model, values or list, precision
        self.query, self.document = query, document or query
        self.mteb_model_meta = described(model, name, precision)

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        show_progress_bar: bool = False,
        **_: Any,
    ) -> np.ndarray:
        """Vectors of the texts of all batches, float32 (n, dim). `prompt_type`: "query", "document", or None.

        mteb's batch size is that of its loader, and no matter here.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        encoder = self.query if getattr(prompt_type, "value", prompt_type) == "query" else self.document
        return self.model.encode(
            self.values(texts), encoder=encoder, progress=show_progress_bar, precision=self.precision
        )

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """(n, dim) and (m, dim) to (n, m), larger is closer."""
        first, second = rows(embeddings1), rows(embeddings2)
        scorer = self.model.encoder(self.query)
        if getattr(scorer, "ranks_pairs", False):
            return torch.from_numpy(scorer.score_matrix(first, second))
        return torch.from_numpy(unit(first) @ unit(second).T)

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """(n, dim) and (n, dim) to (n,), larger is closer."""
        first, second = rows(embeddings1), rows(embeddings2)
        scorer = self.model.encoder(self.query)
        if getattr(scorer, "ranks_pairs", False):
            return torch.from_numpy(scorer.score_pairs(first, second))
        return torch.from_numpy((unit(first) * unit(second)).sum(axis=1))


def rows(vectors: ArrayLike) -> np.ndarray:
    """(n, dim) of what mteb hands back: an array or a tensor, of one vector perhaps."""
    return np.atleast_2d(np.asarray(vectors, dtype=np.float32))


def described(model: Model, name: str, precision: Precision) -> ModelMeta:
    """What mteb keeps of a model. The revision tells weights and precisions apart, since results are looked up by name and revision."""
    from mteb.models import ModelMeta
    from mteb.models.model_meta import ScoringFunction

    weights = model.fingerprint or hash_of(model)
    known = {
        "name": name,
        "revision": f"{hashlib.sha256(weights.encode()).hexdigest()[:16]}-{precision}",
        "embed_dim": model.dim,
        "max_tokens": getattr(model.encoder(), "max_tokens", None),
        "n_parameters": sum(weight.numel() for each in model.encoders.values() for weight in each.parameters()),
        "framework": ["PyTorch"],
        "similarity_fn_name": ScoringFunction.COSINE,
    }
    return ModelMeta.create_empty(overwrites=known)


def hash_of(model: Model) -> str:
    """The SHA-256 of all weights, for a model that stands in no folder."""
    digest = hashlib.sha256()
    for name, encoder in model.encoders.items():
        for key, weight in encoder.state_dict().items():
            digest.update(f"{name}.{key}".encode())
            digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

"""Encoders of texts: a transformer, a tokeniser and a pooling."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from contrapose.data.table import Table
from contrapose.errors import EncoderNotRebuildable, PoolingUnavailable, TextInvalid, UsageInvalid
from contrapose.text._blocks import Block, blocks_of, has_blocks
from contrapose.text._export import compare_export, usage
from contrapose.text._heads import Head, head_record, load_head, save_head
from contrapose.text._layout import INNER, MODE_OF, read_layout, write_sentence_transformers
from contrapose.text._loading import (
    OFFLINE,
    find,
    load_tokenizer,
    load_transformer,
    most_tokens,
    refuse_token_limit,
)
from contrapose.text._options import EncoderOptions
from contrapose.text._packed import packed_vectors
from contrapose.text._pooling import (
    OWN_POOLER,
    Pooling,
    at_least_float32,
    layers_of,
    pool,
    reads_last_layer_alone,
    top_layers,
)
from contrapose.text._prompt import Prompt, prompted
from contrapose.text.data import BLOCK, TokenColumn, Tokens, chunks, tokenise, tokenised
from contrapose.training.bar import Bar
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision
from contrapose.training.pretrained import quiet
from contrapose.training.settings import parse_settings

__all__ = ["EncoderOptions", "Head", "TextEncoder", "compare_export", "load_encoder", "open_encoder", "usage"]

MAX_TOKENS = 128  # where neither the caller nor the folder says anything
BATCH = 1024  # texts between two updates of the progress bar when encoding
SORTED = 16 * BLOCK  # texts sorted by length together when encoding
# Texts, and tokens with padding, that go through the transformer together: packed and padded, measured with MiniLM on 2 cores, and on a
# device, as much as is sure to fit.
PACK = (4096, 4096)
CHUNK = (16, 2048)
DEVICE_CHUNK = (4096, 65536)


class TextEncoder(Encoder):
    """Texts to vectors of shape (b, dim).

    `TextEncoder.open("minilm", layers=4)` loads one by name; `TextEncoder(module, tokeniser)` takes your own: the module is called as
    `module(input_ids=…, attention_mask=…)`, both (b, t), and returns hidden states (b, t, d), plain or as `last_hidden_state`. The
    tokeniser is called as `tokeniser(texts, truncation=True, max_length=n)` and returns a mapping with "input_ids", lists of integers.

    `pooling`: see `contrapose.text._pooling.pool`. `head`: layers on the pooled state that are part of the encoder, or None. `max_tokens`: texts are cut to so many, special tokens included. `normalise`: whether
    `encode` gives unit vectors; `forward` never does. A row's vector depends on that row alone, however rows are ordered and padded.
    """

    def __init__(
        self,
        transformer: nn.Module,
        tokenizer: Any,
        *,
        pooling: Pooling = "avg",
        max_tokens: int = MAX_TOKENS,
        normalise: bool = True,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        """`origin`: name, revision and layers of an encoder that `open` found; None for a module of your own.

        Raises PoolingUnavailable, and TokenLimitInvalid where `max_tokens` does not fit the tokeniser and the transformer's positions.
        """
        super().__init__()
        self.transformer = transformer
        self.tokenizer = tokenizer
        self.pooling: Pooling = pooling
        self.max_tokens = max_tokens
        self.normalise = normalise
        self.origin = dict(origin) if origin else None
        self.padding = getattr(tokenizer, "pad_token_id", None) or 0
        refuse_token_limit(max_tokens, transformer, tokenizer)
        self.head: nn.Module | None = None
        self.prompt: Prompt | None = None
        self.dim = self._probe()
        special = torch.tensor(sorted(getattr(tokenizer, "all_special_ids", [])), dtype=torch.long)
        self.register_buffer("special_ids", special, persistent=False)

    @classmethod
    def open(
        cls,
        name: str = OFFLINE,
        *,
        layers: int | None = None,
        pooling: Pooling | None = None,
        max_tokens: int | None = None,
        revision: str | None = None,
    ) -> TextEncoder:
        """An encoder by name, in evaluation mode, on the processor and in float32.

        `name`: "minilm" (all-MiniLM-L6-v2, offline with the extra `offline`, its SHA-256 checked), a folder of transformers, of
        sentence-transformers or of a contrapose run, or a model of the Hub, at `revision`. `layers`: the first so many transformer
        blocks alone; 0 are the embeddings. `pooling` and `max_tokens`: None takes what the folder says, else "avg" and 128.

        Weights are safetensors; no pickle is loaded and no code from a folder is run. Raises EncoderUnknown, ModelFolderInvalid,
        WeightsPickled, WeightsBroken, WeightsChanged, LayersUnavailable, PoolingUnavailable or TokenLimitInvalid.
        """
        if pooling is not None:
            layers_of(pooling, 10**6)  # a misspelt one is refused before anything is loaded
        folder, found = find(name, revision)
        layout = read_layout(folder, transformer_alone=pooling is not None)
        transformer = load_transformer(layout.transformer, layers, pooler=pooling == OWN_POOLER)
        tokenizer = load_tokenizer(layout.transformer, transformer.get_input_embeddings().num_embeddings)
        if max_tokens is None:
            max_tokens = min(layout.max_tokens or MAX_TOKENS, most_tokens(transformer, tokenizer))
        encoder = cls(
            transformer,
            tokenizer,
            pooling=pooling or layout.pooling or "avg",
            max_tokens=max_tokens,
            normalise=layout.normalise,
            origin={"name": name, "revision": found, "layers": layers},
        )
        if layout.head is not None:
            encoder.put_head(load_head(layout.head, layout.folder))
        return encoder.eval()

    @classmethod
    def from_record(cls, record: Mapping[str, Any], folder: Path | None = None) -> TextEncoder:
        """An encoder as `record()` described it: with the weights of its name, or with those in `folder`, which `save` wrote.

        Raises EncoderNotRebuildable for a module of your own.
        """
        if record.get("own_module"):
            raise EncoderNotRebuildable(
                f"The encoder was made from your own module {record['name']}, which contrapose cannot build; build it, load "
                "model.safetensors into it with safetensors.torch.load_model, and give (module, tokeniser) as the encoder."
            )
        if folder is None:
            encoder = cls.open(
                record["name"], **{name: record.get(name) for name in ("layers", "pooling", "max_tokens", "revision")}
            )
        else:
            encoder = cls.open(str(folder), pooling=record["pooling"], max_tokens=record["max_tokens"])
            if "head" in record:
                encoder.put_head(load_head(record["head"], folder))
            encoder.origin = {name: record[name] for name in ("name", "revision", "layers")}
        encoder.normalise = record["normalise"]
        return encoder

    def record(self) -> dict[str, Any]:
        use = {"pooling": self.pooling, "max_tokens": self.max_tokens, "normalise": self.normalise}
        if self.head is not None:
            use["head"] = head_record(self.head)
        if self.prompt is not None:
            use["prompt"] = self.prompt.template
        if self.origin is not None:
            return {**self.origin, **use}
        kind = type(self.transformer)
        named = {"name": f"{kind.__module__}.{kind.__qualname__}", "revision": None, "layers": None}
        return {**named, **use, "own_module": True}

    def put_head(self, head: nn.Module) -> None:
        """Put a head (see `_heads`) on the pooled states; it becomes part of the encoder, and its size the encoder's."""
        self.head, self.dim = head, head.dim

    def put_pooling(self, pooling: Pooling) -> None:
        """Pool otherwise from now on. Raises PoolingUnavailable, with the old one kept."""
        before, self.pooling = self.pooling, pooling
        try:
            self.dim = self._probe()
        except PoolingUnavailable:
            self.pooling = before
            raise

    def forward(self, tokens: Tokens) -> Tensor:
        """(b, dim) for the tokens of b texts; float32, or float64 where the weights are."""
        return self._vectors(tokens, self._blocks())

    def _vectors(self, tokens: Tokens, blocks: Sequence[Block] | None) -> Tensor:
        if len(tokens) == 0:
            return self._weight().new_zeros(0, self.dim)
        order = tokens.lengths.argsort(stable=True)
        ordered = tokens[order]
        if int(ordered.lengths[0]) == 0:
            raise TextInvalid(f"Row {int(order[0])} of the batch has no tokens, so it can have no vector.")
        vectors = torch.cat([self._through(part, blocks) for part in self._parts(ordered, blocks is not None)])
        return vectors.index_select(0, order.argsort())

    def encode(
        self,
        values: Sequence[str],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of n texts, float32 of shape (n, dim), in evaluation mode and without gradient; unit vectors where `normalise` is set.

        `batch_size`: most texts at once; None: as many as go through fastest. `precision` of the matrix products: "auto" is bfloat16 where
        the hardware has it, more than twice as fast for many texts; MiniLM's vectors then have a cosine of at least 0.9999 with the exact
        ones (docs/speed.md). A single text is faster in float32. Raises TextInvalid, and UsageInvalid for an unknown precision.
        """
        if isinstance(values, str):
            raise TextInvalid("encode takes a list of texts and was given one text; write encode([text]).")
        vectors = np.empty((len(values), self.dim), dtype=np.float32)
        with evaluating(self, self.device, precision), Bar("Encoding", len(values), shown=progress) as bar:
            blocks = self._blocks()
            for start in range(0, len(values), SORTED):
                block = self.tokens(values[start : start + SORTED], first=start)
                # The longest first: what does not fit in memory fails at once, and the time left is never too low.
                order = block.lengths.argsort(stable=True, descending=True)
                for rows in order.split(batch_size or BATCH):
                    batch = self._vectors(block[rows].to(self.device), blocks)
                    batch = nn.functional.normalize(batch, dim=-1) if self.normalise else batch
                    vectors[start + rows.numpy()] = batch.float().cpu().numpy()
                    bar.advance(len(rows))
        return vectors

    def tokens(self, texts: Sequence[str], first: int = 0) -> Tokens:
        """The tokens of texts, cut to `max_tokens`. Raises TextInvalid, counting texts from `first`."""
        return tokenised(texts, self.prompt or tokenise, self.tokenizer, self.max_tokens, first)

    collate = tokens

    def open_column(self, values: Sequence[str], cache: Path | str | None = None) -> TokenColumn:
        """A column of texts, tokenised once for training; see `TokenColumn.open`."""
        column = TokenColumn.open(values, self.tokenizer, self.max_tokens, cache)
        column.texts = values
        return column

    @property
    def exports_to_sentence_transformers(self) -> bool:
        """Whether `SentenceTransformer(folder)` reads what `save` writes: it has no pooling over several layers, no head, and not your module."""
        return self.pooling in MODE_OF and self._is_pretrained and self.head is None

    def save(self, folder: Path | str) -> None:
        """Write config.json, model.safetensors, the tokeniser, and what sentence-transformers reads, where it can read this encoder.

        Where it cannot, the transformer stands in a folder within, so that nobody loads it with another pooling by mistake.
        """
        folder = Path(folder)
        place = folder if self.exports_to_sentence_transformers or not self._is_pretrained else folder / INNER
        place.mkdir(parents=True, exist_ok=True)
        if self._is_pretrained:
            with quiet():
                self.transformer.save_pretrained(place)
        else:
            from safetensors.torch import save_model

            save_model(self.transformer, str(place / "model.safetensors"))
        if hasattr(self.tokenizer, "save_pretrained"):
            self.tokenizer.save_pretrained(place)
        if self.head is not None:
            save_head(self.head, folder)
        if self.exports_to_sentence_transformers:
            write_sentence_transformers(folder, self.dim, self.pooling, self.max_tokens, self.normalise)

    @property
    def device(self) -> torch.device:
        return self._weight().device

    def __repr__(self) -> str:
        record = self.record()
        said = [
            repr(record["name"]),
            *(f"{name}={record[name]!r}" for name in ("layers", "pooling", "max_tokens") if record[name] is not None),
        ]
        return f"TextEncoder({', '.join(said)}; {self.dim} dimensions)"

    def _weight(self) -> Tensor:
        return next(self.transformer.parameters())

    @property
    def _is_pretrained(self) -> bool:
        """Whether transformers made the module, and so can write it and read it back."""
        return hasattr(self.transformer, "save_pretrained") and hasattr(self.transformer, "config")

    def _blocks(self) -> list[Block] | None:
        """The transformer's blocks where a batch can go through them as one long row: on a processor, for the families that can."""
        return blocks_of(self.transformer) if self.device.type == "cpu" and has_blocks(self.transformer) else None

    def _parts(self, ordered: Tokens, packed: bool) -> Iterator[Tokens]:
        """Tokens sorted by length, in the pieces that go through the transformer one at a time.

        They must not depend on whether a gradient is asked for: a second pass with the same random state has to draw the same dropout.
        """
        if packed and self.training:
            yield ordered
            return
        on_cpu = PACK if packed else CHUNK
        rows, tokens = on_cpu if self.device.type == "cpu" else DEVICE_CHUNK
        for part in chunks(ordered.lengths.tolist(), rows, tokens):
            yield ordered[part]

    def _through(self, tokens: Tokens, blocks: Sequence[Block] | None) -> Tensor:
        """Vectors of texts that are sorted by length, all in one pass."""
        if blocks is None:
            ids, mask = tokens.padded(self.padding)
            vectors = pool(self._states(ids, mask), mask, self.pooling)
        else:
            vectors = packed_vectors(self.transformer, blocks, tokens, self.pooling)
        if self.pooling == OWN_POOLER:
            vectors = at_least_float32(self.transformer.pooler(vectors[:, None]))
        return vectors if self.head is None else at_least_float32(self.head(vectors))

    def _states(self, ids: Tensor, mask: Tensor) -> Sequence[Tensor]:
        more = {} if reads_last_layer_alone(self.pooling) else {"output_hidden_states": True}
        whole = self._is_pretrained and bool(mask.all())  # transformers takes a faster way without a mask
        return self._layers(self.transformer(input_ids=ids, attention_mask=None if whole else mask.long(), **more))

    def _layers(self, output: Any) -> Sequence[Tensor]:
        """The hidden states of a module's output, as far as the pooling needs them."""
        last = output if isinstance(output, Tensor) else output.last_hidden_state
        if reads_last_layer_alone(self.pooling):
            return (last,)
        states = getattr(output, "hidden_states", None)
        if states is None:
            raise PoolingUnavailable(
                f"Pooling '{self.pooling}' needs the states of all layers, but {type(self.transformer).__name__} returns no hidden_states; "
                "take 'avg' or 'cls_before_pooler'."
            )
        return states or (last,)  # transformers gives none at all where there are no blocks

    def _probe(self) -> int:
        """The size of a pooled state, from one token; refuses a pooling that the module cannot give."""
        ids, mask = (
            torch.full((1, 2), self.padding, device=self.device),
            torch.tensor([[True, False]], device=self.device),
        )
        if self.pooling == OWN_POOLER and getattr(self.transformer, "pooler", None) is None:
            raise PoolingUnavailable("Pooling 'cls' needs the checkpoint's own pooler; open the encoder with it.")
        with evaluating(self, self.device):
            try:
                states = self._states(ids, mask)
            except TypeError as error:
                if reads_last_layer_alone(self.pooling):
                    raise
                raise PoolingUnavailable(
                    f"Pooling '{self.pooling}' needs the states of all layers, but {type(self.transformer).__name__} cannot be called with "
                    f"output_hidden_states=True ({error}); take 'avg' or 'cls_before_pooler'."
                ) from None
        # the embeddings are no layer to pool from the top
        layers_of(self.pooling, max(1, len(states) - 1) if top_layers(self.pooling) else len(states))
        with torch.inference_mode():
            return pool(states, mask, self.pooling).shape[-1]


def open_encoder(
    encoder: Any = None, options: Mapping[str, Any] | None = None, table: Table | None = None
) -> TextEncoder:
    """An encoder from what a user gives: nothing (the offline default), a name, a record, an encoder, or (module, tokeniser).

    `table`, what is to be learned from, has no say in it. `options` are names and values of EncoderOptions, text allowed. Raises SettingUnknown, SettingInvalid, UsageInvalid, and what
    `TextEncoder.open` raises.
    """
    chosen = parse_settings(EncoderOptions, options or {}, owner="the encoder").model_dump(exclude_none=True)
    if isinstance(encoder, Mapping):
        if "pooling" in encoder and "normalise" in encoder:  # complete, so a record
            return TextEncoder.from_record({**encoder, **chosen})
        named = dict(encoder)
        return open_encoder(named.pop("name", None), {**named, **chosen})
    if isinstance(encoder, tuple) and len(encoder) == 2:
        return TextEncoder(*encoder, **{"max_tokens": min(MAX_TOKENS, most_tokens(*encoder)), **chosen})
    if isinstance(encoder, TextEncoder):
        if chosen:
            raise UsageInvalid(
                f"encoder.{next(iter(chosen))} was given with an encoder that is made already; set it where it is made."
            )
        return encoder
    if encoder is not None and not isinstance(encoder, (str, Path)):
        kind = type(encoder).__name__
        raise UsageInvalid(f"encoder is a {kind}; give a name, a folder, a TextEncoder or (module, tokeniser).")
    return TextEncoder.open(str(encoder or OFFLINE), **chosen)


def load_encoder(folder: Path, record: Mapping[str, Any]) -> Encoder:
    """The encoder that `save` wrote into a folder. Raises EncoderNotRebuildable for a module of your own."""
    if "domains" in record:
        return importlib.import_module("contrapose.text._routing").load_routed_encoder(folder, record)
    encoder = TextEncoder.from_record(record, folder)
    if "prompt" in record:
        return prompted(encoder, record["prompt"])
    if "pair_head" in record:
        return importlib.import_module("contrapose.text._pair_encoder").load_pair_encoder(encoder, folder, record)
    return encoder

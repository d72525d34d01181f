"""Texts as token ids: tokenised once, kept on disk, handed out without padding."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import LongTensor, Tensor

from contrapose.data.arrow import is_text, open_arrow
from contrapose.data.batches import Data, Rows
from contrapose.data.cache import cache_folder, written_whole
from contrapose.data.check import CheckReport, TokenMeasure, check
from contrapose.data.plain import plain_columns
from contrapose.data.readers import read
from contrapose.data.table import Table, row_numbers
from contrapose.errors import TextInvalid, ValueKind
from contrapose.training.bar import Bar
from contrapose.training.method import Card

if TYPE_CHECKING:
    from contrapose.text.encoder import TextEncoder

BLOCK = 4096  # texts tokenised at once: enough to keep the tokeniser's threads busy, few enough to hold long documents
FORMAT = 1  # of the cached files; a new number leaves the old ones unread

read_data = read  # texts are what tables hold


@dataclass(frozen=True, eq=False)
class Tokens:
    """The token ids of b texts, one after another and without padding, special tokens included.

    `ids` (total,) and `lengths` (b,) are int64 on one device; the lengths add up to the total.
    """

    ids: LongTensor
    lengths: LongTensor

    @classmethod
    def from_lists(cls, texts: Sequence[Sequence[int] | Tensor]) -> Tokens:
        """From the ids of each text."""
        lengths = torch.tensor([len(text) for text in texts], dtype=torch.long)
        parts = [torch.as_tensor(text, dtype=torch.long) for text in texts]
        return cls(torch.cat(parts) if parts else torch.empty(0, dtype=torch.long), lengths)

    @classmethod
    def concat(cls, parts: Sequence[Tokens]) -> Tokens:
        """The texts of several, one after another."""
        return cls(torch.cat([part.ids for part in parts]), torch.cat([part.lengths for part in parts]))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: LongTensor | Sequence[int] | slice) -> Tokens:
        """Some texts, in the order asked for."""
        starts = self.lengths.cumsum(0) - self.lengths
        if not isinstance(rows, slice):
            rows = torch.as_tensor(rows, dtype=torch.long, device=self.lengths.device)
        lengths = self.lengths[rows]
        shifts = starts[rows] - (lengths.cumsum(0) - lengths)  # from a token's place in the answer to its place here
        places = torch.arange(int(lengths.sum()), device=self.ids.device) + shifts.repeat_interleave(lengths)
        return Tokens(self.ids[places], lengths)

    def to(self, device: torch.device | str) -> Tokens:
        return Tokens(self.ids.to(device), self.lengths.to(device))

    def split(self) -> tuple[LongTensor, ...]:
        """The ids of each text, b tensors of shape (length,)."""
        return self.ids.split(self.lengths.tolist())

    def padded(self, padding: int) -> tuple[LongTensor, Tensor]:
        """Ids (b, t), filled with `padding` on the right up to the longest text, and the mask (b, t) that is True on real tokens."""
        mask = mask_of(self.lengths)
        ids = self.ids.new_full(mask.shape, padding)
        ids[mask] = self.ids
        return ids, mask


def mask_of(lengths: LongTensor, least: int = 0) -> Tensor:
    """(b,) lengths to a bool mask (b, t), True on the first `length` places of each row; t is the largest length, or `least`."""
    longest = max(least, int(lengths.max()) if len(lengths) else 0)
    return torch.arange(longest, device=lengths.device) < lengths[:, None]


def chunks(lengths: Sequence[int], rows: int, tokens: int) -> Iterator[slice]:
    """Neighbouring texts in chunks of at most `rows` texts and `tokens` padded tokens; a longer text stands alone."""
    start = longest = 0
    for stop, length in enumerate(lengths):
        widest = max(longest, length)
        if stop > start and (stop - start == rows or widest * (stop - start + 1) > tokens):
            yield slice(start, stop)
            start, widest = stop, length
        longest = widest
    if start < len(lengths):
        yield slice(start, len(lengths))


def tokenise(
    texts: Sequence[str], tokenizer: Any, max_tokens: int, first: int = 0
) -> tuple[list[list[int]], np.ndarray]:
    """The ids of each text, cut to `max_tokens` with the special tokens included, and a bool array (n,): whether it was cut.

    `tokenizer(texts, truncation=True, max_length=n)["input_ids"]` is all that is asked of the tokeniser; `first` is the number that
    messages give to the first text. Raises TextInvalid for a value that is no text, or of which the tokeniser makes nothing at all.
    """
    for row, text in enumerate(texts, first):
        if not isinstance(text, str):
            raise TextInvalid(
                f"Value {row} is {text!r} ({type(text).__name__}), not text; an encoder of texts takes a list of str."
            )
    if not texts:
        return [], np.zeros(0, dtype=bool)
    quiet = (
        {"return_attention_mask": False, "return_token_type_ids": False, "verbose": False}
        if hasattr(tokenizer, "backend_tokenizer")
        else {}
    )
    ids = tokenizer(list(texts), truncation=True, max_length=max_tokens, **quiet)["input_ids"]
    for row, row_ids in enumerate(ids):
        if len(row_ids) == 0:
            raise TextInvalid(
                f"The tokeniser makes no token of text {first + row} ({texts[row]!r}), so it can have no vector; leave it out."
            )
    full = [row for row, row_ids in enumerate(ids) if len(row_ids) >= max_tokens]
    cut = np.zeros(len(ids), dtype=bool)
    if full:
        whole = tokenizer([texts[row] for row in full], truncation=False, **quiet)["input_ids"]
        cut[full] = [len(row_ids) > max_tokens for row_ids in whole]
    return ids, cut


def tokenised(texts: Sequence[str], by: Any, tokenizer: Any, max_tokens: int, first: int = 0) -> Tokens:
    """Texts through `by`, which is `tokenise` or takes what it takes, some at a time."""
    parts = []
    for start in range(0, len(texts), BLOCK):
        ids, _ = by(list(texts[start : start + BLOCK]), tokenizer, max_tokens, first + start)
        parts.append(Tokens.from_lists(ids))
    return Tokens.concat(parts) if parts else Tokens.from_lists([])


def tokenizer_fingerprint(tokenizer: Any) -> str | None:
    """SHA-256 of what a tokeniser does: of its whole description, or of class and vocabulary; None where it has neither."""
    if backend := getattr(tokenizer, "backend_tokenizer", None):
        description = json.loads(backend.to_str())
        description["truncation"] = description["padding"] = None  # every call sets these anew
        said = json.dumps(description, sort_keys=True)
    elif hasattr(tokenizer, "get_vocab"):
        said = json.dumps(
            [type(tokenizer).__module__, type(tokenizer).__qualname__, sorted(tokenizer.get_vocab().items())]
        )
    else:
        return None
    return hashlib.sha256(said.encode()).hexdigest()


class TokenColumn:
    """A column of n texts, tokenised once: `column[rows]` are the Tokens of those rows, read from an Arrow file mapped into memory.

    `lengths` (n,) int64 counts tokens, special ones included; `truncated` counts the texts that were cut to `max_tokens`.
    `texts` are the texts themselves, where they are known.
    """

    texts: Sequence[str] | None = None

    def __init__(self, table: pa.Table, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self.truncated = int(sum(chunk.true_count for chunk in table["cut"].chunks))
        self._chunks = [(chunk.values.to_numpy(), chunk.offsets.to_numpy()) for chunk in table["ids"].chunks]
        self._starts = np.cumsum([0, *(len(offsets) - 1 for _, offsets in self._chunks)])
        lengths = [np.diff(offsets) for _, offsets in self._chunks]
        self.lengths = torch.from_numpy(np.concatenate([np.zeros(0, np.int64), *lengths]))

    @classmethod
    def open(
        cls, texts: Sequence[str], tokenizer: Any, max_tokens: int, cache: Path | str | None = None
    ) -> TokenColumn:
        """Tokenise a column, or find it in the cache by its content, its tokeniser and `max_tokens`.

        `cache`: a folder; None: the one of `contrapose.data.cache`. A tokeniser without vocabulary has no fingerprint and is not cached.
        Raises TextInvalid as `tokenise` does.
        """
        fingerprint = tokenizer_fingerprint(tokenizer)
        if fingerprint is None:
            sink = pa.BufferOutputStream()
            _write(texts, tokenizer, max_tokens, sink)
            return cls(pa.ipc.open_file(sink.getvalue()).read_all(), max_tokens)
        path = cache_folder(cache) / "tokens" / f"{_key(texts, fingerprint, max_tokens)}.arrow"
        table = open_arrow(path)
        if table is None:
            with written_whole(path) as part, pa.OSFile(str(part), "wb") as sink:
                _write(texts, tokenizer, max_tokens, sink)
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return cls(table, max_tokens)

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, rows: LongTensor | Sequence[int]) -> Tokens:
        numbers = row_numbers(rows, len(self))
        chunk = np.searchsorted(self._starts, numbers, side="right") - 1
        places = numbers - self._starts[chunk]
        parts = []
        for number, place in zip(chunk.tolist(), places.tolist(), strict=True):
            values, offsets = self._chunks[number]
            parts.append(values[offsets[place] : offsets[place + 1]])
        ids = np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int64)
        return Tokens(torch.from_numpy(ids), self.lengths[numbers])

    def __repr__(self) -> str:
        return f"TokenColumn({len(self):,} texts, {int(self.lengths.sum()):,} tokens, {self.truncated:,} cut to {self.max_tokens})"


def texts_of(column: TokenColumn | Rows) -> list[str]:
    """The texts of a tokenised column, or of some of its rows, for what reads words and not tokens."""
    if isinstance(column, Rows):
        texts = texts_of(column.column)
        return [texts[row] for row in column.rows.tolist()]
    return list(column.texts)


def blocks(texts: Sequence[str], size: int = BLOCK) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield list(texts[start : start + size])


def _key(texts: Sequence[str], fingerprint: str, max_tokens: int) -> str:
    digest = hashlib.sha256(f"{FORMAT} {fingerprint} {max_tokens}\n".encode())
    for block in blocks(texts):
        digest.update(json.dumps(block, default=repr).encode())
        digest.update(b"\n")
    return digest.hexdigest()


def _write(texts: Sequence[str], tokenizer: Any, max_tokens: int, sink: Any) -> None:
    schema = pa.schema([("ids", pa.large_list(pa.int32())), ("cut", pa.bool_())])
    with pa.ipc.new_file(sink, schema) as writer, Bar("Tokenising", len(texts)) as bar:
        for number, block in enumerate(blocks(texts)):
            ids, cut = tokenise(block, tokenizer, max_tokens, number * BLOCK)
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))
            values = np.concatenate([np.asarray(row, np.int32) for row in ids])
            column = pa.LargeListArray.from_arrays(np.concatenate([[0], lengths.cumsum()]), values)
            writer.write_batch(pa.record_batch([column, pa.array(cut)], schema=schema))
            bar.advance(len(block))


def open_data(table: Table, card: Card, encoder: TextEncoder) -> Data:
    """A checked table as what a method trains on: text columns as token ids, labels and domains as codes, numbers as float32."""
    encoded = [column for column in card.columns if column.kind == "text"]
    columns, categories = plain_columns(table, [column for column in card.columns if column not in encoded])
    opened = {column.name: encoder.open_column(table[column.name]) for column in encoded if column.name in table}
    return Data({**columns, **opened}, len(table), table.group, categories, table.source, table.fingerprint)


def check_data(table: Table, card: Card, encoder: TextEncoder, batch_size: int) -> CheckReport:
    """What is wrong with texts for a method, by row, as the encoder sees them."""
    tokenizer = encoder.tokenizer

    def count(texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in tokenizer(list(texts), truncation=False, verbose=False)["input_ids"]]

    def decode(text: str) -> str:
        return tokenizer.decode(tokenizer(text, truncation=True, max_length=encoder.max_tokens)["input_ids"])

    return check(table, card.columns, batch_size=batch_size, tokens=TokenMeasure(count, decode, encoder.max_tokens))


def values_of(table: Table, column: str, encoder: Any) -> Sequence[Any]:
    """A column's values as an encoder takes them: texts, each with its domain where the encoder routes by one and the table has it."""
    if getattr(encoder, "domains", None) is None or "domain" not in table:
        return table[column]
    return TextsWithDomain(table[column], table["domain"])


class TextsWithDomain(Sequence[Any]):
    """{"text": …, "domain": …} for each row, read when asked for."""

    def __init__(self, texts: Sequence[str], domains: Sequence[Any]) -> None:
        self.texts, self.domains = texts, domains

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, int):
            return self[[rows]][0]
        both = zip(self.texts[rows], self.domains[rows], strict=True)
        return [{"text": text, "domain": str(domain)} for text, domain in both]


def refuse_values(table: Table, column: str) -> None:
    """Raises ValueKind, with the place of the first, for values of a column that are no text: nothing is embedded before that is known."""
    values = table.arrow(column)
    if is_text(values.type) and not values.null_count:
        return
    unfit = [row for row, value in enumerate(table[column]) if not isinstance(value, str)]
    if unfit:
        count = "the only such row" if len(unfit) == 1 else f"{len(unfit):,} such rows in all"
        raise ValueKind(
            f"{table.where(unfit[0])}: column '{column}' is {table[column][unfit[0]]!r}, not text ({count}). "
            "Leave such rows out, or name another column."
        )

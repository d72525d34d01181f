"""One transformer, several expert copies of its MLPs: each text goes through the experts of its domain."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import LongTensor, Tensor, nn

from contrapose.data.batches import count, take
from contrapose.errors import ArgumentInvalid, DomainUnknown, ExpertsUnavailable, TextInvalid
from contrapose.text._heads import load_part
from contrapose.text.data import Tokens
from contrapose.text.encoder import TextEncoder
from contrapose.training.encoder import Encoder
from contrapose.training.precision import Precision

Experts = Literal["all", "middle", "none"]
PLACES = (("intermediate", "output.dense"), ("mlp",), ("ffn",), ("feed_forward",))  # what blocks call their MLP
FILE, SHARED = "experts.safetensors", "shared"


def route(inputs: Any, assignment: LongTensor, experts: int, through: Callable[[int, Any], Tensor]) -> Tensor:
    """Each of b rows through the expert that it is assigned to: `through(expert, its rows)`, and the results in the order of the rows.

    inputs: collated rows; assignment: (b,) integers from 0 to experts − 1. An expert without rows is not called, and has no gradient.
    Raises ArgumentInvalid for another number of assignments, for other integers, and for what is no integer.
    """
    if experts < 1:
        raise ArgumentInvalid(f"there must be one expert at least; got {experts}.")
    if assignment.is_floating_point() or assignment.shape != (count(inputs),):
        raise ArgumentInvalid(
            f"{count(inputs)} rows need as many integers that say their expert; got {assignment.dtype} of shape {tuple(assignment.shape)}."
        )
    if assignment.numel() and not (int(assignment.min()) >= 0 and int(assignment.max()) < experts):
        raise ArgumentInvalid(
            f"experts are numbered 0 to {experts - 1}; got {int(assignment.min())} to {int(assignment.max())}."
        )
    if not assignment.numel():
        return through(0, inputs)
    rows = [(assignment == expert).nonzero().flatten() for expert in assignment.unique().tolist()]
    parts = [through(int(assignment[own[0]]), take(inputs, own)) for own in rows]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def copies(mlp: nn.Module, experts: int) -> nn.ModuleList:
    """Deep copies of a pretrained MLP, one an expert: at first they compute what it computes."""
    return nn.ModuleList(copy.deepcopy(mlp) for _ in range(experts))


def mlp_places(transformer: nn.Module) -> list[tuple[str, ...]]:
    """For each block, the names of the modules that are its MLP; norms around it are not. Raises ExpertsUnavailable."""
    for name, blocks in transformer.named_modules():
        if not isinstance(blocks, nn.ModuleList) or not len(blocks):
            continue
        for parts in PLACES:
            if all(_has(block, part) for block in blocks for part in parts):
                return [tuple(f"{name}.{number}.{part}" for part in parts) for number in range(len(blocks))]
    raise ExpertsUnavailable(
        f"{type(transformer).__name__} has no blocks with an MLP that could be copied (mlp, ffn, feed_forward, or intermediate and "
        "output.dense); take another encoder, with one layer at least, or experts=none."
    )


def _has(block: nn.Module, part: str) -> bool:
    try:
        return isinstance(block.get_submodule(part), nn.Module)
    except AttributeError:
        return False


class Vacant(nn.Module):
    """Where an expert stands while its transformer is in use."""


class RoutedEncoder(Encoder):
    """A text encoder whose MLPs, in all blocks or in the middle one, have a copy for each domain; the rest is shared.

    `forward` takes {"text": tokens, "domain": (b,) numbers of domains}. `encode` takes {"text": …, "domain": …}, or plain texts where
    `fallback` names a domain; it stands for unknown ones as well. With `domain_token` the first token of a text is its domain's,
    at first a copy of [CLS]. Raises ExpertsUnavailable.
    """

    def __init__(
        self,
        text: TextEncoder,
        domains: Sequence[str],
        *,
        experts: Experts = "all",
        domain_token: bool = True,
        fallback: str | None = None,
        vocabulary: int | None = None,
    ) -> None:
        """`vocabulary`: words of the tokeniser, where the domains' tokens have been added after them already."""
        super().__init__()
        self.text, self.domains, self.dim = text, tuple(domains), text.dim
        self.kind, self.domain_token, self.fallback = experts, domain_token, fallback
        if fallback is not None and fallback not in self.domains:
            raise DomainUnknown(f"fallback '{fallback}' is none of the domains: {', '.join(self.domains)}.")
        blocks = [] if experts == "none" else mlp_places(text.transformer)
        blocks = blocks[len(blocks) // 2 :][:1] if experts == "middle" else blocks
        self.places = [place for block in blocks for place in block]
        self.experts = nn.ModuleList(
            nn.ModuleList(of_domain)
            for of_domain in zip(*(copies(self._at(place), len(domains)) for place in self.places), strict=True)
        )
        for place in self.places:
            self._put(place, Vacant())
        self.vocabulary = vocabulary
        if domain_token and vocabulary is None:
            self._add_domain_tokens()

    def forward(self, inputs: Mapping[str, Any]) -> Tensor:
        tokens, domain = inputs["text"], inputs["domain"]
        tokens = self._opened_by_domain(tokens, domain) if self.domain_token else tokens
        if not self.places:
            return self.text(tokens)
        return route(tokens, domain, len(self.domains), self._through)

    def encode(
        self,
        values: Sequence[str | Mapping[str, str]],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Vectors of n texts with their domains, float32 (n, dim). Raises DomainUnknown, which lists the domains, and TextInvalid."""
        if isinstance(values, (str, Mapping)):
            raise TextInvalid(
                "encode takes a list of texts with their domains and was given one; write encode([value])."
            )
        texts, domain = self._told_apart(values)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        for number in np.unique(domain).tolist():
            rows = np.flatnonzero(domain == number)
            with self._as_plain(number):
                own = [texts[row] for row in rows]
                vectors[rows] = self.text.encode(own, batch_size=batch_size, progress=progress, precision=precision)
        return vectors

    def plain(self, domain: str) -> TextEncoder:
        """One domain's encoder as an ordinary one, a copy: it needs no domain, and saves as a plain model folder. Raises DomainUnknown."""
        with self._as_plain(self._number(domain, "")):
            text = copy.deepcopy(self.text)
        if self.domain_token:
            _resize(text.transformer, text.transformer.get_input_embeddings().weight[: self.vocabulary])
        return text

    def tokens(self, texts: Sequence[str], first: int = 0) -> Tokens:
        return self.text.tokens(texts, first)

    exports_to_sentence_transformers = False  # it has no routing

    @property
    def pooling(self) -> str:
        return self.text.pooling

    @property
    def device(self) -> torch.device:
        return self.text.device

    def record(self) -> dict[str, Any]:
        own = {"experts": self.kind, "domain_token": self.domain_token, "fallback": self.fallback}
        return {**self.text.record(), "domains": list(self.domains), **own, "vocabulary": self.vocabulary}

    def save(self, folder: Path | str) -> None:
        """The shared parts, with the first domain's experts in their places, in a folder within; and the experts of all domains."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with self._standing(0):
            self.text.save(folder / SHARED)
        save_file({name: weight.contiguous() for name, weight in self.experts.state_dict().items()}, folder / FILE)

    def __repr__(self) -> str:
        return f"RoutedEncoder({self.text}; domains {', '.join(self.domains)}; experts in {self.kind} blocks)"

    def _through(self, domain: int, tokens: Tokens) -> Tensor:
        with self._standing(domain):
            return self.text(tokens)

    @contextmanager
    def _standing(self, domain: int) -> Iterator[None]:
        """Within it the experts of a domain stand in the transformer's blocks."""
        experts = self.experts[domain] if self.places else ()
        for place, expert in zip(self.places, experts, strict=True):
            self._put(place, expert)
        try:
            yield
        finally:
            for place in self.places:
                self._put(place, Vacant())

    @contextmanager
    def _as_plain(self, domain: int) -> Iterator[None]:
        """Within it the text encoder is that of a domain, whose token stands in the place of [CLS]. Without gradient."""
        with self._standing(domain):
            if not self.domain_token:
                yield
                return
            weight, first = self.text.transformer.get_input_embeddings().weight.data, self._first_token()
            before = weight[first].clone()
            weight[first] = weight[self.vocabulary + domain]
            try:
                yield
            finally:
                weight[first] = before

    def _told_apart(self, values: Sequence[str | Mapping[str, str]]) -> tuple[list[str], np.ndarray]:
        texts, domain = [], []
        for row, value in enumerate(values):
            told = isinstance(value, Mapping)
            if told and "text" not in value:
                raise TextInvalid(f'Value {row} has no "text"; write {{"text": …, "domain": …}}.')
            texts.append(value["text"] if told else value)
            name = value.get("domain") if told else None
            domain.append(self._number(None if name is None else str(name), f"Value {row}"))
        return texts, np.array(domain, dtype=np.int64)

    def _number(self, domain: str | None, whose: str) -> int:
        if domain not in self.domains and self.fallback is not None:
            domain = self.fallback
        if domain in self.domains:
            return self.domains.index(domain)
        said = "no domain" if domain is None else f"the unknown domain '{domain}'"
        raise DomainUnknown(
            f"{whose or 'The call'} has {said}; the encoder routes by domain: {', '.join(self.domains)}. Give "
            '{"text": …, "domain": …}, or set fallback to the domain that stands for others.'
        )

    def _opened_by_domain(self, tokens: Tokens, domain: LongTensor) -> Tokens:
        """The first token of each text replaced by that of its domain."""
        starts = tokens.lengths.cumsum(0) - tokens.lengths
        return Tokens(tokens.ids.index_copy(0, starts, self.vocabulary + domain.to(tokens.ids)), tokens.lengths)

    def _first_token(self) -> int:
        """[CLS], or what the tokeniser opens a text with."""
        tokenizer = self.text.tokenizer
        for name in ("cls_token_id", "bos_token_id"):
            if (number := getattr(tokenizer, name, None)) is not None:
                return number
        raise ExpertsUnavailable(
            "The tokeniser opens no text with a token that a domain's could replace; set domain_token=false."
        )

    def _add_domain_tokens(self) -> None:
        first, transformer = self._first_token(), self.text.transformer
        if not hasattr(transformer, "set_input_embeddings"):
            raise ExpertsUnavailable(
                f"{type(transformer).__name__} cannot be given more tokens (it has no set_input_embeddings); set domain_token=false."
            )
        weight = transformer.get_input_embeddings().weight.detach()
        self.vocabulary = len(weight)
        _resize(transformer, torch.cat([weight, weight[first].expand(len(self.domains), -1)]))

    def _at(self, place: str) -> nn.Module:
        return self.text.transformer.get_submodule(place)

    def _put(self, place: str, module: nn.Module) -> None:
        parent, _, name = place.rpartition(".")
        setattr(self.text.transformer.get_submodule(parent), name, module)


def _resize(transformer: nn.Module, weight: Tensor) -> None:
    """Give a transformer these word vectors."""
    old = transformer.get_input_embeddings()
    new = nn.Embedding(*weight.shape, padding_idx=old.padding_idx, _weight=weight.detach().clone())
    transformer.set_input_embeddings(new.train(old.training))
    if hasattr(transformer, "config"):
        transformer.config.vocab_size = len(weight)


def load_routed_encoder(folder: Path, record: Mapping[str, Any]) -> RoutedEncoder:
    """What `save` wrote. Raises WeightsBroken, and EncoderNotRebuildable for a module of your own."""
    names = ("experts", "domain_token", "fallback", "vocabulary")
    text = TextEncoder.from_record(record, folder / SHARED)
    routed = RoutedEncoder(text, record["domains"], **{name: record[name] for name in names})
    load_part(routed.experts, folder / FILE)
    return routed.eval()

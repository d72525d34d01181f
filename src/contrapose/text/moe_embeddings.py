"""MoE embeddings: one encoder for several domains, with an expert MLP for each."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import LongTensor, Tensor

from contrapose.data.batches import Batch, Data, Facts, concat, take
from contrapose.data.columns import Column
from contrapose.errors import ArgumentInvalid, DomainUnknown
from contrapose.objectives import info_nce
from contrapose.text._heads import NormedHead
from contrapose.text._routing import RoutedEncoder, copies, route
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings

__all__ = ["MoEEmbeddings", "NormedHead", "cocited_pairs", "copies", "mnr", "mnr_plus", "mnr_plus_targets", "route"]

Similarity = Literal["cosine", "dot"]


class MoEEmbeddings(ViewMethod):
    r"""Learn from pairs of texts in several known domains, with an expert copy of the MLPs for each domain and all else shared.

    Pick it when the pairs that belong together mean something else in each domain, the domain of every text is known when it is encoded
    too, and one model is to serve all. With one domain, or where the domain will not be known, use `pairs`.

    In every block, or in the middle one alone (`experts=middle`), the MLP is replaced by as many copies as there are domains; a text goes
    through those of its domain, so it costs what it did before. At first the copies compute what the pretrained MLP computes. The first
    token of a text is replaced by its domain's (`domain_token`). A head stands on the pooled state: LayerNorm, linear, tanh, linear.
    `experts=none` is one shared encoder.

    With $a_i, b_i$ the vectors of the two texts of pair i, (b, d), $S = A B^\top / \tau$, in-batch negatives of every domain and
    $\mathrm{CE}(S, t) = -\frac{1}{b} \sum_i \log \frac{e^{S_{i t_i}}}{\sum_j e^{S_{ij}}}$, `mnr` is $\mathrm{CE}(S, i)$ and `mnr_plus`

    $$L = \frac{1}{2} \left( \mathrm{CE}(S, t) + \mathrm{CE}(S^\top, c) \right), \quad
      P = \mathrm{softmax}_{\mathrm{rows}} \tfrac{1}{2}(A A^\top + B B^\top), \quad
      t_i = \arg\max_j P_{ij}, \quad c_j = \arg\max_i P_{ij}.$$

    With unit vectors t and c are nearly always the pair itself, and `mnr_plus` is the symmetric loss; with dot products a row beside one of
    a large norm is sent to that one. The rows' softmax serves the columns too, as in the official code. At chance $L = \log b$.

    **Example.** The domain goes with the text; one domain's encoder is an ordinary one:

    ```python
    import contrapose

    run = contrapose.train("moe_embeddings", data="pairs.csv", out="runs/moe")  # columns anchor, positive, domain
    run.model.encode([{"text": "a sleeping cat", "domain": "animal"}])
    animals = contrapose.Model({"encoder": run.model.encoder().plain("animal")}, "text", "moe_embeddings")
    animals.save("animals")
    ```

    **Pitfalls.** The official loss is `similarity=dot` with `temperature=1` on vectors that are not normalised, so the head alone sets its
    scale; the default here is the cosine over 0.05, as in the classical multiple-negatives loss. Batches mix domains, so many negatives are
    easy; `same_domain_batches` keeps them apart. Every training pair is a positive. An unknown domain is an error unless `fallback` names one.

    Hallee et al., 2024; official code Gleghorn-Lab/Mixture-of-Experts-Sentence-Similarity at 2a67569. Left out: the learned router, token-wise
    routing and gated experts of its earlier version.
    """

    card = Card(
        modality="text",
        title="MoE embeddings: an expert for each domain",
        paper="Contrastive Learning and Mixture of Experts Enables Precise Vector Embeddings",
        venue="arXiv 2401.15713",
        year=2024,
        url="https://arxiv.org/abs/2401.15713",
        columns=(
            Column("anchor", "text", "One text of the pair."),
            Column("positive", "text", "The text that belongs to it."),
            Column("domain", "domain", "The domain of both."),
        ),
    )

    class Settings(MethodSettings):
        # the official full experiment; temperature: the classical loss
        batch_size: PositiveInt = Field(16, description="Pairs in a batch, over all processes; the contrast set.")
        learning_rate: PositiveFloat = Field(1e-4, description="Peak learning rate.")
        loss: Literal["mnr_plus", "mnr"] = Field(
            "mnr_plus", description="Both directions with targets by similarity, or rows alone."
        )
        similarity: Similarity = Field("cosine", description="The official code has dot.")
        temperature: PositiveFloat | None = Field(
            None, description="Divides the similarities; empty: 0.05 for cosine, 1 for dot."
        )
        experts: Literal["all", "middle", "none"] = Field(
            "all", description="In which blocks the MLP has a copy a domain."
        )
        domain_token: bool = Field(True, description="The first token of a text is its domain's.")
        head: Literal["normed", "none"] = Field(
            "normed", description="LayerNorm, linear, tanh, linear on the pooled state, or nothing."
        )
        swap: bool = Field(True, description="The two texts of a pair change sides at random each time.")
        same_domain_batches: bool = Field(False, description="Each batch is of one domain.")
        fallback: str | None = Field(
            None, description="The domain that stands for unknown ones at encoding; empty: an error."
        )

        @model_validator(mode="after")
        def scale(self) -> MoEEmbeddings.Settings:
            if self.similarity == "cosine" and self.temperature is not None and self.temperature > 1:
                raise ValueError(
                    f"temperature {self.temperature} is above 1, which leaves cosines no room; 0.05 is usual"
                )
            return self

    @property
    def temperature(self) -> float:
        return self.settings.temperature or {"cosine": 0.05, "dot": 1.0}[self.settings.similarity]

    def build(self, facts: Facts) -> None:
        settings = self.settings
        if settings.head == "normed":
            self.encoder.put_head(NormedHead(self.encoder.dim))
        self.encoder = RoutedEncoder(
            self.encoder,
            facts.categories["domain"],
            experts=settings.experts,
            domain_token=settings.domain_token,
            fallback=settings.fallback,
        )

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        if self.settings.fallback is not None:
            return
        known = set(data.categories["domain"])
        for protocol in protocols:
            domains = getattr(protocol, "domains", None)
            strangers = set() if domains is None else set(domains) - known
            if domains is None or strangers:
                what = f"the unknown domain '{min(strangers)}'" if strangers else "no column 'domain' that it is told"
                raise DomainUnknown(
                    f"{protocol.name} on {protocol.source} has {what}; the encoder routes by {', '.join(sorted(known))}. "
                    "Measure by pair_labels with a column 'domain', or set fallback to the domain that stands for others."
                )

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        if not self.settings.same_domain_batches:
            return super().batches(data, epoch, generator)
        domain = data.columns["domain"][torch.arange(len(data))]
        found = []
        for number in domain.unique().tolist():
            rows = (domain == number).nonzero().flatten()
            found += rows[torch.randperm(len(rows), generator=generator)].split(self.settings.batch_size)
        found = [batch for batch in found if len(batch) > 1]  # a row alone has no negative
        return [found[place] for place in torch.randperm(len(found), generator=generator).tolist()]

    def views(self, batch: Batch) -> dict[str, View]:
        sides, domain = concat([batch["anchor"], batch["positive"]]), batch["domain"]
        swapped = (batch.uniform() < 0.5).long() if self.settings.swap else torch.zeros_like(domain)
        row, b = torch.arange(len(batch), device=domain.device), len(batch)
        places = {"first": row + b * swapped, "second": row + b * (1 - swapped)}
        return {name: View({"text": take(sides, place), "domain": domain}) for name, place in places.items()}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        loss = {"mnr": mnr, "mnr_plus": mnr_plus}[self.settings.loss]
        a, b = embeddings["first"], embeddings["second"]
        return {
            self.settings.loss: loss(
                a, b, similarity=self.settings.similarity, temperature=self.temperature, group=batch.group
            )
        }

    def chance(self, batch: Batch) -> dict[str, float]:
        return {self.settings.loss: math.log(len(batch))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1


def mnr(
    a: Tensor, b: Tensor, *, similarity: Similarity = "dot", temperature: float = 1.0, group: LongTensor | None = None
) -> Tensor:
    """Multiple negatives ranking: the cross-entropy of each row of A Bᵀ / temperature with its own column; a, b (n, d)."""
    return info_nce(a, b, temperature=temperature, similarity=similarity, group=group)


def mnr_plus(
    a: Tensor, b: Tensor, *, similarity: Similarity = "dot", temperature: float = 1.0, group: LongTensor | None = None
) -> Tensor:
    """The mean of the cross-entropies of rows and of columns of A Bᵀ / temperature, with the targets of `mnr_plus_targets`; a, b (n, d).

    With a `group` (n,) targets are the pairs themselves: its rows are known to be alike, so that nothing has to be guessed.
    """
    options: dict[str, Any] = {"temperature": temperature, "similarity": similarity, "group": group}
    if group is not None:
        return info_nce(a, b, symmetric=True, **options)
    rows, columns = mnr_plus_targets(a, b, similarity=similarity)
    return (info_nce(a, b, index=rows, **options) + info_nce(b, a, index=columns, **options)) / 2


@torch.no_grad()
def mnr_plus_targets(a: Tensor, b: Tensor, *, similarity: Similarity = "dot") -> tuple[LongTensor, LongTensor]:
    """The targets of rows and of columns, (n,) each, of a, b (n, d); no gradient flows. Of equal ones the first counts."""
    a, b = (side if side.dtype == torch.float64 else side.float() for side in (a, b))
    if similarity == "cosine":
        a, b = (torch.nn.functional.normalize(side, dim=-1) for side in (a, b))
    shares = ((a @ a.T + b @ b.T) / 2).softmax(dim=1)
    return shares.argmax(dim=1), shares.argmax(dim=0)


def cocited_pairs(
    citations: Iterable[tuple[str, str]], documents: Mapping[str, Mapping[str, str]], *, least: int = 1
) -> list[dict[str, str]]:
    """Pairs of documents of one domain that are cited together, as rows for training: anchor, positive, domain.

    citations: (citing, cited) names. documents: name to {"text": …, "domain": …}; cited ones that are not there are passed over. `least`:
    how many documents must cite both. Each pair stands once, in the order of the names. Raises ArgumentInvalid for `least` below 1.
    """
    if least < 1:
        raise ArgumentInvalid(f"least is {least}; a pair must be cited together once at least.")
    cited_by = defaultdict(set)
    for citing, cited in citations:
        if cited in documents:
            cited_by[citing].add(cited)
    together = Counter(pair for cited in cited_by.values() for pair in combinations(sorted(cited), 2))
    return [
        {"anchor": documents[a]["text"], "positive": documents[b]["text"], "domain": documents[a]["domain"]}
        for (a, b), times in sorted(together.items())
        if times >= least and documents[a]["domain"] == documents[b]["domain"]
    ]

"""DefSent+: a definition predicts its entry among all entries of a dictionary, whose vectors are made of definitions themselves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator
from torch import LongTensor, Tensor

from contrapose.data.batches import Batch, Data, Facts, shuffled_batches
from contrapose.data.columns import Column
from contrapose.errors import DictionaryInvalid, ShapesDiffer
from contrapose.geometry import mean_cosine
from contrapose.objectives import info_nce
from contrapose.text._definitions import read_definitions
from contrapose.text._entries import (
    Isotropy,
    entry_vectors,
    isotropised,
    kept_entry_vectors,
    kept_isotropised,
    refuse_few_entries,
)
from contrapose.text._entry_head import EntryHead, activation_of, checkpoint_head
from contrapose.text._prompt import pooled, prompted
from contrapose.text.data import texts_of
from contrapose.training.encoder import Encoder
from contrapose.training.method import Card, Method, Stage, StageRecord, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings

__all__ = ["DefSentPlus", "EntryHead", "entry_cross_entropy", "entry_vectors", "isotropised", "read_definitions"]

Pooled = Literal["cls_before_pooler", "avg"]


class DefSentPlus(ViewMethod):
    r"""Learn sentence embeddings from a dictionary: each definition predicts its entry among all entries.

    Pick it when you have a dictionary, glossary, ontology or catalogue: names with a definition or several, and no pairs of sentences. It
    trains a raw encoder, and goes on cheaply from one that SimCSE or another method has trained. With raw sentences alone use `esimcse`.

    Entry $e$ with definitions $D_e$ has the vector $m_e$, the mean of their pooled states by a frozen encoder, in evaluation mode and without
    a head (the paper's AC: `entry_pooling=cls_before_pooler`; AMP: `avg`); so an entry may be of any number of words. With $p_x$ the pooled
    state of a definition x of entry e, (b, d), and the rows of M all entries,

    $$q_x = \mathrm{act}(W p_x + b), \quad L = -\frac{1}{b} \sum_x \log \frac{e^{q_x \cdot m_{e}}}{\sum_{k} e^{q_x \cdot m_k}}.$$

    Dot products, no temperature, and M is frozen: only the encoder, W and b learn. The negatives are all other entries, in tiles, so that
    100,000 of them fit. At chance $L = \log E$. W and b start from the checkpoint's own pooler (tanh), for the RoBERTa family from the
    first layer of its masked-language-model head (GELU); the head is left out afterwards.

    Progressive separate training: round 1 takes M from the encoder as it was given, $\theta_0$, and trains it to $\theta_1$; round 2 takes M
    from $\theta_1$ and trains **again from** $\theta_0$; and so on. The entries alone progress, and become more even in all directions, which is
    what makes them good targets. `isotropy=ica` makes them so in the last round: independent components (FastICA) times 100, which the paper
    advises for raw BERT; `whiten` and `normalise` are simpler ways. `entry_cosine` is the mean cosine of M's rows, 0 where they are even.

    `targets=words` is the predecessor, DefSent: the entries of one token alone, and their vectors the encoder's own word embeddings.

    **Example.** A CSV with a definition a row; an entry with several has several rows:

    ```python
    import contrapose
    from contrapose.text.defsent_plus import read_definitions

    run = contrapose.train("defsent_plus", data="terms.csv", out="runs/terms")  # columns entry, definition
    rows = read_definitions("dictionary.txt")  # the official form: entry, tab, definitions parted by <|list_more_def|>
    run = contrapose.train("defsent_plus", data=rows, out="runs/dictionary", rounds=3, isotropy="ica")
    ```

    **Pitfalls.** ICA times 100 saturates the softmax of a small encoder: lower `isotropy_scale`. It needs more entries than dimensions, and
    minutes for 100,000 entries; what does not converge is used, and said. Synonyms with one definition are each other's negatives, as in the
    official code; a `group_id` does not change that. Definitions are cut to `encoder.max_tokens`; the official scripts have 141. AdamW's
    epsilon is torch's 1e-8, theirs 1e-6. `sampled_entries`, `whiten` and `normalise` are ours. A checkpoint of one's own module has no head,
    so it starts from fresh weights.

    Liu, 2024; official code ryuliuxiaodong/DefSent-Plus at 18785dd, predecessor hppRC/defsent at d488c2d.
    """

    card = Card(
        modality="text",
        title="DefSent+: sentence embeddings from a dictionary",
        paper="DefSent+: Improving sentence embeddings of language models by projecting definition sentences into a quasi-isotropic or isotropic "
        "vector space of unlimited dictionary entries",
        venue="arXiv 2405.16153",
        year=2024,
        url="https://arxiv.org/abs/2405.16153",
        columns=(
            Column("entry", "label", "What is defined: a word, a term, a name."),
            Column("definition", "text", "A definition of it; an entry with several has several rows."),
        ),
    )

    class Settings(MethodSettings):
        # the official guide's examples
        batch_size: PositiveInt = Field(32, description="Definitions in a batch, over all processes.")
        learning_rate: NonNegativeFloat = Field(2e-5, description="Peak learning rate; 1e-6 goes on from SynCSE.")
        rounds: PositiveInt = Field(
            2, description="Trainings, each from the first weights, with entries by the last one."
        )
        learning_rates: str | None = Field(
            None, description="Peak learning rate of each round, as 2e-5,5e-6; empty: learning_rate in all."
        )
        targets: Literal["definitions", "words"] = Field(
            "definitions", description="What entries' vectors are made of; words: DefSent, entries of one token alone."
        )
        entry_pooling: Pooled = Field("cls_before_pooler", description="Of entries: AC, or avg for AMP.")
        sentence_pooling: Pooled = Field("avg", description="Of definitions in training.")
        pooling: Literal["cls_before_pooler", "avg", "prompt"] | None = Field(
            None,
            description="Afterwards; empty: as in training. prompt: the state of the mask in 'This sentence : \"X\" means [MASK] .'",
        )
        head: Literal["auto", "tanh", "gelu"] = Field(
            "auto", description="Activation after the linear layer; auto: gelu for the RoBERTa family, else tanh."
        )
        isotropy: Isotropy = Field("none", description="How entries are made even in all directions.")
        isotropy_rounds: Literal["last", "every"] = Field("last", description="In which rounds they are.")
        isotropy_scale: PositiveFloat | None = Field(
            None, description="Times this; an inverse temperature. Empty: 100 for ica and whiten, 8 for normalise."
        )
        ica_iterations: PositiveInt = Field(1000, description="Most iterations of FastICA.")
        ica_seed: int = Field(42, ge=0, description="Of FastICA's start; signs and order of components follow from it.")
        sampled_entries: PositiveInt | None = Field(
            None, description="Negative entries drawn for each batch, the sum over them weighed up; empty: all."
        )

        @field_validator("learning_rates", mode="before")
        @classmethod
        def rates_as_text(cls, rates: Any) -> Any:
            return ",".join(str(rate) for rate in rates) if isinstance(rates, (list, tuple)) else rates

        @model_validator(mode="after")
        def one_rate_a_round(self) -> DefSentPlus.Settings:
            if self.learning_rates is not None:
                try:
                    rates = [float(rate) for rate in self.learning_rates.split(",")]
                except ValueError:
                    rates = []
                if len(rates) != self.rounds or not all(0 <= rate < math.inf for rate in rates):
                    raise ValueError(
                        f"learning_rates '{self.learning_rates}' must be {self.rounds} numbers with commas, one a round"
                    )
            if self.targets == "words" and self.rounds > 1:
                raise ValueError("targets=words knows no rounds, since word embeddings stay as they are; set rounds=1")
            return self

        def of_round(self, number: int) -> DefSentPlus.Settings:
            """What is particular to a round, counted from 0."""
            changes: dict[str, Any] = {}
            if self.learning_rates is not None:
                changes["learning_rate"] = float(self.learning_rates.split(",")[number])
            if self.isotropy_rounds == "last" and number < self.rounds - 1:
                changes["isotropy"] = "none"
            return self.model_copy(update=changes)

    def next_stage(self, finished: Sequence[StageRecord]) -> Stage | None:
        """Every round starts from the initial weights; `prepare` is handed the last one's model."""
        number, settings = len(finished), self.settings
        if number == settings.rounds:
            return None
        return Stage("train" if number == settings.rounds - 1 else f"round-{number + 1}", settings.of_round(number))

    def build(self, facts: Facts) -> None:
        settings, names = self.settings, facts.categories["entry"]
        if len(names) < 2:
            raise DictionaryInvalid(
                f"The dictionary has one entry alone, '{names[0]}', so every prediction is right; give two at least."
            )
        self.encoder.head = None
        self.encoder.put_pooling(settings.sentence_pooling)
        activation = activation_of(self.encoder) if settings.head == "auto" else settings.head
        self.head, self.head_is_trained = checkpoint_head(self.encoder, activation)
        self.names = names
        self.register_buffer("entry_cosine", torch.zeros(()))  # of this round's entries; kept with the weights
        self.entries: Tensor | None = None  # (E, d), frozen; `prepare` has them
        self.encoders()  # a prompt that does not fit is refused before anything is written
        if settings.targets == "definitions":
            refuse_few_entries(len(names), self.encoder.dim, settings.isotropy)

    def refuse(self, data: Data, protocols: Sequence[Any] = ()) -> None:
        if self.settings.targets == "words":
            few = len(self.single_tokens())
            if few < 2:
                raise DictionaryInvalid(
                    f"{data.source}: {few} of {len(self.names):,} entries are a single token of this encoder, and targets=words needs two at "
                    "least; set targets=definitions."
                )
            refuse_few_entries(few, self.encoder.dim, self.settings.isotropy)

    def prepare(self, data: Data, previous: Method | None) -> None:
        settings, entry = self.settings, data.columns["entry"][torch.arange(len(data))]
        if settings.targets == "words":
            known = self.single_tokens()
            weight = self.encoder.transformer.get_input_embeddings().weight.detach()
            vectors = weight[torch.tensor(list(known.values()), device=weight.device)].cpu()
            place = torch.full((len(self.names),), -1)
            place[list(known)] = torch.arange(len(known))
        else:
            frozen = self.encoder if previous is None else previous.encoder
            vectors = kept_entry_vectors(
                pooled(frozen, settings.entry_pooling), data.columns["definition"], entry, len(self.names)
            )
            place = torch.arange(len(self.names))
        entries, converged = kept_isotropised(
            vectors,
            settings.isotropy,
            scale=settings.isotropy_scale,
            seed=settings.ica_seed,
            iterations=settings.ica_iterations,
        )
        self.entries, self.place = entries.to(self.encoder.device), place
        self.known_rows = (place[entry] >= 0).nonzero().flatten()
        self.entry_cosine.fill_(mean_cosine(entries))
        self.watch("entry_cosine", self.entry_cosine)
        self.remark(data, entry, converged)

    def remark(self, data: Data, entry: LongTensor, converged: bool) -> None:
        """What people should know of the dictionary before step 1."""
        several = int((entry.bincount() > 1).sum())
        owners: dict[str, set[int]] = {}
        texts = texts_of(data.columns["definition"])
        for text, owner in zip(texts, entry.tolist(), strict=True):
            owners.setdefault(text, set()).add(owner)
        repeated = len(texts) - sum(map(len, owners.values()))
        shared = sum(len(found) > 1 for found in owners.values())
        left_out = len(entry) - len(self.known_rows)
        counts = {
            f"{several:,} of {len(self.names):,} entries have several definitions, whose mean is their vector": several,
            f"{repeated:,} rows repeat an entry with the same definition, and count again": repeated,
            f"{shared:,} definitions belong to several entries, which they cannot tell apart": shared,
            f"{left_out:,} definitions are left out, since their entry is no single token": left_out,
            "the head starts from fresh weights, since the checkpoint has none of its kind": not self.head_is_trained,
            f"FastICA did not converge in {self.settings.ica_iterations:,} iterations; its components are used as they are": not converged,
        }
        cosine = f"mean cosine of the {len(self.entries):,} entries {float(self.entry_cosine):.2f}"
        self.remarks = [cosine, *(said for said, count in counts.items() if count)]

    def finish(self, data: Data) -> Mapping[str, float]:
        return {"entry_cosine": float(self.entry_cosine)}

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        """All definitions in random order; with `targets=words` those of entries that are one token."""
        order = shuffled_batches(len(self.known_rows), self.settings.batch_size, generator)
        return [self.known_rows[batch] for batch in order]

    def views(self, batch: Batch) -> dict[str, View]:
        return {"definition": View(batch["definition"])}

    def embed(self, view: View) -> Tensor:
        return self.head(self.encoder(view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        index = self.place[batch["entry"].cpu()].to(self.entries.device)
        drawn = None
        if self.settings.sampled_entries is not None:
            drawn = drawn_entries(len(self.entries), index, self.settings.sampled_entries, batch.generator)
        return {"cross_entropy": entry_cross_entropy(embeddings["definition"], self.entries, index, drawn)}

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"cross_entropy": math.log(len(self.entries))}

    def negatives(self, batch_size: int, facts: Facts) -> int | None:
        entries = len(facts.categories["entry"])
        if entries < 2:
            return None  # `build` says what is wrong, and it is not the batch
        return min(entries - 1, self.settings.sampled_entries or entries)

    def encoders(self) -> dict[str, Encoder]:
        """The encoder without the head, with the pooling that is meant for use."""
        pooling = self.settings.pooling or self.settings.sentence_pooling
        return {"encoder": prompted(self.encoder) if pooling == "prompt" else pooled(self.encoder, pooling)}

    def single_tokens(self) -> dict[int, int]:
        """Entries that are one token of the encoder, by number, and that token."""
        special = set(self.encoder.special_ids.tolist())
        found = {}
        for number, ids in enumerate(self.encoder.tokens(self.names).split()):
            words = [token for token in ids.tolist() if token not in special]
            if len(words) == 1:
                found[number] = words[0]
        return found


def entry_cross_entropy(
    predicted: Tensor, entries: Tensor, index: LongTensor, drawn: LongTensor | None = None
) -> Tensor:
    """The mean over b definitions of -log softmax(q Mᵀ) at their entry: dot products without bias or temperature.

    predicted: q, (b, d), which receives a gradient. entries: M, (E, d), frozen. index: (b,) integers, the entry of each definition. Computed in
    tiles: no (b, E) matrix is made. drawn: (n,) other entries than those of the batch, drawn evenly, that stand for all others: each counts
    (E - those of the batch) / n times in the sum, which makes the sum right on average.

    float32, or float64 where both are. Raises ShapesDiffer, NonFinite, ArgumentInvalid for another index, NoNegatives for one entry alone.
    """
    if entries.ndim != 2 or predicted.shape[-1] != entries.shape[1]:
        raise ShapesDiffer(
            f"The entries must have the encoder's dimensions: got predictions {tuple(predicted.shape)} and entries {tuple(entries.shape)}."
        )
    entries, weight = entries.detach(), None
    if drawn is not None:
        total = len(entries)
        own, index = index.unique(return_inverse=True)
        entries = entries[torch.cat([own, drawn])]
        weight = predicted.new_zeros(len(entries), dtype=entries.dtype)
        if len(drawn):
            weight[len(own) :] = math.log((total - len(own)) / len(drawn))
        weight = weight.expand(len(index), -1)
    return info_nce(predicted, entries, temperature=1.0, index=index, pair=weight, similarity="dot")


def drawn_entries(entries: int, index: LongTensor, count: int, generator: torch.Generator) -> LongTensor:
    """At most `count` entries that are none of a batch's, drawn evenly without replacement: (n,) on the batch's device."""
    order = torch.randperm(entries, generator=generator)
    order = order[~torch.isin(order, index.cpu())]
    return order[:count].to(index.device)

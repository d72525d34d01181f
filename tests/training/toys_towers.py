"""What is encoded, by how many encoders, through which heads (claps, dupmae, point_cmae, sepclr, moe_embeddings, symile, directpred)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts
from contrapose.negatives import MomentumCopy
from contrapose.objectives import info_nce
from contrapose.training.encoder import Encoder
from contrapose.training.method import Method, Terms, View, ViewMethod
from tests.training.toys import ROWS, WIDTH, Tower, Toy, ToySettings, no_encoder, numbers, table

WORDS, LENGTH, DOMAINS = 12, 5, 3
NOTHING = 0  # the word for "no word"


class Claps(Method):
    """A generator contrasted with its own states, moved up the gradient of one loss (imposter) and of another (distant target)."""

    class Settings(ToySettings):
        temperature: float = 0.1
        near: float = 0.5
        far: float = 1.0

    def build(self, facts: Facts) -> None:
        dim = 5
        self.words = nn.Embedding(WORDS, dim)
        self.dropout = nn.Dropout(0.2)
        self.decode = nn.Linear(2 * dim, dim)
        self.project = nn.Linear(dim, dim)

    def training_step(self, batch: Batch) -> Terms:
        source, target = batch["source"], batch["target"]
        read, written = source != NOTHING, target != NOTHING
        source_states = self.dropout(self.words(source))
        before = self.words(target.roll(1, dims=1).index_fill(1, torch.tensor(0), NOTHING))
        context = pooled(source_states, read)[:, None].expand_as(before)
        states = torch.tanh(self.decode(torch.cat([before, context], dim=2)))  # (b, t, d)

        def likelihood(hidden: Tensor) -> Tensor:
            return functional.cross_entropy((hidden @ self.words.weight.T)[written], target[written])

        def sentence(hidden: Tensor, mask: Tensor) -> Tensor:
            return pooled(torch.relu(self.project(hidden)), mask)

        anchor, positive = sentence(source_states, read), sentence(states, written)
        imposter = self.moved(states, likelihood, self.settings.near)
        distant = self.moved(
            states,
            lambda hidden: info_nce(anchor.detach(), sentence(hidden, written), temperature=self.settings.temperature),
            self.settings.far,
        )
        harder = sentence(imposter, written)
        temperature = self.settings.temperature
        near = info_nce(anchor, positive, temperature=temperature, negatives=harder)
        far = info_nce(anchor, sentence(distant, written), temperature=temperature, negatives=harder)
        return {"likelihood": likelihood(states), "contrast": (near + far) / 2}

    @staticmethod
    def moved(states: Tensor, loss, distance: float) -> Tensor:
        """Each state moved by `distance` up the gradient of a loss; the gradient reaches no parameter."""
        states = states.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(states), states)
        return (states + distance * functional.normalize(gradient, dim=-1)).detach()


class Tokens(Method):
    """Losses on words: the hidden ones are guessed twice under two masks, and the two decoders agree where both hid."""

    class Settings(ToySettings):
        hidden: float = 0.3

    def build(self, facts: Facts) -> None:
        dim = 5
        self.words = nn.Embedding(WORDS + 1, dim)  # the last one hides a word
        self.mix = nn.Linear(dim, dim)
        self.decoders = nn.ModuleList(nn.Linear(dim, dim) for _ in range(2))

    def training_step(self, batch: Batch) -> Terms:
        words = batch["source"]
        there = words != NOTHING
        masks = [there & (batch.uniform(LENGTH) < self.settings.hidden) for _ in self.decoders]
        decoded = [self.states(words, mask, decoder) for mask, decoder in zip(masks, self.decoders, strict=True)]
        both = masks[0] & masks[1]
        if not any(mask.any() for mask in masks):
            return {}  # no word is hidden: there is nothing to learn from this batch
        terms = {}
        for number, (mask, states) in enumerate(zip(masks, decoded, strict=True)):
            if mask.any():
                scores = states[mask] @ self.words.weight[:WORDS].T
                terms[f"words {number}"] = functional.cross_entropy(scores, words[mask])
        if both.any():
            one, other = (functional.normalize(states[both], dim=-1) for states in decoded)
            terms["agreement"] = (1 - (one * other).sum(dim=-1)).mean()
        return terms

    def states(self, words: Tensor, mask: Tensor, decoder: nn.Module) -> Tensor:
        vectors = self.words(words.masked_fill(mask, WORDS))
        whole = pooled(vectors, words != NOTHING)[:, None]
        return decoder(torch.tanh(self.mix(vectors + whole)))


class Sepclr(ViewMethod):
    """Two encoders look at the same two views: one for what all rows share, one for what only the target rows have."""

    Settings = ToySettings

    def build(self, facts: Facts) -> None:
        dim = next(iter(self.encoder.values())).dim
        self.norm = nn.ModuleDict({name: nn.BatchNorm1d(dim) for name in self.encoder})

    def views(self, batch: Batch) -> dict[str, View]:
        drawn = [batch["image"] + 0.1 * batch.uniform(WIDTH).to(batch["image"]) for _ in range(2)]
        return {f"{name} {turn}": View(drawn[turn], encoder=name) for name in self.encoder for turn in range(2)}

    def embed(self, view: View) -> Tensor:
        return self.encoder[view.encoder](view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        target = batch["target"].to(torch.bool)
        common = [functional.normalize(self.norm["common"](embeddings[f"common {turn}"]), dim=1) for turn in range(2)]
        salient = [self.norm["salient"](embeddings[f"salient {turn}"]) for turn in range(2)]
        told = [torch.where(target[:, None], rows, 0.0) for rows in salient]
        terms = {
            "common": aligned(*common) + sum(map(spread, common)),
            "joint": sum(joint(c, t) for c, t in zip(common, told, strict=True)) / 2,
        }
        if target.any():
            terms["salient"] = aligned(salient[0][target], salient[1][target]) + sum(map(spread, told))
        if not target.all():
            terms["background"] = sum(rows[~target].square().sum(dim=1).mean() for rows in salient) / 2
        return terms

    def encoders(self) -> dict[str, Encoder]:
        return dict(self.encoder.items())


class Experts(Encoder):
    """A row goes through the expert of its domain: the inputs are a mapping of columns."""

    def __init__(self, dim: int = 5) -> None:
        super().__init__()
        self.dim = dim
        self.enter = nn.Linear(WIDTH, dim)
        self.experts = nn.ModuleList(nn.Linear(dim, dim) for _ in range(DOMAINS))

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        states = torch.tanh(self.enter(inputs["text"]))
        rows = torch.zeros_like(states)
        for domain, expert in enumerate(self.experts):
            here = inputs["domain"] == domain
            if here.any():  # an expert without rows gets no gradient
                rows = rows.index_put((here.nonzero().flatten(),), expert(states[here]))
        return rows


class Heads(ViewMethod):
    """Pairs with a domain; one pass of the encoder feeds two heads with losses of their own."""

    Settings = ToySettings

    def build(self, facts: Facts) -> None:
        self.heads = nn.ModuleList(nn.Linear(self.encoder.dim, 4, bias=False) for _ in range(2))
        self.log_temperature = nn.Parameter(torch.tensor([0.07, 0.1]).log())

    def views(self, batch: Batch) -> dict[str, View]:
        return {name: View({"text": batch[name], "domain": batch["domain"]}) for name in ("question", "answer")}

    def embed(self, view: View) -> Tensor:
        rows = self.encoder(view.inputs)
        return torch.stack([head(rows) for head in self.heads], dim=1)  # (b, heads, d)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        question, answer = embeddings.values()
        return {
            f"head {number}": info_nce(
                question[:, number], answer[:, number], temperature=log_temperature.exp(), symmetric=True
            )
            for number, log_temperature in enumerate(self.log_temperature)
        }

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        self.log_temperature.clamp_(math.log(0.01), 0)


class Symile(ViewMethod):
    """Three towers; a row of one goes with the product of the rows of the others, negatives are products of shuffled rows."""

    Settings = ToySettings

    def build(self, facts: Facts) -> None:
        self.log_temperature = nn.Parameter(torch.tensor(0.3))

    def views(self, batch: Batch) -> dict[str, View]:
        return {name: View(batch[name], encoder=name) for name in self.encoder}

    def embed(self, view: View) -> Tensor:
        return functional.normalize(self.encoder[view.encoder](view.inputs), dim=-1)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        terms = {}
        for name, anchor in embeddings.items():
            others = [rows for other, rows in embeddings.items() if other != name]
            drawn = [rows[torch.randperm(len(rows), generator=batch.generator)] for rows in others]
            scores = anchor @ torch.stack(drawn).prod(dim=0).T
            true = (anchor * torch.stack(others).prod(dim=0)).sum(dim=1)
            scores = torch.where(torch.eye(len(anchor), dtype=torch.bool), true[:, None], scores)
            target = torch.arange(len(anchor))
            terms[name] = functional.cross_entropy(scores / self.log_temperature.exp(), target) / len(embeddings)
        return terms

    def score(self, queries: Tensor, candidates: Tensor) -> Tensor:
        """(n, m, d) of the m other modalities, and (c, d), to (n, c)."""
        unit = functional.normalize(queries, dim=-1).prod(dim=1)
        return unit @ functional.normalize(candidates, dim=-1).T

    def encoders(self) -> dict[str, Encoder]:
        return dict(self.encoder.items())


class Directpred(ViewMethod):
    """No negatives: a linear predictor set from the features' correlation, trained between two settings of it."""

    class Settings(ToySettings):
        past: float = 0.3  # weight of the past in the correlation
        floor: float = 0.1
        refresh: int = 2  # steps between two settings of the predictor
        momentum: float = 0.9

    def build(self, facts: Facts) -> None:
        dim = self.encoder.dim
        self.target = MomentumCopy(self.encoder)
        self.predictor = nn.Parameter(torch.eye(dim))
        self.register_buffer("correlation", torch.zeros(dim, dim))

    def views(self, batch: Batch) -> dict[str, View]:
        drawn = [batch["image"] + 0.1 * batch.uniform(WIDTH).to(batch["image"]) for _ in range(2)]
        online = {f"online {turn}": View(drawn[turn]) for turn in range(2)}
        return online | {f"target {turn}": View(drawn[turn], encoder="target", gradient=False) for turn in range(2)}

    def embed(self, view: View) -> Tensor:
        return (self.target if view.encoder == "target" else self.encoder)(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        one, other, target_of_one, target_of_other = embeddings.values()
        crossed = [(one, target_of_other), (other, target_of_one)]
        cosines = [functional.cosine_similarity(rows @ self.predictor.T, target) for rows, target in crossed]
        return {"prediction": -2 * sum(cosine.mean() for cosine in cosines)}

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        rows = torch.cat([embeddings["online 0"], embeddings["online 1"]])
        past = self.settings.past if batch.step else 0.0
        self.correlation.mul_(past).add_(rows.T @ rows / len(rows), alpha=1 - past)
        if batch.step % self.settings.refresh == 0:
            self.predictor.copy_(set_from(self.correlation, self.settings.floor))
        self.target.update(self.encoder, self.settings.momentum)


def set_from(correlation: Tensor, floor: float) -> Tensor:
    values, vectors = torch.linalg.eigh(correlation)
    strength = (values.clamp_min(0) / values.max()).sqrt() + floor
    return vectors @ torch.diag(strength) @ vectors.T


def pooled(states: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens that are there: (b, t, d) to (b, d)."""
    return (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def aligned(one: Tensor, other: Tensor) -> Tensor:
    return (one - other).square().sum(dim=1).mean()


def spread(rows: Tensor) -> Tensor:
    """Log of the mean of exp(-|x_i - x_j|²) over pairs."""
    distance = functional.pdist(rows).square()
    return torch.logsumexp(-distance, dim=0) - math.log(len(distance))


def joint(common: Tensor, salient: Tensor) -> Tensor:
    """Minus a kernel estimate of the joint entropy; each row with itself too."""
    squared = [(rows[:, None] - rows).square().sum(dim=2) for rows in (common, salient)]
    return (torch.logsumexp(-sum(squared), dim=1) - math.log(len(common))).mean()


def texts() -> Data:
    words = torch.randint(1, WORDS, (2, ROWS, LENGTH), generator=torch.Generator().manual_seed(0))
    ends = torch.arange(LENGTH) < 1 + torch.arange(ROWS)[:, None] % LENGTH  # from one word to five
    return table({"source": words[0] * ends, "target": words[1] * ends.flip(0)})


def marked_images() -> Data:
    return table({"image": numbers(ROWS, WIDTH), "target": torch.arange(ROWS) % 2})


def questions() -> Data:
    domain = torch.arange(ROWS) % DOMAINS
    return table({"question": numbers(ROWS, WIDTH), "answer": numbers(ROWS, WIDTH, seed=1), "domain": domain})


def modalities() -> Data:
    return table({name: numbers(ROWS, WIDTH, seed=seed) for seed, name in enumerate(("image", "sound", "text"))})


def two_towers() -> nn.ModuleDict:
    return nn.ModuleDict({"common": Tower(), "salient": Tower()})


def three_towers() -> nn.ModuleDict:
    return nn.ModuleDict({name: Tower() for name in ("image", "sound", "text")})


TOYS = (
    Toy("claps", Claps, texts, no_encoder),
    Toy("dupmae, point_cmae", Tokens, texts, no_encoder, {"batch_size": 3}),
    Toy("sepclr", Sepclr, marked_images, two_towers),
    Toy("moe_embeddings, clip_baselines", Heads, questions, Experts),
    Toy("symile", Symile, modalities, three_towers),
    Toy("directpred", Directpred, marked_images),
)

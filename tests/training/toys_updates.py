"""Several updates a batch, and rules on gradients (mclrec, autotcl, gradient_harmonization)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts
from contrapose.objectives import info_nce
from contrapose.training.encoder import Encoder
from contrapose.training.method import Method, Terms, Update, View, ViewMethod
from tests.training.toys import ROWS, WIDTH, Toy, ToySettings, no_encoder, numbers, table, tower

LENGTH = 5


class Sequences(Encoder):
    """Item numbers (b, LENGTH), 0 for none, to (b, dim)."""

    def __init__(self, items: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.dim = dim
        self.items = nn.Embedding(items + 1, dim, padding_idx=0)
        self.layers = nn.Sequential(nn.Dropout(dropout), nn.Linear(dim, dim))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(self.items(inputs).sum(dim=1) / (inputs > 0).sum(dim=1, keepdim=True).clamp_min(1))


class Mclrec(Method):
    """Encoder, augmenters, encoder again: three updates a batch with one Adam for the first and the third."""

    class Settings(ToySettings):
        dropout: float = 0.2

    def build(self, facts: Facts) -> None:
        self.encoder = Sequences(len(facts.categories["item"]), 5, self.settings.dropout)
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)

    def updates(self) -> list[Update]:
        augmenters = chain(self.first.parameters(), self.second.parameters())
        return [
            Update(self.encoder_loss, self.encoder.parameters(), "encoder"),
            Update(self.augmenter_loss, augmenters, "augmenters"),
            Update(self.encoder_loss, self.encoder.parameters(), "encoder"),
        ]

    def before_step(self, batch: Batch) -> None:
        """The stochastic views of a batch are drawn once and serve its three updates."""
        items = batch["items"]
        for name in ("masked", "cropped"):
            batch.columns[name] = items.masked_fill(batch.uniform(LENGTH) < 0.3, 0)

    def encoder_loss(self, batch: Batch) -> Terms:
        following = functional.cross_entropy(
            self.encoder(batch["items"]) @ self.encoder.items.weight.T, batch["following"]
        )
        return {"following": following, "views": 0.1 * self.contrast(batch)}

    def augmenter_loss(self, batch: Batch) -> Terms:
        return {"augmenters": self.contrast(batch)}

    def contrast(self, batch: Batch) -> Tensor:
        one, other = self.encoder(batch["masked"]), self.encoder(batch["cropped"])
        made_of_one, made_of_other = self.first(one), self.second(other)
        pairs = [(made_of_one, made_of_other), (one, made_of_other), (other, made_of_one)]
        return sum(info_nce(a, b, temperature=1.0, similarity="dot") for a, b in pairs)


class Autotcl(Method):
    """A learned augmentation with its own optimiser and rate, moved every second batch; the encoder's running mean is kept."""

    class Settings(ToySettings):
        every: int = 2

    def build(self, facts: Facts) -> None:
        self.keep, self.scale = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.averaged = copy.deepcopy(self.encoder).requires_grad_(False)
        self.register_buffer("seen", torch.tensor(0))

    def updates(self) -> list[Update]:
        augmentation = [*self.keep.parameters(), *self.scale.parameters()]
        return [
            Update(self.augmentation_loss, augmentation, "augmentation", lr=0.1, every=self.settings.every),
            Update(self.encoder_loss, self.encoder.parameters()),
        ]

    def augment(self, batch: Batch) -> Tensor:
        """Fresh noise at each call: the two updates of a batch see two draws."""
        series = batch["series"]  # (b, t, WIDTH)
        noise = batch.uniform(*series.shape[1:]).to(series).clamp(0.01, 0.99)
        self.kept = torch.sigmoid(noise.logit() + self.keep(series))
        return torch.sigmoid(self.scale(series)) * self.kept * series

    def augmentation_loss(self, batch: Batch) -> Terms:
        self.encoder.eval()
        plain, changed = self.pooled(batch["series"]), self.pooled(self.augment(batch))
        self.encoder.train()
        self.watch("kept", self.kept.mean())
        return {
            "relevance": (plain.mean(dim=0) - changed.mean(dim=0)).square().sum(),
            "budget": functional.relu(self.kept.mean() - 0.4),
        }

    def encoder_loss(self, batch: Batch) -> Terms:
        return {"contrast": info_nce(self.pooled(batch["series"]), self.pooled(self.augment(batch)), temperature=0.5)}

    def pooled(self, series: Tensor) -> Tensor:
        return self.encoder(series).amax(dim=1)

    def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
        self.seen += 1
        for mean, online in zip(self.averaged.parameters(), self.encoder.parameters(), strict=True):
            mean += (online - mean) / self.seen

    def encoders(self) -> dict[str, Encoder]:
        return {"encoder": self.averaged}


class Harmonised(ViewMethod):
    """Two losses a row through one trunk: gradients that disagree too much are dropped, the others realigned."""

    class Settings(ToySettings):
        start: float = -0.3  # a row whose two gradients have a lower cosine is dropped; rises to 0

    def build(self, facts: Facts) -> None:
        self.inlets = nn.ModuleDict({name: nn.Linear(WIDTH, WIDTH) for name in ("video", "audio", "text")})

    def views(self, batch: Batch) -> dict[str, View]:
        return {name: View(batch[name], encoder=name) for name in self.inlets}

    def embed(self, view: View) -> Tensor:
        return self.encoder(self.inlets[view.encoder](view.inputs))

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        video, audio, text = embeddings.values()
        self.least = self.settings.start * (1 - batch.step / self.settings.steps)
        self.rows = {
            "audio": info_nce(video, audio, temperature=0.1, symmetric=True, reduction="none"),
            "text": info_nce(video, text, temperature=0.1, symmetric=True, reduction="none"),
        }
        return {name: losses.mean() for name, losses in self.rows.items()}

    def backward(self, terms: Terms) -> None:
        shared = list(self.encoder.parameters())
        audio, text = (gradients_by_row(losses, shared) for losses in self.rows.values())
        cosine = functional.cosine_similarity(audio, text)
        kept = cosine > self.least
        self.watch("conflicts", (cosine < 0).float().mean())
        if not kept.any():
            return
        super().backward(terms)  # what only one of the losses reaches keeps its ordinary gradient
        harmonised = (realigned(audio, text) + realigned(text, audio))[kept].mean(dim=0)
        for parameter, part in zip(shared, harmonised.split([p.numel() for p in shared]), strict=True):
            parameter.grad = part.view_as(parameter)


def gradients_by_row(losses: Tensor, parameters: list[nn.Parameter]) -> Tensor:
    """(b,) losses to (b, p)."""
    one_each = torch.eye(len(losses), dtype=losses.dtype)
    parts = torch.autograd.grad(losses, parameters, one_each, retain_graph=True, is_grads_batched=True)
    return torch.cat([part.flatten(1) for part in parts], dim=1)


def realigned(gradient: Tensor, other: Tensor) -> Tensor:
    """Without what points against the other gradient; row by row."""
    against = (gradient * other).sum(dim=1, keepdim=True).clamp_max(0)
    return gradient - against / other.square().sum(dim=1, keepdim=True) * other


def purchases() -> Data:
    items = torch.randint(1, 9, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(0))
    names = tuple(f"item {number}" for number in range(1, 9))
    return table({"items": items[:, :-1], "following": items[:, -1]}, categories={"item": names})


def series() -> Data:
    return table({"series": numbers(ROWS, LENGTH, WIDTH)})


def triplets() -> Data:
    return table({name: numbers(ROWS, WIDTH, seed=seed) for seed, name in enumerate(("video", "audio", "text"))})


TOYS = (
    Toy("mclrec", Mclrec, purchases, no_encoder),
    Toy("autotcl", Autotcl, series, tower, {"batch_size": 5}),
    Toy("gradient_harmonization", Harmonised, triplets),
)

"""Every row of the design's table of hard cases, as a toy that runs through the real loop: killed, resumed, and equal."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from contrapose.data.batches import Batch, Data
from contrapose.training.method import Method, Terms
from tests.training import toys_momentum, toys_rows, toys_stages, toys_towers, toys_updates
from tests.training.children import chance, figures, killed, resumed, started, weights
from tests.training.toys import PLAIN, Tower, Toy, no_encoder, numbers, table

TOYS = [toy for part in (toys_momentum, toys_updates, toys_stages, toys_rows, toys_towers) for toy in part.TOYS]
GOLDEN = Path(__file__).parents[1] / "golden"
LR = 0.1


def double(data: Callable[[], Data]) -> Callable[[], Data]:
    """The same data with its numbers in float64."""
    columns = data().columns
    exact = {name: column.double() if column.is_floating_point() else column for name, column in columns.items()}
    return lambda: replace(data(), columns=exact)


def watching(method: type[Method], batches: list[Batch], start: list[Method]) -> type[Method]:
    """The method; a copy of it before its first step goes to `start`, every batch with its columns to `batches`."""

    def prepare(self: Method, data: Data, previous: Method | None) -> None:
        method.prepare(self, data, previous)
        start.append(copy.deepcopy(self))

    def before_step(self: Method, batch: Batch) -> None:
        method.before_step(self, batch)
        batches.append(batch)

    return type(f"Watched{method.__name__}", (method,), {"prepare": prepare, "before_step": before_step})


@pytest.mark.parametrize("toy", TOYS, ids=lambda toy: toy.name)
def test_killed_twice_and_resumed_equals_unbroken(toy: Toy, tmp_path: Path) -> None:
    unbroken, broken = started(tmp_path / "unbroken"), started(tmp_path / "broken")
    toy.fit(unbroken)
    steps = unbroken.metrics()[-1]["total_step"]
    draw = chance()
    first = draw.randrange(4, steps - 1)  # a checkpoint every three steps: there is one to go on from
    killed(toy, broken.path, first)
    _, facts = broken.last_checkpoint()
    kept = [line for line in broken.metrics() if line["total_step"] <= facts["total_step"]]
    killed(toy, broken.path, draw.randrange(1, steps - facts["total_step"]))
    resumed(toy, broken.path)
    assert broken.metrics()[: len(kept)] == kept  # with their clocks: those steps were not taken again
    assert figures(broken) == figures(unbroken)
    assert weights(broken) == weights(unbroken)


# ------------------------------------------------------- EMA before the update, queue after the loss, head not yet updated


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_esimcse_follows_the_trace_of_the_official_code(steps: int, tmp_path: Path) -> None:
    golden = np.load(GOLDEN / "esimcse.npz", allow_pickle=False)
    trace = {name.removeprefix("trace_"): torch.from_numpy(golden[name]) for name in golden if "trace_" in name}
    rows = trace["X"].flatten(0, 1)

    def prepare(self: Method, data: Data, previous: Method | None) -> None:
        for body in (self.encoder, self.body.module):
            body.layers.weight.data.copy_(trace["W0"])

    method = type("Traced", (toys_momentum.EsimcseInOrder,), {"prepare": prepare})
    data = table({"sentence": rows[:, 0], "repeated": rows[:, 1]})
    toy = Toy("trace", method, lambda: data, toys_momentum.square)
    folder = started(tmp_path / "run")
    settings = {"head": False, "momentum": float(trace["momentum"]), "queue_size": int(trace["queue_size"])}
    settings |= {"temperature": float(golden["temp"]), "learning_rate": float(trace["lr"]), "batch_size": 5}
    model = toy.fit(folder, steps=steps, **settings, **PLAIN)

    losses = [line["terms"]["contrast"] for line in folder.metrics()]
    assert losses == pytest.approx(trace["losses"][:steps].tolist(), rel=1e-9)
    torch.testing.assert_close(model.encoder.layers.weight, trace["W"][steps - 1], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.body.module.layers.weight, trace["Wm"][steps - 1], rtol=1e-9, atol=1e-12)
    assert len(model.queue) == trace["queue_len"][steps - 1]
    if steps == 4:
        torch.testing.assert_close(model.queue.stored().vectors, trace["final_queue"], rtol=1e-9, atol=1e-12)


def test_queue_holds_what_the_head_gave_before_it_moved(tmp_path: Path) -> None:
    batches, start = [], []
    watched = watching(toys_momentum.EsimcseInOrder, batches, start)
    rows = numbers(12, 6).double()
    toy = Toy("in order", watched, lambda: table({"sentence": rows, "repeated": rows + 0.1}), lambda: Tower(dropout=0))
    model = toy.fit(started(tmp_path / "run"), steps=3, learning_rate=LR, **PLAIN)

    body, head, slow = (copy.deepcopy(part) for part in (start[0].encoder, start[0].head, start[0].encoder))
    moved = torch.optim.SGD(chain(body.parameters(), head.parameters()), lr=LR)
    queue = rows.new_empty(0, 5)
    for mine in rows.split(4):
        with torch.no_grad():
            for mean, online in zip(slow.parameters(), body.parameters(), strict=True):
                mean.mul_(0.9).add_(online, alpha=0.1)
            stored = head(slow(mine))
        scores = cosines(head(body(mine)), torch.cat([head(body(mine + 0.1)), queue])) / 0.05
        moved.zero_grad()
        functional.cross_entropy(scores, torch.arange(4)).backward()
        moved.step()
        queue = torch.cat([queue, stored])[-10:]
    torch.testing.assert_close(model.queue.stored().vectors, queue, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(model.head[0].weight, head[0].weight, rtol=1e-9, atol=1e-12)


def test_only_views_with_a_gradient_carry_a_graph_and_after_the_step_none_does(tmp_path: Path) -> None:
    graphs = []

    class Watched(toys_momentum.Esimcse):
        def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
            graphs.append({name: rows.requires_grad for name, rows in embeddings.items()})
            return super().objective(embeddings, batch)

        def after_step(self, embeddings: Mapping[str, Tensor], batch: Batch) -> None:
            graphs.append({name: rows.requires_grad for name, rows in embeddings.items()})
            super().after_step(embeddings, batch)

    Toy("watched", Watched, toys_momentum.sentences).fit(started(tmp_path / "run"), steps=1)
    during, after = graphs
    assert during == {"sentence": True, "repeated": True, "stored": False}
    assert after == dict.fromkeys(during, False)


def test_ccp_keeps_a_queue_a_language_and_looks_at_one_branch_a_step(tmp_path: Path) -> None:
    toy = Toy("ccp", toys_momentum.Ccp, toys_momentum.documents)
    model = toy.fit(started(tmp_path / "run"))
    language = toys_momentum.documents().columns["language"]
    for number, bank in enumerate(model.banks):
        stored = bank.stored()
        assert len(stored.rows) > 0
        assert (language[stored.rows] == number).all()
        assert torch.allclose(stored.vectors.norm(dim=1), torch.ones(len(stored.rows)))


# --------------------------------------------------------------------- several updates a batch, two of them with one Adam


def test_two_updates_of_a_batch_share_one_adam(tmp_path: Path) -> None:
    batches, start = [], []
    toy = Toy("mclrec", watching(toys_updates.Mclrec, batches, start), toys_updates.purchases, no_encoder)
    settings = PLAIN | {"optimiser": "adam", "dropout": 0.0, "learning_rate": LR}
    model = toy.fit(started(tmp_path / "run"), steps=4, **settings)

    by_hand = start[0]
    of_encoder = torch.optim.Adam(by_hand.encoder.parameters(), lr=LR)
    of_augmenters = torch.optim.Adam(chain(by_hand.first.parameters(), by_hand.second.parameters()), lr=LR)
    turns = [
        (by_hand.encoder_loss, of_encoder),
        (by_hand.augmenter_loss, of_augmenters),
        (by_hand.encoder_loss, of_encoder),
    ]
    for batch in batches:
        for loss, optimiser in turns:
            by_hand.zero_grad()
            sum(loss(batch).values()).backward()
            optimiser.step()
    for name, tensor in by_hand.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-6, atol=1e-6)


def test_an_update_every_second_batch_rests_in_between(tmp_path: Path) -> None:
    toy = Toy("autotcl", toys_updates.Autotcl, toys_updates.series)
    after = [toy.fit(started(tmp_path / f"{steps}"), steps=steps, schedule="constant") for steps in (1, 2, 3)]
    one, two, three = (model.keep.weight for model in after)
    assert torch.equal(one, two)
    assert not torch.equal(two, three)
    assert not torch.equal(after[0].encoder.layers[0].weight, after[1].encoder.layers[0].weight)


def test_an_update_has_a_rate_of_its_own(tmp_path: Path) -> None:
    batches, start = [], []
    toy = Toy("autotcl", watching(toys_updates.Autotcl, batches, start), toys_updates.series)
    model = toy.fit(started(tmp_path / "run"), steps=1, learning_rate=0.001, schedule="constant")
    moved = (model.keep.bias - start[0].keep.bias).abs()  # the first step of AdamW is the rate itself
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1), rtol=1e-3, atol=0)


def test_every_update_is_logged_also_one_that_rested_at_the_line(tmp_path: Path) -> None:
    folder = started(tmp_path / "run")
    Toy("autotcl", toys_updates.Autotcl, toys_updates.series).fit(folder, steps=4, log_every=2)
    assert [set(line["terms"]) for line in folder.metrics()] == [{"relevance", "budget", "contrast"}] * 2


def test_of_a_shared_term_the_value_before_the_first_update_is_logged(tmp_path: Path) -> None:
    batches, start = [], []
    folder = started(tmp_path / "run")
    toy = Toy("mclrec", watching(toys_updates.Mclrec, batches, start), toys_updates.purchases, no_encoder)
    toy.fit(folder, steps=1, dropout=0.0)
    before = start[0].encoder_loss(batches[0])["following"]
    assert folder.metrics()[0]["terms"]["following"] == pytest.approx(before.item(), rel=1e-6)


# ------------------------------------------------------------------------------------------ per-sample gradients of two terms


def test_the_gradient_that_a_rule_leaves_is_the_one_that_is_taken(tmp_path: Path) -> None:
    batches, start = [], []
    data = double(toys_updates.triplets)
    method = watching(toys_updates.Harmonised, batches, start)
    toy = Toy("harmonised", method, data, lambda: Tower(dropout=0))
    model = toy.fit(started(tmp_path / "run"), steps=1, learning_rate=LR, start=-0.9, **PLAIN)

    by_hand, batch = start[0], batches[0]
    shared = list(by_hand.encoder.parameters())
    terms = by_hand.training_step(batch)
    kept = []
    for of_audio, of_text in zip(*by_hand.rows.values(), strict=True):
        one, other = (
            torch.cat([part.flatten() for part in torch.autograd.grad(loss, shared, retain_graph=True)])
            for loss in (of_audio, of_text)
        )
        product = one @ other
        if product / (one.norm() * other.norm()) <= -0.9:
            continue
        if product < 0:
            one, other = one - product / (other @ other) * other, other - product / (one @ one) * one
        kept.append(one + other)
    expected = torch.cat([parameter.flatten() for parameter in shared]) - LR * torch.stack(kept).mean(dim=0)
    torch.testing.assert_close(flat(model.encoder), expected, rtol=1e-9, atol=1e-12)

    sum(terms.values()).backward()  # what one loss alone reaches moves as ever
    inlets = torch.cat([(p - LR * p.grad).flatten() for p in by_hand.inlets.parameters()])
    torch.testing.assert_close(flat(model.inlets), inlets, rtol=1e-9, atol=1e-12)


def test_a_rule_that_keeps_no_gradient_skips_the_update(tmp_path: Path) -> None:
    batches, start = [], []
    toy = Toy("harmonised", watching(toys_updates.Harmonised, batches, start), toys_updates.triplets)
    folder = started(tmp_path / "run")
    model = toy.fit(folder, steps=3, start=6.0)  # at the third step 2.0, and no cosine is above 1
    assert [line["skipped"] for line in folder.metrics()] == [1, 2, 3]
    assert torch.equal(flat(model), flat(start[0]))


def cosines(one: Tensor, other: Tensor) -> Tensor:
    return functional.normalize(one, dim=1) @ functional.normalize(other, dim=1).T


def flat(module: torch.nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])

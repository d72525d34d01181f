"""Which rows stand together, what they become, and through which encoders they go: through the real loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.data.batches import Batch, Data
from contrapose.training.method import Method, View
from contrapose.training.progress import Silent
from tests.training import toys_momentum, toys_rows, toys_towers
from tests.training.children import started
from tests.training.toys import PLAIN, ROWS, Tower, Toy, no_encoder, numbers, table

LR = 0.1


def seen_batches(method: type[Method], batches: list[Batch]) -> type[Method]:
    """The method; every batch, with its columns, goes to `batches`."""

    def before_step(self: Method, batch: Batch) -> None:
        method.before_step(self, batch)
        batches.append(batch)

    return type(f"Seen{method.__name__}", (method,), {"before_step": before_step})


def counted_passes(method: type[Method], views: list[View]) -> type[Method]:
    """The method; every view that is embedded goes to `views`."""

    def embed(self: Method, view: View) -> Tensor:
        views.append(view)
        return method.embed(self, view)

    return type(f"Counted{method.__name__}", (method,), {"embed": embed})


# --------------------------------------------------------------------------------------------- partner rows


def test_partners_are_drawn_anew_each_epoch(tmp_path: Path) -> None:
    batches: list[Batch] = []
    method = seen_batches(toys_rows.Debcse, batches)
    Toy("debcse", method, toys_rows.sentences).fit(started(tmp_path / "run"), steps=14)  # two epochs of seven
    epochs = [torch.cat([batch.rows for batch in part]) for part in (batches[:7], batches[7:])]
    first, second = (rows[rows[:, 0].argsort()] for rows in epochs)
    assert torch.equal(first[:, 0], second[:, 0])
    assert not torch.equal(first[:, 1], second[:, 1])
    assert not torch.equal(first[:, 2], second[:, 2])


def test_a_partner_brings_its_own_columns(tmp_path: Path) -> None:
    batches: list[Batch] = []
    Toy("debcse", seen_batches(toys_rows.Debcse, batches), toys_rows.sentences).fit(started(tmp_path / "run"), steps=1)
    sentences, batch = toys_rows.sentences().columns["sentence"], batches[0]
    for number in range(3):
        assert torch.equal(batch.partner(number)["sentence"], sentences[batch.rows[:, number]])


def test_batches_of_an_epoch_follow_what_the_last_one_left(tmp_path: Path) -> None:
    """A partner is one on which the judges of the epoch before, and no later ones, disagreed most."""
    batches, left = [], {}

    class Watched(toys_rows.P2c):
        def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
            left[epoch] = self.preferences.clone()
            return super().batches(data, epoch, generator)

    Toy("p2c", seen_batches(Watched, batches), toys_rows.voted).fit(started(tmp_path / "run"), steps=14)
    rows = torch.cat([batch.rows for batch in batches[7:]])
    votes = (left[1][:, None] > left[1][None]).sum(dim=2)
    disagreement = torch.minimum(votes, toys_rows.HEADS - votes)
    alike = torch.arange(ROWS) % 2 == torch.arange(ROWS)[:, None] % 2
    most = disagreement.masked_fill(~alike, -1).amax(dim=1)
    assert torch.equal(disagreement[rows[:, 0], rows[:, 1]], most[rows[:, 0]])
    assert most.max() > 0


def test_a_batch_may_hold_one_language_alone(tmp_path: Path) -> None:
    batches: list[Batch] = []
    Toy("ccp", seen_batches(toys_momentum.Ccp, batches), toys_momentum.documents).fit(started(tmp_path / "run"))
    assert all(len(batch["language"].unique()) == 1 for batch in batches)
    assert len({int(batch["language"][0]) for batch in batches}) == 2


# --------------------------------------------------------------------------------- k crops a row, labels born in `views`


def test_labels_born_with_a_view_reach_the_objective(tmp_path: Path) -> None:
    positions = []

    class Watched(toys_rows.Voco):
        def views(self, batch: Batch) -> dict[str, View]:
            views = super().views(batch)
            positions.append([views["crops"].columns["position"]])
            return views

        def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
            positions[-1].append(batch["position"])
            return super().objective(embeddings, batch)

    Toy("voco", Watched, toys_rows.fields, toys_rows.patches).fit(started(tmp_path / "run"), steps=2)
    for born, read in positions:
        assert torch.equal(born, read)
        assert torch.allclose(read.sum(dim=2), torch.ones(4, 2))


def test_views_with_other_numbers_of_crops_are_embedded_apart(tmp_path: Path) -> None:
    views: list[View] = []
    toy = Toy("voco", counted_passes(toys_rows.Voco, views), toys_rows.fields, toys_rows.patches)
    toy.fit(started(tmp_path / "run"), steps=1)
    assert [tuple(view.inputs.shape) for view in views] == [(4, 2, 9), (4, 9, 9)]


def test_crops_of_a_row_are_drawn_anew_each_step(tmp_path: Path) -> None:
    drawn = []

    class Watched(toys_rows.Voco):
        def views(self, batch: Batch) -> dict[str, View]:
            views = super().views(batch)
            drawn.append(views["crops"].columns["position"])
            return views

    Toy("voco", Watched, toys_rows.fields, toys_rows.patches).fit(started(tmp_path / "run"), steps=2)
    assert not torch.equal(*drawn)


# ------------------------------------------------------------------- gradients by activations, losses on tokens


def test_a_step_may_differentiate_by_its_activations_where_the_caller_has_gradients_off(tmp_path: Path) -> None:
    toy = Toy("claps", toys_towers.Claps, toys_towers.texts, no_encoder)
    with torch.no_grad():
        quiet = toy.fit(started(tmp_path / "quiet"))
    plain = toy.fit(started(tmp_path / "plain"))
    assert torch.equal(quiet.project.weight, plain.project.weight)


# ------------------------------------------------------------------------ encoders, heads, inputs of several columns


def test_views_of_one_encoder_share_a_pass_and_two_encoders_do_not(tmp_path: Path) -> None:
    views: list[View] = []
    toy = Toy("sepclr", counted_passes(toys_towers.Sepclr, views), toys_towers.marked_images, toys_towers.two_towers)
    toy.fit(started(tmp_path / "run"), steps=1)
    assert [(view.encoder, len(view.inputs)) for view in views] == [("common", 8), ("salient", 8)]


def test_inputs_of_several_columns_share_a_pass_row_by_row(tmp_path: Path) -> None:
    views: list[View] = []
    toy = Toy("heads", counted_passes(toys_towers.Heads, views), toys_towers.questions, toys_towers.Experts)
    toy.fit(started(tmp_path / "run"), steps=1)
    (view,) = views
    assert torch.equal(view.inputs["domain"][:4], view.inputs["domain"][4:])  # questions, then their answers
    assert len(view.inputs["text"]) == 8


def test_an_expert_without_rows_does_not_move(tmp_path: Path) -> None:
    class TwoDomains(toys_towers.Heads):
        def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
            rows = torch.arange(len(data))
            return rows[rows % toys_towers.DOMAINS != 2].split(self.settings.batch_size)

    toy = Toy("heads", TwoDomains, toys_towers.questions, toys_towers.Experts)
    still = toy.fit(started(tmp_path / "still"), learning_rate=0.0)
    moved = toy.fit(started(tmp_path / "moved"), weight_decay=0.1)
    same = [torch.equal(a.weight, b.weight) for a, b in zip(still.encoder.experts, moved.encoder.experts, strict=True)]
    assert same == [False, False, True]


def test_a_row_may_become_several_vectors(tmp_path: Path) -> None:
    shapes = []

    class Watched(toys_towers.Heads):
        def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
            shapes.append({name: tuple(rows.shape) for name, rows in embeddings.items()})
            return super().objective(embeddings, batch)

    toy = Toy("heads", Watched, toys_towers.questions, toys_towers.Experts)
    toy.fit(started(tmp_path / "run"), steps=1)
    assert shapes == [{"question": (4, 2, 4), "answer": (4, 2, 4)}]


# ---------------------------------------------------------------------------------------------- three towers


def test_three_towers_are_kept_and_scored_by_their_product(tmp_path: Path) -> None:
    toy = Toy("symile", toys_towers.Symile, toys_towers.modalities, toys_towers.three_towers)
    model = toy.fit(started(tmp_path / "run"))
    encoders = model.encoders()
    assert list(encoders) == ["image", "sound", "text"]
    columns = toys_towers.modalities().columns
    image, sound, text = (functional.normalize(encoders[name](columns[name]), dim=1) for name in encoders)
    score = model.score(torch.stack([sound, text], dim=1), image)
    torch.testing.assert_close(score, torch.einsum("nd,nd,md->nm", sound, text, image))


# -------------------------------------------------------------------------------- a predictor set from statistics


def test_a_predictor_set_from_statistics_is_trained_in_between(tmp_path: Path) -> None:
    """By hand, in plain torch, SGD on encoder and predictor; the predictor is set anew after every second step."""
    seen = {}

    class Watched(toys_towers.Directpred):
        def prepare(self, data: Data, previous: Method | None) -> None:
            seen["start"] = {name: tensor.clone() for name, tensor in self.encoder.state_dict().items()}

        def views(self, batch: Batch) -> dict[str, View]:
            views = super().views(batch)
            seen.setdefault("views", []).append([views[f"online {turn}"].inputs for turn in range(2)])
            return views

    images = table({"image": numbers(ROWS, 6).double()})
    toy = Toy("directpred", Watched, lambda: images, lambda: Tower(dropout=0))
    model = toy.fit(started(tmp_path / "run"), steps=4, learning_rate=LR, **PLAIN)

    online, target = Tower(dropout=0).double(), Tower(dropout=0).double()
    online.load_state_dict(seen["start"])
    target.load_state_dict(seen["start"])
    predictor = torch.eye(5, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([*online.parameters(), predictor], lr=LR)
    correlation = torch.zeros(5, 5, dtype=torch.float64)
    for step, (one, other) in enumerate(seen["views"]):
        rows = [online(one), online(other)]
        with torch.no_grad():
            aims = [target(other), target(one)]
        cosines = [functional.cosine_similarity(row @ predictor.T, aim) for row, aim in zip(rows, aims, strict=True)]
        optimiser.zero_grad()
        (-2 * sum(cosine.mean() for cosine in cosines)).backward()
        optimiser.step()
        with torch.no_grad():
            both = torch.cat(rows)
            past = 0.3 if step else 0.0
            correlation = past * correlation + (1 - past) * both.T @ both / len(both)
            if step % 2 == 0:
                predictor.copy_(toys_towers.set_from(correlation, 0.1))
            for mean, live in zip(target.parameters(), online.parameters(), strict=True):
                mean.mul_(0.9).add_(live, alpha=0.1)
    torch.testing.assert_close(model.predictor, predictor, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(model.target.module.layers[0].weight, target.layers[0].weight, rtol=1e-8, atol=1e-10)


# -------------------------------------------------------------------------------------- rows that are not independent


def test_a_whole_graph_is_one_batch_and_each_view_a_pass_of_its_own(tmp_path: Path) -> None:
    views: list[View] = []
    toy = Toy("meow", counted_passes(toys_rows.Meow, views), toys_rows.graph, toys_rows.Convolution)
    toy.fit(started(tmp_path / "run"), steps=2)
    assert [len(view.inputs) for view in views] == [ROWS] * 4


def test_an_encoder_that_looks_across_rows_is_told_of_before_the_first_step(tmp_path: Path) -> None:
    said = []

    class Listens(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    Toy("meow", toys_rows.Meow, toys_rows.graph, toys_rows.Convolution).fit(
        started(tmp_path / "run"), steps=1, reporter=Listens()
    )
    assert any("looks across rows" in text for text in said)

"""DebCSE: weights by inverse propensity, draws, guards and what stands against what; and the stages through the real loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.nn import functional

from contrapose.claims._sentences import STSB_EN
from contrapose.data.batches import Batch, Data, Facts, seeded
from contrapose.data.readers import read
from contrapose.errors import (
    ArgumentInvalid,
    ContraposeError,
    EncoderUnknown,
    NonFinite,
    ShapesDiffer,
    TemperatureInvalid,
)
from contrapose.text._candidates import Candidates
from contrapose.text._surface import levenshtein_similarity, numbered_words
from contrapose.text.debcse import DebCSE, effective_sample_size, gumbel, gumbel_top, pair_weights
from contrapose.text.encoder import TextEncoder
from contrapose.training.method import Method
from contrapose.training.progress import Silent
from tests.training.children import started
from tests.training.toys import Toy

TEXTS = [
    "the cat sat on the mat",
    "a small cat is on the mat",
    "the cat sat under the mat",
    "an old river runs in the house",
    "the river runs under a house",
    "a dog sleeps",
    "the red dog sleeps very long",
    "the blue dog sat",
    "The cat sat on the mat!",
]
OF = {"semantic_temperature": 0.1, "surface_temperature": 0.2, "floor": 0.01}


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------------------------------ weights and draws


def test_weights_are_meaning_over_propensity() -> None:
    m, s = drawn(5, 7), drawn(5, 7, seed=1)
    positive, negative = pair_weights(m, s, **OF)
    for found, meaning, form in ((positive, m, s), (negative, 1 - m, 1 - s)):
        weight = (meaning / 0.1).exp() / (form / 0.2).softmax(dim=1).clamp_min(0.01)
        torch.testing.assert_close(found.exp(), weight / weight.sum(dim=1, keepdim=True))


@pytest.mark.parametrize("off", [None, math.inf])
def test_without_a_surface_temperature_meaning_alone_weighs(off: float | None) -> None:
    m, s = drawn(5, 7), drawn(5, 7, seed=1)
    positive, negative = pair_weights(m, s, **{**OF, "surface_temperature": off})
    torch.testing.assert_close(positive.exp(), (m / 0.1).softmax(dim=1))
    torch.testing.assert_close(negative.exp(), ((1 - m) / 0.1).softmax(dim=1))


def test_of_equal_meaning_the_one_that_looks_different_is_the_likelier_positive() -> None:
    m, s = torch.full((1, 2), 0.9), torch.tensor([[0.9, 0.2]])
    positive, negative = pair_weights(m, s, **OF)
    assert positive[0, 1] > positive[0, 0]
    assert negative[0, 0] > negative[0, 1]


def test_guards_and_empty_slots_have_no_weight_and_the_others_all_of_it() -> None:
    m, s = drawn(3, 6), drawn(3, 6, seed=1)
    there = torch.ones(3, 6, dtype=torch.bool)
    there[:, 5] = False
    positive, negative = pair_weights(m, s, **OF, there=there, positive=m > 0.5, negative=m > 2)
    assert (positive.exp()[~(there & (m > 0.5))] == 0).all()
    torch.testing.assert_close(positive.exp().sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert negative.isneginf().all()
    only, _ = pair_weights(m[:, :5], s[:, :5], **OF, positive=m[:, :5] > 0.5)
    torch.testing.assert_close(positive[:, :5], only)  # propensities are those of the candidates that there are


def test_by_weights_what_form_alone_draws_becomes_what_meaning_draws() -> None:
    m, s = drawn(1, 40), drawn(1, 40, seed=1)
    by_form = (s / 0.2).softmax(dim=1)
    weights = pair_weights(m, s, **{**OF, "floor": 1e-12})[0].exp()
    weighed = (by_form * weights * s).sum() / (by_form * weights).sum()
    torch.testing.assert_close(weighed, ((m / 0.1).softmax(dim=1) * s).sum())


def test_draws_follow_the_weights() -> None:
    weights = torch.tensor([0.05, 0.15, 0.3, 0.5], dtype=torch.float64)
    draws, generator = 20_000, torch.Generator().manual_seed(0)
    first, second = gumbel_top(weights.log().expand(draws, -1), gumbel((draws, 4), generator), 2).T
    observed = torch.bincount(first, minlength=4).numpy()
    assert stats.chisquare(observed, draws * weights.numpy()).pvalue > 0.001
    rest = torch.bincount(second[first == 3], minlength=4).numpy()[:3]  # without replacement
    assert stats.chisquare(rest, rest.sum() * weights[:3].numpy() / 0.5).pvalue > 0.001


def test_where_weights_end_draws_end() -> None:
    log_weights = torch.tensor([[0.0, -math.inf, -1.0], [-math.inf] * 3])
    found = gumbel_top(log_weights, torch.zeros(2, 3), 3)
    assert found.tolist() == [[0, 2, -1], [-1, -1, -1]]


def test_effective_sample_size() -> None:
    log_weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1, 0, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0]]).log()
    assert effective_sample_size(log_weights).tolist() == [4, 1, 2, 0]


BAD = {
    "semantic temperature 0": ({"semantic_temperature": 0.0}, TemperatureInvalid, "semantic_temperature .* 0.0"),
    "surface temperature below 0": ({"surface_temperature": -1.0}, TemperatureInvalid, "surface_temperature .* -1.0"),
    "floor 0": ({"floor": 0.0}, ArgumentInvalid, "got 0.0"),
    "floor above 1": ({"floor": 1.5}, ArgumentInvalid, "got 1.5"),
    "other shapes": ({"surface": torch.rand(2, 4)}, ShapesDiffer, r"\(2, 3\) and \(2, 4\)"),
    "NaN": ({"semantic": torch.tensor([[0.1] * 3, [0.1, math.nan, 0.2]])}, NonFinite, "semantic .* sentence 1"),
}


@pytest.mark.parametrize(("changed", "error", "says"), BAD.values(), ids=BAD)
def test_weights_that_make_no_sense(changed: dict, error: type[ContraposeError], says: str) -> None:
    given = {"semantic": torch.rand(2, 3), "surface": torch.rand(2, 3), **OF, **changed}
    with pytest.raises(error, match=says):
        pair_weights(given.pop("semantic"), given.pop("surface"), **given)


def test_noise_of_another_shape() -> None:
    with pytest.raises(ShapesDiffer, match=r"\(2, 3\) and \(2, 4\)"):
        gumbel_top(torch.zeros(2, 3), torch.zeros(2, 4), 1)


@pytest.mark.parametrize(
    "settings",
    [{"surface_temperature": 0.0}, {"propensity_floor": 0.0}, {"propensity_floor": 1.1}, {"candidates": 1}],
)
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(settings))):
        DebCSE.Settings(**settings)


# ------------------------------------------------------------------------------------------------------------ the sampler


def candidates(semantic: list[list[float]], surface: list[list[float]] | None = None) -> Candidates:
    """Of n sentences that are all each other's candidates."""
    n = len(semantic)
    others = torch.tensor([[j for j in range(n) if j != i] for i in range(n)], dtype=torch.int32)
    m = torch.tensor(semantic).gather(1, others.long())
    return Candidates(torch.arange(n), others, m, torch.full_like(m, 0.5) if surface is None else torch.tensor(surface))


def sampling(found: Candidates, group: list[int] | None = None, rows: int | None = None, **settings) -> DebCSE:
    method = DebCSE(DebCSE.Settings(**settings))
    method.candidates = found
    data = Data({}, rows or len(found), None if group is None else torch.tensor(group))
    method.weigh(data)
    method.number = torch.arange(len(found))
    method.remark(data)
    return method


MEANING = [[1, 0.9, 0.1, 0.2], [0.9, 1, 0.3, 0.5], [0.1, 0.3, 1, 0.4], [0.2, 0.5, 0.4, 1]]


def draws(method: DebCSE, times: int = 50) -> list[Tensor]:
    return [method.draw(seeded(number)) for number in range(times)]


def test_a_positive_is_near_its_best_candidate_and_a_negative_far() -> None:
    found = draws(sampling(candidates(MEANING), most_negative=0.45, hard_negatives=1))
    positives, negatives = ([{int(each[row, place]) for each in found} for row in range(4)] for place in (0, 1))
    assert positives == [{1}, {0}, {3}, {1, 2}]  # 0.8 of 0.9, 0.9, 0.4, 0.5
    assert negatives[0] == {2, 3}
    assert negatives[1] == {2}


def test_a_positive_is_never_a_negative_too() -> None:
    for found in draws(sampling(candidates(MEANING), most_negative=1.0, hard_negatives=2)):
        for row, (positive, *negatives) in enumerate(found.tolist()):
            assert len({row, positive, *negatives}) == 4


def test_without_candidates_a_sentence_stands_for_itself_and_the_run_says_so() -> None:
    method = sampling(
        candidates(MEANING), least_positive=0.85, least_positive_of="absolute", most_negative=0.15, hard_negatives=5
    )
    found = method.draw(seeded(0))
    assert found.tolist() == [[1, 2, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [2, 0, 2, 2, 2, 2], [3, 3, 3, 3, 3, 3]]
    assert method.remarks == [
        "candidates is 3, since there are 4 distinct sentences",
        "2 sentences have no candidate for a positive and take their own dropout view",
        "2 sentences have no candidate for a negative and none of their own",
    ]


def test_rows_of_a_group_are_never_drawn_as_negatives() -> None:
    method = sampling(candidates(MEANING), group=[7, 1, 7, 2], most_negative=1.0, least_positive=1.0)
    assert {int(found[0, 1]) for found in draws(method)} == {3}  # 1 is its positive, 2 of its group


def test_dropout_positives_and_no_hard_negatives() -> None:
    assert sampling(candidates(MEANING), positives="dropout").draw(seeded(0))[:, 0].tolist() == [0, 1, 2, 3]
    assert sampling(candidates(MEANING), hard_negatives=0).draw(seeded(0)).shape == (4, 1)


def test_repeated_sentences_are_named() -> None:
    assert sampling(candidates(MEANING), rows=6).remarks[0].startswith("2 sentences have the words of another")


def test_importance_draws_evenly_and_weighs_what_was_drawn() -> None:
    method = sampling(candidates(MEANING), least_positive=0.0, weighting="importance", hard_negatives=0)
    counts = torch.stack([torch.bincount(found[:, 0], minlength=4) for found in draws(method, 600)]).sum(0)
    assert counts.sum() == 2400
    drawn_of_first = torch.bincount(torch.stack([found[0, 0] for found in draws(method, 600)]), minlength=4)
    assert drawn_of_first[0] == 0
    assert stats.chisquare(drawn_of_first[1:]).pvalue > 0.001
    rows = torch.tensor([[0, 1], [1, 1], [2, 0]])
    weights = method.importance(Batch(Data({}, 4), rows, 0, seeded(0)))
    expected = torch.tensor([3 * method.log_positive[0, 0].exp(), 1, 3 * method.log_positive[2, 0].exp()])
    torch.testing.assert_close(weights, expected / expected.sum())


@pytest.fixture(scope="module")
def captions() -> tuple[list[str], DebCSE]:
    """A method prepared on sentences of the English STS benchmark, with the offline encoder as reference."""
    table = read(STSB_EN.find() / "dev.jsonl.gz", needs=(), strict=False)
    texts = [text for side in ("sentence1", "sentence2") for text in table[side][:250]]
    encoder = TextEncoder.open("minilm", max_tokens=32)
    method = DebCSE(DebCSE.Settings(), encoder)
    method.prepare(Data({"text": encoder.open_column(texts)}, len(texts)), None)
    return texts, method


def overlap(texts: list[str], rows: Tensor, others: Tensor) -> float:
    spoken = numbered_words(texts)
    return float(levenshtein_similarity(spoken[rows], spoken[others]).mean())


def test_positives_look_less_alike_than_nearest_neighbours_and_negatives_more_than_random_ones(
    captions: tuple[list[str], DebCSE],
) -> None:
    texts, method = captions
    found, kept = method.candidates, method.candidates.kept
    by_form = kept[found.rows.gather(1, found.surface.argmax(1, keepdim=True))[:, 0].long()]
    by_meaning = kept[found.rows.gather(1, found.semantic.argmax(1, keepdim=True))[:, 0].long()]
    for seed in range(3):
        batches = torch.cat(list(method.batches(Data({}, len(texts)), 0, seeded(seed))))
        anchors, positives, negatives = batches.T
        drawn_anew, repelled = anchors != positives, anchors != negatives
        of_positives = overlap(texts, anchors[drawn_anew], positives[drawn_anew])
        assert of_positives < overlap(texts, kept, by_form) - 0.1
        assert of_positives < overlap(texts, kept, by_meaning)
        shuffled = kept[torch.randperm(len(kept), generator=seeded(seed, 1))]
        assert overlap(texts, anchors[repelled], negatives[repelled]) > overlap(texts, kept, shuffled)
        lengths = numbered_words(texts).lengths
        assert (lengths[anchors] == lengths[positives])[drawn_anew].double().mean() < 0.5


def test_without_propensities_the_surface_shortcut_comes_back(captions: tuple[list[str], DebCSE]) -> None:
    texts, method = captions

    def watched(**settings) -> dict[str, float]:
        other = sampling(method.candidates, rows=len(texts), **settings)
        other.draw(seeded(0))
        return other.watched

    assert watched(surface_temperature=None)["positive_overlap"] > watched()["positive_overlap"] + 0.02
    assert watched(surface_temperature=None)["negative_overlap"] < watched()["negative_overlap"]


# ---------------------------------------------------------------------------------------------------------- the objective


def batch_of(rows: list[list[int]], group: list[int] | None = None) -> Batch:
    return Batch(Data({}, 100, None if group is None else torch.tensor(group)), torch.tensor(rows), 0, seeded(0))


def terms(method: DebCSE, batch: Batch, dim: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """The term, and (b, columns) logits and mask by hand."""
    b, p = batch.rows.shape
    z = torch.randn(p, b, dim, generator=seeded(5), dtype=torch.float64)
    names = ["anchor", "positive", *(f"negative_{number}" for number in range(1, p - 1))]
    (term,) = method.objective(dict(zip(names, z, strict=True)), batch).values()
    unit = functional.normalize(z, dim=-1)
    logits = unit[0] @ torch.cat([unit[1], unit[2:].transpose(0, 1).flatten(0, 1)]).T / 0.05
    columns = torch.cat([batch.rows[:, 1], batch.rows[:, 2:].flatten()])
    apart = (columns != batch.rows[:, :1]) & (columns != batch.rows[:, 1:2])
    return term, logits, apart | torch.eye(b, len(columns), dtype=torch.bool)


@pytest.mark.parametrize("hard", [0, 1, 2])
def test_the_loss_is_that_of_triplets_without_a_sentence_against_itself(hard: int) -> None:
    rows = [[0, 5, 6, 1], [1, 0, 1, 9], [2, 7, 0, 8], [5, 5, 2, 3]]
    term, logits, apart = terms(
        DebCSE(DebCSE.Settings(hard_negatives=hard)), batch_of([row[: 2 + hard] for row in rows])
    )
    assert bool((~apart).any())
    torch.testing.assert_close(term, functional.cross_entropy(logits.masked_fill(~apart, -math.inf), torch.arange(4)))


def test_rows_of_a_group_do_not_stand_against_each_other() -> None:
    rows, group = [[0, 5, 6], [1, 6, 7], [2, 7, 3]], [0, 1, 2, 0, 4, 5, 6, 7]
    term, logits, apart = terms(DebCSE(DebCSE.Settings()), batch_of(rows, group))
    assert apart[0].all()
    apart[0, 5] = False  # row 3, the last negative, is of the group of row 0
    torch.testing.assert_close(term, functional.cross_entropy(logits.masked_fill(~apart, -math.inf), torch.arange(3)))


def test_false_negatives_are_masked_by_the_reference() -> None:
    method = sampling(candidates(MEANING), mask_false_negatives=True, least_positive=0.75, least_positive_of="absolute")
    vectors = functional.normalize(torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0.3, 0], [0, 0, 1]]), dim=1)
    method.candidates = Candidates(**{**vars(method.candidates), "vectors": vectors})
    rows = torch.tensor([[0, 1, 2], [1, 0, 3], [2, 3, 0], [3, 2, 1]])
    term, logits, apart = terms(method, Batch(Data({}, 4), rows, 0, seeded(0)))
    columns = torch.cat([rows[:, 1], rows[:, 2]])
    near = (1 + vectors[rows[:, 0]] @ vectors[columns].T) / 2 > 0.75
    kept = apart & (~near | torch.eye(4, 8, dtype=torch.bool))
    assert not torch.equal(kept, apart)
    torch.testing.assert_close(term, functional.cross_entropy(logits.masked_fill(~kept, -math.inf), torch.arange(4)))


def test_importance_weighs_the_losses_of_the_batch() -> None:
    method = sampling(candidates(MEANING), weighting="importance", least_positive=0.0)
    batch = Batch(Data({}, 4), torch.tensor([[0, 1, 3], [1, 2, 0], [2, 3, 1]]), 0, seeded(0))
    term, logits, apart = terms(method, batch)
    losses = functional.cross_entropy(logits.masked_fill(~apart, -math.inf), torch.arange(3), reduction="none")
    torch.testing.assert_close(term, (method.importance(batch).double() * losses).sum())


def test_the_value_at_chance() -> None:
    method, batch = (
        DebCSE(DebCSE.Settings(hard_negatives=2)),
        batch_of([[row, row + 10, row + 20, row + 30] for row in range(8)]),
    )
    same = torch.ones(8, 4)
    names = ("anchor", "positive", "negative_1", "negative_2")
    assert method.objective(dict.fromkeys(names, same), batch)["info_nce"].item() == pytest.approx(math.log(24))
    assert method.chance(batch) == {"info_nce": pytest.approx(math.log(24))}


# --------------------------------------------------------------------------------------------------- through the real loop


class Kept(DebCSE):
    """Keeps what each stage prepared; the model that a run gives back is built from its weights alone."""

    prepared: ClassVar[list[DebCSE]] = []

    def prepare(self, data: Data, previous: Method | None) -> None:
        super().prepare(data, previous)
        self.prepared.append(self)


def trained(encoder: TextEncoder, path: Path, texts: list[str] = TEXTS, **settings) -> tuple[DebCSE, list[dict]]:
    """The last stage's method, as it was trained, and the lines of metrics."""
    data = Data({"text": encoder.open_column(texts)}, len(texts))
    quick = {"batch_size": 4, "steps": 3, "log_every": 1, "precision": "fp32", "candidates": 4, "most_negative": 1.0}
    folder = started(path)
    Toy("debcse", Kept, lambda: data, lambda: encoder, quick | settings).fit(folder)
    return Kept.prepared.pop(), folder.metrics()


def test_every_epoch_draws_anew(encoder: TextEncoder, tmp_path: Path) -> None:
    method, _ = trained(encoder, tmp_path / "run")
    data = Data({}, len(TEXTS))
    first, again, second = (torch.cat(list(method.batches(data, 0, seeded(number)))).tolist() for number in (1, 1, 2))
    assert first == again
    assert sorted(first) != sorted(second)
    assert {row for rows in first for row in rows} == set(range(8))  # row 8 has the words of row 0


class Heard(Silent):
    """Keeps what the run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_before_step_1_the_run_says_what_it_found(encoder: TextEncoder, tmp_path: Path) -> None:
    data, heard = Data({"text": encoder.open_column(TEXTS)}, len(TEXTS)), Heard()
    settings = {"batch_size": 4, "steps": 1, "precision": "fp32"}
    Toy("debcse", DebCSE, lambda: data, lambda: encoder, settings).fit(started(tmp_path / "run"), reporter=heard)
    assert "1 sentences have the words of another and are left out; candidates is 7, since" in heard.said[0]


def test_a_reference_is_trained_first_and_the_encoder_starts_anew(encoder: TextEncoder, tmp_path: Path) -> None:
    method, metrics = trained(encoder, tmp_path / "run", reference="simcse", learning_rate=1e-2)
    assert [line["stage"] for line in metrics] == ["reference"] * 3 + ["train"] * 3
    plain, _ = trained(encoder, tmp_path / "plain", learning_rate=1e-2)
    assert not torch.equal(method.candidates.semantic, plain.candidates.semantic)


def test_a_refreshed_stage_goes_on_with_candidates_of_the_trained_encoder(encoder: TextEncoder, tmp_path: Path) -> None:
    method, metrics = trained(encoder, tmp_path / "run", refresh=True, learning_rate=1e-2)
    once, _ = trained(encoder, tmp_path / "once", learning_rate=1e-2)
    assert [line["stage"] for line in metrics] == ["train"] * 3 + ["refreshed"] * 3
    found = method.candidates
    vectors = torch.from_numpy(once.encoder.encode([TEXTS[row] for row in found.kept.tolist()]))
    cosines = torch.einsum("nd,nkd->nk", vectors, vectors[found.rows.clamp_min(0).long()])
    torch.testing.assert_close(found.semantic[found.there], (1 + cosines[found.there]) / 2, rtol=1e-4, atol=1e-5)


def test_a_reference_by_name_is_opened(encoder: TextEncoder, tiny_bert: Path, tmp_path: Path) -> None:
    named, _ = trained(encoder, tmp_path / "named", reference=str(tiny_bert))
    initial, _ = trained(encoder, tmp_path / "initial")
    torch.testing.assert_close(named.candidates.semantic, initial.candidates.semantic)


def test_a_reference_that_is_not_there(encoder: TextEncoder) -> None:
    with pytest.raises(EncoderUnknown, match="no folder"):
        DebCSE(DebCSE.Settings(reference="/nowhere/at/all"), encoder).build(Facts(9, ("text",)))


OPTIONS = {
    "defaults": {},
    "two negatives": {"hard_negatives": 2, "surface": "jaccard", "surface_temperature": None},
    "positives alone": {"hard_negatives": 0},
    "negatives alone": {"positives": "dropout"},
    "importance": {"weighting": "importance"},
}
MANY = [f"{size} {thing} {place}" for size in ("a small", "the very large", "an old") for thing in
        ("cat", "dog", "tree", "red house") for place in ("on the mat", "under it", "in the river", "")]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_training_lowers_the_loss_of_the_same_draws(options: dict, encoder: TextEncoder, tmp_path: Path) -> None:
    def last_losses(rate: float) -> float:
        quick = {"steps": 24, "batch_size": 12, "learning_rate": rate, "schedule": "constant", "candidates": 8}
        _, metrics = trained(encoder, tmp_path / f"{rate}", MANY, **quick, **options)
        return sum(line["terms"]["info_nce"] for line in metrics[-8:])

    assert last_losses(2e-3) < 0.9 * last_losses(1e-12)

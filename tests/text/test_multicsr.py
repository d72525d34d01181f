"""MultiCSR: curation, the mask by the reference, both losses, and what is trained on through the real loop."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from contrapose.data.batches import Batch, Data, Facts, seeded
from contrapose.data.readers import read
from contrapose.errors import (
    ArgumentInvalid,
    ColumnMissing,
    ContraposeError,
    CurationEmpty,
    EncoderUnknown,
    SettingInvalid,
    ShapesDiffer,
    TargetsInvalid,
)
from contrapose.objectives import info_nce
from contrapose.text._frozen import FrozenVectors
from contrapose.text.data import open_data
from contrapose.text.encoder import TextEncoder
from contrapose.text.multicsr import MultiCSR, curate, keep_by_reference, softmax_bce
from contrapose.text.simcse import SimCSE, logits
from contrapose.training.method import Method
from contrapose.training.plan import refuse_misfits
from contrapose.training.settings import parse_settings
from tests.text.samples import TEXTS
from tests.training.children import started
from tests.training.toys import Toy


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


# --------------------------------------------------------------------------------------------------------------- curation

SCORES = torch.tensor([[4.0, 1.0], [1.0, 4.0], [3.0, 3.0], [2.9, 0.0], [5.0, 3.1], [4.5, 4.5], [3.0, 2.9], [2.0, 4.2]])


def test_the_better_candidate_becomes_the_positive_and_unclear_rows_go() -> None:
    found = curate(SCORES)
    assert found.swapped.tolist() == [False, True, True, False, False, True, False, True]
    assert found.kept.tolist() == [True, True, False, False, False, False, True, True]
    assert found.dropped == {"positive below 3": 1, "negative above 3": 2, "equal scores": 1}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"require_gap": False}, [0, 1, 2, 6, 7]),
        ({"positive_line": 4.0, "negative_line": 1.0}, [0, 1]),
        ({"positive_line": 2.9}, [0, 1, 3, 6, 7]),
        ({"negative_line": 2.9}, [0, 1, 6, 7]),
        ({"negative_limit": 4.0}, [0, 1, 6]),
        ({"positive_line": 5.0, "negative_line": 0.0}, []),
    ],
)
def test_lines_gap_and_limit(options: dict[str, Any], kept: list[int]) -> None:
    """A line of 2.9 keeps 2.9, which single precision does not hold exactly."""
    assert curate(SCORES, **options).kept.nonzero().flatten().tolist() == kept


def test_equal_scores_are_swapped_only_as_the_official_filter_does() -> None:
    assert curate(SCORES).swapped[[2, 5]].tolist() == [True, True]
    assert curate(SCORES, swap_equal=False).swapped[[2, 5]].tolist() == [False, False]


def test_noisy_scores_restore_corrupted_triplets() -> None:
    """Three rows in ten have positive and negative exchanged, one in ten a positive in the negative's place."""
    for seed in range(3):
        uniform = torch.rand(2000, generator=seeded(seed))
        truth = torch.tensor([[4.5, 1.0]]).repeat(2000, 1)
        truth[uniform < 0.3] = torch.tensor([1.0, 4.5])
        truth[uniform > 0.9] = 4.5
        noise = 0.5 * torch.randn(2000, 2, generator=seeded(seed, 1))
        found = curate((truth + noise).clamp(0, 5))
        right = torch.where(found.swapped[:, None], truth.flip(1), truth) == torch.tensor([4.5, 1.0])
        assert right.all(dim=1)[found.kept].double().mean() > 0.97
        assert found.kept[uniform <= 0.9].double().mean() > 0.9


@pytest.mark.parametrize("score", [-0.1, 5.1, math.nan, math.inf])
def test_scores_out_of_range_are_named(score: float) -> None:
    scores = torch.tensor([[1.0, 2.0], [3.0, score]])
    with pytest.raises(TargetsInvalid, match=r"negative_score is .* in row 1 \(1 such"):
        curate(scores)
    with pytest.raises(ShapesDiffer, match=r"\(2,\)"):
        curate(torch.zeros(2))


# ----------------------------------------------------------------------------------------------------- mask and objectives


def whole(keep: Any, b: int) -> Tensor:
    return keep(slice(0, b), slice(0, 2 * b))


def test_pairs_above_phi_are_masked_but_for_the_own_positive() -> None:
    r = drawn(3, 7, 4)
    keep = keep_by_reference(*r, phi=0.3)
    unit = functional.normalize(r, dim=-1)
    expected = (unit[0] @ torch.cat([unit[1], unit[2]]).T <= 0.3) | torch.eye(7, 14, dtype=torch.bool)
    assert torch.equal(whole(keep, 7), expected)
    assert not expected.all()
    assert not expected[torch.arange(7), torch.arange(7, 14)].all()  # an own negative is masked, too
    assert torch.equal(keep(slice(2, 5), slice(6, 11)), expected[2:5, 6:11])


def test_phi_1_masks_nothing_even_among_equal_vectors() -> None:
    r = drawn(1, 6).float().expand(30, 6)
    assert whole(keep_by_reference(r, r, r, phi=1.0), 30).all()


def test_a_group_is_masked_but_for_the_own_triplet() -> None:
    r = drawn(3, 4, 5)
    kept = whole(keep_by_reference(*r, phi=1.0, group=torch.tensor([0, 1, 0, 2])), 4)
    masked = {(0, 2), (0, 6), (2, 0), (2, 4)}
    assert {tuple(place) for place in (~kept).nonzero().tolist()} == masked


@pytest.mark.parametrize("phi", [-1.0, 1.01, math.nan])
def test_phi_out_of_range(phi: float) -> None:
    r = drawn(3, 2, 4)
    with pytest.raises(ArgumentInvalid, match="phi is a cosine"):
        keep_by_reference(*r, phi=phi)


def test_a_reference_of_another_batch() -> None:
    with pytest.raises(ShapesDiffer, match="the same triplets"):
        keep_by_reference(drawn(3, 4), drawn(2, 4), drawn(3, 4), phi=0.5)


def test_the_official_loss_keeps_a_masked_pair_as_a_logit_of_0() -> None:
    scores, keep = 3 * drawn(4, 8), torch.rand(4, 8, generator=seeded(1)) < 0.7
    p = torch.where(keep, scores, 0.0).exp()
    p = p / p.sum(dim=1, keepdim=True)
    expected = functional.binary_cross_entropy(p, torch.eye(4, 8, dtype=p.dtype))
    torch.testing.assert_close(softmax_bce(scores, keep), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_official_loss_stays_finite_where_a_negative_takes_all(dtype: torch.dtype) -> None:
    scores = torch.tensor([[0.0, 200, 0, 0], [0, 100, -100, 0]], dtype=dtype, requires_grad=True)
    loss = softmax_bce(scores, torch.ones(2, 4, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, scores)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient[0, 0] < 0 < gradient[0, 1]


def test_the_official_loss_of_other_shapes() -> None:
    with pytest.raises(ShapesDiffer, match=r"\(b, 2b\); got \(3, 5\)"):
        softmax_bce(torch.zeros(3, 5), torch.ones(3, 5, dtype=torch.bool))


class Fixed:
    """Reference vectors by place, (3n, d)."""

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def __getitem__(self, places: Tensor) -> Tensor:
        return self.vectors[places]


def ready(reference: Tensor, **settings: Any) -> MultiCSR:
    """A method whose n triplets have the reference vectors (3, n, d)."""
    method = MultiCSR(MultiCSR.Settings(**settings))
    method.rows = method.place = torch.arange(reference.shape[1])
    method.frozen = Fixed(reference.flatten(0, 1))
    return method


def batch_of(rows: list[int], group: list[int] | None = None) -> Batch:
    return Batch(Data({}, 100, None if group is None else torch.tensor(group)), torch.tensor(rows), 0, seeded(0))


@pytest.mark.parametrize("objective", ["infonce", "bce_softmax"])
def test_the_mask_is_of_the_batch_and_the_loss_of_what_is_kept(objective: str) -> None:
    reference, z, rows = drawn(3, 9, 4), drawn(3, 5, 6, seed=1), [8, 1, 3, 0, 6]
    method = ready(reference, phi=0.4, objective=objective)
    (term,) = method.objective(dict(zip(("anchor", "positive", "negative"), z, strict=True)), batch_of(rows)).values()
    kept = whole(keep_by_reference(*reference[:, rows], phi=0.4), 5)
    scores = logits(z[0], z[1], negatives=z[2], temperature=0.05)
    if objective == "infonce":
        expected = functional.cross_entropy(scores.masked_fill(~kept, -math.inf), torch.arange(5))
    else:
        expected = softmax_bce(scores, kept)
    torch.testing.assert_close(term, expected)
    assert method.watched["masked"] == pytest.approx(float((~kept).sum()) / 45)


def test_with_no_pair_masked_it_is_supervised_simcse() -> None:
    z = drawn(3, 5, 6, seed=1)
    method = ready(drawn(3, 5, 4), phi=1.0)
    (term,) = method.objective(
        dict(zip(("anchor", "positive", "negative"), z, strict=True)), batch_of([*range(5)])
    ).values()
    torch.testing.assert_close(term, info_nce(z[0], z[1], negatives=z[2], temperature=0.05))


def test_a_row_whose_every_negative_is_masked_is_warned_of_and_adds_0() -> None:
    reference = torch.ones(3, 3, 4)
    reference[0, 2] = torch.tensor([1.0, -1, 1, -1])  # the third anchor alone is unlike everything
    z = drawn(3, 3, 6, seed=1).requires_grad_()
    method = ready(reference, phi=0.5)
    with pytest.warns(UserWarning, match="no negative"):
        (term,) = method.objective(
            dict(zip(("anchor", "positive", "negative"), z, strict=True)), batch_of([0, 1, 2])
        ).values()
    assert method.watched["without_negatives"] == 2
    (gradient,) = torch.autograd.grad(term, z)
    assert (gradient[0, :2] == 0).all()
    assert (gradient[0, 2] != 0).any()


@pytest.mark.parametrize("objective", ["infonce", "bce_softmax"])
def test_the_value_at_chance(objective: str) -> None:
    method, batch = ready(drawn(3, 8, 40), objective=objective), batch_of([*range(8)])
    found = method.objective(dict.fromkeys(("anchor", "positive", "negative"), torch.ones(8, 4)), batch)
    assert {name: value.item() for name, value in found.items()} == pytest.approx(method.chance(batch), rel=1e-5)


# --------------------------------------------------------------------------------------------------- through the real loop


def triplets(rows: int = 12) -> list[dict[str, Any]]:
    """Rows 0, 3, 6, … have positive and negative exchanged; 1, 4, … are fine; 2, 5, … score alike."""
    scores = ([1.0, 4.5], [4.0, 0.5], [4.0, 4.0])
    return [
        {
            "text": f"the {number} cat",
            "positive": f"a {number} dog",
            "negative": f"{number} is under the river",
            "positive_score": scores[number % 3][0],
            "negative_score": scores[number % 3][1],
        }
        for number in range(rows)
    ]


def opened(rows: list[dict[str, Any]], encoder: TextEncoder) -> Data:
    return open_data(read(rows, needs=MultiCSR.card.columns), MultiCSR.card, encoder)


class Kept(MultiCSR):
    """Keeps what each stage prepared; the model that a run gives back is built from its weights alone."""

    prepared: ClassVar[list[MultiCSR]] = []

    def prepare(self, data: Data, previous: Method | None) -> None:
        super().prepare(data, previous)
        self.prepared.append(self)


TINY = {"batch_size": 4, "steps": 3, "log_every": 1, "precision": "fp32"}


def trained(
    encoder: TextEncoder, path: Path, rows: list[dict[str, Any]] | None = None, **settings: Any
) -> tuple[MultiCSR, list[dict]]:
    """The last stage's method, as it was trained, and the lines of metrics."""
    data, folder = opened(rows or triplets(), encoder), started(path)
    Toy("multicsr", Kept, lambda: data, lambda: encoder, TINY | settings).fit(folder)
    return Kept.prepared.pop(), folder.metrics()


def test_curated_rows_alone_are_trained_on_their_sides_the_right_way_round(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    method, metrics = trained(encoder, tmp_path / "run", reference="initial")
    assert [line["stage"] for line in metrics] == ["train"] * 3
    assert sorted(torch.cat(list(method.batches(Data({}, 12), 0, seeded(0)))).tolist()) == [0, 1, 3, 4, 6, 7, 9, 10]
    assert method.remarks[0] == (
        "curation keeps 8 of 12 triplets (4 negative above 3) and swaps positive and negative of 4"
    )
    views = method.views(batch_of([4, 0]))
    said = {
        name: encoder.tokenizer.batch_decode(view.inputs.split(), skip_special_tokens=True)
        for name, view in views.items()
    }
    assert said == {
        "anchor": ["the 4 cat", "the 0 cat"],
        "positive": ["a 4 dog", "0 is under the river"],
        "negative": ["4 is under the river", "a 0 dog"],
    }


def test_the_reference_is_in_evaluation_mode_and_has_no_head(encoder: TextEncoder, tmp_path: Path) -> None:
    method, _ = trained(encoder, tmp_path / "run", reference="initial", learning_rate=1e-2)
    places = torch.tensor([3, 0])  # of the kept: rows 4 and 0
    expected = encoder.encode(["the 4 cat", "the 0 cat"]), encoder.encode(["a 4 dog", "0 is under the river"])
    for found, vectors in zip(method.reference_vectors(places), expected, strict=False):
        torch.testing.assert_close(functional.normalize(found, dim=-1), torch.from_numpy(vectors), atol=1e-5, rtol=1e-4)


def test_a_reference_is_trained_first_without_pairs_and_the_encoder_starts_anew(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    method, metrics = trained(encoder, tmp_path / "run", reference_learning_rate=1e-2)
    assert [line["stage"] for line in metrics] == ["reference"] * 3 + ["train"] * 3
    plain, _ = trained(encoder, tmp_path / "plain", reference="initial")
    assert not torch.equal(method.frozen[torch.arange(4)], plain.frozen[torch.arange(4)])
    model = SimCSE(SimCSE.Settings(dropout_alone=True), encoder)
    model.build(Facts(9, ("text", "positive", "negative")))
    assert not model.supervised
    assert model.negatives(4, Facts(9, ("text", "positive", "negative"))) == 3


def test_frozen_vectors_are_embedded_once(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRAPOSE_CACHE", str(tmp_path))
    first = FrozenVectors([*TEXTS, TEXTS[0]], encoder)
    assert torch.equal(first[torch.tensor([0])], first[torch.tensor([len(TEXTS)])])
    torch.testing.assert_close(
        first[torch.arange(3)], torch.from_numpy(encoder.encode(TEXTS[:3])), atol=1e-5, rtol=1e-4
    )
    monkeypatch.setattr(TextEncoder, "encode", None)
    assert torch.equal(FrozenVectors([*TEXTS], encoder)[torch.arange(3)], first[torch.arange(3)])


@pytest.mark.parametrize("objective", ["infonce", "bce_softmax"])
def test_training_lowers_the_loss(objective: str, encoder: TextEncoder, tmp_path: Path) -> None:
    quick = {"steps": 20, "learning_rate": 2e-3, "schedule": "constant", "objective": objective, "phi": 1.0}
    _, metrics = trained(encoder, tmp_path / "run", reference="initial", batch_size=8, **quick)
    losses = [sum(line["terms"].values()) for line in metrics]
    assert sum(losses[-4:]) < 0.9 * sum(losses[:4])


def without(*names: str) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in names} for row in triplets()]


BAD: dict[str, tuple[list[dict[str, Any]], dict[str, Any], type[ContraposeError], str]] = {
    "no negative": (without("negative"), {}, ColumnMissing, "no column 'negative'.*--map negative=COLUMN"),
    "one score": (without("negative_score"), {}, ColumnMissing, "'positive_score' and no 'negative_score'"),
    "score of 6": ([{**triplets()[0], "positive_score": 6}, *triplets()[1:]], {}, TargetsInvalid, "is 6 in row 0"),
    "nothing left": (triplets(), {"positive_line": 5.0}, CurationEmpty, "keeps 0 of 12 .*12 positive below 5"),
    "phi": (triplets(), {"phi": 1.5}, SettingInvalid, "less than or equal to 1"),
    "reference": (triplets(), {"reference": "/nowhere/at/all"}, EncoderUnknown, "no folder"),
}


@pytest.mark.parametrize(("rows", "settings", "error", "said"), BAD.values(), ids=BAD)
def test_bad_input(rows: list[dict], settings: dict, error: type, said: str, encoder: TextEncoder) -> None:
    def before_training() -> None:
        chosen = parse_settings(MultiCSR.Settings, settings, owner="method 'multicsr'")
        refuse_misfits(MultiCSR(chosen, encoder), opened(rows, encoder))

    with pytest.raises(error, match=said):
        before_training()


def test_without_scores_nothing_is_curated(encoder: TextEncoder, tmp_path: Path) -> None:
    for rows, settings in ((without("positive_score", "negative_score"), {}), (triplets(), {"curate": False})):
        method, _ = trained(encoder, tmp_path / f"run{len(settings)}", rows, reference="initial", steps=1, **settings)
        assert len(method.rows) == 12
        assert method.remarks[0].endswith("no curation")

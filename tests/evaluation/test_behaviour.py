"""What InfoNCE would do to embeddings at each temperature, against figures made one pair at a time."""

from __future__ import annotations

import math
import sys

import pytest
import torch
from torch import Tensor

from contrapose.errors import ArgumentInvalid, NoNegatives, NonFinite, ShapesDiffer, TemperatureInvalid
from contrapose.evaluation.behaviour import behaviour, sets_of
from contrapose.geometry import tolerance


def rows(n: int, d: int = 6, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def by_hand(negatives: dict[int, float], temperature: float) -> dict[int, float]:
    force = {row: math.exp(similarity / temperature) for row, similarity in negatives.items()}
    return {row: each / sum(force.values()) for row, each in force.items()}


LABELS = torch.tensor([0, 0, 1, 1, 2, 2, 0, 1, 2, 0, 1])


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_figures_are_those_of_every_pair(temperature: float) -> None:
    x, n = rows(11), 11
    found = behaviour(x, temperatures=[temperature], labels=LABELS, share=0.2)
    entropies, hardest, on_same, same_hardest = [], [], [], []
    for i in range(n):
        similar = {j: cosine(x[i], x[j]) for j in range(n) if j != i}
        r = by_hand(similar, temperature)
        top = sorted(similar, key=similar.get, reverse=True)[:2]  # a fifth of 10
        entropies.append(-sum(each * math.log(each) for each in r.values()))
        hardest.append(sum(r[j] for j in top))
        on_same.append(sum(r[j] for j in r if LABELS[i] == LABELS[j]))
        same_hardest.append(sum(float(LABELS[i] == LABELS[j]) for j in top) / 2)
    (at,) = found.by_temperature
    assert at.temperature == temperature
    assert at.entropy == pytest.approx(sum(entropies) / n, rel=1e-4)
    assert at.effective == pytest.approx(sum(map(math.exp, entropies)) / n, rel=1e-4)
    assert at.hardest == pytest.approx(sum(hardest) / n, rel=1e-4)
    assert at.same_label == pytest.approx(sum(on_same) / n, rel=1e-4)
    assert found.hardest_same_label == pytest.approx(sum(same_hardest) / n)
    same_pairs = sum(float(LABELS[i] == LABELS[j]) for i in range(n) for j in range(n) if i != j)
    assert found.all_same_label == pytest.approx(same_pairs / (n * (n - 1)))


def test_negatives_of_pairs_are_other_rows_positives() -> None:
    a, p = rows(3, seed=1), rows(3, seed=2)
    found = behaviour(a, p, temperatures=[0.2])
    entropies = []
    for i in range(3):
        r = by_hand({j: cosine(a[i], p[j]) for j in range(3) if j != i}, 0.2)
        entropies.append(-sum(each * math.log(each) for each in r.values()))
    assert found.by_temperature[0].entropy == pytest.approx(sum(entropies) / 3, rel=1e-4)
    assert found.alignment == pytest.approx(sum(2 - 2 * cosine(a[i], p[i]) for i in range(3)) / 3, rel=1e-5)


def test_more_temperature_hears_more_negatives() -> None:
    found = behaviour(rows(40), temperatures=[0.02, 0.1, 1.0, 100.0])
    effective = [at.effective for at in found.by_temperature]
    assert effective == sorted(effective)
    assert effective[-1] == pytest.approx(39, rel=1e-3)


@pytest.mark.parametrize(("n", "size"), [(10, 3), (10, 10), (9, 3), (7, 5)])
def test_every_row_is_an_anchor_once_in_a_full_set(n: int, size: int) -> None:
    drawn = sets_of(n, size, seed=0)
    assert sorted(torch.cat([anchors for anchors, _ in drawn]).tolist()) == list(range(n))
    for anchors, others in drawn:
        assert len(set(others.tolist())) == size
        assert set(anchors.tolist()) <= set(others.tolist())


def test_an_anchor_has_as_many_negatives_as_asked_for() -> None:
    found = behaviour(rows(40), temperatures=[1e6], negatives=7)
    assert (found.negatives, found.anchors) == (7, 40)
    assert found.by_temperature[0].effective == pytest.approx(7, rel=1e-4)


def test_rows_of_a_group_are_no_negatives() -> None:
    group = torch.tensor([0, 0, 0, 1, 1, 1, -1, -1])
    found = behaviour(rows(8), temperatures=[1e6], group=group)
    assert found.by_temperature[0].effective == pytest.approx((6 * 5 + 2 * 7) / 8, rel=1e-4)


def test_a_vector_of_zeros_is_counted_and_has_no_part_in_tolerance() -> None:
    x = rows(11)
    x[4] = 0
    found = behaviour(x, temperatures=[1e6], labels=LABELS)
    rest = [row for row in range(11) if row != 4]
    assert (found.zero_rows, behaviour(rows(11), temperatures=[1.0]).zero_rows) == (1, 0)
    assert found.same_label_cosine == pytest.approx(tolerance(x[rest], LABELS[rest], mean_over="same_label"))
    assert found.anchors == 11


def test_the_draw_is_repeatable_and_parts_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = behaviour(rows(30), temperatures=[0.1], negatives=8, labels=torch.arange(30) % 4)
    monkeypatch.setattr(sys.modules[behaviour.__module__], "SIMILARITIES", 10)  # the function has the module's name
    parts = behaviour(rows(30), temperatures=[0.1], negatives=8, labels=torch.arange(30) % 4)
    assert parts.by_temperature[0].entropy == pytest.approx(whole.by_temperature[0].entropy, rel=1e-6)
    assert parts.hardest_same_label == pytest.approx(whole.hardest_same_label)


REFUSED = {
    "no temperature": ({"temperatures": []}, TemperatureInvalid),
    "temperature 0": ({"temperatures": [0.0]}, TemperatureInvalid),
    "no negative": ({"negatives": 0}, ArgumentInvalid),
    "too many negatives": ({"negatives": 8}, ArgumentInvalid),
    "labels too few": ({"labels": torch.zeros(7, dtype=torch.long)}, ShapesDiffer),
    "labels all different": ({"labels": torch.arange(8)}, ArgumentInvalid),
    "one group": ({"group": torch.zeros(8, dtype=torch.long)}, NoNegatives),
}


@pytest.mark.parametrize(("given", "error"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(given: dict, error: type[Exception]) -> None:
    with pytest.raises(error):
        behaviour(rows(8), **{"temperatures": [0.1], **given})


def test_rows_without_meaning_are_refused() -> None:
    broken = rows(8)
    broken[3, 2] = math.nan
    with pytest.raises(NonFinite, match="row 3"):
        behaviour(broken, temperatures=[0.1])
    with pytest.raises(ArgumentInvalid, match="two rows"):
        behaviour(rows(1), temperatures=[0.1])

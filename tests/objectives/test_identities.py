"""Which losses are one another's special cases and limits: the page of identities, held."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from contrapose.objectives import (
    cacr,
    decoupled,
    hard_contrastive,
    info_nce,
    log_partition,
    nearest_negative,
    nt_xent,
    simple_contrastive,
    supervised,
)
from tests.objectives.numbers import EXACT, normal

A, P = normal(6, 5), normal(6, 5, seed=1)


def cosines(a, p):
    return functional.normalize(a, dim=1) @ functional.normalize(p, dim=1).T


def test_nt_xent_is_supervised_with_row_numbers_as_labels():
    expected = supervised(torch.cat([A, P]), labels=torch.arange(6).repeat(2), temperature=0.3)
    torch.testing.assert_close(nt_xent(A, P, temperature=0.3), expected, **EXACT)


@pytest.mark.parametrize("denominator", ["all", "own"])
def test_info_nce_is_supervised_where_every_candidate_has_a_label_of_its_own(denominator):
    row = torch.arange(6)
    expected = info_nce(A, P, temperature=0.3)
    found = supervised(A, P, labels=row, candidate_labels=row, temperature=0.3, denominator=denominator)
    torch.testing.assert_close(found, expected, **EXACT)


def test_decoupled_is_supervised_with_negatives_alone():
    row = torch.arange(6)
    found = supervised(A, P, labels=row, candidate_labels=row, temperature=0.3, denominator="negatives")
    torch.testing.assert_close(found, decoupled(A, P, temperature=0.3), **EXACT)


def test_decoupled_of_nt_xent_is_what_the_negatives_say():
    """InfoNCE is softplus of the decoupled loss, anchor by anchor."""
    apart = decoupled(A, P, temperature=0.3, reduction="none")
    torch.testing.assert_close(info_nce(A, P, temperature=0.3, reduction="none"), functional.softplus(apart), **EXACT)


def test_all_negatives_are_the_hardest_ones():
    torch.testing.assert_close(
        hard_contrastive(A, P, temperature=0.3, hardest=1.0), info_nce(A, P, temperature=0.3), **EXACT
    )


def test_low_temperature_is_the_nearest_negative():
    t = 1e-5
    found = t * info_nce(A, P, temperature=t, reduction="none")
    torch.testing.assert_close(found, nearest_negative(A, P, reduction="none"), rtol=0, atol=1e-5)


def test_high_temperature_is_the_simple_loss():
    """t (L - log n) tends to (sum of negatives - (n - 1) positive) / n, the simple loss with mean push times (n - 1) / n."""
    t = 1e6
    found = t * (info_nce(A, P, temperature=t, reduction="none") - math.log(6))
    torch.testing.assert_close(found, simple_contrastive(A, P, reduction="none") * 5 / 6, rtol=0, atol=1e-5)


def test_a_partition_less_positives_is_info_nce():
    positive = cosines(A, P).diagonal() / 0.3
    found = (log_partition(A, P, temperature=0.3) - positive).mean()
    torch.testing.assert_close(found, info_nce(A, P, temperature=0.3), **EXACT)


def test_a_partition_without_itself_is_that_of_the_rest():
    expected = cosines(A, A).div(0.3).masked_fill(torch.eye(6, dtype=torch.bool), -math.inf).logsumexp(1)
    torch.testing.assert_close(log_partition(A, temperature=0.3, not_itself=True), expected, **EXACT)


def test_a_partition_with_log_weights():
    w = normal(6, 6, seed=3)
    expected = (cosines(A, P) / 0.3 + w).logsumexp(1)
    torch.testing.assert_close(log_partition(A, P, temperature=0.3, pair=w), expected, **EXACT)


def test_unweighted_cacr_of_two_views_is_alignment_and_a_linear_push():
    each = 2 - 2 * cosines(A, P)
    push = (each.sum() - each.diagonal().sum()) / 30
    torch.testing.assert_close(cacr([A, P], variant="uniform"), each.diagonal().mean() - push, **EXACT)


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, p: info_nce(a, p, temperature=0.3, symmetric=True),
        lambda a, p: nt_xent(a, p, temperature=0.3),
        lambda a, p: cacr([a, p]),
        lambda a, p: simple_contrastive(a, p),
    ],
)
def test_the_order_of_rows_and_a_rotation_change_nothing(loss):
    order, rotation = (
        torch.randperm(6, generator=torch.Generator().manual_seed(3)),
        torch.linalg.qr(normal(5, 5, seed=4))[0],
    )
    torch.testing.assert_close(loss(A[order] @ rotation, P[order] @ rotation), loss(A, P), **EXACT)

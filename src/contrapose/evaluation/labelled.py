"""Rows with labels, divided into those that a probe learns from and those that it is tested on."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from contrapose.errors import ProtocolDataInvalid

PARTS = 4  # one of them is for testing, where the data do not say which rows are
FOLDS = 10  # SentEval's number


@dataclass(frozen=True)
class Labelled:
    """labels: (n,) of all rows, as text. train, test: the numbers of the rows of each side. how: how they were divided, in words."""

    labels: np.ndarray
    train: np.ndarray
    test: np.ndarray
    how: str

    @property
    def known(self) -> np.ndarray:
        """The labels of the training rows."""
        return self.labels[self.train]

    @property
    def truth(self) -> np.ndarray:
        """The labels of the test rows."""
        return self.labels[self.test]


def divide(
    labels: Sequence[object],
    split: Sequence[object] | None,
    *,
    source: str,
    where: Callable[[int], str],
    groups: Sequence[Sequence[Hashable]] = (),
    least: int = 1,
    seed: int = 0,
) -> Labelled:
    """Rows divided as their column `split` says ("train" or "test"), or a quarter of each label drawn for testing.

    source: names the data in messages; where(row): the place of a row in words. groups: for each of several reasons to keep rows on one
    side (the same text, the same `group_id`), n keys; rows with an equal key are drawn together. None as a key: for no such reason.
    least: training rows that the probe needs of every label.

    Raises ProtocolDataInvalid for another word in `split`, a side of fewer than two rows, a single training label, a label
    with fewer than `least` training rows, and a test label that no training row has.
    """
    names = np.array([str(label) for label in labels])
    test, how = for_testing(names, split, where=where, groups=groups, seed=seed)
    divided = Labelled(names, np.flatnonzero(~test), np.flatnonzero(test), how)
    _refuse(divided, source, where, least)
    return divided


def for_testing(
    labels: np.ndarray,
    split: Sequence[object] | None,
    *,
    where: Callable[[int], str],
    groups: Sequence[Sequence[Hashable]] = (),
    seed: int = 0,
) -> tuple[np.ndarray, str]:
    """(n,) whether a row is for testing, and how that was divided, in words; `divide` without what a probe of labels needs."""
    joined = together(groups, len(labels))
    if split is None:
        each = "each label" if len(np.unique(labels)) > 1 else "the rows"
        how = f"a quarter of {each} drawn for testing (seed {seed}), equal rows on one side"
        return drawn_for_test(labels, joined, seed), how
    test = np.array([_side(value, row, where) == "test" for row, value in enumerate(split)])
    leaked = int(np.isin(joined[test], joined[~test]).sum())
    return test, "by the column `split`" + (f" ({leaked:,} test rows equal a training row)" if leaked else "")


def in_folds(
    labels: Sequence[object],
    *,
    source: str,
    where: Callable[[int], str],
    groups: Sequence[Sequence[Hashable]] = (),
    least: int = 1,
    folds: int = FOLDS,
    seed: int = 0,
) -> list[Labelled]:
    """Every row tested once: `folds` ways to divide the rows, each with another part for testing and all others for training.

    The groups of a label are dealt to the folds in turn, in random order, so that every fold has as much of it as can be. Arguments, and what
    is raised, are those of `divide`.
    """
    names, joined = np.array([str(label) for label in labels]), together(groups, len(labels))
    draw, dealt = np.random.default_rng(seed), 0
    fold_of = np.zeros(len(labels), dtype=int)  # of a group, by its number
    for members in groups_by_label(names, joined).values():
        fold_of[draw.permutation(members)] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    fold, how = fold_of[joined], f"into {folds} folds, each label alike (seed {seed}), equal rows in one fold"
    divided = [
        Labelled(names, np.flatnonzero(fold != each), np.flatnonzero(fold == each), how) for each in range(folds)
    ]
    for each in divided:
        _refuse(each, source, where, least)
    return divided


def together(groups: Sequence[Sequence[Hashable]], rows: int) -> np.ndarray:
    """(n,) numbers, equal for rows that share a key, or that are joined by a chain of rows that do."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = []
    for keys in groups:
        first: dict[Hashable, int] = {}
        pairs += [(first.setdefault(key, row), row) for row, key in enumerate(keys) if key is not None]
    one, other = np.array(pairs, dtype=int).reshape(-1, 2).T
    return connected_components(coo_matrix((np.ones(len(one)), (one, other)), shape=(rows, rows)), directed=False)[1]


def drawn_for_test(labels: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """(n,) whether a row is for testing: of each label a quarter of the groups, rounded down; a group has the label of its first row."""
    draw, chosen = np.random.default_rng(seed), []
    for members in groups_by_label(labels, groups).values():
        chosen += draw.permutation(members)[: len(members) // PARTS].tolist()
    return np.isin(groups, chosen)


def groups_by_label(labels: np.ndarray, groups: np.ndarray) -> dict[str, list[int]]:
    """The groups of each label, labels in order; a group has the label of its first row."""
    members = defaultdict(list)
    seen: set[int] = set()
    for label, group in zip(labels.tolist(), groups.tolist(), strict=True):
        if group not in seen:
            seen.add(group)
            members[label].append(group)
    return {label: members[label] for label in sorted(members)}


def _side(value: object, row: int, where: Callable[[int], str]) -> str:
    side = str(value).strip()
    if side not in ("train", "test"):
        raise ProtocolDataInvalid(
            f"{where(row)}: column 'split' is '{side}', and is 'train' or 'test'. Mend it, or leave such rows out."
        )
    return side


def _refuse(divided: Labelled, source: str, where: Callable[[int], str], least: int) -> None:
    for side, rows in (("train", divided.train), ("test", divided.test)):
        if len(rows) < 2:
            raise ProtocolDataInvalid(
                f"{source}: {len(rows)} of {len(divided.labels):,} rows are for '{side}' ({divided.how}); give at least two of either."
            )
    known, counts = np.unique(divided.known, return_counts=True)
    if len(known) < 2:
        raise ProtocolDataInvalid(
            f"{source}: all {len(divided.train):,} training rows have the label '{known[0]}'; a probe tells at least two labels apart."
        )
    unknown = divided.test[~np.isin(divided.truth, known)]
    if len(unknown):
        row = int(unknown[0])
        raise ProtocolDataInvalid(
            f"{where(row)}: no training row has the label '{divided.labels[row]}', so nothing can be learnt of it ({len(unknown):,} such "
            "test rows in all). Put rows of it into 'train', or leave it out."
        )
    if counts.min() < least:
        label = known[counts.argmin()]
        row = int(divided.train[divided.known == label][0])
        raise ProtocolDataInvalid(
            f"{where(row)}: label '{label}' has {counts.min()} training row{'s' if counts.min() > 1 else ''}, and the probe needs "
            f"{least} of every label. Give more of it, or leave it out."
        )

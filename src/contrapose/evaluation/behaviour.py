"""What a contrastive loss does to embeddings that are there, by temperature: which negatives it hears, and what they are.

After "Understanding the Behaviour of Contrastive Loss" (Wang and Liu, CVPR 2021). Nothing is trained: the relative penalties of InfoNCE are
a function of the similarities and the temperature alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor
from torch.nn import functional

from contrapose.errors import ArgumentInvalid, NoNegatives, ShapesDiffer, TemperatureInvalid
from contrapose.geometry import alignment, tolerance, uniformity
from contrapose.hardness import hardest_penalty, hardest_same_label, relative_penalties

SIMILARITIES = 2**22  # that stand in memory at once: 16 MiB of float32, and a few times as much for sorting


@dataclass(frozen=True)
class AtTemperature:
    """Means over the anchors at one temperature.

    entropy: of the relative penalties, in nats. effective: exp of it, how many negatives an anchor is really pushed from (the mean over
    anchors). hardest: the share of the force on the hardest negatives. same_label: the share of the force on negatives that have the anchor's
    label; None without labels.
    """

    temperature: float
    entropy: float
    effective: float
    hardest: float
    same_label: float | None


@dataclass(frozen=True)
class Behaviour:
    """The meters of n embeddings, and what InfoNCE would do to them at each temperature.

    zero_rows: vectors of zeros, which have no direction: tolerance leaves them out; elsewhere their cosine with everything is 0.
    anchors: those with at least one negative, over which means are taken. negatives: of each anchor, before rows of its group are left out.
    uniformity: log of the mean of exp(-2 |x - y|²), lower is more even (plots in the literature often show the negative).
    tolerance: the mean cosine over all pairs, counted as 0 where labels differ, as in the paper; same_label_cosine: over the pairs of one
    label, which is the same but for the share of such pairs. alignment: the mean squared distance of an anchor to its positive.
    share: what part of the negatives counts as the hardest, hardest of them in number. hardest_same_label: what part of these has the anchor's label;
    all_same_label: of all negatives. None where there are no labels, or no positives.
    """

    rows: int
    zero_rows: int
    anchors: int
    negatives: int
    share: float
    hardest: int
    uniformity: float
    alignment: float | None
    tolerance: float | None
    same_label_cosine: float | None
    hardest_same_label: float | None
    all_same_label: float | None
    by_temperature: tuple[AtTemperature, ...]


@torch.no_grad()
def behaviour(
    anchors: Tensor,
    positives: Tensor | None = None,
    *,
    temperatures: Sequence[float],
    negatives: int | None = None,
    labels: LongTensor | None = None,
    group: LongTensor | None = None,
    share: float = 0.01,
    seed: int = 0,
    advance: Callable[[int], None] | None = None,
) -> Behaviour:
    """The meters of embeddings, and the relative penalties that InfoNCE would set on their negatives at each temperature.

    Rows are drawn into sets of `negatives` + 1, as batches are drawn for training, and the negatives of an anchor are the other rows of its
    set. How many there are matters: the effective number of negatives can be no more, and the hardest of a thousand are harder than
    those of sixty.

    Args:
        anchors: (n, d) embeddings, of any length.
        positives: (n, d), the rows that belong to the anchors; the negatives are then other rows of these, as in a loss over pairs.
            None: other rows of the anchors.
        temperatures: which to look at, each positive.
        negatives: of each anchor, from 1 to n - 1; None: all other rows.
        labels: (n,) integers for tolerance and for what the hardest negatives are; a meter, never a training signal.
        group: (n,) integers; rows of one group are not each other's negatives, below 0 of no group.
        share: the part of the negatives that counts as the hardest, in (0, 1]; at least one negative.
        seed: of the draw.
        advance: told how many anchors are done, part by part, for a progress bar.

    Raises:
        TemperatureInvalid: a temperature that is not a positive number, or none at all.
        ArgumentInvalid: fewer than two rows, `negatives` out of range, labels of which no two are equal.
        ShapesDiffer: positives, labels or groups do not fit the anchors.
        NoNegatives: every pair of rows is in one group.
        NonFinite: NaN or infinity in the embeddings.
    """
    if not temperatures:
        raise TemperatureInvalid("no temperature is given; name one or more, such as 0.05, 0.1 and 0.5.")
    spread = uniformity(anchors)
    n = len(anchors)
    count = n - 1 if negatives is None else negatives
    if not 1 <= count < n:
        raise ArgumentInvalid(f"negatives must be from 1 to {n - 1}, the other rows that an anchor has; got {count}.")
    for name, numbers in (("labels", labels), ("group", group)):
        if numbers is not None and numbers.shape != (n,):
            raise ShapesDiffer(f"{name} must hold one integer for each of the {n} rows; got {tuple(numbers.shape)}.")
    together = None if positives is None else alignment(anchors, positives)
    directed = anchors.any(dim=1)
    tolerances = [
        None if labels is None else tolerance(anchors[directed], labels[directed], mean_over=over)
        for over in ("all", "same_label")
    ]
    figures = Figures(temperatures, share, labels)
    a = functional.normalize(anchors.float(), dim=1)
    p = a if positives is None else functional.normalize(positives.float(), dim=1)
    for rows, others in sets_of(n, count + 1, seed):
        for part in rows.split(max(1, SIMILARITIES // len(others))):
            apart = part[:, None] != others
            if group is not None:
                apart &= (group[part][:, None] != group[others]) | (group[part][:, None] < 0)
            figures.add((a[part] @ p[others].T).masked_fill(~apart, -torch.inf), part, others)
            if advance is not None:
                advance(len(part))
    return Behaviour(
        n, int((~directed).sum()), figures.anchors, count, share, max(1, math.ceil(count * share - 1e-9)), spread, together,
        *tolerances, *figures.of_labels(), figures.means(),
    )  # fmt: skip


def sets_of(n: int, size: int, seed: int) -> list[tuple[LongTensor, LongTensor]]:
    """Every row once as an anchor, with a set of `size` rows that it is in; the last set is filled up with rows of the first."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    filled = torch.cat([order, order[: -n % size]])
    return [(order[start : start + size], filled[start : start + size]) for start in range(0, n, size)]


class Figures:
    """Sums over anchors, part by part."""

    def __init__(self, temperatures: Sequence[float], share: float, labels: LongTensor | None) -> None:
        self.temperatures, self.share, self.labels = tuple(temperatures), share, labels
        self.sums = torch.zeros(len(self.temperatures), 4, dtype=torch.float64)
        self.hardest = self.all = 0.0
        self.anchors = 0

    def add(self, similar: Tensor, rows: LongTensor, others: LongTensor) -> None:
        """Similarities (b, m) of anchors with their negatives, -inf where a column is none."""
        kept = (similar > -torch.inf).any(dim=1)
        similar, rows = similar[kept], rows[kept]
        if not len(rows):
            return
        self.anchors += len(rows)
        same = None
        if self.labels is not None:
            same = self.labels[rows][:, None] == self.labels[others]
            here = similar > -torch.inf
            self.hardest += float(hardest_same_label(similar, same, share=self.share).double().sum())
            self.all += float(((same & here).sum(1) / here.sum(1)).double().sum())
        for sums, temperature in zip(self.sums, self.temperatures, strict=True):
            penalties = relative_penalties(similar, temperature=temperature)
            entropy = torch.special.entr(penalties).sum(1).double()
            hardest = hardest_penalty(similar, temperature=temperature, share=self.share)
            on_same = torch.zeros(()) if same is None else (penalties * same).sum()
            sums += torch.stack([entropy.sum(), entropy.exp().sum(), hardest.double().sum(), on_same.double()]).cpu()

    def of_labels(self) -> tuple[float | None, float | None]:
        """What part of the hardest, and of all negatives, has the anchor's label."""
        if not self.anchors:
            raise NoNegatives("every row is in one group, so no anchor has a negative.")
        return (None, None) if self.labels is None else (self.hardest / self.anchors, self.all / self.anchors)

    def means(self) -> tuple[AtTemperature, ...]:
        return tuple(
            AtTemperature(temperature, entropy, effective, hardest, None if self.labels is None else same)
            for temperature, (entropy, effective, hardest, same) in zip(
                self.temperatures, (self.sums / self.anchors).tolist(), strict=True
            )
        )

"""Is it learning, collapsed, or merely at chance? Figures of a step's embeddings, and verdicts on their trend.

A verdict compares with the first step of the stage, whose embeddings no update has touched yet. An encoder that starts
with all its vectors in a narrow cone has not collapsed; one that ends there has. Compared is variance and not a rank:
where all rows have become one, what dropout leaves between them still spreads over as many dimensions as before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from contrapose import geometry

ROWS = 256  # of a batch that are read: enough for a rank of a hundred dimensions, and little beside a step
EVERY = 5  # steps between two readings
TREND = 3  # readings in a row that make a verdict, so that one odd batch makes none;
TREND_ROWS = 24  # more of them where they have fewer rows than this in all
DEAD = 0.04  # of the variance at the start: a fifth of the standard deviation
PART, WHOLE = 1 / 3, 3 / 4  # of the axes or dimensions: collapsed in part, collapsed
CONSTANT = 1e-12  # variance, of 1 in all, that is rounding
ROUNDING = 1e-6  # of all variance: an axis that starts below has none
WINDOW = 10  # readings over which a loss is compared with its chance value
ABOVE = 0.02  # of the chance value: what a batch or two may lie above it
FALLING = 0.8  # of what the older half of the window lay above chance: less in the newer half, and the loss is on its way down

ADVICE = {
    "collapsed": "The vectors hardly tell rows apart any more. Start anew with a lower learning rate, or with a temperature nearer to 0.05.",
    "collapsed in part": "The vectors use fewer dimensions than they did. Watch the development score; a lower learning rate may help.",
    "above chance": "Vectors that say nothing would do better. Look for wrong pairs, too low a temperature or too high a learning rate.",
}


def embedding_figures(embeddings: Mapping[str, Tensor]) -> dict[str, float]:
    """Of the first view: uniformity, mean cosine, effective rank, and the most that it could be; alignment with the second. Empty without views."""
    views = readable(embeddings)
    if not views:
        return {}
    first, *others = views.values()
    figures = {
        "uniformity": geometry.uniformity(first),
        "mean_cosine": geometry.mean_cosine(first),
        "effective_rank": geometry.effective_rank(first),
        "most_rank": float(most_rank(first)),
    }
    one, *more = (embeddings[name] for name in views)
    if more and more[0].shape == one.shape:
        figures["alignment"] = geometry.alignment(first, others[0])
    return figures


def readable(embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What is read of each view: (n, d) float32 on the processor, n at most ROWS; k vectors of a row stand one after the other.

    Views with a single vector, or with vectors of a single number, are left out.
    """
    views = {name: rows.flatten(0, -2)[:ROWS].float().cpu() for name, rows in embeddings.items() if rows.ndim > 1}
    return {name: rows for name, rows in views.items() if min(rows.shape) > 1}


def most_rank(rows: Tensor) -> int:
    return min(len(rows) - 1, rows.shape[1])


@dataclass
class Trend:
    """One view: how it started, and for how many readings in a row each part of it has been dead."""

    rows: int
    rank: float
    cosine: float
    axes: list[float]  # variance along each principal axis that has any, largest first
    dimensions: list[float]  # variance of each dimension
    dead_axes: list[int]
    dead_dimensions: list[int]

    @classmethod
    def start(cls, rows: Tensor) -> Trend:
        """From the first reading of a view, (n, d)."""
        axes, dimensions = spread(rows)
        axes = axes[axes > ROUNDING * axes.sum()]
        return cls(
            len(rows),
            geometry.effective_rank(rows),
            geometry.mean_cosine(rows),
            axes.tolist(),
            dimensions.tolist(),
            [0] * len(axes),
            [0] * len(dimensions),
        )

    def follow(self, rows: Tensor) -> tuple[str, str] | None:
        """A further reading: what has become of the view, as a kind of verdict and its sentence, or None where nothing has."""
        rows = rows[: self.rows]  # more rows would spread the same variance over more axes
        axes, dimensions = spread(rows)
        self.dead_axes = counted(self.dead_axes, self.axes, axes)
        self.dead_dimensions = counted(self.dead_dimensions, self.dimensions, dimensions)
        trend = max(TREND, math.ceil(TREND_ROWS / self.rows))
        of_axes, of_dimensions = (sum(n >= trend for n in counts) for counts in (self.dead_axes, self.dead_dimensions))
        share = max(of_axes / max(1, len(self.axes)), of_dimensions / len(self.dimensions))
        if share <= PART:
            return None
        kind = "collapsed" if share >= WHOLE else "collapsed in part"
        rank = f"effective rank {geometry.effective_rank(rows):.1f} of {most_rank(rows)}"
        cosine = f"mean cosine {geometry.mean_cosine(rows):.3f}"
        dead = f"{of_dimensions} of {len(self.dimensions)} dimensions and {of_axes} of {len(self.axes)} principal axes dead"
        return kind, f"{rank}, {cosine}, {dead}; at the start rank {self.rank:.1f} and cosine {self.cosine:.3f}"


def counted(counts: list[int], start: list[float], now: Tensor) -> list[int]:
    """For how many readings in a row each variance has been dead; beyond the end of `now` nothing is known and the count stands."""
    dead = (now[: len(start)] <= (DEAD * now.new_tensor(start[: len(now)])).clamp_min(CONSTANT)).tolist()
    return [count + 1 if gone else 0 for count, gone in zip(counts, dead, strict=False)] + counts[len(dead) :]


def spread(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The variance of (n, d) rows at length 1 along each principal axis, largest first (most_rank,), and of each dimension (d,)."""
    unit = functional.normalize(rows, dim=1)
    centred = unit - unit.mean(dim=0)
    n, d = rows.shape
    products = centred @ centred.T if n <= d else centred.T @ centred
    axes = torch.linalg.eigvalsh(products / n).flip(0)[: most_rank(rows)]
    # a dimension that is constant varies at length 1, as the lengths of the rows do: the smaller variance is its own
    length = rows.norm(dim=1).mean().clamp_min(torch.finfo(rows.dtype).tiny)
    return axes, torch.minimum(centred.square().mean(dim=0), (rows / length).var(dim=0, correction=0))


@dataclass
class Health:
    """What is remembered of a stage's readings; numbers and words alone, so that a checkpoint keeps it."""

    last: int | None = None  # step of the newest reading
    trends: dict[str, Trend] = field(default_factory=dict)  # by view
    excess: dict[str, list[float]] = field(default_factory=dict)  # of each term over its chance value
    verdicts: dict[str, str] = field(default_factory=dict)  # those that stand, by kind

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Health:
        trends = {name: Trend(**trend) for name, trend in facts["trends"].items()}
        return cls(**{**facts, "trends": trends})

    def due(self, step: int, embeddings: Mapping[str, Tensor]) -> bool:
        """Whether this step is to be read: the first, then one every EVERY steps; an epoch's short last batch is passed over."""
        if self.last is None:
            return True
        views = readable(embeddings) if step - self.last >= EVERY else {}
        known = [2 * len(rows) >= self.trends[name].rows for name, rows in views.items() if name in self.trends]
        return step - self.last >= EVERY and all(known)

    def follow(
        self, step: int, embeddings: Mapping[str, Tensor], terms: Mapping[str, float], chance: Mapping[str, float]
    ) -> list[str]:
        """Read a step where that is due; gives back each verdict that did not stand before, with advice."""
        if not self.due(step, embeddings):
            return []
        self.last = step
        found: dict[str, str] = {}
        for name, rows in readable(embeddings).items():
            if name not in self.trends:
                self.trends[name] = Trend.start(rows)
            elif verdict := self.trends[name].follow(rows):
                kind, sentence = verdict
                view = "" if name == next(iter(self.trends)) else f" in view '{name}'"
                found.setdefault(kind, f"{kind}{view}: {sentence}")
        if "collapsed" in found:
            found.pop("collapsed in part", None)  # another view, less far gone
        if sentence := self.above_chance(terms, chance):
            found["above chance"] = sentence
        new = [f"{sentence}. {ADVICE[kind]}" for kind, sentence in found.items() if kind not in self.verdicts]
        self.verdicts = found
        return new

    def above_chance(self, terms: Mapping[str, float], chance: Mapping[str, float]) -> str | None:
        """A sentence where a term was above its chance value over a whole window, by more than its noise; the worst term, if several were."""
        above: dict[float, str] = {}
        for name in [name for name in terms if name in chance]:
            window = self.excess[name] = [*self.excess.get(name, []), terms[name] - chance[name]][-WINDOW:]
            if len(window) < WINDOW:
                continue
            mean, noise = fmean(window), stdev(window) / math.sqrt(WINDOW)
            older, newer = fmean(window[: WINDOW // 2]), fmean(window[WINDOW // 2 :])
            stays = "above chance" in self.verdicts or newer > FALLING * older
            if stays and mean > max(ABOVE * abs(chance[name]), 3 * noise):
                above[mean] = (
                    f"{name} {mean + chance[name]:.3f} on average over {WINDOW} readings, chance {chance[name]:.3f}"
                )
        return f"above chance: {above[max(above)]}" if above else None

"""How embeddings lie on the sphere, in figures; torch alone, in chunks, for millions of rows.

Rows are (n, d) of any float dtype, on any device. Each function normalises them itself (lengths say nothing) and builds
no graph; half precision counts as float32. Sums over rows are float64; where all pairs are looked at (uniformity,
hubness) products are float32, or float64 for rows that are, by `torch.get_float32_matmul_precision()`. Memory beside the
rows: a tile of TILE x max(TILE, d) numbers, a d x d matrix where a covariance is needed, a few numbers a row.

A zero row has no direction. It counts as the point 0, with cosine 0 to everything; tolerance, isotropy and hubness,
which are about the directions of single rows, refuse it.

All raise ArgumentInvalid for fewer than two rows and NonFinite for NaN or infinity, naming the first such row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import LongTensor, Tensor

from contrapose.errors import ArgumentInvalid, NonFinite, ShapesDiffer, nearest

TILE = 2048  # rows, and columns, of what stands in memory at once: a tile of pairs is 16 MiB of float32


@torch.no_grad()
def alignment(x: Tensor, y: Tensor) -> float:
    """How far apart positives are: the mean of |x_i - y_i|² (Wang & Isola, 2020, with their default power of 2).

    x and y are (n, d); row i of one belongs to row i of the other. From 0 (equal directions) to 4 (opposite); at chance
    (y in random order) about 2 - 2 m·m' with the mean rows m and m', so 2 where directions are spread evenly.
    Equals 2 - 2 x the mean cosine of the pairs. Costs n d. Raises ShapesDiffer.
    """
    if x.shape != y.shape:
        raise ShapesDiffer(f"alignment compares row i with row i; got shapes {tuple(x.shape)} and {tuple(y.shape)}.")
    pairs = zip(_chunks(_checked(x)), _chunks(_checked(y, "y")), strict=True)
    return float(sum((a - b).square().sum() for a, b in pairs)) / len(x)


@torch.no_grad()
def uniformity(
    x: Tensor, t: float = 2.0, *, pairs: int | None = None, generator: torch.Generator | None = None
) -> float:
    """How evenly rows cover the sphere: log of the mean of exp(-t |x_i - x_j|²), i < j (Wang & Isola, 2020).

    From -4t (two opposite rows) to 0 (all rows equal); lower is more even. At chance, for random directions, about
    -2t + 2t²/d: -3.94 at t = 2 and d = 128. The best that many rows can reach is the same figure. (Plots in the
    literature often show the negative.)

    Exact in tiles, with n² d / 2 products: for 100,000 rows and more, `pairs=1_000_000` takes the mean over so many
    pairs instead, drawn with replacement by `generator` (None: one seeded with 0, so that a call repeated gives the
    same figure), or over all where they are no more than that. Its standard error is v / sqrt(pairs), v the standard
    deviation of exp(-t |x_i - x_j|²) over its mean: where no cosine is negative at most sinh(t) = 3.6 at t = 2, which
    makes at most 0.004 for a million pairs. ArgumentInvalid for a t or pairs that is not positive.
    """
    if not (math.isfinite(t) and t > 0):
        raise ArgumentInvalid(f"t must be a positive number, since it multiplies squared distances; got {t}.")
    if pairs is not None and pairs < 1:
        raise ArgumentInvalid(f"pairs is how many pairs to draw, at least 1, or None for all; got {pairs}.")
    x = _checked(x)
    n = len(x)
    if pairs is not None and pairs < n * (n - 1) // 2:
        return _drawn_pairs(x, t, pairs, generator) - math.log(pairs)

    log_sums = []
    for top in range(0, n, TILE):
        rows = _unit(x[top : top + TILE])
        tiles = rows.new_full((-(-n // TILE),), -math.inf)
        for left in range(top, n, TILE):
            columns = _unit(x[left : left + TILE])
            exponent = _squared_distances(rows, columns).mul_(-t)
            if left == top:  # each pair once, and no row with itself
                exponent.masked_fill_(torch.ones_like(exponent, dtype=torch.bool).tril_(), -math.inf)
            tiles[left // TILE] = exponent.view(-1).logsumexp(dim=0)
        log_sums.append(float(tiles.double().logsumexp(dim=0)))
    return _log_total(log_sums) - math.log(n * (n - 1) / 2)


@torch.no_grad()
def tolerance(x: Tensor, labels: LongTensor, *, mean_over: Literal["all", "same_label"] = "all") -> float:
    """How near rows of one label stay: their cosines' mean (Wang & Liu, Understanding the Behaviour of Contrastive Loss, 2021).

    "all": the mean over all pairs i < j of x_i·x_j [labels_i = labels_j], as the paper has it. "same_label": the mean
    over the pairs of one label. The first is the second times the share of such pairs, so it also tells how many
    labels there are: compare it on the same labels only. With pairs drawn with replacement (i = j too) it would be
    ((n - 1) "all" + 1) / n.

    labels: (n,) integers. "same_label" goes from -1 to 1 (each label one direction); at chance, where labels have
    nothing to do with directions, it is `mean_cosine`. Costs n d and a few integers a row: |sum of a label's rows|²
    holds all its pairs. Raises ShapesDiffer, and ArgumentInvalid where no two rows share a label.
    """
    if mean_over not in ("all", "same_label"):
        raise ArgumentInvalid(f"mean_over {mean_over!r} is not known; {nearest(str(mean_over), ('all', 'same_label'))}")
    x = _checked(x, directions=True)
    cosines, pairs = _within(x, labels, "labels")
    if pairs == 0:
        raise ArgumentInvalid(f"no two of the {len(x)} rows share a label: tolerance is a mean over pairs that do.")
    return cosines / (pairs if mean_over == "same_label" else len(x) * (len(x) - 1) / 2)


@torch.no_grad()
def isotropy(x: Tensor, text: LongTensor | None = None) -> float:
    """How little the token states of a text point one way: 1 - the mean cosine of all pairs within a text, pooled over texts.

    The measure of Contrastive Search Is What You Need (Su & Collier, 2023) for a language model's last layer. It is
    about tokens of ONE text, not about texts; it is not the partition function's ratio (`partition_isotropy`). Where it
    is low (0.1 for GPT-2 small) the penalty of contrastive search is nearly the same for all candidates.

    x: (n, d), the states of all tokens of all texts, without padding. text: (n,) integers, the text of each; None: one
    text. Of padded states (texts, tokens, d) with a mask: `isotropy(states[mask], mask.nonzero()[:, 0])`. The first
    token may be an outlier: look at the figure with and without it.

    From 0 (all states of a text equal) to 1 (at chance, states in random directions), or a little more. Equals
    1 - `tolerance(x, text, mean_over="same_label")`; for one text 1 - `mean_cosine(x)`. Costs n d. Raises ShapesDiffer,
    and ArgumentInvalid where no text has two tokens.
    """
    x = _checked(x, directions=True)
    text = torch.zeros(len(x), dtype=torch.long) if text is None else text
    cosines, pairs = _within(x, text, "text")
    if pairs == 0:
        raise ArgumentInvalid(
            f"none of the {len(x)} texts has two tokens: isotropy is a mean over pairs within a text."
        )
    return 1 - cosines / pairs


@torch.no_grad()
def mean_cosine(x: Tensor) -> float:
    """The mean cosine of all pairs i ≠ j: the anisotropy of Ethayarajh (2019).

    At chance about 0 (directions spread evenly), 1 where all are equal, at least -1 / (n - 1). Costs n d:
    (|sum_i x_i|² - sum_i |x_i|²) / (n (n - 1)).
    """
    x = _checked(x)
    n, total, squares = len(x), 0, 0
    for unit in _chunks(x):
        total, squares = total + unit.sum(dim=0), squares + unit.square().sum()
    return float(total.square().sum() - squares) / (n * (n - 1))


@torch.no_grad()
def spectrum(x: Tensor) -> Tensor:
    """The variances of the normalised rows along their principal axes, largest first: (min(n, d),), float64.

    The eigenvalues of the covariance matrix (with 1 / n). Their sum is 1 - |mean row|², at most 1; in dimensional
    collapse (Jing et al., 2022) the tail drops to nothing. At chance all are near 1 / d when n is many times d.

    Costs n d², or n² d for fewer rows than dimensions, and one d x d (n x n) matrix of float64. Rows are centred first,
    and the matrix is summed in float64: what is lost are variances below 1e-15 of the largest, that is, standard
    deviations below 3e-8 of the largest. Rows that are equal up to rounding (total variance below (32 eps)², eps of
    float32 or, for float64 rows, of float64) give zeros.
    """
    x = _checked(x)
    n, d = x.shape
    mean = _mean(x)
    if n < d:
        centred = _unit(x, torch.float64) - mean
        scatter = centred @ centred.T
    else:
        scatter = mean.new_zeros(d, d)
        for unit in _chunks(x):
            centred = unit - mean
            scatter.addmm_(centred.T, centred)
    variances = torch.linalg.eigvalsh(scatter / n).clamp_min(0).flip(0)
    rounding = (32 * torch.finfo(_precision(x)).eps) ** 2
    return variances if float(variances.sum()) > rounding else torch.zeros_like(variances)


@torch.no_grad()
def effective_rank(x: Tensor) -> float:
    """Over how many dimensions the rows spread: exp of the entropy of the shares of variance along the principal axes.

    This is the effective rank of Roy & Vetterli (2007), exp(-sum_k p_k log p_k) with p_k = s_k / sum_l s_l, of the
    COVARIANCE matrix of the normalised rows, whose singular values s_k are the variances (`spectrum`). Centred, because
    an untuned pretrained encoder puts one large mean on every row; without centring that mean alone would read as a
    collapse to one dimension, though the rows still differ in many. RankMe (Garrido et al., 2023) takes the singular
    values of the rows themselves, not centred: another number, not to be compared with this.

    From 1 (all rows equal up to rounding, or on one line) to min(n - 1, d), where all axes have the same variance. At
    chance, for random directions, about d exp(-d / 2n), or n exp(-n / 2d) for n < d (after Page, 1993): compare
    figures of one n. Costs what `spectrum` costs.
    """
    variances = spectrum(x)
    total = variances.sum()
    return float(torch.special.entr(variances / total).sum().exp()) if total > 0 else 1.0


@torch.no_grad()
def isoscore(x: Tensor) -> float:
    """The share of dimensions that the rows use evenly: IsoScore (Rudman et al., 2022), of the normalised rows.

    The paper's distance between the variances along the principal axes s_k and equal ones comes down to
    (r - 1) / (d - 1) with r = (sum_k s_k)² / sum_k s_k², the participation ratio. The paper takes rows as they are; here
    only their directions count. From 0 (one line, or all rows equal) to 1 (the same variance along all axes); at chance
    about n / (n + d). r is at most `effective_rank`. Costs what `spectrum` costs. ArgumentInvalid for d = 1.
    """
    d = x.shape[-1] if x.ndim else 0
    if d == 1:
        raise ArgumentInvalid(
            "isoscore says how evenly variance is shared among dimensions; one dimension shares none."
        )
    variances = spectrum(x)
    total = variances.sum()
    return float((total.square() / variances.square().sum() - 1) / (d - 1)) if total > 0 else 0.0


@torch.no_grad()
def partition_isotropy(x: Tensor) -> float:
    """The ratio min_c Z(c) / max_c Z(c), Z(c) = sum_i exp(c·x_i) (Mu & Viswanath, 2018; Z after Arora et al., 2016).

    As in the paper c runs over the eigenvectors of X^T X, here with both their signs, which a solver sets at will; the
    paper takes rows as they are, here they are normalised. From exp(-2) = 0.14 (all rows equal) to 1; at chance near 1.
    It sees a common mean and little else. Where eigenvalues coincide the axes are not unique, nor is the value.
    Costs n d² and a d x d matrix of float64.
    """
    x = _checked(x)
    moment = sum(unit.T @ unit for unit in _chunks(x))
    axes = torch.linalg.eigh(moment).eigenvectors
    z = axes.new_zeros(2, len(axes))
    for unit in _chunks(x):
        along = (unit @ axes).exp_()  # between 1 / e and e
        z += torch.stack([along.sum(dim=0), along.reciprocal_().sum(dim=0)])
    return float(z.min() / z.max())


@torch.no_grad()
def spread(x: Tensor) -> Tensor:
    """The standard deviation of each dimension of the normalised rows, times sqrt(d): (d,), of the rows' precision.

    At chance (directions spread evenly) about 1 in every dimension, 0 in a dimension that is dead; the mean square over
    the dimensions is 1 - |mean row|². The figure by which SimSiam (Chen & He, 2021) tells a collapse. Costs n d.
    """
    x = _checked(x)
    mean = _mean(x)
    squares = sum((unit - mean).square().sum(dim=0) for unit in _chunks(x))
    return (squares / len(x)).sqrt().mul(math.sqrt(x.shape[1])).to(_precision(x))


class Hubness(NamedTuple):
    """How unevenly rows occur among the k nearest of others: figures of their numbers of occurrences N_k."""

    skewness: float
    antihubs: float
    largest: int


@torch.no_grad()
def hubness(x: Tensor, k: int = 10, queries: Tensor | None = None) -> Hubness:
    """Are a few rows everyone's neighbour? Figures of the `occurrences` N_k (Radovanovic, Nanopoulos & Ivanovic, 2010).

    skewness: their third standardised moment, mean((N_k - mean)³) / std³, the paper's S_Nk; 0 when all are equal.
    antihubs: the share of rows that are nobody's neighbour (N_k = 0), which no search for k results ever finds.
    largest: the N_k of the greatest hub.

    At chance, for directions spread evenly as for neighbours drawn at random, about k^(-1/2), exp(-k) and a few times k.
    A mean that all rows share makes hubs of the rows next to it: see `mean_cosine`, and whether they remain when it is
    subtracted. Cost and errors: `occurrences`.
    """
    count = occurrences(x, k, queries).double()
    off = count - count.mean()
    variance = off.square().mean()
    skewness = float(off.pow(3).mean() / variance.pow(1.5)) if variance > 0 else 0.0
    return Hubness(skewness, float((count == 0).double().mean()), int(count.max()))


@torch.no_grad()
def occurrences(x: Tensor, k: int = 10, queries: Tensor | None = None) -> LongTensor:
    """N_k: how often each row of x is among the k nearest rows, by cosine, of a query: (n,), from 0 to the number of queries.

    queries: (q, d), such as captions where x are images; None: the rows themselves, a row never its own neighbour. The
    sum is k q. Exact: q n d products in tiles, k numbers a query. Of rows equally near, any may count.
    Raises ShapesDiffer, and ArgumentInvalid for k below 1 or above the number of rows that a query can choose from.
    """
    x = _checked(x, directions=True)
    asked = x if queries is None else _checked(queries, "queries", directions=True, least=1)
    if asked.shape[1] != x.shape[1]:
        raise ShapesDiffer(f"queries must have the {x.shape[1]} dimensions of x; got shape {tuple(asked.shape)}.")
    choice = len(x) - (queries is None)
    if not 1 <= k <= choice:
        raise ArgumentInvalid(f"k must be between 1 and the {choice} rows that a query can choose from; got {k}.")
    precision = torch.promote_types(_precision(x), asked.dtype)
    counts = torch.zeros(len(x), dtype=torch.long, device=x.device)
    for top in range(0, len(asked), TILE):
        rows = _unit(asked[top : top + TILE], precision)
        best, where = rows.new_empty(len(rows), 0), counts.new_empty(len(rows), 0)
        for left in range(0, len(x), TILE):
            cosine = _products(rows, _unit(x[left : left + TILE], precision))
            if queries is None and left == top:
                cosine.fill_diagonal_(-math.inf)
            nearest_here = cosine.topk(min(k, cosine.shape[1]), dim=1)
            best = torch.cat([best, nearest_here.values], dim=1)
            where = torch.cat([where, nearest_here.indices + left], dim=1)
            best, kept = best.topk(min(k, best.shape[1]), dim=1)
            where = where.gather(1, kept)
        counts += where.flatten().bincount(minlength=len(x))
    return counts


def _checked(x: Tensor, name: str = "x", *, directions: bool = False, least: int = 2) -> Tensor:
    """The rows, when figures can be made of them; `directions` refuses zero rows. MPS knows no float64: to the CPU."""
    if x.ndim != 2 or len(x) < least or x.shape[1] == 0:
        wanted = "at least two rows" if least == 2 else "at least one row"
        raise ArgumentInvalid(f"{name} must be (n, d) with {wanted} and one dimension; got shape {tuple(x.shape)}.")
    x = x.cpu() if x.device.type == "mps" else x
    largest = x.new_empty(len(x))  # of each row's magnitudes; NaN and infinity come through
    for rows, part in zip(x.split(TILE), largest.split(TILE), strict=True):
        torch.amax(rows.abs(), dim=1, out=part)
    broken, zero = ~largest.isfinite(), largest == 0
    if bool(broken.any()):
        row = int(broken.nonzero()[0])
        found = "NaN" if bool(x[row].isnan().any()) else "infinity"
        raise NonFinite(
            f"{name} holds {found} (row {row}; {int(broken.sum())} of {len(x)} rows are not finite): its geometry would say nothing."
        )
    if directions and bool(zero.any()):
        raise ArgumentInvalid(
            f"{name} has a zero row, which has no direction (row {int(zero.nonzero()[0])}; {int(zero.sum())} of {len(x)}"
            " rows): look at what gave it, or leave it out."
        )
    return x


def _precision(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _unit(rows: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Rows of length 1, and zero rows as they are; new memory."""
    precision = dtype or _precision(rows)
    if precision == torch.float64 != rows.dtype:  # no square overflows or vanishes
        rows = rows.to(precision)
    else:
        rows = rows.to(precision)
        largest = rows.abs().amax(dim=1, keepdim=True)
        rows = rows / largest.masked_fill_(largest == 0, 1)
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows.div_(length.masked_fill_(length == 0, 1))


def _chunks(x: Tensor) -> Iterator[Tensor]:
    return (_unit(rows, torch.float64) for rows in x.split(TILE))


def _mean(x: Tensor) -> Tensor:
    return sum(unit.sum(dim=0) for unit in _chunks(x)) / len(x)


def _products(rows: Tensor, columns: Tensor) -> Tensor:
    with torch.autocast(rows.device.type, enabled=False):
        return rows @ columns.T


def _squared_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Of rows of length 1 or 0."""
    a, b = (unit.any(dim=1).to(unit.dtype) for unit in (rows, columns))
    return _products(rows, columns).mul_(-2).add_(a[:, None]).add_(b).clamp_min_(0)


def _log_total(log_sums: list[float]) -> float:
    """log of the sum of what the numbers are logs of. Numbers, for small tensors kept between large ones split the heap."""
    return float(torch.tensor(log_sums, dtype=torch.float64).logsumexp(dim=0))


def _drawn_pairs(x: Tensor, t: float, pairs: int, generator: torch.Generator | None) -> float:
    """log of the sum of exp(-t |x_i - x_j|²) over pairs i ≠ j drawn with replacement."""
    generator = generator or torch.Generator().manual_seed(0)
    n, device = len(x), generator.device
    log_sums = []
    for start in range(0, pairs, TILE):
        size = (min(TILE, pairs - start),)
        first = torch.randint(n, size, generator=generator, device=device)
        second = (first + torch.randint(1, n, size, generator=generator, device=device)) % n
        apart = _unit(x[first.to(x.device)], torch.float64) - _unit(x[second.to(x.device)], torch.float64)
        log_sums.append(float((-t * apart.square().sum(dim=1)).logsumexp(dim=0)))
    return _log_total(log_sums)


def _within(x: Tensor, labels: LongTensor, name: str) -> tuple[float, int]:
    """The sum of the cosines of all pairs i < j of one label, and how many pairs these are."""
    if labels.shape != x.shape[:1]:
        raise ShapesDiffer(
            f"{name} must hold one integer for each of the {len(x)} rows; got shape {tuple(labels.shape)}."
        )
    if labels.is_floating_point() or labels.is_complex():
        raise ArgumentInvalid(f"{name} must hold integers, which are equal or not; got {labels.dtype}.")
    _, label, sizes = labels.to(x.device).unique(return_inverse=True, return_counts=True)
    squares, opened = x.new_zeros((), dtype=torch.float64), 0
    unfinished = x.new_zeros(x.shape[1], dtype=torch.float64)  # the sum of the label that a chunk ends in
    for rows in label.argsort().split(TILE):
        of = label[rows]
        last = int(of[-1])
        sums = unfinished.new_zeros(last - opened + 1, x.shape[1])
        sums.index_add_(0, of - opened, _unit(x[rows], torch.float64))[0] += unfinished
        squares += sums[:-1].square().sum()
        unfinished, opened = sums[-1], last
    squares += unfinished.square().sum()
    return float(squares - len(x)) / 2, int((sizes * (sizes - 1)).sum()) // 2

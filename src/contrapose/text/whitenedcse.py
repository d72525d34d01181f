"""WhitenedCSE: several dropout views of a sentence, each whitened in groups of channels that are shuffled anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import LongTensor, Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from contrapose.data.batches import Batch, Data, Facts, shuffled_batches
from contrapose.data.columns import Column
from contrapose.errors import ArgumentInvalid, CovarianceSingular, NonFinite, SettingInvalid, ShapesDiffer
from contrapose.objectives import info_nce
from contrapose.text.encoder import Head
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings

Layout = Literal["paper", "official"]


class WhitenedCSE(ViewMethod):
    r"""Learn sentence embeddings from raw sentences, with several positives of each that shuffled group whitening makes diverse.

    Pick it for sentences without labels where the encoder is anisotropic: a pretrained transformer whose vectors all point one way (mean
    cosine 0.5, say). It costs one more pass a step than `simcse` and no augmentation of texts. An encoder that is even already, or one
    trained from random weights, has nothing for whitening to repair, and loses a little; take `simcse` or `esimcse` there.

    A sentence goes through the encoder $V$ times, with dropout; $H_v$ of shape (b, d) are its $v$-th views. Shuffled group whitening cuts the
    channels, in an order $\pi_v$ that is drawn for every view and step, into groups, and whitens each over the batch: with the centred
    group $X$ of $m$ channels and $C = X^\top X / b$, the group becomes $X C^{-1/2}$, by the symmetric root, so that it stays as close to
    what it was as a white group can. Then, with $Z_v = \tanh(W \, \mathrm{SGW}(H_v; \pi_v) + c)$,

    $$L = \sum_{v=2}^{V} -\frac{1}{b} \sum_i \log \frac{e^{\cos(z^1_i, z^v_i)/\tau}}{\sum_j e^{\cos(z^1_i, z^v_j)/\tau}}.$$

    The terms are summed, as in the code; `reduction="mean"` averages them. One direction alone: the negatives of a sentence are the others'
    views of the same number. At chance each term is $\log b$. Whitening and head are left out afterwards. With
    `views=2, whitening=False` it is SimCSE.

    The root is taken without gradient (`grad_through_whitening`), as the official code does, though the paper does not say so: what flows
    back goes through centring and product. Its layer is handed rows sentence by sentence and cuts them into blocks, so that the views of a
    sentence share one order and are whitened together, against what the paper says; `layout="official"` repeats that, the default
    whitens view by view. Statistics are those of the batch of all processes (there: of each device).

    Zhuo et al., ACL 2023; official code SupstarZh/WhitenedCSE at 65fe70a.

    **Pitfalls.** A group is white only where the batch has more rows than the group has channels: a last batch of an epoch that has not
    is left out, and a smaller `batch_size` is refused. Channels that depend on each other (a constant one, a copy) have no root; the
    message names the group, and `epsilon=1e-5` gives it one.
    """

    card = Card(
        modality="text",
        title="WhitenedCSE: shuffled group whitening",
        paper="WhitenedCSE: Whitening-based Contrastive Learning of Sentence Embeddings",
        venue="ACL",
        year=2023,
        url="https://arxiv.org/abs/2305.17746",
        columns=(Column("text", "text", "A sentence."),),
    )

    class Settings(MethodSettings):
        # the official run_unsup_example.sh, BERT-base; groups as in its models.py
        batch_size: PositiveInt = Field(
            128, description="Rows in a batch, over all processes; more than the channels of a group."
        )
        learning_rate: PositiveFloat = Field(1e-5, description="Peak learning rate.")
        temperature: PositiveFloat = Field(0.05, description="Divides the cosines.")
        views: int = Field(3, ge=2, description="Views of a sentence; the first is the anchor of all others.")
        groups: PositiveInt = Field(
            128, description="Groups of channels; divides the encoder's dimensions. 1: all channels at once."
        )
        shuffle: bool = Field(True, description="Draw the groups anew for every view and step; false: neighbours.")
        whitening: bool = Field(True, description="False: plain dropout views.")
        layout: Layout = Field("paper", description="Which rows are whitened together: those of a view, or official.")
        grad_through_whitening: bool = Field(
            False, description="Let gradients through the whitening matrix; the official code does not."
        )
        epsilon: NonNegativeFloat = Field(
            0.0,
            description="Added to each covariance's diagonal, as a share of its mean eigenvalue; 1e-5 mends singular ones.",
        )
        reduction: Literal["sum", "mean"] = Field("sum", description="Of the terms of views 2, 3, ….")

    def build(self, facts: Facts) -> None:
        self.head = Head(self.encoder.dim)
        if self.settings.whitening:
            self.refuse_unfit_groups(min(self.settings.batch_size, facts.rows))

    def refuse_unfit_groups(self, batch_size: int) -> None:
        """Raises SettingInvalid for groups that do not divide the dimensions, and for batches too small to whiten one."""
        dim, groups = self.encoder.dim, self.settings.groups
        if dim % groups:
            divisors = ", ".join(str(number) for number in range(1, dim + 1) if dim % number == 0)
            raise SettingInvalid(
                f"groups={groups} does not divide the encoder's {dim} dimensions; take one of {divisors}."
            )
        if batch_size <= dim // groups and not self.settings.epsilon:
            raise SettingInvalid(
                f"A batch of {batch_size} rows cannot whiten groups of {dim // groups} channels: their covariance is singular. "
                f"Take a batch_size above {dim // groups}, more groups than {groups}, or epsilon=1e-5."
            )

    def batches(self, data: Data, epoch: int, generator: torch.Generator) -> Sequence[LongTensor]:
        """All rows in random order; a last batch that is too small to be whitened is left out."""
        batches = shuffled_batches(len(data), self.settings.batch_size, generator)
        whitens = self.settings.whitening and not self.settings.epsilon
        too_small = whitens and len(batches[-1]) <= self.encoder.dim // self.settings.groups
        return batches[:-1] if too_small and len(batches) > 1 else batches

    def views(self, batch: Batch) -> dict[str, View]:
        return {f"view_{number}": View(batch["text"]) for number in range(1, self.settings.views + 1)}

    def embed(self, view: View) -> Tensor:
        return self.encoder(view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        states = torch.stack([embeddings[f"view_{number}"] for number in range(1, self.settings.views + 1)])
        if self.settings.whitening:
            states = whitened_views(
                states,
                self.draw_orders(batch).to(states.device),
                self.settings.groups,
                layout=self.settings.layout,
                epsilon=self.settings.epsilon,
                gradient=self.settings.grad_through_whitening,
            )
        first, *others = self.head(states).unbind()
        return {
            f"info_nce_{number}": self.share
            * info_nce(first, other, temperature=self.settings.temperature, group=batch.group)
            for number, other in enumerate(others, 2)
        }

    def draw_orders(self, batch: Batch) -> LongTensor:
        """(v, d): an order of the channels for each view."""
        if not self.settings.shuffle:
            return torch.arange(self.encoder.dim).expand(self.settings.views, -1)
        return torch.rand(self.settings.views, self.encoder.dim, generator=batch.generator).argsort(dim=1)

    @property
    def share(self) -> float:
        """What a term counts."""
        return 1.0 if self.settings.reduction == "sum" else 1 / (self.settings.views - 1)

    def chance(self, batch: Batch) -> dict[str, float]:
        return {f"info_nce_{number}": self.share * math.log(len(batch)) for number in range(2, self.settings.views + 1)}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1


def whitened_views(
    views: Tensor,
    orders: LongTensor,
    groups: int,
    *,
    layout: Layout = "paper",
    epsilon: float = 0.0,
    gradient: bool = False,
) -> Tensor:
    """Shuffled group whitening of v views of b rows, (v, b, d) to (v, b, d).

    layout: "paper" whitens each view with the order of its number. "official" lays rows sentence by sentence (all views of the first, of
    the second, …), cuts them into v blocks of b rows and whitens block k with order k. The others are as in `shuffled_group_whitening`.
    Raises ArgumentInvalid for another layout, and what `shuffled_group_whitening` raises.
    """
    if layout == "paper":
        return shuffled_group_whitening(
            views.flatten(0, 1), orders, groups, epsilon=epsilon, gradient=gradient
        ).view_as(views)
    if layout != "official":
        raise ArgumentInvalid(f"layout {layout!r} is not known; it is 'paper' or 'official'.")
    rows = views.transpose(0, 1).flatten(0, 1)
    white = shuffled_group_whitening(rows, orders, groups, epsilon=epsilon, gradient=gradient)
    return white.unflatten(0, (views.shape[1], views.shape[0])).transpose(0, 1)


def shuffled_group_whitening(
    rows: Tensor, orders: LongTensor, groups: int, *, epsilon: float = 0.0, gradient: bool = False
) -> Tensor:
    r"""Blocks of rows whose groups of channels have mean 0 and covariance I (Zhuo et al., 2023, section 3.2).

    Block k's channels, in the order `orders[k]`, are cut into `groups` neighbouring groups of d / groups. Each is centred and multiplied by
    the symmetric root C^(-1/2) of its covariance C (divided by the rows, not by one less); then the channels go back to their places.
    One group alone is plain ZCA whitening, whatever the order.

    Args:
        rows: (v n, d), v blocks of n rows. Half precision, and under autocast, is float32 here; float64 stays float64.
        orders: (v, d), a permutation of the channels for each block.
        groups: divides d.
        epsilon: added to each covariance's diagonal as a share of its mean eigenvalue, so that dependent channels have a root too.
        gradient: let it through C^(-1/2); by default that counts as a constant, as in the official code, which wraps C anew. What is let through
            is finite for equal eigenvalues too, where that of an eigendecomposition is not.

    Returns:
        (v n, d).

    Raises:
        CovarianceSingular: channels of a group depend on each other, or a block has no more rows than a group has channels.
        ShapesDiffer: rows that v does not divide, orders of another length.
        ArgumentInvalid: groups that do not divide d, orders that are no permutations, an epsilon below 0.
        NonFinite: rows hold NaN or infinity.
    """
    check_whitening(rows, orders, groups, epsilon)
    size = rows.shape[1] // groups
    with torch.autocast(rows.device.type, enabled=False):
        rows = rows if rows.dtype == torch.float64 else rows.float()
        blocks = rows.unflatten(0, (len(orders), -1))  # (v, n, d)
        back = orders.argsort(dim=1)[:, None].expand_as(blocks)
        shuffled = blocks.gather(2, orders[:, None].expand_as(blocks)).unflatten(2, (groups, size))
        grouped = (shuffled - shuffled.mean(dim=1, keepdim=True)).transpose(1, 2)  # (v, g, n, m)
        covariance = grouped.mT @ grouped / blocks.shape[1]
        roots = inverse_roots(covariance if gradient else covariance.detach(), orders, blocks.shape[1], epsilon)
        white = (grouped @ roots).transpose(1, 2).flatten(2)
        return white.gather(2, back).flatten(0, 1)


def inverse_roots(covariance: Tensor, orders: LongTensor, rows: int, epsilon: float = 0.0) -> Tensor:
    """C^(-1/2) of each (v, g, m, m). `orders` and `rows`, the number of them in a block, serve the message of CovarianceSingular."""
    size = covariance.shape[-1]
    if epsilon:
        mean = covariance.diagonal(dim1=-2, dim2=-1).mean(dim=-1)
        covariance = covariance + epsilon * mean[..., None, None] * torch.eye(size).to(covariance)
    values, vectors = torch.linalg.eigh(covariance.detach())
    # Below this an eigenvalue is rounding, whatever its sign, and its root would blow that up.
    rounding = values[..., -1] * size * torch.finfo(values.dtype).eps
    singular = values[..., 0] <= rounding
    if bool(singular.any()) or (rows <= size and not epsilon):
        refuse_singular(covariance.detach(), singular, orders, rows)
    return _InverseRoot.apply(covariance, values, vectors)


class _InverseRoot(torch.autograd.Function):
    """C^(-1/2) from the eigenvalues and eigenvectors of C, with a derivative that needs no differences of eigenvalues.

    With C = U diag(r²) U', dC changes it by U (F ∘ U' dC U) U' where F_ij = (1/r_i - 1/r_j) / (r_i² - r_j²) = -1 / (r_i r_j (r_i + r_j))
    (Daleckii and Krein, 1965).
    """

    @staticmethod
    def forward(ctx: FunctionCtx, covariance: Tensor, values: Tensor, vectors: Tensor) -> Tensor:
        roots = values.sqrt()
        ctx.save_for_backward(roots, vectors)
        return (vectors / roots[..., None, :]) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        roots, vectors = ctx.saved_tensors
        one, other = roots[..., :, None], roots[..., None, :]
        inside = (vectors.mT @ gradient @ vectors) / (one * other * (one + other))
        return -(vectors @ inside @ vectors.mT), None, None


def refuse_singular(covariance: Tensor, singular: Tensor, orders: LongTensor, rows: int) -> None:
    """Raises CovarianceSingular for the first singular group, (v, g) bool, with its channels; for too few rows first."""
    size = covariance.shape[-1]
    mend = "give epsilon=1e-5, or leave out what makes them so."
    if rows <= size:
        raise CovarianceSingular(
            f"{rows} rows cannot whiten a group of {size} channels, whose covariance is then singular. Give more rows or groups, or epsilon=1e-5."
        )
    block, group = (int(number) for number in singular.nonzero()[0])
    channels = orders[block, group * size : (group + 1) * size].tolist()
    constant = [
        channel
        for channel, variance in zip(channels, covariance[block, group].diagonal().tolist(), strict=True)
        if variance == 0
    ]
    if constant:
        raise CovarianceSingular(
            f"Channel {constant[0]} has the same value in all {rows} rows, so its group cannot be whitened; {mend}"
        )
    listed = ", ".join(map(str, channels[:8])) + (", …" if size > 8 else "")
    raise CovarianceSingular(
        f"Channels {listed} depend on each other over {rows} rows, so their group cannot be whitened; {mend}"
    )


def check_whitening(rows: Tensor, orders: LongTensor, groups: int, epsilon: float) -> None:
    if rows.ndim != 2 or orders.ndim != 2 or orders.shape[1] != rows.shape[1]:
        raise ShapesDiffer(f"rows (v n, d) go with orders (v, d); got {tuple(rows.shape)} and {tuple(orders.shape)}.")
    if not len(rows) or not len(orders) or len(rows) % len(orders):
        raise ShapesDiffer(f"{len(rows)} rows cannot be cut into {len(orders)} blocks of equal size, one an order.")
    dim = rows.shape[1]
    if groups < 1 or dim % groups:
        raise ArgumentInvalid(f"groups must divide the {dim} channels; got {groups}.")
    if not bool((orders.sort(dim=1).values == torch.arange(dim, device=orders.device)).all()):
        raise ArgumentInvalid(f"each of orders must name the channels 0 to {dim - 1} once.")
    if not (math.isfinite(epsilon) and epsilon >= 0):
        raise ArgumentInvalid(f"epsilon must be 0 or above; got {epsilon}.")
    if not bool(torch.isfinite(rows.detach()).all()):
        first = int((~torch.isfinite(rows.detach())).any(dim=1).nonzero()[0])
        raise NonFinite(f"rows hold NaN or infinity (first: row {first}), and have no covariance.")

"""The momentum encoder: a slow copy of an online one, moved by an exponential average."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from contrapose.errors import ArgumentInvalid, ShapesDiffer, nearest


class MomentumCopy(nn.Module):
    """A frozen copy of a module, always in evaluation mode, that follows it by an exponential moving average.

    `update(online, m)` moves every parameter by copy ← m copy + (1 - m) online, and copies buffers as they are (an
    average of BatchNorm's counters or of a mask means nothing).

    When to call it: in `before_step`, BEFORE this step's optimiser update, so with the weights that the last step left
    (MoCo, ESimCSE, Contriever, CoCoSoDa do so). After k calls that saw the online weights w_1 … w_k, a copy of w_0 is
    m^k w_0 + (1 - m) sum_i m^(k-i) w_i.

    `only` names submodules: these are averaged, and all other parameters are copied as they are when it is called.
    ESimCSE's queue encoder, an averaged body under the online head, is `MomentumCopy(model, only="body")`. To leave the
    rest out altogether, copy the submodule itself: `MomentumCopy(model.body)`.

    `batch_statistics=True` (BYOL and what follows it): while the module around it trains, BatchNorm in the copy takes the statistics of the
    batch, as it does in the online module; dropout stays off. By default it takes the running ones, copied from the online module.

    Parameters and buffers are in the state dict, so a checkpoint keeps the copy; none requires a gradient.
    """

    def __init__(
        self, online: nn.Module, only: str | Sequence[str] | None = None, *, batch_statistics: bool = False
    ) -> None:
        """Raises ArgumentInvalid when a name in `only` is no submodule of `online`."""
        super().__init__()
        self.module = copy.deepcopy(online).requires_grad_(False).eval()
        self.batch_statistics = batch_statistics
        self.only = ("",) if only is None else (only,) if isinstance(only, str) else tuple(only)
        known = [name for name, _ in online.named_modules()]
        for name in self.only:
            if name not in known:
                raise ArgumentInvalid(
                    f"only={name!r} is no submodule of {type(online).__name__}; {nearest(name, known[1:])}"
                )

    @torch.no_grad()
    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The copy's output, in evaluation mode and without a graph."""
        return self.module(*inputs, **named)

    def train(self, mode: bool = True) -> MomentumCopy:
        """Stays in evaluation mode, also when the module around it goes to training: no dropout, and fixed statistics unless asked otherwise."""
        super().train(False)
        if self.batch_statistics:
            for module in self.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.train(mode)
        return self

    @torch.no_grad()
    def update(self, online: nn.Module, momentum: float) -> None:
        """One step of the average. `momentum` m is in [0, 1]: 0 copies, 1 stands still; usual are 0.99 to 0.9995.

        Raises ArgumentInvalid for another momentum, ShapesDiffer when `online` is not the module that was copied.
        """
        if not 0 <= momentum <= 1:
            raise ArgumentInvalid(f"momentum must be between 0 (copy) and 1 (stand still); got {momentum}.")
        mine, theirs = dict(self.module.named_parameters()), dict(online.named_parameters())
        _check_alike(mine, theirs)
        averaged = [name for name in mine if self._is_averaged(name)]
        copied = [name for name in mine if not self._is_averaged(name)]
        if averaged and momentum < 1:
            slow, fast = [mine[name] for name in averaged], [theirs[name].to(mine[name]) for name in averaged]
            torch._foreach_lerp_(slow, fast, 1 - momentum)  # equal weights stay equal to the last bit
        for name in copied:
            mine[name].copy_(theirs[name])
        buffers = dict(online.named_buffers())
        for name, buffer in self.module.named_buffers():
            buffer.copy_(buffers[name])

    def _is_averaged(self, name: str) -> bool:
        return any(prefix == "" or name.startswith(prefix + ".") for prefix in self.only)


def _check_alike(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    for name in [*mine, *theirs]:
        if name not in mine or name not in theirs or mine[name].shape != theirs[name].shape:
            here, there = (tuple(side[name].shape) if name in side else "nothing" for side in (mine, theirs))
            raise ShapesDiffer(
                f"the momentum copy does not match its online module: {name} is {here} here and {there} there."
            )

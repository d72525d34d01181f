"""CoCoSoDa's four or six blocks with momentum and queues over a table of token vectors, and its loss for fine-tuning."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from contrapose.negatives import MomentumCopy, Queue
from contrapose.objectives import info_nce
from tests.golden.pieces import Arrays, Made, filled_queue, gradients, mean_of_tokens, steps, table

INPUTS = (
    "temperature", "momentum", "official_extra_scale", "pad_id", "table", "queue_*_before", "s*_code", "s*_code_aug", "s*_nl", "s*_nl_aug",
    "ft_code", "ft_nl", "ft_scale", "sgd_lr",
)  # fmt: skip
WAITS = {
    "s*_logits": "cocosoda, because no loss here holds all logits",
    "s*_labels_*": "cocosoda, because no loss here takes targets by number",
}
BLOCKS = "`info_nce(anchors, keys, queue=…)` of each block, averaged"
CALLS = {
    "s*_code_emb": '`pool(…, "avg")` of token vectors from a table',
    "s*_nl_emb": '`pool(…, "avg")` of token vectors from a table',
    "s*_loss": BLOCKS,
    "s*_grad_table": BLOCKS,
    "s*_loss_x20": f"{BLOCKS}, at a twentieth of the temperature",
    "s*_grad_table_x20": f"{BLOCKS}, at a twentieth of the temperature",
    "s*_table_after_sgd": f"{BLOCKS}, and a step of plain SGD",
    "s*_momentum_table": "`MomentumCopy(…)`, updated before the keys",
    "s*_queue_*_after": "`Queue(…)`, filled after the loss",
    "ft_*": "`info_nce(text, code)`",
}
QUEUES = ("code", "masked_code", "nl", "masked_nl")


class Views(NamedTuple):
    """Unit embeddings (b, d) of code and text, and of their augmented copies by the momentum encoder, in the order of QUEUES."""

    code: Tensor
    masked_code: Tensor
    text: Tensor
    masked_text: Tensor


def recompute(given: Arrays, due: list[str]) -> Made:
    made = run(given, "inter4") | run(given, "all6")
    vectors = table(given["table"])
    code, text = (encode(vectors, given, name) for name in ("ft_code", "ft_nl"))
    loss = info_nce(text, code, temperature=1 / float(given["ft_scale"]))
    return made | {"ft_loss": loss} | gradients(loss, ft_grad_table=vectors.weight)


def run(given: Arrays, blocks: str) -> Made:
    online = table(given["table"])
    slow = MomentumCopy(online)
    queues = {name: filled_queue(given[f"queue_{name}_before"]) for name in QUEUES}
    optimiser = torch.optim.SGD(online.parameters(), lr=float(given["sgd_lr"]))
    t, factor = float(given["temperature"]), float(given["official_extra_scale"])
    made: Made = {}
    for step in steps(given):
        code, text = (encode(online, given, f"{step}_{name}") for name in ("code", "nl"))
        slow.update(online, float(given["momentum"]))
        masked_code, masked_text = (encode(slow, given, f"{step}_{name}_aug").detach() for name in ("code", "nl"))
        views = Views(code, masked_code, text, masked_text)
        if blocks == "inter4":
            made |= {f"{step}_code_emb": code, f"{step}_nl_emb": text}
        plain, released = (of_blocks(views, queues, blocks, temperature) for temperature in (t, t / factor))
        name = f"{step}_{blocks}"
        made |= {f"{name}_loss": plain, f"{name}_loss_x20": released}
        made |= gradients(plain, **{f"{name}_grad_table": online.weight})
        made |= gradients(released, **{f"{name}_grad_table_x20": online.weight})
        optimiser.zero_grad()
        released.backward()
        optimiser.step()
        made[f"{name}_table_after_sgd"] = online.weight.detach().clone()
        made[f"{name}_momentum_table"] = slow.module.weight.clone()
        for view, queue in zip(views, queues.items(), strict=True):
            queue[1].enqueue(view)
            made[f"{name}_queue_{queue[0]}_after"] = queue[1].vectors.clone()
    return made


def encode(vectors: nn.Module, given: Arrays, name: str) -> Tensor:
    return normalize(mean_of_tokens(vectors, given[name], given[name] != int(given["pad_id"])), dim=1)


def of_blocks(views: Views, queues: dict[str, Queue], blocks: str, temperature: float) -> Tensor:
    """The mean over the blocks' rows: an anchor meets the keys of its batch and what is stored of their kind."""
    pairs = [(views.code, "nl"), (views.code, "masked_nl"), (views.text, "code"), (views.text, "masked_code")]
    if blocks == "all6":
        pairs += [(views.code, "masked_code"), (views.text, "masked_nl")]
    keys = dict(zip(QUEUES, views, strict=True))
    options = {"temperature": temperature, "similarity": "dot"}
    losses = [info_nce(anchors, keys[name], queue=queues[name].vectors, **options) for anchors, name in pairs]
    return torch.stack(losses).mean()

"""ESimCSE's loss with its queue, four steps of training, and word repetition."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from contrapose.negatives import MomentumCopy, Queue
from contrapose.objectives import info_nce
from contrapose.text.views import repeat_at, repeat_limit

INPUTS = (
    "z", "queue", "temp", "trace_W0", "trace_X", "trace_lr", "trace_momentum", "trace_queue_size",
    "rep*_in", "rep*_pos", "dup_len_tokens", "dup_rate",
)  # fmt: skip

WAITS: dict[str, str] = {}
LOSS = "`info_nce(first, second, queue=…)`"
CALLS = {
    "loss": LOSS,
    "grad_z": LOSS,
    "*_empty_queue": "`info_nce(first, second)`",
    "rep*_out": "`repeat_at(tokens, places)`",
    "dup_max_*": "`repeat_limit(lengths, rate, rule)`",
    "trace_losses": f"{LOSS} in training",
    "trace_W": f"{LOSS} in training",
    "trace_Wm": "`MomentumCopy(…)`, updated before the step",
    "trace_queue_len": "`Queue(…)`, filled after the loss",
    "trace_final_queue": "`Queue(…)`, filled after the loss",
}


def recompute(given: dict[str, np.ndarray], due: list[str]) -> dict[str, np.ndarray]:
    temperature = float(given["temp"])
    made = {}
    for suffix, queue in (("", torch.tensor(given["queue"])), ("_empty_queue", None)):
        views = torch.tensor(given["z"], requires_grad=True)
        loss = info_nce(views[:, 0], views[:, 1], queue=queue, temperature=temperature)
        loss.backward()
        made[f"loss{suffix}"], made[f"grad_z{suffix}"] = loss.detach().numpy(), views.grad.numpy()
    for name in given:
        if name.endswith("_in"):
            stem = name.removesuffix("_in")
            made[f"{stem}_out"] = repeat_at(given[name], given[f"{stem}_pos"]).numpy()
    lengths, rate = torch.tensor(given["dup_len_tokens"]), float(given["dup_rate"])
    made["dup_max_paper"] = repeat_limit(lengths, rate, "paper").numpy()
    made["dup_max_official_bpe"] = repeat_limit(lengths, rate, "official").numpy()
    return made | trace(given, temperature)


def trace(given: dict[str, np.ndarray], temperature: float) -> dict[str, np.ndarray]:
    """Plain SGD on z = W x: queue as earlier steps left it, average before the update, queue filled after the loss."""
    dim = given["trace_W0"].shape[1]
    online = nn.Linear(dim, len(given["trace_W0"]), bias=False, dtype=torch.float64)
    online.weight.data = torch.tensor(given["trace_W0"])
    slow = MomentumCopy(online)
    queue = Queue(int(given["trace_queue_size"]), len(given["trace_W0"]), torch.float64)
    optimiser = torch.optim.SGD(online.parameters(), lr=float(given["trace_lr"]))
    seen: dict[str, list] = {"losses": [], "W": [], "Wm": [], "queue_len": []}
    for batch in torch.tensor(given["trace_X"]):
        slow.update(online, float(given["trace_momentum"]))
        loss = info_nce(online(batch[:, 0]), online(batch[:, 1]), queue=queue.stored().vectors, temperature=temperature)
        optimiser.zero_grad()
        loss.backward()
        queued = slow(batch[:, 0])
        optimiser.step()
        queue.enqueue(queued)
        seen["losses"].append(loss.item())
        seen["W"].append(online.weight.detach().clone().numpy())
        seen["Wm"].append(slow.module.weight.detach().clone().numpy())
        seen["queue_len"].append(len(queue))
    made = {f"trace_{name}": np.array(values) for name, values in seen.items()}
    return made | {"trace_final_queue": queue.stored().vectors.numpy()}

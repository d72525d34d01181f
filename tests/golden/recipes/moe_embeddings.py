"""MoE embeddings' losses and their targets, experts by assignment, the pooler, and how pairs are told apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from contrapose.evaluation.pair_labels import pair_labels
from contrapose.text.encoder import pool
from contrapose.text.moe_embeddings import NormedHead, copies, mnr, mnr_plus, mnr_plus_targets, route
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = (
    "a", "b", "moe_x", "moe_assignment", "moe_base_W[io]", "moe_W[io]", "moe_cotangent",
    "pool_mask", "pool_w[12]", "pool_b[12]", "pool_ln_[wb]", "metric_scores", "metric_labels",
)  # fmt: skip

WAITS: dict[str, str] = {}
ROUTED = "`route(inputs, assignment, experts, through)`"
CALLS = {
    "mnr_dot_*": "`mnr(a, b)`",
    "mnr_cos_*": '`mnr(a, b, similarity="cosine")`',
    "mnr_plus_dot_loss": "`mnr_plus(a, b)`",
    "mnr_plus_dot_grad_?": "`mnr_plus(a, b)`",
    "mnr_plus_cos_*": '`mnr_plus(a, b, similarity="cosine")`',
    "mnr_plus_dot_targets_*": "`mnr_plus_targets(a, b)`",
    "moe_out_at_seeding": f"{ROUTED} through `copies(mlp, experts)`",
    "moe_out": ROUTED,
    "moe_grad_x": ROUTED,
    "moe_expert_has_grad": ROUTED,
    "pool_mean": '`pool(hidden, mask, "avg")`',
    "pool_out": '`NormedHead(dim)` on `pool(hidden, mask, "avg")`',
    "metric_*": "`pair_labels(scores, labels)`",
}
SIMILARITIES = {"dot": "dot", "cos": "cosine"}
METRICS = {"f1max": "f1max", "precision": "precision", "recall": "recall", "threshold": "threshold"}
METRICS |= {"ratio": "ratio", "auc": "roc auc"}


def recompute(given: Arrays, due: list[str]) -> Made:
    made: Made = {}
    for name, loss in (("mnr", mnr), ("mnr_plus", mnr_plus)):
        for short, similarity in SIMILARITIES.items():
            a, b = leaf(given["a"]), leaf(given["b"])
            value = loss(a, b, similarity=similarity)
            made[f"{name}_{short}_loss"] = value
            made |= gradients(value, **{f"{name}_{short}_grad_a": a, f"{name}_{short}_grad_b": b})
    rows, columns = mnr_plus_targets(torch.tensor(given["a"]), torch.tensor(given["b"]))
    made |= {"mnr_plus_dot_targets_row": rows, "mnr_plus_dot_targets_col": columns}
    figures = pair_labels(given["metric_scores"], given["metric_labels"])
    made |= {f"metric_{name}": figures[figure] for name, figure in METRICS.items()}
    return made | experts(given) | pooler(given)


class GeGLU(nn.Module):
    """ModernBERT's MLP, from its two matrices."""

    def __init__(self, enter: Tensor, leave: Tensor) -> None:
        super().__init__()
        self.enter, self.leave = nn.Parameter(enter), nn.Parameter(leave)

    def forward(self, x: Tensor) -> Tensor:
        p, g = nn.functional.linear(x, self.enter).chunk(2, dim=-1)
        return nn.functional.linear(nn.functional.gelu(p) * g, self.leave)


def experts(given: Arrays) -> Made:
    x, assignment = leaf(given["moe_x"]), torch.tensor(given["moe_assignment"])
    matrices = [(torch.tensor(a), torch.tensor(b)) for a, b in zip(given["moe_Wi"], given["moe_Wo"], strict=True)]
    base = GeGLU(torch.tensor(given["moe_base_Wi"]), torch.tensor(given["moe_base_Wo"]))
    seeded, moved = copies(base, len(matrices)), nn.ModuleList(GeGLU(*pair) for pair in matrices)
    at_seeding, out = (
        route(x, assignment, len(each), lambda expert, rows, each=each: each[expert](rows)) for each in (seeded, moved)
    )
    (out * torch.tensor(given["moe_cotangent"])).sum().backward()
    has_gradient = [all(weight.grad is not None for weight in expert.parameters()) for expert in moved]
    return {
        "moe_out_at_seeding": at_seeding,
        "moe_out": out,
        "moe_grad_x": x.grad,
        "moe_expert_has_grad": torch.tensor(has_gradient),
    }


def pooler(given: Arrays) -> Made:
    mean = pool([torch.tensor(given["moe_x"])], torch.tensor(given["pool_mask"]), "avg")
    head = NormedHead(mean.shape[1]).double()
    named = {"0.weight": "ln_w", "0.bias": "ln_b", "1.weight": "w1", "1.bias": "b1", "3.weight": "w2", "3.bias": "b2"}
    head.load_state_dict({name: torch.tensor(given[f"pool_{key}"]) for name, key in named.items()})
    return {"pool_mean": mean, "pool_out": head(mean)}

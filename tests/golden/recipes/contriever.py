"""Contriever's steps with momentum and queue over a table of token vectors, and its loss among the keys of a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from contrapose.evaluation.retrieval import retrieval_by_score
from contrapose.negatives import MomentumCopy
from contrapose.objectives import info_nce
from tests.golden.pieces import Arrays, Made, filled_queue, gradients, mean_of_tokens, stable_ranks, steps, table

INPUTS = (
    "temperature", "label_smoothing", "momentum", "norm_query", "norm_doc", "table_q", "table_k_before", "queue_before", "ptr_before",
    "*_ids", "*_mask", "crop_doc_len", "crop_seed",
)  # fmt: skip
WAITS = {"crop_*": "contriever, because its random crops are views"}
CALLS = {
    "s*_q_emb": '`pool(…, "avg")` of token vectors from a table',
    "s*_loss": '`info_nce(queries, keys, queue=…, in_batch=False, similarity="dot")`',
    "s*_grad_table_q": '`info_nce(queries, keys, queue=…, in_batch=False, similarity="dot")`',
    "s*_table_k_after": "`MomentumCopy(…)`, updated before the keys",
    "s*_queue_after": "`Queue(…)`, filled after the loss",
    "s*_ptr_after": "`Queue(…)`, filled after the loss",
    "s*_accuracy_pct": '`retrieval_by_score(…)["accuracy@1"]`',
    "ib_*": '`info_nce(queries, keys, index=…, similarity="dot")`: twice as many keys as queries',
}


def recompute(given: Arrays, due: list[str]) -> Made:
    online, slow = table(given["table_q"]), MomentumCopy(table(given["table_k_before"]))
    queue = filled_queue(given["queue_before"], int(given["ptr_before"]))
    options = {"temperature": float(given["temperature"]), "label_smoothing": float(given["label_smoothing"])}
    made: Made = {}
    for step in steps(given):
        queries = encode(online, given, f"{step}_q", bool(given["norm_query"]))
        slow.update(online, float(given["momentum"]))
        with torch.no_grad():
            keys = encode(slow, given, f"{step}_k", bool(given["norm_doc"]))
        stored = queue.vectors.clone()
        loss = info_nce(queries, keys, queue=stored, in_batch=False, similarity="dot", **options)
        made |= {
            f"{step}_q_emb": queries,
            f"{step}_loss": loss,
            f"{step}_accuracy_pct": accuracy(queries, keys, stored),
        }
        made |= gradients(loss, **{f"{step}_grad_table_q": online.weight})
        queue.enqueue(keys)
        made |= {
            f"{step}_table_k_after": slow.module.weight.clone(),
            f"{step}_queue_after": queue.vectors.clone(),
            f"{step}_ptr_after": queue.pointer.clone(),
        }
    queries = encode(online, given, "ib_q", bool(given["norm_query"]))
    keys = encode(online, given, "ib_k", bool(given["norm_doc"]))
    loss = info_nce(queries, keys, index=torch.arange(len(queries)), similarity="dot", **options)
    return made | {"ib_loss": loss} | gradients(loss, ib_grad_table=online.weight)


def encode(vectors: nn.Module, given: Arrays, name: str, unit: bool) -> Tensor:
    pooled = mean_of_tokens(vectors, given[f"{name}_ids"], given[f"{name}_mask"])
    return normalize(pooled, dim=1) if unit else pooled


def accuracy(queries: Tensor, keys: Tensor, stored: Tensor) -> float:
    """How many queries of a hundred find their own key before all that is stored."""
    logits = torch.cat([(queries * keys).sum(1, keepdim=True), queries @ stored.T], dim=1).detach()
    ranks = stable_ranks(logits.numpy())
    relevant = np.zeros((len(ranks), 1), dtype=int)
    return 100 * retrieval_by_score(lambda rows: -ranks[rows], *ranks.shape, relevant, ks=[1])["accuracy@1"].mean()

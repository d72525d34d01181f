"""MEOW's two terms with weights from clusters, AdaMEOW's with learned weights, and HeCo's; clusters and weights' network are given."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import elu, linear

from contrapose.objectives import decoupled, info_nce, log_partition
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = (
    "z_coarse", "z_fine", "tau", "lam_proto", "ks", "assign_*", "centroids_*", "sim_to_raw_centroid_*", "ada_w1", "ada_b1", "ada_w2", "ada_b2",
    "heco_z_*", "heco_pos", "heco_lam", "heco_w1", "heco_b1", "heco_w2", "heco_b2", "ps_incidence", "ps_topk",
    "gcn_x", "gcn_w1", "gcn_w2", "gcn_prelu", "att_fc_w", "att_fc_b", "att_vec",
)  # fmt: skip
WAITS = {
    "weights": "meow, because counting weights from clusters is its own; the loss takes them as given",
    "density_*": "meow, because how concentrated a cluster counts is its own; the prototype term takes it as given",
    "ada_weights": "meow, because the network of learned weights is its own; the loss takes it from the recipe",
    "ps_*": "meow, because PathSim and the adjacency of meta-paths are its data",
    "gcn_out": "meow, because its graph encoder is no objective",
    "att_out": "meow, because its graph encoder is no objective",
}
INFO = "`decoupled(coarse, fine, pair=log weights)`"
PROTO = "`log_partition(coarse, centroids / density)`"
ADA = "`log_partition(fine, coarse, pair=log learned weights)` less the positives"
CALLS = {
    "info": INFO,
    "proto_*": f"{PROTO} less the own centroid",
    "loss": f"{INFO} and {PROTO}",
    "grad_z_coarse": f"{INFO} and {PROTO}",
    "grad_z_fine": INFO,
    "ada_loss": ADA,
    "ada_grad_*": ADA,
    "infonce_unweighted": "`info_nce(fine, coarse)`",
    "heco_loss": "`log_partition(…)` less `log_partition(…, pair=positives)`",
}

TOLERANCES = {"heco_loss": 1e-8}  # the reference adds 1e-8 to its denominators


def recompute(given: Arrays, due: list[str]) -> Made:
    return meow(given) | adameow(given) | heco(given)


def meow(given: Arrays) -> Made:
    coarse, fine, t = leaf(given["z_coarse"]), leaf(given["z_fine"]), float(given["tau"])
    info = decoupled(coarse, fine, temperature=t, pair=torch.tensor(given["weights"]).log(), similarity="dot")
    terms = {False: [], True: []}  # by whether the reference's mean over clusters stands in the denominator
    for number, k in enumerate(given["ks"]):
        centroids = torch.tensor(given[f"centroids_{number}"] / given[f"density_{number}"][:, None])
        own = (coarse * centroids[torch.tensor(given[f"assign_{number}"])]).sum(1)
        term = (log_partition(coarse, centroids, temperature=1.0, similarity="dot") - own).mean()
        terms[False].append(term)
        terms[True].append(term + math.log(len(coarse) / k))
    plain, official = (torch.stack(terms[mean]).mean() for mean in (False, True))
    loss = info + float(given["lam_proto"]) * official
    made = {"info": info, "proto_sum_denominator": plain, "proto_official": official, "loss": loss}
    return made | gradients(loss, grad_z_coarse=coarse, grad_z_fine=fine)


def adameow(given: Arrays) -> Made:
    coarse, fine, t = leaf(given["z_coarse"]), leaf(given["z_fine"]), float(given["tau"])
    w1, b1, w2, b2 = (leaf(given[f"ada_{name}"]) for name in ("w1", "b1", "w2", "b2"))
    hidden = linear(fine, w1)[:, None] + linear(coarse, w1) + b1
    gate = linear(hidden.tanh(), w2, b2)[..., 0].sigmoid()
    partition = log_partition(fine, coarse, temperature=t, pair=gate.log(), similarity="dot")
    loss = (partition - (fine * coarse).sum(1) / t).mean()
    made = {"ada_loss": loss, "infonce_unweighted": info_nce(fine, coarse, temperature=t, similarity="dot")}
    made |= gradients(loss, ada_grad_z_coarse=coarse, ada_grad_z_fine=fine)
    return made | gradients(loss, ada_grad_w1=w1, ada_grad_b1=b1, ada_grad_w2=w2, ada_grad_b2=b2)


def heco(given: Arrays) -> Made:
    def project(z: str) -> Tensor:
        w1, b1, w2, b2 = (torch.tensor(given[f"heco_{name}"]) for name in ("w1", "b1", "w2", "b2"))
        return linear(elu(linear(torch.tensor(given[f"heco_z_{z}"]), w1, b1)), w2, b2)

    def one_way(anchors: Tensor, others: Tensor, positives: Tensor) -> Tensor:
        over = {"temperature": float(given["tau"])}
        return (log_partition(anchors, others, **over) - log_partition(anchors, others, pair=positives, **over)).mean()

    meta_path, schema, positives = project("mp"), project("sc"), torch.tensor(given["heco_pos"]).bool()
    share = float(given["heco_lam"])
    there, back = (
        one_way(meta_path, schema, positives),
        one_way(schema, meta_path, positives),
    )  # as the reference, not turned about
    return {"heco_loss": share * there + (1 - share) * back}

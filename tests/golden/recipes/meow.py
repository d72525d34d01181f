"""MEOW's two terms with weights and concentrations from clusters, AdaMEOW's with learned weights, HeCo's; PathSim, convolutions, attention."""

from __future__ import annotations

import torch
from torch.nn.functional import normalize

from contrapose.graph.adameow import Weigher, learned_info_nce
from contrapose.graph.encoder import SemanticAttention, TwoConvolutions
from contrapose.graph.heco import heco_loss, projection
from contrapose.graph.meow import Clusters, density, prototype_nce, times_apart, weighed_info_nce
from contrapose.graph.views import normalised, pathsim, strongest
from contrapose.objectives import info_nce
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = (
    "z_coarse", "z_fine", "tau", "lam_proto", "ks", "assign_*", "centroids_*", "sim_to_raw_centroid_*", "ada_w1", "ada_b1", "ada_w2", "ada_b2",
    "heco_z_*", "heco_pos", "heco_lam", "heco_w1", "heco_b1", "heco_w2", "heco_b2", "ps_incidence", "ps_topk",
    "gcn_x", "gcn_w1", "gcn_w2", "gcn_prelu", "att_fc_w", "att_fc_b", "att_vec",
)  # fmt: skip
WAITS: dict[str, str] = {}
INFO = "`weighed_info_nce(coarse, fine, own)`"
PROTO = "`prototype_nce(coarse, Clusters(own, centroids, density))`"
ADA = "`learned_info_nce(fine, coarse, weigher)`"
CALLS = {
    "weights": "`times_apart(own)`",
    "density_*": "`density(similarities, own, k)`",
    "info": INFO,
    "proto_official": f'{PROTO}, denominator="official"',
    "proto_sum_denominator": PROTO,
    "loss": f"{INFO} and {PROTO}",
    "grad_z_coarse": f"{INFO} and {PROTO}",
    "grad_z_fine": INFO,
    "ada_weights": "`Weigher(dim, hidden)`",
    "ada_loss": ADA,
    "ada_grad_*": ADA,
    "infonce_unweighted": "`info_nce(fine, coarse)`",
    "heco_loss": "`heco_loss(meta_path, schema, positives)` of `projection(dim)`",
    "ps_similarity": "`pathsim(adjacency)`",
    "ps_adj_top": "`strongest(adjacency, k)`",
    "ps_adj_norm_official_transposed": "`normalised(strongest(adjacency, k))`",
    "ps_adj_norm_untransposed": '`normalised(strongest(adjacency, k), "straight")`',
    "gcn_out": "`TwoConvolutions(dim, hidden)`",
    "att_out": "`SemanticAttention(dim)` of `TwoConvolutions(dim, hidden)`",
}

TOLERANCES = {"heco_loss": 1e-8}  # the reference adds 1e-8 to its denominators


def recompute(given: Arrays, due: list[str]) -> Made:
    return meow(given) | adameow(given) | heco(given) | meta_paths(given)


def meow(given: Arrays) -> Made:
    coarse, fine, t = leaf(given["z_coarse"]), leaf(given["z_fine"]), float(given["tau"])
    own = [torch.tensor(given[f"assign_{number}"]) for number in range(len(given["ks"]))]
    made, found = {"weights": times_apart(own)}, []
    for number, (each, k) in enumerate(zip(own, given["ks"], strict=True)):
        similarities = torch.tensor(given[f"sim_to_raw_centroid_{number}"])
        made[f"density_{number}"] = density(similarities, each, int(k), temperature=t)
        found.append(Clusters(each, torch.tensor(given[f"centroids_{number}"]), made[f"density_{number}"]))
    info = weighed_info_nce(coarse, fine, own, temperature=t)
    plain, official = (
        torch.stack([prototype_nce(coarse, each, denominator=denominator) for each in found]).mean()
        for denominator in ("sum", "official")
    )
    loss = info + float(given["lam_proto"]) * official
    made |= {"info": info, "proto_sum_denominator": plain, "proto_official": official, "loss": loss}
    return made | gradients(loss, grad_z_coarse=coarse, grad_z_fine=fine)


def adameow(given: Arrays) -> Made:
    coarse, fine, t = leaf(given["z_coarse"]), leaf(given["z_fine"]), float(given["tau"])
    weigher = Weigher(*given["ada_w1"].shape[::-1]).double()
    names = {"w1": "first.weight", "b1": "first.bias", "w2": "second.weight", "b2": "second.bias"}
    weigher.load_state_dict({there: torch.tensor(given[f"ada_{here}"]) for here, there in names.items()})
    loss = learned_info_nce(fine, coarse, weigher, temperature=t)
    made = {"ada_weights": weigher.log_weights(fine, coarse).exp(), "ada_loss": loss}
    made["infonce_unweighted"] = info_nce(fine, coarse, temperature=t, similarity="dot")
    learned = {f"ada_grad_{here}": weigher.get_parameter(there) for here, there in names.items()}
    return made | gradients(loss, ada_grad_z_coarse=coarse, ada_grad_z_fine=fine, **learned)


def heco(given: Arrays) -> Made:
    project = projection(given["heco_w1"].shape[1]).double()
    names = {"w1": "0.weight", "b1": "0.bias", "w2": "2.weight", "b2": "2.bias"}
    project.load_state_dict({there: torch.tensor(given[f"heco_{here}"]) for here, there in names.items()})
    meta_path, schema = (project(torch.tensor(given[f"heco_z_{view}"])) for view in ("mp", "sc"))
    positives = torch.tensor(given["heco_pos"]).bool()
    loss = heco_loss(meta_path, schema, positives, temperature=float(given["tau"]), balance=float(given["heco_lam"]))
    return {"heco_loss": loss}


def meta_paths(given: Arrays) -> Made:
    adjacency = given["ps_incidence"] @ given["ps_incidence"].T
    top = strongest(adjacency, int(given["ps_topk"]))
    transposed = torch.tensor(normalised(top).toarray())
    convolutions = TwoConvolutions(*given["gcn_w1"].shape).double()
    names = {"first": "gcn_w1", "second": "gcn_w2", "slope": "gcn_prelu"}
    convolutions.load_state_dict({there: torch.tensor(given[here]) for there, here in names.items()})
    attention = SemanticAttention(given["att_fc_w"].shape[1]).double()
    names = {"linear.weight": "att_fc_w", "linear.bias": "att_fc_b", "query": "att_vec"}
    attention.load_state_dict({there: torch.tensor(given[here]) for there, here in names.items()})
    x = torch.tensor(given["gcn_x"])
    out, turned = convolutions(x, transposed), convolutions(x.flip(0), transposed)
    return {
        "ps_similarity": pathsim(adjacency).toarray(),
        "ps_adj_top": top.toarray(),
        "ps_adj_norm_official_transposed": transposed,
        "ps_adj_norm_untransposed": normalised(top, "straight").toarray(),
        "gcn_out": out,
        "att_out": attention([normalize(out, dim=1), normalize(turned, dim=1)]),
    }

"""CLIP-rocket's contrast over weak and strong views, and the terms without negatives that were added to it."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor

from contrapose.objectives import barlow_twins, info_nce, negative_cosine
from tests.golden.pieces import Arrays, Made, each_case, gradients, leaf

INPUTS = (
    "?_z_image", "?_z_text", "?_h_*_local", "?_v_*", "?_p_*", "?_hyper", "?_sinkhorn_in", "?_proto_image", "?_proto_text",
)  # fmt: skip
SINKHORN = "clip_baselines, because the Sinkhorn assignments that SwALIP aims at are its own"
WAITS = {"?_sinkhorn_out": SINKHORN, "?_swalip_*": SINKHORN, "?_loss_swalip_total_sum": SINKHORN}
VIEWS = "`info_nce(images, texts, label_smoothing=…)` of weak views, and of every pair of strong ones"
BARLOW = "`barlow_twins(…, off_diagonal=5e-3, standardise=False)` of the same pairs"
COSINES = "`negative_cosine(predictions, targets)` of the same pairs, both ways"
CALLS = {
    "?_loss_clip": "`info_nce(image, text, symmetric=True)`",
    "?_loss_multiview_*": VIEWS,
    "?_multiview_*": VIEWS,
    "?_grad_multiview_sum_*": VIEWS,
    "?_barlip_term": BARLOW,
    "?_grad_barlip_*": BARLOW,
    "?_loss_barlip_total_sum": f"{VIEWS}; {BARLOW}",
    "?_siamlip_term": COSINES,
    "?_byolip_term": f"{COSINES}; targets of the momentum copy",
    "?_grad_siamlip_*": COSINES,
    "?_loss_siamlip_total_sum": f"{VIEWS}; {COSINES}",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return each_case(one_case, given, due)


def one_case(given: Arrays, due: list[str]) -> Made:
    scale = float(given["hyper"][0])
    made = {
        "loss_clip": info_nce(tensor(given, "z_image"), tensor(given, "z_text"), temperature=1 / scale, symmetric=True)
    }
    made |= multiview(given)
    barlip, siamlip = barlip_term(given), siamlip_term(given)
    made |= barlip | siamlip | {"byolip_term": siamlip_term(given, targets="_momentum")["siamlip_term"]}
    for name, term in (("barlip", barlip), ("siamlip", siamlip)):
        made[f"loss_{name}_total_sum"] = made["loss_multiview_sum"] + term[f"{name}_term"]
    return made


def multiview(given: Arrays) -> Made:
    scale, local_scale, smoothing = (float(value) for value in given["hyper"])
    weak = {name: leaf(given[f"z_{name}"]) for name in ("image", "text")}
    strong = {name: leaf(given[f"h_{name}_local"]) for name in ("image", "text")}
    k = len(strong["image"])
    made, directions = {}, []
    for here, there in (("image", "text"), ("text", "image")):
        of_weak = info_nce(weak[here], weak[there], temperature=1 / scale)
        options = {"temperature": 1 / local_scale, "label_smoothing": smoothing}
        of_strong = [info_nce(a, b, **options) for a, b in product(strong[here], strong[there])]
        local = torch.stack(of_strong).mean()
        made |= {f"multiview_{here}_global": of_weak, f"multiview_{here}_local": local}
        directions.append((of_weak + k * local) / (1 + k))
    made |= {"loss_multiview_avg": sum(directions) / 2, "loss_multiview_sum": sum(directions)}
    leaves = {f"z_{name}": each for name, each in weak.items()} | {
        f"h_{name}_local": each for name, each in strong.items()
    }
    return made | gradients(sum(directions), **{f"grad_multiview_sum_{name}": each for name, each in leaves.items()})


def barlip_term(given: Arrays) -> Made:
    image, text = leaf(given["v_image"]), leaf(given["v_text"])
    pairs = [(image, text), *product(tensor(given, "v_image_local"), tensor(given, "v_text_local"))]
    terms = [barlow_twins(a, b, off_diagonal=5e-3, standardise=False) for a, b in pairs]
    term = 0.025 * torch.stack(terms).mean()
    return {"barlip_term": term} | gradients(term, grad_barlip_v_image=image, grad_barlip_v_text=text)


def siamlip_term(given: Arrays, targets: str = "") -> Made:
    """2 - 2 cos of each prediction with the other modality's targets, which are given or, for BYOLIP, of the momentum copy."""
    weak = leaf(given["p_image"])
    predicted = {"image": weak, "text": tensor(given, "p_text")}
    terms = []
    for here, there in (("image", "text"), ("text", "image")):
        terms.append(2 + 2 * negative_cosine(predicted[here], tensor(given, f"v_{there}{targets}")))
        strong = product(tensor(given, f"p_{here}_local"), tensor(given, f"v_{there}_local{targets}"))
        terms += [2 + 2 * negative_cosine(prediction, target) for prediction, target in strong]
    term = torch.stack(terms).mean()
    return {"siamlip_term": term} | gradients(term, grad_siamlip_p_image=weak)


def tensor(given: Arrays, name: str) -> Tensor:
    return torch.tensor(given[name])

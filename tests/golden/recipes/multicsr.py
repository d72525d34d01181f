"""MultiCSR's logits, masks by the reference, both losses with and without masked pairs, and curation by scores."""

from __future__ import annotations

import re

import torch

from contrapose.objectives import info_nce
from contrapose.text._curation import curate
from contrapose.text.multicsr import keep_by_reference, softmax_bce
from contrapose.text.simcse import logits
from tests.golden.pieces import Arrays, Made, gradients, leaf

INPUTS = ("z", "teacher", "temp", "*_phi", "cur_scores", "cur_*_line", "cur_require_gap")
WAITS: dict[str, str] = {}
INFO_NCE = (
    "`info_nce(anchors, positives, negatives=…, pair=…)` with `keep_by_reference(anchors, positives, negatives, phi=…)`"
)
OFFICIAL = "`softmax_bce(scores, keep)` of `logits(anchors, positives, negatives=…)`"
CALLS = {
    "logits": "`logits(anchors, positives, negatives=…)` of SimCSE",
    "*_keep": "`keep_by_reference(anchors, positives, negatives, phi=…)`",
    "*_official": OFFICIAL,
    "*_masked_infonce": INFO_NCE,
    "cur_*": "`curate(scores, …)`",
}


def recompute(given: Arrays, due: list[str]) -> Made:
    temperature, b = float(given["temp"]), len(given["z"])
    teacher = torch.tensor(given["teacher"]).unbind(1)
    made: Made = {}
    for case in sorted({found[1] for name in given if (found := re.fullmatch(r"(.+)_phi", name))}):
        phi = min(float(given[f"{case}_phi"]), 1.0)  # 2 stands for no mask in these files
        keep, z = keep_by_reference(*teacher, phi=phi), leaf(given["z"])
        anchors, positives, negatives = z.unbind(1)
        options = {"negatives": negatives, "temperature": temperature}
        scores = made["logits"] = logits(anchors, positives, **options)
        kept = keep(slice(0, b), slice(0, 2 * b))
        losses = {
            "official": softmax_bce(scores, kept),
            "masked_infonce": info_nce(anchors, positives, pair=keep, **options),
        }
        made[f"{case}_keep"] = kept.double()
        for name, loss in losses.items():
            made[f"{case}_loss_{name}"] = loss
            made |= gradients(loss, **{f"{case}_grad_{name}": z})
    lines = {name: float(given[f"cur_{name}"]) for name in ("positive_line", "negative_line")}
    found = curate(torch.tensor(given["cur_scores"]), **lines, require_gap=bool(given["cur_require_gap"]))
    return made | {"cur_swapped": found.swapped, "cur_kept": found.kept}

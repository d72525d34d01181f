"""ALIGN's normalised softmax with label smoothing, and recalls among several captions an image."""

from __future__ import annotations

import numpy as np

from contrapose.evaluation.retrieval import retrieval_by_score
from contrapose.objectives import info_nce
from tests.golden.pieces import Arrays, Made, each_case, gradients, leaf, stable_ranks

INPUTS = ("?_image", "?_text", "?_temperature", "?_label_smoothing", "?_sim", "?_caption_owner")
WAITS: dict[str, str] = {}
CALLS = {
    "?_loss_*": "`info_nce(image, text, label_smoothing=…)`, or text before image",
    "?_loss": "`info_nce(…, symmetric=True, label_smoothing=…)` twice: ALIGN sums the directions",
    "?_grad_*": "`info_nce(…, symmetric=True, label_smoothing=…)` twice: ALIGN sums the directions",
    "?_i2t_r*": '`retrieval_by_score(…)["accuracy@k"]` of images among captions, ties by number',
    "?_t2i_r*": '`retrieval_by_score(…)["accuracy@k"]` of captions among images, ties by number',
}


def recompute(given: Arrays, due: list[str]) -> Made:
    return each_case(one_case, given, due)


def one_case(given: Arrays, due: list[str]) -> Made:
    image, text, temperature = leaf(given["image"]), leaf(given["text"]), leaf(given["temperature"])
    options = {"temperature": temperature, "label_smoothing": float(given["label_smoothing"])}
    loss = 2 * info_nce(image, text, symmetric=True, **options)
    made = {"loss_i2t": info_nce(image, text, **options), "loss_t2i": info_nce(text, image, **options), "loss": loss}
    made |= gradients(loss, grad_image=image, grad_text=text, grad_temperature=temperature)
    owner = given["caption_owner"]
    captions = [np.flatnonzero(owner == number) for number in range(len(given["sim"]))]
    made |= recalls("i2t", given["sim"], captions, due)
    return made | recalls("t2i", given["sim"].T, owner[:, None], due)


def recalls(way: str, scores: np.ndarray, relevant: list[np.ndarray] | np.ndarray, due: list[str]) -> Made:
    """A query is answered when any of its relevant candidates is among the first k, in stable descending order."""
    ks = [int(name.removeprefix(f"{way}_r")) for name in due if name.startswith(f"{way}_r")]
    if not ks:
        return {}
    ranks = stable_ranks(scores)
    ranked = retrieval_by_score(lambda rows: -ranks[rows], *scores.shape, relevant, ks=ks)
    return {f"{way}_r{k}": ranked[f"accuracy@{k}"].mean() for k in ks}

"""DebCSE: pairs drawn by inverse propensity beat dropout positives and random negatives, and read length less as meaning."""

from __future__ import annotations

from functools import partial

from contrapose.claims._sentences import LENGTH_BIAS, LENGTH_GAP, SPEARMAN, STSB_EN, SentenceTask, four_layers
from contrapose.claims.claim import Arm, Claim, Experiment, Statement

STEPS = 28  # of a stage
# Every arm takes twice as many steps in all: SimCSE in one stage, the others to train their reference and then from the start again.
# The similarities of a reference so small lie close together: the method's defaults would draw almost evenly, from 42 effective candidates of 55 a
# sentence, and leave two in five without a negative. These were chosen, before any training, by how many candidates they draw from (about 6); the
# ratings of the training pairs were in view when they were, those of the development and test pairs were not.
DRAWN = {"reference": "simcse", "semantic_temperature": 0.01, "least_positive": 0.9, "most_negative": 0.85}

claim = Claim(
    method="debcse",
    says="Dropout positives have the words and the length of their anchor, and random negatives share neither: word frequency, length and "
    "false negatives leak into the similarity. Positives that look different and hard negatives that look alike, drawn from the corpus by "
    "inverse propensity, give embeddings that rank pairs more as people do.",
    source=STSB_EN,
    measures=(SPEARMAN, LENGTH_BIAS, LENGTH_GAP),
    tuned_by=SPEARMAN.name,
    arms=(
        Arm("SimCSE", "simcse", {"steps": 2 * STEPS}),
        Arm("positives alone", "debcse", {**DRAWN, "hard_negatives": 0}),
        Arm("negatives alone", "debcse", {**DRAWN, "positives": "dropout"}),
        Arm("by meaning alone", "debcse", {**DRAWN, "surface_temperature": None}),
        Arm("DebCSE", "debcse", DRAWN),
    ),
    statements=(
        Statement("Drawn positives and negatives together beat SimCSE.", "spearman", "DebCSE", "SimCSE", least=0.01),
        Statement("The length bias is smaller than SimCSE's.", "length bias", "DebCSE", "SimCSE", least=0.02),
        Statement("Both together beat drawn positives alone.", "spearman", "DebCSE", "positives alone", least=0.01),
        Statement("Both together beat drawn negatives alone.", "spearman", "DebCSE", "negatives alone", least=0.01),
        Statement("Propensities beat meaning alone.", "spearman", "DebCSE", "by meaning alone", least=0.01),
    ),
    experiments=(
        Experiment(
            "MiniLM, four layers",
            "The first four layers of a pretrained transformer, mean pooling: untuned and anisotropic, as BERT is. The reference encoder is SimCSE "
            "trained on the same sentences from the same weights, so that no arm knows more than another.",
            partial(SentenceTask, encoder=four_layers),
            # temperature is SimCSE's, untuned
            {"batch_size": 64, "temperature": 0.05, "precision": "auto", "steps": STEPS},
            {"learning_rate": (1e-4, 3e-4)},
            minutes=11,
            tuning_seeds=1,
        ),
    ),
)

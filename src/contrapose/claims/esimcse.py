"""ESimCSE: word repetition and a momentum queue beat SimCSE, and length is read less as meaning."""

from __future__ import annotations

from functools import partial

from contrapose.claims._sentences import (
    LENGTH_BIAS,
    LENGTH_GAP,
    SPEARMAN,
    STSB_EN,
    SentenceTask,
    four_layers,
    words_and_length,
)
from contrapose.claims.claim import Arm, Claim, Experiment, Statement

# The arms share everything but what the statements are about; repetition 0.32, queue 160 and momentum 0.995 are the paper's, untuned.
SHARED = {"batch_size": 64, "temperature": 0.05, "precision": "auto"}

claim = Claim(
    method="esimcse",
    says="SimCSE's two views of a sentence have one length, and length leaks into the similarity. Repeating words in one view, and a momentum "
    "queue of negatives, give embeddings that rank pairs more as people do and read length less as meaning.",
    source=STSB_EN,
    measures=(SPEARMAN, LENGTH_BIAS, LENGTH_GAP),
    tuned_by=SPEARMAN.name,
    arms=(
        Arm("SimCSE", "simcse"),
        Arm("repetition alone", "esimcse", {"queue_size": 0}),
        Arm("queue alone", "esimcse", {"repetition": 0.0}),
        Arm("ESimCSE", "esimcse"),
    ),
    statements=(
        Statement("Repetition and queue together beat SimCSE.", "spearman", "ESimCSE", "SimCSE", least=0.01),
        Statement("The length bias is smaller than SimCSE's.", "length bias", "ESimCSE", "SimCSE", least=0.02),
        Statement("Repetition alone beats SimCSE.", "spearman", "repetition alone", "SimCSE", least=0.01),
        Statement("The queue alone beats SimCSE.", "spearman", "queue alone", "SimCSE", least=0.01),
    ),
    experiments=(
        Experiment(
            "words and length",
            "Mean of word vectors plus a learned vector of the length, from random weights: the plainest encoder that can read length.",
            partial(SentenceTask, encoder=words_and_length),
            {**SHARED, "epochs": 3},
            {"learning_rate": (1e-3, 3e-3, 1e-2)},
            minutes=3,
        ),
        Experiment(
            "MiniLM, four layers",
            "The first four layers of a pretrained transformer, mean pooling: untuned and anisotropic, as BERT is.",
            partial(SentenceTask, encoder=four_layers),
            {**SHARED, "epochs": 1},
            {"learning_rate": (3e-5, 1e-4, 3e-4)},
            minutes=11,
            tuning_seeds=1,
        ),
    ),
)

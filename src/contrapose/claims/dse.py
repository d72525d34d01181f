"""DSE: a student that learns a cross-encoder's scores beside the labels scores pairs better than one of labels alone."""

from __future__ import annotations

from functools import partial

from contrapose.claims._rated_pairs import PEARSON, RatedPairsTask
from contrapose.claims._sentences import SPEARMAN, STSB_EN, four_layers
from contrapose.claims.claim import Arm, Claim, Experiment, Measure, Statement

RANKED = Measure(
    SPEARMAN.name,
    "Spearman correlation of the predicted value (TF-IDF: of the cosine) with the ratings, all pairs together.",
)

claim = Claim(
    method="dse",
    says="A model that reads both sentences of a pair at once scores pairs well and slowly. Sentence embeddings with a small head that learn its "
    "scores beside the labels come nearer to it than the same model does from the labels alone.",
    source=STSB_EN,
    measures=(RANKED, PEARSON),
    tuned_by=RANKED.name,
    arms=(
        Arm("labels alone", "dse", {"distillation": 0.0}),
        Arm("distilled", "dse", {"use_unlabelled": False}),
        Arm("distilled, more pairs", "dse"),
    ),
    statements=(
        Statement(
            "The teacher's scores beside the labels beat the labels alone.",
            RANKED.name,
            "distilled",
            "labels alone",
            least=0.005,
        ),
        Statement(
            "With pairs that the teacher alone has scored it gains more.",
            RANKED.name,
            "distilled, more pairs",
            "labels alone",
            least=0.01,
        ),
    ),
    experiments=(
        Experiment(
            "MiniLM, four layers",
            "The first four layers of a pretrained transformer, for the teacher and for the student; the student's vector is that of the paper, "
            "the four top layers one after another. All students take as many steps.",
            partial(RatedPairsTask, encoder=four_layers),
            # the teacher's rate is shared and untuned
            {"batch_size": 32, "steps": 200, "warmup_steps": 20, "teacher_learning_rate": 1e-4, "precision": "auto"},
            {"learning_rate": (1e-4, 3e-4)},
            minutes=12,
            tuning_seeds=1,
        ),
    ),
)

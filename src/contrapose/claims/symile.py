"""Symile: what two modalities tell only together of a third, it predicts, and CLIP on all pairs cannot."""

from __future__ import annotations

from functools import partial

from contrapose.claims._triples import ACCURACY, ACCURACY_AT_10, EMOJI, SPOKEN_DIGITS, EmojiTask, SumTask, XorTask
from contrapose.claims.claim import Arm, Claim, Experiment, Statement

# The official XOR example's: linear encoders into 16 dimensions, AdamW at 0.1, scale exp(-0.3); a third of its rows, a quarter of its batch
XOR = {
    "batch_size": 250,
    "epochs": 15,
    "temperature": 1.35,
    "schedule": "constant",
    "clip_norm": None,
    "precision": "fp32",
}
SUMS = {"batch_size": 250, "epochs": 8, "precision": "fp32"}
SUM_GRID = {"learning_rate": (3e-3,), "temperature": (0.1, 0.02)}
EMOJI_SETTINGS = {"batch_size": 128, "epochs": 30, "precision": "fp32"}

claim = Claim(
    method="symile",
    says="Contrasting all modalities together captures what pairwise losses miss: information that two modalities have of a third only jointly. "
    "Where there is such information Symile predicts the third from the others and CLIP summed over all pairs stays at chance; where "
    "there is none, neither gains.",
    source=SPOKEN_DIGITS,
    measures=(ACCURACY, ACCURACY_AT_10),
    tuned_by=ACCURACY.name,
    arms=(Arm("pairwise CLIP", "pairwise_clip"), Arm("Symile", "symile")),
    statements=(
        Statement(
            "Symile predicts a modality from the others better than pairwise CLIP.",
            ACCURACY.name,
            "Symile",
            "pairwise CLIP",
            least=0.1,
        ),
    ),
    experiments=(
        Experiment(
            "exclusive or, p = 1",
            "c = a xor b: no two of the three bits tell anything of each other. b from a and c; chance is 0.5.",
            partial(XorTask, share=1.0),
            XOR,
            {"learning_rate": (0.1,)},
            minutes=0.4,
        ),
        Experiment(
            "exclusive or, p = 0.5",
            "c is a xor b in half of the rows and a in the others: the best possible is 0.75.",
            partial(XorTask, share=0.5),
            XOR,
            {"learning_rate": (0.1,)},
            minutes=0.4,
        ),
        Experiment(
            "exclusive or, p = 0",
            "The control: c = a, so that nothing can be learned of b, and no gain is to be seen.",
            partial(XorTask, share=0.0),
            XOR,
            {"learning_rate": (0.1,)},
            minutes=0.4,
        ),
        Experiment(
            "exclusive or, p = 1, values missing",
            "As the first, with 30 % of the training values of each bit left out and marked by a flag beside a learned number.",
            partial(XorTask, share=1.0, missing=0.3),
            XOR,
            {"learning_rate": (0.1,)},
            minutes=0.4,
        ),
        Experiment(
            "two pictures and their sum",
            "Two handwritten digits and the last digit of their sum: neither picture tells anything of the sum by itself; chance is 0.1. An MLP "
            "with 128 hidden units for each picture.",
            partial(SumTask, first="picture"),
            SUMS,
            SUM_GRID,
            minutes=1.2,
            tuning_seeds=1,
        ),
        Experiment(
            "a sound, a picture and their sum",
            "The same with a spoken digit in place of the first picture.",
            partial(SumTask, first="sound"),
            SUMS,
            SUM_GRID,
            minutes=1.2,
            tuning_seeds=1,
        ),
        Experiment(
            "picture, drawing and words",
            "A second control, on things that people made: the picture of an emoji by its line drawing and its words, among those of the split. A drawing "
            "tells its picture by itself, and words tell much of it, so that little is to be had from both together alone: the paper promises no gain here, and "
            "none is expected. Chance is 1 in 290. An MLP with 128 hidden units for each modality.",
            EmojiTask,
            EMOJI_SETTINGS,
            SUM_GRID,
            minutes=0.4,
            tuning_seeds=1,
            source=EMOJI,
        ),
    ),
)

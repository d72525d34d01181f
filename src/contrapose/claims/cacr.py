"""CACR: weighting negatives by how near they are is what makes repulsion work, most of all where some kinds of images are rare."""

from __future__ import annotations

from functools import partial

from contrapose.claims._digits import DIGITS, FEW, FULL, DigitsTask
from contrapose.claims.claim import Arm, Claim, Experiment, Statement

SHARED = {
    "batch_size": 96,
    "optimiser": "sgd",
    "sgd_momentum": 0.9,
    "schedule": "cosine",
    "clip_norm": None,
    "hidden": 128,
    "projection": 32,
    "precision": "fp32",
}
IMBALANCED = [max(6, round(119 * 0.72**digit)) for digit in range(10)]  # 119, 86, 62, … 6

claim = Claim(
    method="cacr",
    says="A network learns from several views of an image as well as with SimCLR's loss where attraction and repulsion are told apart and near "
    "negatives push more, and better than SimCLR with two views. Without the weights of negatives it is worse, most of all where some digits are rare.",
    source=DIGITS,
    measures=(FEW, FULL),
    tuned_by=FEW.name,
    arms=(
        Arm("SimCLR, two views", "simclr", {"temperature": 0.5}),
        Arm("SimCLR's loss, five views", "cacr", {"form": "nt_xent", "temperature": 0.5}),
        Arm("CACR without weights of negatives", "cacr", {"variant": "uniform_neg", "detach_weights": True}),
        Arm("CACR", "cacr", {"detach_weights": True}),
    ),
    statements=(
        Statement(
            "Without the weights of negatives the network is worse.",
            FEW.name,
            "CACR",
            "CACR without weights of negatives",
            least=0.02,
        ),
        Statement("CACR beats SimCLR with two views.", FEW.name, "CACR", "SimCLR, two views", least=0.005),
        Statement(
            "CACR beats SimCLR's loss over as many views.", FEW.name, "CACR", "SimCLR's loss, five views", least=0.005
        ),
    ),
    experiments=(
        Experiment(
            "balanced digits",
            "1,200 digits, about 120 of each.",
            DigitsTask,
            {**SHARED, "epochs": 30},
            {"learning_rate": (0.1,)},
            minutes=2.5,
        ),
        Experiment(
            "rare digits",
            f"Exponentially fewer of each digit: {', '.join(map(str, IMBALANCED))} of 0, 1, … 9. The probes learn from all 1,200 with their labels.",
            partial(DigitsTask, keep=IMBALANCED),
            {**SHARED, "epochs": 50},
            {"learning_rate": (0.1,)},
            minutes=2,
        ),
    ),
)

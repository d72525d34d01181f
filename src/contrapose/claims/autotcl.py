"""AutoTCL: an augmentation of time series that is learned beside the encoder beats fixed ones, a random one, and one that is learned against it."""

from __future__ import annotations

from functools import partial

from contrapose.claims._series import ERROR, ETTH1, UCR, ForecastTask, LabelsTask
from contrapose.claims.claim import Arm, Claim, Experiment, Statement

SHARED = {"batch_size": 16, "epochs": 1, "steps": 60, "precision": "fp32"}  # it is the steps that count
GRID = {"learning_rate": (1e-3, 5e-3)}


def of_set(name: str, words: str) -> Experiment:
    return Experiment(
        name,
        f"{words} A small dilated network from random weights.",
        partial(LabelsTask, name=name),
        SHARED,
        GRID,
        minutes=1.5,
        tuning_seeds=1,
    )


claim = Claim(
    method="autotcl",
    says="No fixed augmentation suits all time series. Factors that are learned to look alike to the encoder and to keep little give representations "
    "that forecast and classify better.",
    source=UCR,
    measures=(ERROR,),
    tuned_by=ERROR.name,
    arms=(
        Arm("subsequence", "series_info_nce", {"view": "subsequence"}),
        Arm("jitter and scaling", "series_info_nce", {"view": "jitter_scaling"}),
        Arm("random factors", "autotcl", {"augmentation": "random"}),
        Arm("adversarial", "autotcl", {"augmentation": "adversarial"}),
        Arm("AutoTCL", "autotcl"),
    ),
    statements=(
        Statement("A learned augmentation beats a fixed subsequence.", "error", "AutoTCL", "subsequence", least=0.01),
        Statement("It beats fixed jitter and scaling.", "error", "AutoTCL", "jitter and scaling", least=0.01),
        Statement("Learned factors beat random ones.", "error", "AutoTCL", "random factors", least=0.01),
        Statement("The principle of relevant information beats learning against the encoder.", "error", "AutoTCL", "adversarial", least=0.01),
    ),
    experiments=(
        of_set("GunPoint", "50 training series of 150 steps, two classes."),
        of_set("ItalyPowerDemand", "67 training series of 24 steps, two classes."),
        of_set("BasicMotions", "40 training series of 100 steps and six channels, four classes."),
        Experiment(
            "ETTh1, oil temperature",
            "Forecasts of 24 and 48 hours; only where `--data` names a folder with ETTh1.csv.gz.",
            ForecastTask,
            {"batch_size": 32, "steps": 150, "learning_rate": 1e-3, "precision": "fp32"},
            {},
            minutes=10,
            source=ETTH1,
        ),
    ),
)  # fmt: skip

"""Temperature: a lower one spreads features and parts what is alike; the loss without one fails, and hard negatives alone repair it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from contrapose.claims._digits import DIGITS, DigitsTask
from contrapose.claims.claim import Arm, Claim, Experiment, Figures, Measure, Split, Statement
from contrapose.evaluation.probes import knn_probe
from contrapose.geometry import tolerance, uniformity
from contrapose.training.method import Method

K = 20
UNIFORMITY = Measure(
    "uniformity",
    "Log of the mean of exp(-2 |x - y|²) over all pairs of the split's images, of the head's unit vectors, which the loss compares; lower is "
    "more even.",
    "smaller",
)
TOLERANCE = Measure(
    "tolerance", "Mean cosine of two images of one digit, of the same vectors; larger keeps a digit together."
)
NEAREST = Measure(
    "kNN accuracy",
    f"Share of the split's images whose digit is that of most of the {K} nearest training images, by cosine of the same vectors.",
)


class SpreadTask(DigitsTask):
    """The digits of the other claims, with how the head's vectors of a split lie on the sphere, and who their neighbours are."""

    def measure(self, model: Method, split: Split) -> Figures:
        rows = {side: self.projected(model, self.rows[side]) for side in ("train", split)}
        return self.spread(rows["train"], rows[split], split)

    def controls(self, split: Split) -> dict[str, Figures]:
        """The pixels themselves."""
        pixels = {
            side: torch.from_numpy(self.images[self.rows[side]].reshape(-1, 64) / 255) for side in ("train", split)
        }
        return {"pixels": self.spread(pixels["train"], pixels[split], split)}

    @torch.no_grad()
    def projected(self, model: Method, rows: np.ndarray) -> Tensor:
        """The images of these rows as the loss compares them, (n, projection)."""
        pixels = model.encoder.pixels(torch.from_numpy(self.images[rows])[:, None])
        return model.eval().project(model.encoder(pixels))

    def spread(self, train: Tensor, held_out: Tensor, split: Split) -> Figures:
        known, truth = self.labels[self.rows["train"]], self.labels[self.rows[split]]
        told = knn_probe(train, known, held_out, k=K)
        return {
            UNIFORMITY.name: uniformity(held_out),
            TOLERANCE.name: tolerance(held_out, torch.from_numpy(truth), mean_over="same_label"),
            NEAREST.name: float((told == truth).mean()),
        }


def arm(name: str, loss: str, temperature: float = 0.3) -> Arm:
    return Arm(name, "contrastive_loss_behaviour", {"loss": loss, "temperature": temperature, "hardest": 25})


claim = Claim(
    method="contrastive_loss_behaviour",
    says="Temperature decides which negatives a contrastive loss hears. The lower it is, the more evenly features spread and the less near stay "
    "images of one class; the loss that hears all negatives alike is far worse, and hearing the hardest alone repairs it, at a high "
    "temperature too.",
    source=DIGITS,
    measures=(NEAREST, UNIFORMITY, TOLERANCE),
    tuned_by=NEAREST.name,
    arms=(
        arm("InfoNCE 0.1", "info_nce", 0.1),
        arm("InfoNCE 0.3", "info_nce", 0.3),
        arm("InfoNCE 1", "info_nce", 1.0),
        arm("simple", "simple"),
        arm("hard 0.3", "hard", 0.3),
        arm("hard 1", "hard", 1.0),
        arm("hard simple", "hard_simple"),
    ),
    statements=(
        Statement(
            "Temperature 0.1 spreads features more evenly than 0.3.",
            "uniformity",
            "InfoNCE 0.1",
            "InfoNCE 0.3",
            least=0.05,
        ),
        Statement(
            "Temperature 0.3 spreads features more evenly than 1.", "uniformity", "InfoNCE 0.3", "InfoNCE 1", least=0.2
        ),
        Statement(
            "Temperature 1 spreads features more evenly than the simple loss.",
            "uniformity",
            "InfoNCE 1",
            "simple",
            least=0.2,
        ),
        Statement(
            "Temperature 0.3 keeps a digit more together than 0.1.",
            "tolerance",
            "InfoNCE 0.3",
            "InfoNCE 0.1",
            least=0.03,
        ),
        Statement(
            "Temperature 1 keeps a digit more together than 0.3.", "tolerance", "InfoNCE 1", "InfoNCE 0.3", least=0.03
        ),
        Statement(
            "The simple loss is far worse than InfoNCE at 0.1.", NEAREST.name, "InfoNCE 0.1", "simple", least=0.08
        ),
        Statement(
            "Of hard negatives alone, the simple loss is repaired.", NEAREST.name, "hard simple", "simple", least=0.08
        ),
        Statement(
            "At temperature 1, hard negatives alone beat all of them.", NEAREST.name, "hard 1", "InfoNCE 1", least=0.01
        ),
        Statement(
            "At temperature 1, hard negatives alone spread features.", "uniformity", "hard 1", "InfoNCE 1", least=0.2
        ),
    ),
    experiments=(
        Experiment(
            "Digits of 8 x 8 pixels",
            "A multi-layer perceptron of 64, 256 and 128 units, and a linear head of 32 dimensions with BatchNorm, from random weights; two views of "
            "each image are turned, scaled, shifted, brightened and noisy. The hard losses keep 25 of 254 negatives.",
            SpreadTask,
            {
                "batch_size": 128,
                "projection": 32,
                "head_norm": True,
                "epochs": 60,
                "weight_decay": 0.0,
                "precision": "fp32",
            },
            {"learning_rate": (2e-3, 5e-3)},
            minutes=5,
            tuning_seeds=1,
        ),
    ),
)

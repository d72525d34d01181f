"""CLIP: an image and its text agree, all others of the batch disagree."""

from __future__ import annotations

import math

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from contrapose.data.batches import Batch, Facts
from contrapose.data.columns import Column
from contrapose.objectives import info_nce
from contrapose.training.method import Card, Terms, View, ViewMethod
from contrapose.training.settings import MethodSettings

COLUMNS = (Column("image", "image", "An image."), Column("text", "text", "What it shows."))


class CLIPSettings(MethodSettings):
    """What CLIP and what grows out of it have in common."""

    batch_size: PositiveInt = Field(128, description="Pairs in a batch, over all processes.")
    learning_rate: PositiveFloat = Field(5e-4, description="Peak learning rate (CLIP, table 18).")
    weight_decay: float = Field(0.1, ge=0, description="Decay of weight matrices; biases and norms have none.")
    temperature: PositiveFloat = Field(
        0.07, description="Divides the cosines at the start; it is learned (CLIP, section 2.5)."
    )
    least_temperature: PositiveFloat = Field(0.01, description="Lower bound of the learned temperature (CLIP: 1/100).")


class CLIP(ViewMethod):
    r"""Learn from images with texts: photos and their captions, pictures and their names, scans and their reports.

    Pick it where every image has a text; it is the baseline of everything that reads images and texts. Each image's positive is its text, its
    negatives are all other texts of the batch, and the other way round; a larger batch is a harder task. Rows that share a `group_id`, such as
    several captions of one image, are never each other's negatives. Either tower may be frozen (`encoder.freeze=text`): with a pretrained
    text encoder and few pairs that is the better start.

    With unit vectors $x_i$ of images and $y_j$ of texts, (b, d), and a learned temperature $\tau$,

    $$L = -\frac{1}{2b}\sum_i \log\frac{e^{x_i \cdot y_i/\tau}}{\sum_j e^{x_i \cdot y_j/\tau}}
          -\frac{1}{2b}\sum_i \log\frac{e^{x_i \cdot y_i/\tau}}{\sum_j e^{x_j \cdot y_i/\tau}}.$$

    $\log \tau$ is learned, $\tau \geq 0.01$. At chance $L = \log b$. Radford et al., ICML 2021, section 2.3 and figure 3.
    """

    card = Card(
        modality="image_text",
        title="CLIP: contrastive language-image pre-training",
        paper="Learning Transferable Visual Models From Natural Language Supervision",
        venue="ICML",
        year=2021,
        url="https://arxiv.org/abs/2103.00020",
        columns=COLUMNS,
    )

    class Settings(CLIPSettings):
        pass

    def build(self, facts: Facts) -> None:
        self.log_temperature = nn.Parameter(torch.tensor(math.log(self.settings.temperature)))

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.clamp(min=math.log(self.settings.least_temperature)).exp()

    def encoders(self) -> dict[str, nn.Module]:
        return dict(self.encoder.items())

    def views(self, batch: Batch) -> dict[str, View]:
        return {side: View(batch[side], encoder=side) for side in ("image", "text")}

    def embed(self, view: View) -> Tensor:
        return self.encoder[view.encoder](view.inputs)

    def objective(self, embeddings: dict[str, Tensor], batch: Batch) -> Terms:
        self.watch("temperature", self.temperature)
        loss = info_nce(
            embeddings["image"], embeddings["text"], temperature=self.temperature, group=batch.group, symmetric=True
        )
        return {"info_nce": loss}

    def chance(self, batch: Batch) -> dict[str, float]:
        return {"info_nce": math.log(len(batch))}

    def negatives(self, batch_size: int, facts: Facts) -> int:
        return batch_size - 1

"""An encoder of images or of texts with a linear layer behind it, so that both end in one space."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from contrapose.image.data import Pixels
from contrapose.image.encoder import ImageEncoder
from contrapose.text.encoder import TextEncoder
from contrapose.training.encoder import Encoder
from contrapose.training.evaluating import evaluating
from contrapose.training.precision import Precision

WEIGHTS, TOWER = "model.safetensors", "tower"


class ProjectedEncoder(Encoder):
    """W tower(x), of shape (b, dim); W has no bias (CLIP: Radford et al., 2021, figure 3). A frozen tower learns nothing, W alone does."""

    def __init__(self, tower: ImageEncoder | TextEncoder, reads: str, dim: int, seed: int, frozen: bool) -> None:
        """`reads`: the column, "image" or "text". `seed`: of the initial W."""
        super().__init__()
        tower.normalise = False  # W is learned on the vectors as they are
        self.tower, self.reads, self.dim, self.seed, self.frozen = tower, reads, dim, seed, frozen
        self.row_wise = tower.row_wise or frozen
        if reads == "image":
            self.size = tower.size
        self.projection = nn.Linear(tower.dim, dim, bias=False)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            nn.init.normal_(self.projection.weight, std=tower.dim**-0.5)  # CLIP's
        if frozen:
            tower.requires_grad_(False)

    def train(self, mode: bool = True) -> ProjectedEncoder:
        """Evaluation mode for what is frozen, always: no dropout, and running statistics that stand still."""
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self

    def forward(self, inputs: Any) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            vectors = self.tower(inputs)
        return self.projection(vectors)

    def encode(
        self,
        values: Sequence[Any],
        *,
        batch_size: int | None = None,
        progress: bool = True,
        precision: Precision = "float32",
    ) -> np.ndarray:
        """Unit vectors of n images or texts, float32 (n, dim). Raises what the tower raises."""
        vectors = torch.from_numpy(
            self.tower.encode(values, batch_size=batch_size, progress=progress, precision=precision)
        )
        weight = self.projection.weight
        with evaluating(self, weight.device):
            found = nn.functional.normalize(self.projection(vectors.to(weight.device, weight.dtype)).float(), dim=-1)
        return found.cpu().numpy()

    def open_column(self, values: Any) -> Any:
        """A column for training: pixels, or tokens."""
        if isinstance(self.tower, ImageEncoder):
            return Pixels.open(values, self.tower.size, self.tower.channels)
        return self.tower.open_column(values)

    def record(self) -> dict[str, Any]:
        tower = self.tower.record()
        return {
            "name": tower["name"], "reads": self.reads, "dim": self.dim, "seed": self.seed, "frozen": self.frozen, "tower": tower,
            **({"own_module": True} if tower.get("own_module") else {}),
        }  # fmt: skip

    def save(self, folder: Path | str) -> None:
        """Write model.safetensors, which is W, and the tower in the folder "tower", as its own modality writes it."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"projection.weight": self.projection.weight.detach().cpu().contiguous()}, str(folder / WEIGHTS))
        self.tower.save(folder / TOWER)

    def __repr__(self) -> str:
        return f"{self.tower} → {self.dim}{', frozen' if self.frozen else ''}"

"""Draws docs/images/acm.png: ACM's papers in two dimensions before and after `meow`, coloured by their class.

    contrapose train meow --data benchmarks/data/hetero_acm --set encoder.top_k=110,700 --set encoder.edge_mask=0.3,0.2 --out runs/acm
    python benchmarks/draw_acm.py runs/acm docs/images/acm.png

Two thousand papers, evenly taken, by t-SNE on cosine distance; needs Pillow (the extra `image`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

import contrapose
from contrapose.data.readers import read
from contrapose.evaluation.flat_map import flat_map
from contrapose.graph.data import read_data
from contrapose.graph.encoder import open_encoder

DATA = Path(__file__).parent / "data" / "hetero_acm"
CLASSES = {
    "0": ("database", (44, 123, 182)),
    "1": ("wireless communication", (215, 120, 28)),
    "2": ("data mining", (60, 150, 80)),
}
SHOWN = 2000
SIDE, MARGIN, HEAD, FINE = 520, 24, 64, 3  # pixels; drawn FINE times as large and shrunk, so that dots are round


def draw(run: Path, out: Path) -> None:
    labels = read(DATA / "labels.csv")
    classes = np.array([str(value) for value in labels["label"]])
    chosen = np.linspace(0, len(classes) - 1, SHOWN).astype(int)
    nodes = read_data(DATA)
    trained = contrapose.load(run).encoder()
    untrained = open_encoder(trained.record(), {}, nodes)
    panels = {"raw features": nodes.graph.features["paper"][chosen].toarray()}
    panels |= {
        name: encoder.encode(chosen)
        for name, encoder in {"untrained encoder": untrained, "after meow": trained}.items()
    }
    width = len(panels) * SIDE + (len(panels) + 1) * MARGIN
    image = Image.new("RGB", (width * FINE, (SIDE + HEAD + 2 * MARGIN) * FINE), "white")
    brush = ImageDraw.Draw(image)
    for number, (name, vectors) in enumerate(panels.items()):
        left = (MARGIN + number * (SIDE + MARGIN)) * FINE
        write(brush, (left, MARGIN * FINE // 2), name, 22)
        points = flat_map(vectors)
        points = (points - points.min(0)) / np.ptp(points, axis=0) * (SIDE - 8) + 4
        for order in np.random.default_rng(0).permutation(len(points)):
            x, y = left + points[order, 0] * FINE, (MARGIN + HEAD // 2 + points[order, 1]) * FINE
            brush.ellipse(
                [x - 2 * FINE, y - 2 * FINE, x + 2 * FINE, y + 2 * FINE], fill=CLASSES[classes[chosen[order]]][1]
            )
    x = MARGIN * FINE
    for name, colour in CLASSES.values():
        y = (SIDE + MARGIN + HEAD // 2 + 20) * FINE
        brush.ellipse([x, y, x + 12 * FINE, y + 12 * FINE], fill=colour)
        x += 20 * FINE
        write(brush, (x, y - 5 * FINE), name, 18)
        x += int(brush.textlength(name, font=font(18))) + 30 * FINE
    out.parent.mkdir(parents=True, exist_ok=True)
    image.resize((width, image.height // FINE), Image.Resampling.LANCZOS).quantize(64).save(out, optimize=True)


def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size * FINE)


def write(brush: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int) -> None:
    brush.text(place, text, fill=(40, 40, 40), font=font(size))


if __name__ == "__main__":
    draw(Path(sys.argv[1]), Path(sys.argv[2]))

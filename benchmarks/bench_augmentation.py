"""SimCLR's views of a batch of images: ours in one call, kornia's modules in one call, and ours and Pillow's image by image. Writes results/augmentation.json.

python benchmarks/bench_augmentation.py [--rows 256] [--side 64] [--rounds 7]

All make one view of each image: random resized crop (area 0.2 to 1), mirroring, colour jitter at half strength with share 0.8, grey with share 0.2, blur with share
0.5. Ways take turns within a round, one thread; a first round is left out. Seconds are of the processor. torchvision, whose transforms most code uses, does
not import beside this build of torch; the Pillow way makes the same steps by Pillow, as torchvision does for PIL images (its hue, saturation and contrast by ImageEnhance and HSV).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable
from importlib.metadata import version
from statistics import median

import numpy as np
import torch
from measured import RESULTS, machine, spread, write
from PIL import Image, ImageEnhance, ImageFilter

from contrapose.image.views import PHOTO, ViewSettings, photo_views

RESULT = RESULTS / "augmentation.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--note", default="", help="what the result should say of the circumstances")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    random.seed(0)
    images = torch.randint(0, 256, (given.rows, 3, given.side // 4, given.side // 4), dtype=torch.uint8)
    images = images.repeat_interleave(4, 2).repeat_interleave(4, 3)
    ways = ways_of(images)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(given.rounds + 1):
        for name, make in ways.items():
            began = time.process_time()
            make()
            if turn:
                seconds[name].append(time.process_time() - began)
    result = {
        "what": "one SimCLR view of each image of a batch, processor seconds of one thread",
        **machine(),
        "versions": {name: version(name) for name in ("contrapose", "torch", "kornia", "pillow")},
        "note": given.note,
        "rows": given.rows,
        "side": given.side,
        "rounds": given.rounds,
        "ways": {
            name: {"images a second": round(given.rows / median(times)), "seconds": spread(times, 4)}
            for name, times in seconds.items()
        },
    }
    write(RESULT, result)
    print(json.dumps(result["ways"], indent=1))


def ways_of(images: torch.Tensor) -> dict[str, Callable[[], object]]:
    settings = ViewSettings(views="photo")
    rows = len(images)
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    kornias = kornia_views(images.shape[-1])

    def ours() -> torch.Tensor:
        return photo_views(images.float() / 255, torch.rand(rows, PHOTO), settings)

    def ours_one_by_one() -> list[torch.Tensor]:
        return [photo_views(image[None].float() / 255, torch.rand(1, PHOTO), settings) for image in images]

    return {
        "contrapose, the batch": ours,
        "contrapose, image by image": ours_one_by_one,
        "kornia's modules, the batch": lambda: kornias(images.float() / 255),
        "kornia's modules, image by image": lambda: [kornias(image[None].float() / 255) for image in images],
        "Pillow, image by image": lambda: [pillow_view(array) for array in arrays],
    }


def kornia_views(side: int) -> torch.nn.Module:
    from kornia import augmentation as k

    width = max(3, 2 * round(side / 20) + 1)
    return torch.nn.Sequential(
        k.RandomResizedCrop((side, side), scale=(0.2, 1.0)),
        k.RandomHorizontalFlip(),
        k.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
        k.RandomGrayscale(p=0.2),
        k.RandomGaussianBlur((width, width), (0.1 * side / 224, 2.0 * side / 224), p=0.5),
    )


def pillow_view(array: np.ndarray) -> np.ndarray:
    image, side = Image.fromarray(array), array.shape[0]
    area, shape = random.uniform(0.2, 1) * side * side, math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
    width, height = min(side, round(math.sqrt(area * shape))), min(side, round(math.sqrt(area / shape)))
    left, top = random.randint(0, side - width), random.randint(0, side - height)
    image = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + width, top + height))
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if random.random() < 0.8:
        changes = [ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color, None]
        random.shuffle(changes)
        for change in changes:
            image = (
                change(image).enhance(random.uniform(0.6, 1.4)) if change else turned(image, random.uniform(-0.1, 0.1))
            )
    if random.random() < 0.2:
        image = image.convert("L").convert("RGB")
    if random.random() < 0.5:
        image = image.filter(ImageFilter.GaussianBlur(random.uniform(0.1, 2.0) * side / 224))
    return np.asarray(image).transpose(2, 0, 1).astype(np.float32) / 255


def turned(image: Image.Image, by: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = Image.fromarray((np.asarray(hue).astype(np.int16) + round(by * 255)).astype(np.uint8), "L")
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")


if __name__ == "__main__":
    main()

"""Views of images: crops and colours of photos, and small motions of small grey images; a batch at a time, on its device.

Everything random is handed over as uniform numbers, one row of them an image, so that an image gets the same view on any number of processes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from contrapose.data.batches import Batch
from contrapose.errors import ArgumentInvalid
from contrapose.training.settings import MethodSettings

PHOTO = 18  # uniform numbers a photo takes
MOTION = 5  # and a small image, beside one a pixel for the noise
GREY = (
    0.299,
    0.587,
    0.114,
)  # the share of red, green and blue in grey (ITU-R BT.601, as torchvision and kornia have it)
ASPECT = (3 / 4, 4 / 3)
LARGEST_SMALL = 32  # pixels up to which a grey image counts as small


class ViewSettings(MethodSettings):
    """What methods of images share: how views are made, and how long a network without weights is trained."""

    # SimCLR, appendix B.9 (CIFAR-10), with AdamW at 1e-3 in the place of LARS at 1.0
    batch_size: PositiveInt = Field(256, description="Images in a batch, over all processes.")
    epochs: PositiveFloat = Field(100.0, description="Passes over the images; fractions allowed.")
    learning_rate: NonNegativeFloat = Field(1e-3, description="Peak learning rate.")
    weight_decay: NonNegativeFloat = Field(1e-4, description="Decay of weight matrices; biases and norms have none.")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "cosine", description="How the learning rate falls to 0 after the warm-up."
    )
    views: Literal["auto", "photo", "small"] = Field(
        "auto",
        description="photo: crop, flip, colours, blur (SimCLR); small: turn, scale, shift, contrast, noise; auto: small for grey images up to 32 pixels.",
    )
    # SimCLR, appendix A, with the colours at half strength (its CIFAR-10; MoCo v2 and SimSiam have the same 0.4, 0.4, 0.4, 0.1), least area of MoCo v2
    crop: float = Field(0.2, gt=0, le=1, description="photo: least share of the area that a crop keeps.")
    flip: float = Field(0.5, ge=0, le=1, description="photo: share of views that are mirrored.")
    jitter: float = Field(
        0.5, ge=0, le=1, description="photo: strength s of brightness, contrast, saturation (0.8 s) and hue (0.2 s)."
    )
    jitter_share: float = Field(0.8, ge=0, le=1, description="photo: share of views with changed colours.")
    grey: float = Field(0.2, ge=0, le=1, description="photo: share of views without colours.")
    blur: float = Field(
        0.5, ge=0, le=1, description="photo: share of views that are blurred, by a deviation of 0.1 to 2 pixels of 224."
    )
    # own choice for 8 x 8 digits: a digit stays what it is
    turn: float = Field(15.0, ge=0, le=180, description="small: largest angle, in degrees.")
    scale: float = Field(0.15, ge=0, lt=1, description="small: largest change of size, as a share.")
    shift: float = Field(0.1, ge=0, le=1, description="small: largest shift, as a share of the side.")
    contrast: float = Field(0.3, ge=0, le=1, description="small: largest change of contrast, as a share.")
    noise: float = Field(0.1, ge=0, description="small: deviation of the noise of each pixel, on the scale 0 to 1.")


def views_of(images: Tensor, batch: Batch, settings: ViewSettings, count: int = 2) -> list[Tensor]:
    """`count` views of each image of a batch, made in one call; a list of tensors shaped as `images`, values in [0, 1].

    images: (b, c, h, w) floats in [0, 1], such as `encoder.pixels(batch["image"])`. Draws `batch.uniform` once.
    """
    b, c, h, w = images.shape
    small = settings.views == "small" or (settings.views == "auto" and c == 1 and max(h, w) <= LARGEST_SMALL)
    numbers = MOTION + (c * h * w if settings.noise else 0) if small else PHOTO
    uniform = (
        batch.uniform(count, numbers).transpose(0, 1).reshape(count * b, numbers)
    )  # one view of all rows after another
    make = small_views if small else photo_views
    return list(make(images.repeat(count, 1, 1, 1), uniform, settings).split(b))


def photo_views(images: Tensor, uniform: Tensor, settings: ViewSettings | None = None) -> Tensor:
    """SimCLR's views (Chen et al., 2020, appendix A): crop, flip, colours, grey, blur. (n, c, h, w) floats in [0, 1], the same back.

    uniform: (n, PHOTO) numbers in [0, 1). Grey images (c = 1) have brightness and contrast alone changed. Where the shape of a crop does
    not fit into the image, its longer side is cut to fit; torchvision draws again up to ten times.
    """
    settings = settings or ViewSettings()
    check(images, uniform, PHOTO)
    u = uniform.to(images)
    cut = warp(images, crop_matrix(u[:, :5], images.shape[-1] / images.shape[-2], settings.crop, settings.flip))
    coloured = jitter(cut, u[:, 5:9], u[:, 9:13].argsort(dim=1), settings.jitter * (u[:, 13] < settings.jitter_share))
    if images.shape[1] == 3:
        coloured = torch.where((u[:, 14] < settings.grey).view(-1, 1, 1, 1), grey(coloured), coloured)
    sigma = (0.1 + 1.9 * u[:, 15]) * max(images.shape[-2:]) / 224
    return blur(coloured, sigma, u[:, 16] < settings.blur)


def small_views(images: Tensor, uniform: Tensor, settings: ViewSettings | None = None) -> Tensor:
    """Views of small images on a black ground, such as digits: turned, scaled, shifted, brighter or darker, noisy. (n, c, h, w) floats in [0, 1], the same back.

    uniform: (n, MOTION) numbers in [0, 1), and c h w more for the noise, where there is any. What comes in from outside is black.
    """
    settings = settings or ViewSettings()
    pixels = images[0].numel() if settings.noise else 0
    check(images, uniform, MOTION + pixels)
    u = 2 * uniform.to(images) - 1  # from -1 to 1
    angle, scale = math.radians(settings.turn) * u[:, 0], 1 + settings.scale * u[:, 1]
    moved = warp(images, motion_matrix(angle, scale, 2 * settings.shift * u[:, 2:4]), outside="zeros")
    contrasted = moved * (1 + settings.contrast * u[:, 4]).view(-1, 1, 1, 1)
    if not settings.noise:
        return contrasted.clamp(0, 1)
    normal = math.sqrt(2) * torch.erfinv(u[:, MOTION:].clamp(-1 + 1e-6, 1 - 1e-6))
    return (contrasted + settings.noise * normal.view_as(images)).clamp(0, 1)


def crop_matrix(uniform: Tensor, aspect: float, least: float, flip: float) -> Tensor:
    """(n, 2, 3) of random resized crops for `warp`: area from `least` to 1 of the image, width to height from 3/4 to 4/3, anywhere, mirrored or not.

    uniform: (n, 5): area, shape, place across, place down, mirrored. aspect: width by height of the image.
    """
    area = least + (1 - least) * uniform[:, 0]
    low, high = map(math.log, ASPECT)
    shape = (low + (high - low) * uniform[:, 1]).exp() / aspect
    width, height = (area * shape).sqrt().clamp(max=1), (area / shape).sqrt().clamp(max=1)
    across, down = (1 - width) * (2 * uniform[:, 2] - 1), (1 - height) * (2 * uniform[:, 3] - 1)
    none = torch.zeros_like(width)
    mirrored = torch.where(uniform[:, 4] < flip, -width, width)
    return torch.stack([mirrored, none, across, none, height, down], dim=1).view(-1, 2, 3)


def motion_matrix(angle: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """(n, 2, 3) that turn an image clockwise by `angle` (n,), in radians, make it `scale` (n,) times as large and shift it by (n, 2) half sides, for `warp`."""
    cos, sin = angle.cos() / scale, angle.sin() / scale
    turn = torch.stack([cos, sin, -sin, cos], dim=1).view(-1, 2, 2)
    return torch.cat([turn, -turn @ shift[:, :, None]], dim=2)


def warp(images: Tensor, matrices: Tensor, outside: Literal["border", "zeros"] = "border") -> Tensor:
    """Images (n, c, h, w) resampled, bilinear, where the matrices (n, 2, 3) send the places of the result; coordinates run from -1 to 1."""
    grid = functional.affine_grid(matrices, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode=outside, align_corners=False)


def jitter(images: Tensor, uniform: Tensor, order: Tensor, strength: Tensor) -> Tensor:
    r"""Brightness, contrast, saturation and hue changed at random, in the order of each row: one affine map of colours an image, clamped to [0, 1] once.

    images: (n, 3, h, w) or (n, 1, h, w). uniform: (n, 4), of each change how far. order: (n, 4), a permutation of 0 … 3 a row. strength: (n,), s:
    factors are uniform in 1 ± 0.8 s, the hue turns by up to 0.2 s of the circle.

    With x a colour, g(x) its grey and m the mean grey of the image: brightness f x; contrast f x + (1 - f) m; saturation f x + (1 - f) g(x), as
    torchvision has them. The hue turns the two colour axes of YIQ, as NVIDIA DALI does it, which keeps g(x). torchvision goes through HSV
    and clamps after each change; a product of four small matrices an image is all that is left here.
    """
    factors = 1 + 0.8 * strength[:, None] * (2 * uniform[:, :3] - 1)
    angle = 2 * math.pi * 0.2 * strength * (2 * uniform[:, 3] - 1)
    channels = images.shape[1]
    mean = images.mean(dim=(2, 3))  # (n, c)
    identity = torch.eye(channels, dtype=images.dtype, device=images.device)
    weight = images.new_tensor(GREY) if channels == 3 else images.new_ones(1)
    to_grey = weight.expand(channels, channels)  # every channel becomes the grey
    linear, offset = identity.expand(len(images), channels, channels), torch.zeros_like(mean)
    brightness, contrast, saturation = (factor[:, None, None] for factor in factors.unbind(1))
    changes = [brightness * identity, contrast * identity]
    if channels == 3:
        changes += [saturation * identity + (1 - saturation) * to_grey, hue_matrix(angle, identity)]
    for place in range(4):
        chosen, found = linear, offset
        for number, change in enumerate(changes):
            now = (order[:, place] == number)[:, None]
            shifted = (change @ offset[:, :, None])[:, :, 0]
            if number == 1:  # towards the mean grey of the image as it is by now
                level = ((linear @ mean[:, :, None])[:, :, 0] + offset) @ weight
                shifted = shifted + (1 - contrast[:, 0]) * level[:, None]
            chosen = torch.where(now[:, :, None], change @ linear, chosen)
            found = torch.where(now, shifted, found)
        linear, offset = chosen, found
    changed = torch.baddbmm(offset[:, :, None], linear, images.flatten(2)).view_as(images)
    return changed.clamp(0, 1)


def hue_matrix(angle: Tensor, identity: Tensor) -> Tensor:
    """(n, 3, 3): colours with their two axes I and Q turned by `angle` (n,), in radians."""
    yiq = identity.new_tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    cos, sin, none, one = angle.cos(), angle.sin(), torch.zeros_like(angle), torch.ones_like(angle)
    turn = torch.stack([one, none, none, none, cos, -sin, none, sin, cos], dim=1).view(-1, 3, 3)
    return torch.linalg.inv(yiq) @ turn @ yiq


def grey(images: Tensor) -> Tensor:
    """(n, 3, h, w) with every channel the grey of the pixel."""
    return torch.einsum("nchw,c->nhw", images, images.new_tensor(GREY))[:, None].expand_as(images)


def blur(images: Tensor, sigma: Tensor, chosen: Tensor) -> Tensor:
    """The chosen (n,) images blurred by a Gaussian of deviation `sigma` (n,) pixels, its width a tenth of the side (SimCLR), at least 3."""
    rows = chosen.nonzero()[:, 0]
    if not len(rows):
        return images
    from kornia.filters import gaussian_blur2d

    width = max(3, 2 * round(max(images.shape[-2:]) / 20) + 1)
    width = min(
        width, 2 * min(images.shape[-2:]) - 1
    )  # it mirrors the border, and has no more than the image to mirror
    blurred = gaussian_blur2d(images[rows], width, sigma[rows, None].expand(-1, 2), border_type="reflect")
    return images.index_copy(0, rows, blurred.to(images.dtype))


def check(images: Tensor, uniform: Tensor, numbers: int) -> None:
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not images.is_floating_point():
        raise ArgumentInvalid(
            f"images have shape {tuple(images.shape)} and {images.dtype}; views are made of floats (n, c, h, w), c 1 or 3, from 0 to 1."
        )
    if uniform.shape != (len(images), numbers):
        raise ArgumentInvalid(
            f"{len(images)} images take uniform numbers of shape {(len(images), numbers)}; got {tuple(uniform.shape)}."
        )

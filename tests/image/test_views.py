"""Views of images: what each step does, kornia's functions as a reference, and the same view of a row in any batch."""

from __future__ import annotations

import math

import kornia
import pytest
import torch

from contrapose.data.batches import Batch, Data, seeded
from contrapose.errors import ArgumentInvalid
from contrapose.image.views import (
    GREY,
    MOTION,
    PHOTO,
    ViewSettings,
    blur,
    crop_matrix,
    grey,
    hue_matrix,
    jitter,
    motion_matrix,
    photo_views,
    small_views,
    views_of,
    warp,
)

SHOWN = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
LUMA = torch.tensor(GREY, dtype=torch.float64)


def uniform(numbers: int, rows: int = 6, seed: int = 1) -> torch.Tensor:
    return torch.rand(rows, numbers, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(rows: int, first: int = 0, size: int | None = None, seed: int = 3) -> Batch:
    everywhere = None if size is None else torch.arange(size)
    return Batch(Data({}, 100), torch.arange(first, first + rows), 0, seeded(seed), first=first, everywhere=everywhere)


def test_the_whole_image_is_a_crop_of_area_one() -> None:
    numbers = torch.full((6, 5), 0.5, dtype=torch.float64)
    numbers[:, 4] = 0.9
    torch.testing.assert_close(warp(SHOWN, crop_matrix(numbers, 1.0, 1.0, 0.5)), SHOWN)
    numbers[:, 4] = 0.1
    torch.testing.assert_close(warp(SHOWN, crop_matrix(numbers, 1.0, 1.0, 0.5)), SHOWN.flip(3))


def test_a_crop_is_the_box_enlarged_as_kornia_enlarges_it() -> None:
    numbers = uniform(5)
    numbers[:, 4] = 0.9
    matrices = crop_matrix(numbers, 1.0, 0.2, 0.5)
    corners = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    boxes = (corners @ matrices[:, :, :2].transpose(1, 2) + matrices[:, None, :, 2] + 1) * 12 / 2 - 0.5  # in pixels
    assert ((boxes > -0.51) & (boxes < 11.51)).all()
    target = ((corners + 1) * 12 / 2 - 0.5).expand(6, 4, 2)
    transform = kornia.geometry.get_perspective_transform(boxes, target)
    theirs = kornia.geometry.warp_perspective(SHOWN, transform, (12, 12), padding_mode="border", align_corners=True)
    torch.testing.assert_close(warp(SHOWN, matrices), theirs, atol=1e-6, rtol=0)


def test_crops_keep_their_share_of_the_area_and_their_shape() -> None:
    matrices = crop_matrix(uniform(5, 20_000), 1.0, 0.2, 0.5)
    width, height = matrices[:, 0, 0].abs(), matrices[:, 1, 1]
    area, shape = width * height, width / height
    assert 0.14 < area.min() < 0.21
    assert area.max() <= 1
    assert (matrices[:, 0, 0] < 0).double().mean().item() == pytest.approx(0.5, abs=0.02)
    assert shape.min() >= 0.75 - 1e-9
    assert shape.max() <= 4 / 3 + 1e-9


def one_change(number: int, value: float, strength: float = 1.0) -> torch.Tensor:
    """One of the four changes alone, the others in the middle of their range, where they do nothing."""
    numbers = torch.full((6, 4), 0.5, dtype=torch.float64)
    numbers[:, number] = value
    order = torch.arange(4).expand(6, 4)
    return jitter(SHOWN, numbers, order, torch.full((6,), strength, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.1, 0.8])
def test_brightness_contrast_and_saturation_are_those_of_torchvision_as_kornia_has_them(value: float) -> None:
    factor = 1 + 0.8 * (2 * value - 1)
    enhance = kornia.enhance
    torch.testing.assert_close(one_change(0, value), (SHOWN * factor).clamp(0, 1))
    torch.testing.assert_close(
        one_change(1, value), enhance.adjust_contrast_with_mean_subtraction(SHOWN, factor), atol=2e-4, rtol=0
    )
    torch.testing.assert_close(
        one_change(2, value), enhance.adjust_saturation_with_gray_subtraction(SHOWN, factor), atol=2e-4, rtol=0
    )


def test_a_turned_hue_keeps_grey_and_comes_back_after_the_whole_circle() -> None:
    identity = torch.eye(3, dtype=torch.float64)
    angles = torch.tensor([0.7, -0.7, 2 * math.pi], dtype=torch.float64)
    there, back, round_ = hue_matrix(angles, identity)
    torch.testing.assert_close(there @ back, identity)
    torch.testing.assert_close(round_, identity)
    torch.testing.assert_close(LUMA @ there, LUMA)
    torch.testing.assert_close(
        there @ torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64), atol=2e-3, rtol=0
    )
    assert (there - identity).abs().max() > 0.3


def test_changes_are_made_in_the_order_of_the_row() -> None:
    dim = SHOWN / 4 + 0.3  # so that nothing is clamped
    numbers = torch.tensor([[0.4, 0.6, 0.3, 0.5]], dtype=torch.float64).expand(6, 4)
    strength = torch.full((6,), 0.5, dtype=torch.float64)
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [1, 0, 3, 2]):
        expected = dim
        for number in order:
            alone = torch.full_like(numbers, 0.5)
            alone[:, number] = numbers[:, number]
            expected = jitter(expected, alone, torch.arange(4).expand(6, 4), strength)
        torch.testing.assert_close(jitter(dim, numbers, torch.tensor(order).expand(6, 4), strength), expected)


def test_grey_has_one_value_a_pixel() -> None:
    torch.testing.assert_close(grey(SHOWN), kornia.color.rgb_to_grayscale(SHOWN).expand(-1, 3, -1, -1))


def test_only_the_chosen_are_blurred() -> None:
    chosen = torch.tensor([True, False, True, False, False, False])
    found = blur(SHOWN, torch.full((6,), 1.5, dtype=torch.float64), chosen)
    torch.testing.assert_close(found[1], SHOWN[1])
    assert found[0].var() < SHOWN[0].var()


def test_a_quarter_turn_and_a_shift_are_what_they_say() -> None:
    still = torch.zeros(1, 2, dtype=torch.float64)
    one = torch.ones(1, dtype=torch.float64)
    turned = warp(SHOWN[:1], motion_matrix(one * math.pi / 2, one, still), outside="zeros")
    torch.testing.assert_close(turned, SHOWN[:1].rot90(-1, (2, 3)))
    moved = warp(SHOWN[:1], motion_matrix(one * 0, one, still + torch.tensor([2 / 12, 0.0])), outside="zeros")
    torch.testing.assert_close(moved[..., 1:], SHOWN[:1, ..., :-1])
    assert (moved[..., 0] == 0).all()


def test_noise_has_its_deviation() -> None:
    still = ViewSettings(turn=0, scale=0, shift=0, contrast=0, noise=0.05)
    plain = torch.full((8, 1, 30, 30), 0.5, dtype=torch.float64)
    noisy = small_views(plain, uniform(MOTION + 900, 8), still)
    assert (noisy - 0.5).std().item() == pytest.approx(0.05, rel=0.05)
    assert abs((noisy - 0.5).mean().item()) < 0.003


def test_with_nothing_to_change_views_are_the_images() -> None:
    nothing = ViewSettings(turn=0, scale=0, shift=0, contrast=0, noise=0, crop=1.0, flip=0, jitter=0, grey=0, blur=0)
    torch.testing.assert_close(small_views(SHOWN, uniform(MOTION), nothing), SHOWN)
    numbers = uniform(PHOTO)
    numbers[:, 1] = 0.5  # square
    torch.testing.assert_close(photo_views(SHOWN, numbers, nothing), SHOWN)


@pytest.mark.parametrize(("views", "channels"), [("photo", 3), ("photo", 1), ("small", 1), ("auto", 1)])
def test_a_row_has_the_same_views_in_a_share_of_the_batch(views: str, channels: int) -> None:
    settings, shown = ViewSettings(views=views), SHOWN[:, :channels]
    whole = views_of(shown, batch(6), settings, count=3)
    share = views_of(shown[4:], batch(2, first=4, size=6), settings, count=3)
    assert len(whole) == 3
    for view, part in zip(whole, share, strict=True):
        assert view.shape == shown.shape
        assert view.min() >= 0
        assert view.max() <= 1 + 1e-9
        torch.testing.assert_close(part, view[4:])
    assert (whole[0] - whole[1]).abs().mean() > 0.01


@pytest.mark.parametrize(
    ("shown", "numbers"), [(SHOWN[:, :2], PHOTO), (SHOWN[0], PHOTO), (SHOWN.mul(255).byte(), PHOTO), (SHOWN, PHOTO - 1)]
)
def test_other_than_floats_of_one_or_three_channels_are_refused(shown: torch.Tensor, numbers: int) -> None:
    with pytest.raises(ArgumentInvalid):
        photo_views(shown, uniform(numbers))

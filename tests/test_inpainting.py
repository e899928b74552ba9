"""Filling holes: what is known stays, what is not continues smoothly."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.portrait.inpainting import fill_holes


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(size=(height, width, channels)).astype(np.float32)


def disc(height: int, width: int, radius: float) -> np.ndarray:
    """1 outside a disc in the middle."""
    row, column = np.mgrid[:height, :width]
    far = (row - height / 2) ** 2 + (column - width / 2) ** 2 >= radius**2
    return far.astype(np.float32)


@pytest.mark.parametrize("size", [(64, 64), (65, 37), (120, 7), (5, 3), (2, 9), (1, 1)])
def test_known_pixels_stay_exactly(size: tuple[int, int]) -> None:
    image, known = noise(*size), (noise(*size, 1)[..., 0] > 0.4).astype(np.float32)
    filled = fill_holes(image, known)
    assert filled.shape == image.shape and filled.dtype == np.float32
    assert np.array_equal(filled[known == 1], image[known == 1])


def test_a_flat_colour_is_continued_as_it_is() -> None:
    image = np.full((80, 96, 3), (0.2, 0.5, 0.9), np.float32)
    known = disc(80, 96, 30)
    image[known == 0] = 7.0  # what lies under a hole must not matter
    assert np.abs(fill_holes(image, known) - (0.2, 0.5, 0.9)).max() < 1e-4


def test_what_lies_under_a_hole_does_not_matter() -> None:
    image, known = noise(90, 90), disc(90, 90, 20)
    other = np.where(known[..., None] == 1, image, -5.0).astype(np.float32)
    assert np.array_equal(fill_holes(image, known), fill_holes(other, known))


def test_a_ramp_goes_on_through_a_hole() -> None:
    row, column = np.mgrid[:128, :128].astype(np.float32) / 127
    image, known = np.stack([row, column, 1 - row], -1), disc(128, 128, 24)
    error = np.abs(fill_holes(image, known) - image)
    assert error.max() < 0.15
    assert error[known == 0].mean() < 0.07


def test_filled_values_lie_between_the_known_ones() -> None:
    image, known = noise(100, 100), (noise(100, 100, 1)[..., 0] > 0.9).astype(np.float32)
    filled = fill_holes(image, known)
    seen = image[known == 1]
    assert (filled >= seen.min(0) - 1e-4).all() and (filled <= seen.max(0) + 1e-4).all()


def test_each_side_of_a_hole_takes_its_own_side_s_colour() -> None:
    image, known = np.zeros((64, 64, 3), np.float32), np.zeros((64, 64), np.float32)
    known[:, :10] = known[:, -10:] = 1.0
    image[:, -10:] = 1.0
    filled = fill_holes(image, known)[32, :, 0]
    assert filled[12] < 0.2 and filled[-13] > 0.8
    assert (np.diff(filled) > -0.02).all()


def test_nothing_known_gives_finite_values() -> None:
    assert np.isfinite(fill_holes(noise(50, 40), np.zeros((50, 40), np.float32))).all()


def test_any_number_of_channels_is_filled() -> None:
    for channels in (1, 2, 5):
        image = np.full((40, 40, channels), 0.3, np.float32)
        assert np.allclose(fill_holes(image, disc(40, 40, 10)), 0.3, atol=1e-4)

"""Metrics: known values, agreement with scikit-image, masks."""

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vasa3d.metrics import landmark_distance, psnr, ssim


def pictures(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    a = rng.random((40, 50, channels)).astype(np.float32)
    return a, (a + rng.normal(0.0, 0.1, a.shape)).clip(0, 1).astype(np.float32)


def test_psnr_agrees_with_scikit_image() -> None:
    a, b = pictures()
    assert np.isclose(psnr(a, b), peak_signal_noise_ratio(a, b, data_range=1.0), atol=1e-4)
    assert psnr(a, a) == float("inf")


def test_psnr_sees_only_the_mask() -> None:
    a, _ = pictures()
    b = a.copy()
    b[:20] += 0.1
    mask = np.zeros((40, 50), bool)
    mask[:20] = True
    assert np.isclose(psnr(a, b, mask), 20.0, atol=1e-3)
    assert np.isclose(psnr(a, b), 20.0 + 10.0 * np.log10(2.0), atol=1e-3)
    assert psnr(a, b, ~mask) == float("inf")


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_agrees_with_scikit_image(channels: int) -> None:
    a, b = pictures(channels)
    expected = structural_similarity(
        a, b, channel_axis=2, data_range=1.0, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False,
    )  # fmt: skip
    assert np.isclose(ssim(a, b), expected, atol=1e-5)
    assert np.isclose(ssim(a, a), 1.0)


def test_ssim_of_grey_pictures_and_masks() -> None:
    a, b = pictures(1)
    assert np.isclose(ssim(a[..., 0], b[..., 0]), ssim(a, b))
    half = a.copy()
    half[:, 30:] = 0.5
    mask = np.zeros((40, 50), np.float32)
    mask[:, :20] = 1.0
    assert np.isclose(ssim(a, half, mask), 1.0)
    assert ssim(a, half, 1.0 - mask) < 0.9


def test_landmark_distance_is_the_scaled_median() -> None:
    a = np.zeros((5, 2), np.float32)
    b = np.array([[0, 0], [3, 4], [3, 4], [0, 5], [100, 0]], np.float32)
    assert landmark_distance(a, b) == 5.0
    assert landmark_distance(a, b, scale=10.0) == 0.5


def test_bad_shapes_and_empty_masks_are_refused() -> None:
    a, b = pictures()
    for call in (
        lambda: psnr(a, b[:20]),
        lambda: psnr(a, b, np.zeros((40, 50))),
        lambda: psnr(a, b, np.ones((4, 5))),
        lambda: ssim(a[:8], b[:8]),
        lambda: landmark_distance(a[0], b[0, :3]),
    ):
        with pytest.raises(ValueError):
            call()

"""Measures of pictures and landmarks.

Pictures are (H, W) or (H, W, C) arrays with values in [0, 1]; masks (H, W) weigh pixels, bool or in
[0, 1].
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from vasa3d.types import F32

_WINDOW, _SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def psnr(a: F32, b: F32, mask: NDArray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, for a peak of 1.

    Args:
        a: Picture.
        b: Picture of the same shape.
        mask: Weight of each pixel; all alike when ``None``.

    Returns:
        -10 log10 of the weighted mean squared error; infinity for equal pictures.

    Raises:
        ValueError: Shapes differ, or the mask is empty.
    """
    x, y = _pair(a, b)
    error = _masked_mean(((x - y) ** 2).mean(axis=2), mask)
    return float("inf") if error == 0.0 else float(-10.0 * np.log10(error))


def ssim(a: F32, b: F32, mask: NDArray | None = None) -> float:
    """Structural similarity (Wang et al. 2004): Gaussian window of 11 x 11, sigma 1.5, K = (0.01,
    0.03), range 1.

    Means, variances and the covariance are Gaussian-weighted without sample correction. Without a
    mask the map is averaged where the window lies inside the picture; with one, over the mask, the
    picture being mirrored beyond its edge.

    Args:
        a: Picture.
        b: Picture of the same shape, at least 11 pixels on each side.
        mask: Weight of each pixel.

    Returns:
        Mean over pixels and channels, at most 1.

    Raises:
        ValueError: Shapes differ, the pictures are smaller than the window, or the mask is empty.
    """
    x, y = _pair(a, b)
    if min(x.shape[:2]) < _WINDOW:
        raise ValueError(f"pictures must have at least {_WINDOW} pixels a side, got {x.shape[:2]}")
    mean_x, mean_y = _blur(x), _blur(y)
    var_x = _blur(x * x) - mean_x * mean_x
    var_y = _blur(y * y) - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    similarity = (2.0 * mean_x * mean_y + _C1) * (2.0 * covariance + _C2)
    similarity /= (mean_x * mean_x + mean_y * mean_y + _C1) * (var_x + var_y + _C2)
    per_pixel = similarity.mean(axis=2)
    if mask is not None:
        return _masked_mean(per_pixel, mask)
    edge = _WINDOW // 2
    return float(per_pixel[edge:-edge, edge:-edge].mean())


def landmark_distance(a: F32, b: F32, scale: float = 1.0) -> float:
    """Median distance between matching points.

    Args:
        a: (L, D) points.
        b: (L, D) points.
        scale: Length that counts as 1, e.g. the width of the face.

    Returns:
        Median over the points of |a - b| / scale.

    Raises:
        ValueError: Shapes differ, or there are no points.
    """
    if a.shape != b.shape or len(a) == 0:
        raise ValueError(f"points must match and not be empty, got {a.shape} and {b.shape}")
    distance = np.linalg.norm(a.astype(np.float64) - b.astype(np.float64), axis=1)
    return float(np.median(distance) / scale)


def _pair(a: F32, b: F32) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both pictures as (H, W, C) float64."""
    if a.shape != b.shape or a.ndim not in (2, 3):
        raise ValueError(f"pictures must have the same shape, got {a.shape} and {b.shape}")
    shape = a.shape if a.ndim == 3 else (*a.shape, 1)
    return a.astype(np.float64).reshape(shape), b.astype(np.float64).reshape(shape)


def _masked_mean(values: NDArray[np.float64], mask: NDArray | None) -> float:
    if mask is None:
        return float(values.mean())
    if mask.shape != values.shape:
        raise ValueError(f"mask must have shape {values.shape}, got {mask.shape}")
    weight = mask.astype(np.float64)
    total = weight.sum()
    if not total > 0.0:
        raise ValueError("mask is empty")
    return float((values * weight).sum() / total)


def _blur(image: NDArray[np.float64]) -> NDArray[np.float64]:
    offsets = np.arange(_WINDOW) - _WINDOW // 2
    kernel = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    kernel /= kernel.sum()
    rows = correlate1d(image, kernel, axis=0, mode="reflect")
    return correlate1d(rows, kernel, axis=1, mode="reflect")

"""Filling what a picture does not show, by pull-push interpolation (Gortler et al. 1996)."""

from __future__ import annotations

import cv2
import numpy as np

from vasa3d.types import F32


def fill_holes(image: F32, known: F32) -> F32:
    """Continue known pixels smoothly into unknown ones.

    Args:
        image: (H, W, C) float32 values; ignored where ``known`` is 0.
        known: (H, W) float32 confidence in [0, 1].

    Returns:
        (H, W, C) float32: equal to ``image`` where ``known`` is 1, a smooth continuation elsewhere.
    """
    height, width = known.shape
    if min(height, width) <= 2:
        total = max(float(known.sum()), 1e-6)
        mean = (image * known[..., None]).sum((0, 1)) / total
        return (image * known[..., None] + mean * (1.0 - known[..., None])).astype(np.float32)
    half = ((width + 1) // 2, (height + 1) // 2)
    weighted = cv2.pyrDown(image * known[..., None], dstsize=half)
    weight = cv2.pyrDown(known, dstsize=half)
    weighted = weighted.reshape(half[1], half[0], -1)
    coarse = weighted / np.maximum(weight, 1e-6)[..., None]
    coarse = fill_holes(coarse.astype(np.float32), np.minimum(weight * 2.0, 1.0))
    up = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    up = up.reshape(height, width, -1)
    return (image * known[..., None] + up * (1.0 - known[..., None])).astype(np.float32)

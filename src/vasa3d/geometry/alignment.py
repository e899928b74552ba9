"""Similarity transforms between matching points (Umeyama 1991): min over s, R, t of sum |s R a_i + t - b_i|^2."""

from __future__ import annotations

import numpy as np


def similarity(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """The similarity that carries points onto others.

    Args:
        a: (N, D) points, not all the same.
        b: (N, D) where they should go.

    Returns:
        Scale s, rotation R (D, D) and shift t (D,).
    """
    source, target = np.asarray(a, np.float64), np.asarray(b, np.float64)
    middle_a, middle_b = source.mean(0), target.mean(0)
    source, target = source - middle_a, target - middle_b
    u, values, vt = np.linalg.svd(target.T @ source)
    mirror = np.ones(source.shape[1])
    mirror[-1] = np.sign(np.linalg.det(u @ vt))
    rotation = (u * mirror) @ vt
    scale = float((values * mirror).sum() / (source**2).sum())
    return scale, rotation, middle_b - scale * rotation @ middle_a

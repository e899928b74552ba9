"""Smoothing of tracked motion without delay, that keeps closures and blinks sharp.

Where an opening h(t) is known (lips, lids), a signal w is averaged only over neighbours that are equally open:

    w'(t) = sum_s k(t - s) exp(-((h(s) - h(t)) / b)^2 / 2) w(s) / sum_s (the same weights),

a bilateral filter on h, so a closure of one frame stays as it is while a mouth at rest stops trembling; channels that
share weights keep what they do together. Everything else is fitted with a parabola over a short window
(Savitzky and Golay 1964). Both are symmetric in time.
"""

from __future__ import annotations

import numpy as np

WINDOW_SECONDS = 0.28
_KERNEL_SECONDS = 0.035
_REACH = 3


def smooth(values: np.ndarray, fps: float) -> np.ndarray:
    """Local parabolas.

    Args:
        values: (T, ...) signals.
        fps: Frames a second.

    Returns:
        The same shape.
    """
    from scipy.signal import (
        savgol_filter,
    )  # takes most of a second to load, and a photo needs none of it

    window = 2 * int(0.5 * WINDOW_SECONDS * fps) + 1
    if window < 5 or len(values) < window:
        return values.copy()
    return np.asarray(savgol_filter(values, window, 2, axis=0, mode="interp"))


def smooth_alike(values: np.ndarray, openings: np.ndarray, band: float, fps: float) -> np.ndarray:
    """Averages over neighbours that are as open.

    Args:
        values: (T, C) signals.
        openings: (T,) h.
        band: b, in units of ``openings``.
        fps: Frames a second.

    Returns:
        (T, C).
    """
    reach = max(1, round(_REACH * _KERNEL_SECONDS * fps))
    total, weight_sum = np.zeros_like(values), np.zeros(len(values))
    for step in range(-reach, reach + 1):
        here = np.arange(max(0, -step), min(len(values), len(values) - step))
        there = here + step
        near = np.exp(-0.5 * (step / fps / _KERNEL_SECONDS) ** 2)
        alike = np.exp(-0.5 * ((openings[there] - openings[here]) / band) ** 2)
        total[here] += (near * alike)[:, None] * values[there]
        weight_sum[here] += near * alike
    return total / weight_sum[:, None]

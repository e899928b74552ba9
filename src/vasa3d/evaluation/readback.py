"""Reading motion back from drawn frames with a face tracker that knows nothing of the avatar.

The inner-lip gap of frame t is g(t) = |p_13 - p_14| / w(t): p_13 and p_14 are the landmarks in the
middle of the inner upper and lower lip edge, w(t) is the distance between the outer corners of the
eyes, all in pixels, so g has no unit and does not change with size.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vasa3d.errors import FaceError
from vasa3d.portrait.detection import LIP_INNER, LandmarkTracker
from vasa3d.types import F32, Frame

EYE_OUTER = (33, 263)
"""Landmarks at the outer corners of the right and the left eye."""


def tracked_lip_gap(frames: Iterable[Frame]) -> F32:
    """Inner-lip gap found in each of the frames of one clip.

    Args:
        frames: Drawn pictures, over an opaque background.

    Returns:
        (T,) float32 gap over the distance of the outer eye corners; frames in which no face is
        found take the value between their neighbours.

    Raises:
        FaceError: No face is found in any frame.
    """
    tracker = LandmarkTracker()
    gaps = []
    try:
        for frame in frames:
            points = tracker(frame.to_uint8())
            gaps.append(np.nan if points is None else _gap(points[:, :2]))
    finally:
        tracker.close()
    gap = np.array(gaps, np.float64)
    found = np.flatnonzero(np.isfinite(gap))
    if len(found) == 0:
        raise FaceError("no face was found in the drawn frames.", hint="try another avatar")
    return np.interp(np.arange(len(gap)), found, gap[found]).astype(np.float32)


def _gap(points: F32) -> float:
    upper, lower = points[list(LIP_INNER)]
    right, left = points[list(EYE_OUTER)]
    return float(np.linalg.norm(upper - lower) / max(np.linalg.norm(right - left), 1e-6))

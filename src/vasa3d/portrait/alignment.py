"""One photo of a person laid over another one."""

from __future__ import annotations

import cv2
import numpy as np

from vasa3d.errors import FaceError
from vasa3d.geometry.alignment import similarity
from vasa3d.portrait.detection import LandmarkTracker, detect_faces, warp
from vasa3d.portrait.fitting import face_width
from vasa3d.types import F32, U8

RIGID_LANDMARKS = (6, 168, 197, 195, 33, 133, 263, 362, 9, 151, 10, 127, 356, 8)
"""Landmarks of nose bridge, eye corners, forehead and temples: a smile leaves them where they are."""
_MAX_SIDE = 1024
_MAX_FACES = 8


def aligned(rgb: U8, target: U8) -> tuple[U8, np.ndarray]:
    """Lay a photo over another one of the same person.

    Args:
        rgb: (H, W, 3) uint8.
        target: (h, w, 3) uint8.

    Returns:
        (h, w, 3) uint8 the photo in the target's pixels, and (h, w) bool where it has any.

    Raises:
        FaceError: One of them shows no face.
    """
    rigid = list(RIGID_LANDMARKS)
    here, there = (face_landmarks(p)[rigid, :2] for p in (rgb, target))
    scale, rotation, shift = similarity(here, there)
    to_target = np.hstack([scale * rotation, shift[:, None]])
    size = (target.shape[1], target.shape[0])
    laid = warp(rgb, to_target, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    inside = warp(np.full(rgb.shape[:2], 255, np.uint8), to_target, size)
    return laid, inside > 250


def face_landmarks(rgb: U8) -> F32:
    """(478, 3) landmarks of the largest face.

    Raises:
        FaceError: There is none.
    """
    tracker = LandmarkTracker()
    try:
        tried = [tracker(rgb, face) for face in detect_faces(rgb)[:_MAX_FACES]]
    finally:
        tracker.close()
    found = [points for points in tried if points is not None]
    if not found:
        raise FaceError("no face found in the picture.", hint="use a picture of one face, well lit")
    return max(found, key=face_width)


def reduced(rgb: U8) -> U8:
    """A photo (H, W, 3) of at most 1024 pixels a side."""
    scale = _MAX_SIDE / max(rgb.shape[:2])
    if scale >= 1.0:
        return rgb
    size = (round(rgb.shape[1] * scale), round(rgb.shape[0] * scale))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)

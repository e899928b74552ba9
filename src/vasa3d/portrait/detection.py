"""Faces and their 478 landmarks in pictures.

Everything that touches MediaPipe (0.10.21: the models lie inside its wheel, nothing is downloaded) is in this file and
in ``matte.py``, behind two small interfaces: ``detect_faces`` (pictures -> boxes) and ``LandmarkTracker`` (picture ->
(478, 3) landmarks in pixels; indices as in MediaPipe's face mesh with irises).
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from vasa3d.types import F32, U8, check_array

NUM_LANDMARKS = 478
IRIS_CENTERS = {"Right": 468, "Left": 473}
"""Landmark at the centre of each iris; Left and Right are the person's own."""

LIP_INNER = (13, 14)
"""Mid-points of the inner upper and the inner lower lip edge."""

_DETECTION_SIDE = 1024
_CROP_SIDE = 512
_MIN_SCORE = 0.5


@dataclass(frozen=True)
class FaceBox:
    """A detected face.

    Attributes:
        center: (2,) float32 middle of the face, pixels.
        size: Side of the face's bounding square (brow to chin), pixels.
        roll: In-plane rotation in radians, positive when the head leans to the right of the picture.
        score: Detector confidence in [0, 1].
    """

    center: F32
    size: float
    roll: float
    score: float


@contextlib.contextmanager
def quiet_native_logs() -> Iterator[None]:
    """Hide what native libraries write to file descriptor 2 while they load; Python's own errors are untouched."""
    sys.stderr.flush()
    try:
        saved = os.dup(2)
    except OSError:  # no standard error at all: nothing to hide
        yield
        return
    with open(os.devnull, "wb") as sink:  # noqa: PTH123
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@cache
def mediapipe_solutions() -> Any:
    """MediaPipe's ``solutions`` package, imported once and silently."""
    os.environ.setdefault("GLOG_minloglevel", "3")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with quiet_native_logs():
        import mediapipe

    return mediapipe.solutions


def detect_faces(rgb: U8) -> list[FaceBox]:
    """Find all faces, largest first.

    Close and distant faces need different models and scales, so the whole picture, a padded copy (faces cut by the
    border), its quarters and, for long pictures, overlapping square tiles are all searched and merged.

    Args:
        rgb: (H, W, 3) uint8 picture.

    Returns:
        Faces in pixels of ``rgb``; empty when there is none.
    """
    check_array("rgb", rgb, (None, None, 3), np.uint8)
    height, width = rgb.shape[:2]
    found: list[FaceBox] = []
    for x, y, side_w, side_h in _search_windows(width, height):
        found += _detect_in_window(rgb, x, y, side_w, side_h)
    return _merge(found)


def _search_windows(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """(x, y, w, h) windows to search; they may reach beyond the picture."""
    pad_w, pad_h = width // 4, height // 4
    windows = [
        (0, 0, width, height),
        (-pad_w, -pad_h, width + 2 * pad_w, height + 2 * pad_h),
    ]
    half_w, half_h = width // 2, height // 2
    windows += [(x, y, half_w, half_h) for y in (0, half_h) for x in (0, half_w)]
    short, long = min(width, height), max(width, height)
    if long > 1.8 * short:
        for start in range(0, long - short // 2, short // 2):
            offset = min(start, long - short)
            windows.append(
                (offset, 0, short, short) if width > height else (0, offset, short, short)
            )
    return windows


def _detect_in_window(rgb: U8, x: int, y: int, w: int, h: int) -> list[FaceBox]:
    scale = min(1.0, _DETECTION_SIDE / max(w, h))
    to_window = np.array([[scale, 0, -x * scale], [0, scale, -y * scale]])
    size = (max(1, round(w * scale)), max(1, round(h * scale)))
    view = warp(rgb, to_window, size, borderValue=(127, 127, 127))
    view_h, view_w = view.shape[:2]
    boxes = []
    for model in (0, 1):
        with quiet_native_logs():
            found = _detector(model).process(view)
        for detection in found.detections or ():
            data = detection.location_data
            points = np.array([(k.x * view_w, k.y * view_h) for k in data.relative_keypoints])
            points = points / scale + (x, y)
            box = data.relative_bounding_box
            eyes = points[1] - points[0]
            center = np.array([box.xmin + box.width / 2, box.ymin + box.height / 2])
            boxes.append(
                FaceBox(
                    center=(center * (view_w, view_h) / scale + (x, y)).astype(np.float32),
                    size=float(max(box.width * view_w, box.height * view_h) / scale),
                    roll=float(np.arctan2(eyes[1], eyes[0])),
                    score=float(detection.score[0]),
                )
            )
    return boxes


@cache
def _detector(model: int) -> Any:
    with quiet_native_logs():
        return mediapipe_solutions().face_detection.FaceDetection(
            model_selection=model, min_detection_confidence=_MIN_SCORE
        )


def _merge(found: list[FaceBox]) -> list[FaceBox]:
    """Keep the most confident of detections that overlap, then order by size; parts of a face are no faces."""
    kept: list[FaceBox] = []
    for face in sorted(found, key=lambda f: -f.score):
        apart = all(
            np.abs(face.center - other.center).max() > 0.55 * max(face.size, other.size)
            for other in kept
        )
        if apart:
            kept.append(face)
    return sorted(kept, key=lambda f: -f.size)


class LandmarkTracker:
    """478 face landmarks of one face, picture by picture.

    Args:
        video: True for consecutive frames of one clip: landmarks are smoothed over time and the face is followed
            instead of searched anew.
    """

    def __init__(self, video: bool = False) -> None:
        self._video = video
        with quiet_native_logs():
            self._mesh = mediapipe_solutions().face_mesh.FaceMesh(
                static_image_mode=not video,
                refine_landmarks=True,
                max_num_faces=1,
                min_detection_confidence=0.3,
                min_tracking_confidence=0.3,
            )

    def __call__(self, rgb: U8, face: FaceBox | None = None) -> F32 | None:
        """Landmarks of a face.

        Args:
            rgb: (H, W, 3) uint8 picture.
            face: Where to look; the whole picture when None.

        Returns:
            (478, 3) float32: x, y in pixels of ``rgb`` and a relative depth in pixels (towards the viewer is
            negative); None when no face is found there.
        """
        check_array("rgb", rgb, (None, None, 3), np.uint8)
        if face is None:
            to_crop, view = np.array([[1.0, 0, 0], [0, 1.0, 0]]), rgb
        else:
            to_crop = similarity_crop(face.center, 2.2 * face.size, face.roll, _CROP_SIDE)
            view = warp(rgb, to_crop, (_CROP_SIDE, _CROP_SIDE), borderValue=(127, 127, 127))
        with quiet_native_logs():
            result = self._mesh.process(np.ascontiguousarray(view))
        if not result.multi_face_landmarks:
            return None
        points = np.array(
            [(p.x, p.y, p.z) for p in result.multi_face_landmarks[0].landmark], np.float64
        )
        points *= (view.shape[1], view.shape[0], view.shape[1])
        back = cv2.invertAffineTransform(to_crop)
        points[:, :2] = points[:, :2] @ back[:, :2].T + back[:, 2]
        points[:, 2] *= np.sqrt(abs(np.linalg.det(back[:, :2])))
        return points.astype(np.float32)

    def close(self) -> None:
        self._mesh.close()


def similarity_crop(center: F32, side: float, roll: float, out_side: int) -> np.ndarray:
    """(2, 3) affine map from picture pixels to an upright square crop of ``out_side`` pixels."""
    scale = out_side / side
    c, s = np.cos(-roll) * scale, np.sin(-roll) * scale
    linear = np.array([[c, -s], [s, c]])
    offset = out_side / 2 - linear @ np.asarray(center, np.float64)
    return np.hstack([linear, offset[:, None]])


def warp(
    image: np.ndarray, to_out: np.ndarray, size: tuple[int, int], **options: Any
) -> np.ndarray:
    """A picture seen through an affine map of points.

    Args:
        image: (H, W) or (H, W, C).
        to_out: (2, 3) map from points of the picture to points of the result; pixel centres lie at half integers, while
            OpenCV counts from the centre of the first pixel.
        size: Width and height of the result.
        options: Of ``cv2.warpAffine``: ``flags``, ``borderMode``, ``borderValue``.
    """
    by_index = np.array(to_out, np.float64)
    by_index[:, 2] += by_index[:, :2].sum(1) / 2 - 0.5
    return cv2.warpAffine(image, by_index, size, **options)

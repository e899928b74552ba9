"""Reading motion back from drawn frames with a face tracker that knows nothing of the avatar.

The inner-lip gap of a frame is g = 0.09 m |p_13 - p_14| / w: p_13 and p_14 are the landmarks in the
middle of the inner upper and lower lip edge, w is the distance between the outer corners of the
eyes, all in pixels. Taking w for 90 mm, as in most adults, makes g metres at any picture size. The
width of the mouth is read likewise, between the corners of the lips.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from vasa3d.errors import FaceError
from vasa3d.portrait.detection import LIP_INNER, LandmarkTracker
from vasa3d.types import F32, U8, Frame

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

EYE_OUTER = (33, 263)
"""Landmarks at the outer corners of the right and the left eye."""
EYE_OUTER_METRES = 0.09
LIP_CORNERS = (61, 291)
"""Landmarks at the right and the left corner of the mouth."""


class PictureReader:
    """Holds a face tracker; a context manager, since the tracker holds native memory.

    Every picture is searched anew, so nothing of a neighbouring one leaks into it.
    """

    def __init__(self) -> None:
        self._tracker = LandmarkTracker()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._tracker.close()

    def landmarks(self, rgb: U8) -> F32 | None:
        """(478, 3) landmarks in pixels of a picture (H, W, 3); None where no face is found."""
        return self._tracker(rgb)


class LipReader(PictureReader):
    """Inner-lip gap and width of the mouth in drawn frames."""

    def __call__(self, frame: Frame) -> tuple[float, float]:
        """Gap and width in metres; NaN where no face is found.

        Args:
            frame: A drawn picture over an opaque background.
        """
        points = self.landmarks(frame.to_uint8())
        if points is None:
            return float("nan"), float("nan")
        return gap_of(points), width_of(points)


def gap_of(points: F32) -> float:
    """Inner-lip gap in metres of (478, 2 or 3) landmarks in pixels."""
    return _distance(points, LIP_INNER)


def width_of(points: F32) -> float:
    """Width of the mouth in metres of (478, 2 or 3) landmarks in pixels."""
    return _distance(points, LIP_CORNERS)


def _distance(points: F32, pair: tuple[int, int]) -> float:
    first, second = points[list(pair), :2]
    right, left = points[list(EYE_OUTER), :2]
    eyes = max(float(np.linalg.norm(right - left)), 1e-6)
    return EYE_OUTER_METRES * float(np.linalg.norm(first - second)) / eyes


def bridge(gaps: Sequence[float]) -> F32:
    """(T,) the gaps of one clip; frames without a face take the value between their neighbours.

    Raises:
        FaceError: No frame shows a face.
    """
    values = np.asarray(gaps, np.float64)
    found = np.flatnonzero(np.isfinite(values))
    if len(found) == 0:
        raise FaceError("no face was found in the drawn frames.", hint="try another avatar")
    return np.interp(np.arange(len(values)), found, values[found]).astype(np.float32)

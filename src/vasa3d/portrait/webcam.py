"""Motion from a webcam, frame by frame.

The first face that is seen with open eyes tells identity and camera; after that every picture is one fit of pose and
expression, started from the one before. There is no future to smooth with, so trembling is taken out by the filter of
Casiez et al. (2012) on the pose: a value that hardly moves is averaged long, one that moves fast is let through.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import cv2
import numpy as np

from vasa3d.errors import InputError
from vasa3d.head import load_head
from vasa3d.portrait.detection import LandmarkTracker
from vasa3d.portrait.fitting import face_width, fit_head
from vasa3d.portrait.landmarks import EYES, LandmarkHead
from vasa3d.portrait.posefit import HeadState, PoseFitter, opening
from vasa3d.portrait.tracking import pose_of
from vasa3d.types import DEFAULT_FPS, F32, MotionLatents

_OPEN_EYES = 0.18
_PATIENCE = 25
_SLOW_HERTZ, _GAIN = 1.2, np.array([6.0, 6.0, 6.0, 120.0, 120.0, 120.0])


class Capture(Protocol):
    """What gives pictures: ``cv2.VideoCapture``, or anything like it."""

    def read(self) -> tuple[bool, Any]:
        """True and an (H, W, 3) uint8 picture in BGR, or False at the end."""
        ...


def track_camera(source: int | Capture = 0, *, fps: float = DEFAULT_FPS) -> Iterator[MotionLatents]:
    """Follow the face in front of a camera.

    Args:
        source: Number of a camera, or a capture.
        fps: Pictures a second that it gives.

    Yields:
        One frame of motion for each picture, relative to the first face; rest until there is one, the last motion
        where it is hidden.

    Raises:
        InputError: The camera cannot be opened.
    """
    opened = cv2.VideoCapture(source) if isinstance(source, int) else None
    if opened is not None and not opened.isOpened():
        raise InputError(
            f"camera {source} cannot be opened.", hint="check its number and who else uses it"
        )
    capture = source if opened is None else opened
    finder, follower = LandmarkTracker(video=True), _Follower(fps)
    try:
        while True:
            good, picture = capture.read()  # type: ignore[union-attr]
            if not good:
                return
            rgb = np.ascontiguousarray(picture[:, :, ::-1], np.uint8)
            yield follower.step(finder(rgb), rgb.shape[1], rgb.shape[0])
    finally:
        finder.close()
        if opened is not None:
            opened.release()


class _Follower:
    """One person, picture by picture."""

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._fitter: PoseFitter | None = None
        self._state: HeadState | None = None
        self._waited = 0
        self._motion = MotionLatents.rest(1, fps)
        self._first: tuple[np.ndarray, np.ndarray] | None = None
        self._speed = np.zeros(6)

    def step(self, landmarks: F32 | None, width: int, height: int) -> MotionLatents:
        """Motion of one picture from its landmarks (478, 3), or None."""
        if landmarks is None:
            return self._motion
        found = landmarks[:, :2].astype(np.float64)
        if self._fitter is None:
            self._waited += 1
            shut = min(float(opening(found, eye)) for eye in range(len(EYES))) < _OPEN_EYES
            if shut and self._waited < _PATIENCE:
                return self._motion
            self._meet(landmarks, found, width, height)
        assert self._fitter is not None and self._state is not None
        self._state, _ = self._fitter.fit(found, self._state, 1.0 / self._fps)
        pose = self._smoothed(self._pose(self._state))
        dyn = np.clip(self._state.expression, 0.0, 1.0).astype(np.float32)[None]
        self._motion = MotionLatents(dyn, pose, self._fps)
        return self._motion

    def _meet(self, landmarks: F32, found: np.ndarray, width: int, height: int) -> None:
        head = load_head()
        fit = fit_head(landmarks, width, height, head)
        self._person = LandmarkHead(head, fit.identity, fit.offsets, fit.eyes)
        self._fitter = PoseFitter(self._person, fit.camera, face_width(landmarks), fit.expression)
        self._state = self._fitter.start()
        self._fitter.settle(self._state, found)

    def _pose(self, state: HeadState) -> np.ndarray:
        """(6,) pose relative to the first."""
        assert self._fitter is not None
        middle = self._fitter.middle
        rotation, shift = state.rotation, middle + state.shift - state.rotation @ middle
        if self._first is None:
            self._first = (rotation.T, shift)
        back, origin = self._first
        return pose_of(
            (back @ rotation)[None], ((shift - origin) @ back.T)[None], self._person.joints
        )[0]

    def _smoothed(self, pose: np.ndarray) -> F32:
        before = self._motion.pose[0].astype(np.float64)
        speed = (pose - before) * self._fps
        self._speed += 0.3 * (speed - self._speed)
        rate = 2.0 * np.pi * (_SLOW_HERTZ + _GAIN * np.abs(self._speed)) / self._fps
        return (before + rate / (1.0 + rate) * (pose - before)).astype(np.float32)[None]

"""Tracking: from frames of one person to the motion that drives an avatar.

Landmarks are found in every frame. Identity, personal offsets and camera are fitted once, in the first frame with open
eyes (``fitting``); what the head model cannot explain there is added to its landmarks, so that everything after it is
a change against that frame. Then each frame gives pose, expression and gaze (``posefit``), started from the frame
before. With M_t the head's rigid motion in frame t, the pose is that of M_0^-1 M_t, so the first frame is at rest:
rotation r is split between neck n and head h as in the avatar's base deformation, which leaves the translation

    t = T + R x_h - exp(share r) (x_h - x_n) - x_n,      M_0^-1 M_t = [R | T].

Frames without a face take what lies between their neighbours. Last, jitter is removed (``smoothing``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from vasa3d.errors import FaceError
from vasa3d.geometry.rotations import axis_angle_to_matrix, matrix_to_axis_angle
from vasa3d.head import NECK_SHARE, ArkitHead, load_head
from vasa3d.portrait.detection import FaceBox, LandmarkTracker, detect_faces
from vasa3d.portrait.fitting import HeadFit, face_width, fit_head
from vasa3d.portrait.landmarks import EYES, NUM_LANDMARKS, LandmarkHead
from vasa3d.portrait.posefit import (
    LID_CHANNELS,
    MOUTH_CHANNELS,
    HeadState,
    PoseFitter,
    lip_opening,
    opening,
)
from vasa3d.portrait.smoothing import smooth, smooth_alike
from vasa3d.types import F32, U8, Camera, Event, MotionLatents

TRACKING_SIDE = 1280
"""Longer side in pixels beyond which pictures gain nothing."""
SHORT_GAP_SECONDS = 0.5
"""Longer times without a face are bridged too, but what happened in them is anybody's guess."""

_SETTLING_LOOKS = 3
_MAX_FACES = 8
_REFERENCE_FRAMES = 10
_OPEN_EYES = 0.85
_LIP_BAND = 0.006
_LID_BAND = 0.03
_RESIDUAL_SCALE = 0.02
_LEAST_CONFIDENCE = 0.1
_DOUBTFUL_CONFIDENCE = 0.6
_FIRST_WEAKNESS = 3.0
_JUMP = 0.12


@dataclass(frozen=True)
class TrackedClip:
    """What was tracked in a clip of T frames.

    Attributes:
        motion: T frames of motion, relative to the first frame's pose and gaze; expression channels are absolute.
        fit: Head and camera of the first frame, in pixels of the frames.
        landmarks: (T, 478, 3) float32 in pixels; between found neighbours where no face was found.
        found: (T,) bool where a face was found.
        confidence: (T,) float32 in [0, 1]: how well the head explains the landmarks; 0 without a face.
        warnings: What the user should know.
    """

    motion: MotionLatents
    fit: HeadFit
    landmarks: F32
    found: np.ndarray
    confidence: F32
    warnings: tuple[str, ...]


def track_frames(frames: Iterable[U8], fps: float, fit: HeadFit | None = None) -> TrackedClip:
    """Track one person; see ``track_events``."""
    *_, last = track_events(frames, fps, fit)
    return last.data["result"]


def track_events(frames: Iterable[U8], fps: float, fit: HeadFit | None = None) -> Iterator[Event]:
    """Track one person through a clip.

    Args:
        frames: (H, W, 3) uint8 sRGB pictures of one size.
        fps: Frames a second.
        fit: Head and camera to track with, laid over the first frame, as an avatar's of the same person; None fits
            them.

    Yields:
        Progress; the last event's ``data["result"]`` is a ``TrackedClip``.

    Raises:
        FaceError: There are no frames, or fewer than half of them show a face.
    """
    finder = _Finder()
    try:
        for count, rgb in enumerate(frames, start=1):
            finder.look(rgb)
            yield Event("landmarks", count)
    finally:
        finder.close()
    landmarks, found = finder.result()
    head = load_head()
    tracker = _Tracker(landmarks, found, finder.size, fps, head, fit)
    for t in range(len(found)):
        tracker.step(t)
        if t % 10 == 0:
            yield Event("expression", t, len(found))
    yield Event("done", len(found), len(found), data={"result": tracker.result()})


class _Finder:
    """Landmarks frame by frame, first in whole pictures; a face that is lost is searched, ever less often.

    The tracker's own search is for faces that fill much of the picture. Where the thorough one had to help, the tracker
    is shown only the surroundings of what that found.
    """

    def __init__(self) -> None:
        self.size = (0, 0)
        self._tracker = LandmarkTracker(video=True)
        self._box: FaceBox | None = None
        self._points: list[F32 | None] = []
        self._lost = 0

    def look(self, rgb: U8) -> None:
        self.size = (rgb.shape[1], rgb.shape[0])
        points = self._tracker(rgb, self._box)
        if points is not None and (self._lost or not self._points):
            points = self._settled(rgb)
        self._lost = 0 if points is not None else self._lost + 1
        if self._lost and self._lost & (self._lost - 1) == 0:
            for self._box in detect_faces(rgb)[:_MAX_FACES]:
                points = self._settled(rgb)
                if points is not None:
                    self._lost = 0
                    break
        self._points.append(points)

    def _settled(self, rgb: U8) -> F32 | None:
        """A face just detected is framed otherwise than one that is followed, and its landmarks lie otherwise."""
        points = None
        for _ in range(_SETTLING_LOOKS):
            points = self._tracker(rgb, self._box)
        return points

    def close(self) -> None:
        self._tracker.close()

    def result(self) -> tuple[F32, np.ndarray]:
        """Landmarks (T, 478, 3), bridged where there are none, and where they were found (T,)."""
        found = np.array([p is not None for p in self._points], bool)
        if not len(found):
            raise FaceError(
                "the clip has no pictures.", hint="use a video that shows one person's face"
            )
        if found.mean() < 0.5:
            raise FaceError(
                f"a face was found in {found.sum()} of {len(found)} pictures only."
                if found.any()
                else f"no face was found in the {len(found)} pictures.",
                hint="use a clip that shows one person's face throughout, well lit and large",
            )
        zeros = np.zeros((NUM_LANDMARKS, 3), np.float32)
        points = np.stack([zeros if p is None else p for p in self._points])
        return _bridged(points, found).astype(np.float32), found


class _Tracker:
    """States of all frames from their landmarks."""

    def __init__(
        self,
        landmarks: F32,
        found: np.ndarray,
        size: tuple[int, int],
        fps: float,
        head: ArkitHead,
        fit: HeadFit | None,
    ) -> None:
        self._landmarks, self._found, self._fps = landmarks, found, fps
        self._rebase = fit is None
        reference = int(np.argmax(found)) if fit else reference_frame(landmarks, found)
        fit = fit or fit_head(landmarks[reference], *size, head)
        self._fit = fit
        self._person = LandmarkHead(head, fit.identity, fit.offsets, fit.eyes)
        width = face_width(landmarks[reference])
        self._face_width = width
        self._fitter = PoseFitter(self._person, fit.camera, width, fit.expression)
        self._state = self._fitter.start()
        self._fitter.settle(self._state, landmarks[reference, :, :2].astype(np.float64))
        self._states: list[HeadState] = []
        self._confidence = np.zeros(len(found), np.float32)
        self._last = -1

    def step(self, t: int) -> None:
        """Fit frame t."""
        if self._found[t]:
            found = self._landmarks[t, :, :2].astype(np.float64)
            change = (t - self._last) / self._fps if self._last >= 0 else np.inf
            if change > SHORT_GAP_SECONDS or self._jumped(t):
                # Openings and irises would pull before the head is where it should be.
                start = self._fitter.start()
                self._state, _ = self._fitter.fit(found, start, np.inf, _FIRST_WEAKNESS)
                change = np.inf
            self._state, residual = self._fitter.fit(found, self._state, change)
            self._confidence[t] = np.exp(-((residual / _RESIDUAL_SCALE) ** 2))
            self._last = t
        self._states.append(self._state)

    def _jumped(self, t: int) -> bool:
        """Whether the face is elsewhere than in the last frame that showed it: after a cut, say."""
        moved = (self._landmarks[t] - self._landmarks[self._last])[:, :2]
        return float(np.linalg.norm(moved, axis=1).mean()) > _JUMP * self._face_width

    def result(self) -> TrackedClip:
        good = self._found & (self._confidence > _LEAST_CONFIDENCE)
        if good.mean() < 0.5:
            raise FaceError(
                "the face could not be followed.",
                hint="use a clip of one person, seen from the front, without cuts",
            )
        expression = _bridged(np.stack([s.expression for s in self._states]), good)
        rotations = np.stack([s.rotation for s in self._states])
        shifts = np.stack([s.shift for s in self._states])
        translations = self._fitter.middle + shifts - rotations @ self._fitter.middle
        camera = self._fit.camera
        if self._rebase:
            first = int(np.argmax(good))
            camera = _moved(camera, rotations[first], translations[first])
            back = rotations[first].T
            translations = (translations - translations[first]) @ back.T
            rotations = back @ rotations
        pose = pose_of(rotations, translations, self._person.joints)
        pose = smooth(_bridged(pose, good), self._fps)
        dyn = self._smoothed(expression)
        motion = MotionLatents(
            np.ascontiguousarray(np.clip(dyn, 0.0, 1.0), np.float32),
            np.ascontiguousarray(pose, np.float32),
            self._fps,
        )
        return TrackedClip(
            motion=motion,
            fit=replace(self._fit, camera=camera, expression=motion.dyn[0].copy()),
            landmarks=self._landmarks,
            found=self._found,
            confidence=self._confidence,
            warnings=_warnings(good, self._confidence, self._fps),
        )

    def _smoothed(self, expression: np.ndarray) -> np.ndarray:
        dyn = smooth(expression, self._fps)
        groups = [(list(MOUTH_CHANNELS), lip_opening(self._landmarks), _LIP_BAND)]
        groups += [
            (list(LID_CHANNELS[eye]), opening(self._landmarks, eye), _LID_BAND)
            for eye in range(len(EYES))
        ]
        for channels, openings, band in groups:
            dyn[:, channels] = smooth_alike(expression[:, channels], openings, band, self._fps)
        return dyn


def reference_frame(landmarks: F32, found: np.ndarray) -> int:
    """The first frame with open eyes, of the first few in which a face was found."""
    early = np.flatnonzero(found)[:_REFERENCE_FRAMES]
    openings = np.minimum(*(opening(landmarks[early], eye) for eye in range(len(EYES))))
    return int(early[np.argmax(openings >= _OPEN_EYES * openings.max())])


def pose_of(rotations: np.ndarray, translations: np.ndarray, joints: np.ndarray) -> np.ndarray:
    """Poses of motion latents from rigid motions of a head.

    Args:
        rotations: (T, 3, 3) R.
        translations: (T, 3) T, metres.
        joints: (J, 3) joint positions of the person at rest.

    Returns:
        (T, 6) axis-angle and translation of the root.
    """
    neck, skull = joints[1].astype(np.float64), joints[2].astype(np.float64)
    turns = matrix_to_axis_angle(rotations)
    lean = axis_angle_to_matrix(NECK_SHARE * turns)
    shift = translations + rotations @ skull - lean @ (skull - neck) - neck
    return np.concatenate([turns, shift], axis=1)


def _moved(camera: Camera, rotation: np.ndarray, translation: np.ndarray) -> Camera:
    """The camera that sees a head at rest as this one sees it moved."""
    motion = np.eye(4)
    motion[:3, :3], motion[:3, 3] = rotation, translation
    return replace(camera, viewmat=(camera.viewmat @ motion).astype(np.float32))


def _bridged(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """(T, ...) values with those that are not good drawn between their neighbours."""
    if good.all():
        return values
    flat = values.reshape(len(values), -1)
    times, known = np.arange(len(values)), np.flatnonzero(good)
    columns = [np.interp(times, known, column[known]) for column in flat.T]
    return np.stack(columns, -1).reshape(values.shape)


def _warnings(good: np.ndarray, confidence: F32, fps: float) -> tuple[str, ...]:
    """What to say about frames without a usable face, and about a head that does not fit."""
    lines = []
    if not good.all():
        edges = np.flatnonzero(np.diff(np.concatenate([[1], good.astype(int), [1]])))
        longest = float(np.max(edges[1::2] - edges[::2])) / fps
        text = (
            f"no face was found in {(~good).sum()} of {len(good)} pictures; "
            "motion there is interpolated"
        )
        if longest > SHORT_GAP_SECONDS:
            text += f", over {longest:.1f} s at a stretch"
        lines.append(text)
    if np.median(confidence[good]) < _DOUBTFUL_CONFIDENCE:
        lines.append("the face could be followed poorly; is there one person only, and no cut?")
    return tuple(lines)

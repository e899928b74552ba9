"""The eyes of the photo: what an eyeball looks like all around, and the lashes that hang before it.

An eyeball turns, so what lies before it must not be painted on it: lashes, and the shadow that lids cast, ride on the
rims of the lids. What the lids hide of the ball is continued around its axis: the iris in rings, then the white.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vasa3d.avatar.sampling import read_pixels
from vasa3d.avatar.scene import Scene, polygon
from vasa3d.geometry.cameras import project, unproject
from vasa3d.types import F32, I32

EYES = ("eyeLeft", "eyeRight")
_VISIBLE_METRES = 0.006
_MIN_SEEN = 12
_STEPS, _STEPS_A_RADIUS = 16, 8
_WHITE_FROM = 1.15
"""Distance from the axis of an eye, in radii of its iris, from which it is white."""
_USUAL_WHITE = (0.72, 0.68, 0.66)
_USUAL_BRIGHT = 0.72
_LEAST_OF_BRIGHTEST = 0.74
"""Least channel of the white beside its greatest: redder is the corner of the eye, or lid."""
_CORNER_SHADE = (0.88, 0.82, 0.80)
"""Colour of the white at the sides of the ball, beside the white next to the iris."""
_LASH_ON_WHITE, _LASH_ON_IRIS = 0.72, 0.55
"""Brightness, beside that of the bare ball there, below which a pixel shows lashes or the lid's shadow."""
_LASH_REACH, _LASH_REACH_ON_IRIS = 0.45, 0.2
"""How far lashes and the lid's shadow reach from the rim, in radii of the iris."""


@dataclass(frozen=True)
class _Eye:
    """One eye in the photo.

    Attributes:
        faces: (F,) bool of its ball.
        center: (3,) of the ball.
        axis: (3,) unit, through the iris.
        radius: Of the iris, metres.
        opening: (S, S) bool pixels between its lids.
        to_rim: (S, S) distance of those from the lids, metres.
    """

    faces: np.ndarray
    center: F32
    axis: F32
    radius: float
    opening: np.ndarray
    to_rim: F32

    def distance(self, points: F32) -> F32:
        """(N,) distance of points (N, 3) from the axis, in radii of the iris."""
        local = points - self.center
        away = local - (local @ self.axis)[:, None] * self.axis
        return (np.linalg.norm(away, axis=1) / self.radius).astype(np.float32)


class Eyes:
    """Both eyes of a scene.

    Attributes:
        lashes: (S, S) bool pixels in which lashes, or the shadow of a lid, lie before an eyeball.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        matte = (scene.analysis.alpha > 0.9).astype(np.uint8)
        self._solid = cv2.erode(matte, np.ones((7, 7), np.uint8)) > 0
        self._eyes = [self._eye(side) for side in ("Left", "Right")]
        seen = [self._seen(eye) for eye in self._eyes]
        # An eye that hides behind the nose is like the other one.
        enough = [(r > _WHITE_FROM).sum() >= _MIN_SEEN for _, r in seen]
        both = tuple(np.concatenate(parts) for parts in zip(*seen, strict=True))
        self._profiles = [
            _profile(*(own if sure else both)) for own, sure in zip(seen, enough, strict=True)
        ]
        self.lashes = np.zeros(scene.face_id.shape, bool)
        for eye, profile in zip(self._eyes, self._profiles, strict=True):
            self.lashes |= self._lashes_of(eye, profile)

    def paint(self, face: I32, posed: F32, colors: F32) -> np.ndarray:
        """Give points on eyeballs their colours, in place.

        Args:
            face: (N,) faces of points on the head.
            posed: (N, 3) the points in the photo's pose.
            colors: (N, 3) filled in.

        Returns:
            (N,) bool points on eyeballs that the photo shows bare.
        """
        scene = self._scene
        pixels, depth = project(posed, scene.camera)
        photo = read_pixels(scene.analysis.foreground, pixels)
        clear = np.abs(read_pixels(scene.depth, pixels, nearest=True) - depth) < _VISIBLE_METRES
        bare = np.zeros(len(face), bool)
        for eye, profile in zip(self._eyes, self._profiles, strict=True):
            usable = eye.opening & self._solid & ~_grown(self.lashes)
            own = eye.faces[face] & clear
            own &= read_pixels(usable.astype(np.uint8), pixels, nearest=True) > 0
            on_ball = np.flatnonzero(eye.faces[face])
            colors[on_ball] = profile[_steps_of(eye.distance(posed[on_ball]))]
            colors[own] = photo[own]
            bare |= own
        return bare

    def _eye(self, side: str) -> _Eye:
        scene, head = self._scene, self._scene.head
        iris = head.regions[f"iris{side}"] | head.regions[f"pupil{side}"]
        center = scene.posed[head.regions[f"eye{side}"]].mean(0)
        middle = scene.posed[iris].mean(0)
        axis = (middle - center) / np.linalg.norm(middle - center)
        rims = np.concatenate(
            [head.lid_rings[f"upper{side}"], head.lid_rings[f"lower{side}"][::-1]]
        )
        outline, depth = project(scene.posed[rims], scene.camera)
        between = polygon(outline, scene.face_id.shape)
        pixel = float(depth.mean()) / scene.focal
        return _Eye(
            faces=scene.faces_of(f"eye{side}"),
            center=center,
            axis=axis,
            radius=float(np.linalg.norm(scene.posed[iris] - middle, axis=1).max()),
            opening=cv2.erode(between, np.ones((5, 5), np.uint8)) > 0,
            to_rim=cv2.distanceTransform(between, cv2.DIST_L2, 5) * np.float32(pixel),
        )

    def _seen(self, eye: _Eye) -> tuple[F32, F32]:
        """Colours (M, 3) of the pixels that show an eyeball, and their distance (M,) from its axis."""
        scene = self._scene
        shown = scene.shown(eye.faces) & eye.opening & self._solid
        return scene.analysis.foreground[shown], eye.distance(self._points(shown))

    def _points(self, chosen: np.ndarray) -> F32:
        """(M, 3) what the chosen pixels (S, S) bool show."""
        rows, columns = np.nonzero(chosen)
        pixels = np.stack([columns, rows], 1).astype(np.float32) + 0.5
        return unproject(pixels, self._scene.depth[chosen], self._scene.camera)

    def _lashes_of(self, eye: _Eye, profile: F32) -> np.ndarray:
        """(S, S) bool pixels before this eyeball that are darker than it is."""
        scene = self._scene
        shown = scene.shown(eye.faces) & scene.covered & self._solid
        r = eye.distance(self._points(shown))
        bright = scene.analysis.foreground[shown].mean(1)
        usual = profile[_steps_of(r)].mean(1)
        white = r > _WHITE_FROM
        dark = bright < np.where(white, _LASH_ON_WHITE, _LASH_ON_IRIS) * usual
        reach = np.where(white, _LASH_REACH, _LASH_REACH_ON_IRIS)
        dark &= eye.to_rim[shown] < reach * eye.radius
        lashes = np.zeros(shown.shape, bool)
        lashes[shown] = dark
        return lashes


def _grown(mask: np.ndarray) -> np.ndarray:
    """(S, S) bool mask and the pixels that touch it, which mix with it."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _steps_of(r: np.ndarray) -> np.ndarray:
    """Steps of ``_profile`` for distances from the eye's axis."""
    return np.clip((r * _STEPS_A_RADIUS).astype(int), 0, _STEPS - 1)


def _profile(photo: F32, r: F32) -> F32:
    """Colours of an eyeball by the distance from its axis.

    Args:
        photo: (M, 3) colours of pixels that show it.
        r: (M,) their distances from the axis, in radii of the iris.

    Returns:
        (16, 3) colours in steps of an eighth of the iris radius.
    """
    steps = _steps_of(r)
    white = _white_of(photo, r)
    profile = np.zeros((_STEPS, 3), np.float32)
    last = np.array([0.05, 0.04, 0.04], np.float32)
    first_white = int(_WHITE_FROM * _STEPS_A_RADIUS) + 1
    for step in range(_STEPS):
        members = steps == step
        if step >= first_white:
            away = (step - first_white) / (_STEPS - 1 - first_white)
            last = white * (1.0 + away * (np.array(_CORNER_SHADE, np.float32) - 1.0))
        elif members.sum() >= 4:
            last = np.median(photo[members], 0)
        profile[step] = last
    return profile


def _white_of(photo: F32, r: F32) -> F32:
    """(3,) colour of the white beside the iris: of its brighter pixels, where no lid casts its shadow."""
    white = photo[(r > _WHITE_FROM) & (r < 2.0)]
    if len(white) <= 10:
        bright = float(np.percentile(photo.max(1), 80)) if len(photo) else _USUAL_BRIGHT
        dim = min(1.0, max(0.25, 1.3 * bright / _USUAL_BRIGHT))
        return np.array(_USUAL_WHITE, np.float32) * np.float32(dim)
    level = white.mean(1)
    color = np.median(white[level >= np.percentile(level, 60)], 0)
    return np.maximum(color, _LEAST_OF_BRIGHTEST * color.max()).astype(np.float32)

"""The built-in portrait animator: the photo's own pixels on the head, in new expressions and poses.

The fitted head is posed anew and every pixel of it looked up in the photo, so frames stay photographic. Light stays
where it was while the head moves under it: with E(n) the light of second-order spherical harmonics (Ramamoorthi and
Hanrahan 2001) fitted to the photo's skin, a point whose normal turns from n to n' becomes E(n') / E(n) times as bright.
Smiles fold the skin, which the mesh is too smooth for: their usual shading lies over it (``creases``).
Confidence is high where the photo saw the point well, and zero for what it did not see: closed lids, the inner mouth,
the far side, and whatever hair or clothes cover.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.customisation.creases import load_creases, smile_at
from vasa3d.customisation.frames import TrainingFrame
from vasa3d.geometry.cameras import camera_center, facing, project
from vasa3d.geometry.meshes import face_areas, rasterize_mesh, vertex_normals
from vasa3d.portrait.analysis import Analysis
from vasa3d.types import ARKIT_INDEX, F32, NUM_CHANNELS, Camera, MotionLatents

_GROUPS: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.8}, {"jawOpen": 0.4, "mouthFunnel": 0.6}, {"mouthPucker": 0.9},
    {"mouthSmileLeft": 0.8, "mouthSmileRight": 0.8, "cheekSquintLeft": 0.5, "cheekSquintRight": 0.5},
    {"mouthFrownLeft": 0.6, "mouthFrownRight": 0.6}, {"mouthStretchLeft": 0.6, "mouthStretchRight": 0.6},
    {"mouthPressLeft": 0.6, "mouthPressRight": 0.6}, {"mouthRollLower": 0.6, "mouthRollUpper": 0.5},
    {"mouthLowerDownLeft": 0.6, "mouthLowerDownRight": 0.6}, {"mouthUpperUpLeft": 0.5, "mouthUpperUpRight": 0.5},
    {"browInnerUp": 0.8, "browOuterUpLeft": 0.7, "browOuterUpRight": 0.7},
    {"browDownLeft": 0.8, "browDownRight": 0.8}, {"eyeSquintLeft": 0.7, "eyeSquintRight": 0.7},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0}, {"eyeWideLeft": 0.6, "eyeWideRight": 0.6},
    {"noseSneerLeft": 0.5, "noseSneerRight": 0.5}, {"mouthLeft": 0.5}, {"mouthRight": 0.5}, {"cheekPuff": 0.6},
)  # fmt: skip
"""Channels that move together, at their strongest."""
_TURN_RADIANS = np.array([0.17, 0.35, 0.12])
"""Deviation of nods, turns and tilts."""
_SHIFT_METRES = 0.006
_SEEN_AT = 0.25
"""Cosine between normal and ray below which the photo shows too little of a surface."""
_SAME_DEPTH_METRES = 0.004
_FOLDED = 1.6
_BLINK_EVERY = 6
"""One frame in so many shows closed eyes, whose lids no photo of open eyes shows."""
_RELIGHT_RANGE = (0.6, 1.5)


class PhotoAnimator:
    """Frames of a portrait in motion.

    Args:
        analysis: The portrait.
        avatar: Its draft.
        size: Side of the frames in pixels.
        creased: Whether smiles fold the skin (``creases``).
    """

    def __init__(
        self, analysis: Analysis, avatar: Avatar, size: int, *, creased: bool = True
    ) -> None:
        self._avatar, self._size = avatar, size
        self._photo = analysis.foreground
        head, window = avatar.head, analysis.fit.camera
        self._vertices = avatar.posed_vertices(avatar.photo_latents)
        self._normals = _normals(avatar, self._vertices)
        self._pixels, z = project(self._vertices, window)
        _, _, depth = rasterize_mesh(self._vertices, head.faces, window)
        turned = facing(self._vertices, self._normals, camera_center(window))
        nearest = _lookup(depth[..., None], self._pixels, cv2.INTER_NEAREST)[:, 0]
        seen = np.clip((turned - _SEEN_AT) / 0.3, 0.0, 1.0)
        seen *= np.abs(nearest - z) < _SAME_DEPTH_METRES
        seen *= head.regions["skin"] & ~head.regions["scalp"] & ~head.regions["shoulders"]
        self._seen = seen.astype(np.float32)
        skin_colored = _like_skin(analysis.foreground, analysis.alpha, self._pixels, self._seen)
        self._trusted = (cv2.erode(analysis.alpha, np.ones((9, 9))) * skin_colored).astype(
            np.float32
        )
        self._areas = face_areas(self._vertices, head.faces)
        self._light = _fit_light(self._photo, self._pixels, self._normals, self._seen)
        self._rest = avatar.canonical_vertices
        self._smiled = smile_at(avatar.photo_latents.dyn[0], self._rest)
        self._creases = load_creases(head.num_vertices) if creased else None

    def frames(self, count: int, seed: int) -> Iterator[TrainingFrame]:
        """Frames of random expressions and poses; see ``FrameSynthesizer``."""
        rng = np.random.default_rng(seed)
        camera = self._avatar.camera.resized(self._size, self._size)
        for number in range(count):
            latents = random_motion(rng, self._avatar.photo_latents)
            if number % _BLINK_EVERY == 0:
                latents.dyn[0, [ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeBlinkRight"]]] = 1.0
            yield self.animate(latents, camera)

    def animate(self, latents: MotionLatents, camera: Camera) -> TrainingFrame:
        """The portrait in one frame of motion.

        Args:
            latents: One frame.
            camera: Where from.
        """
        head = self._avatar.head
        vertices = self._avatar.posed_vertices(latents)
        face, bary, _ = rasterize_mesh(vertices, head.faces, camera)
        corners = head.faces[np.maximum(face, 0)]

        def over(values: F32) -> F32:
            return np.einsum("hwk,hwkc->hwc", bary, values[corners]).astype(np.float32)

        source = over(self._pixels.astype(np.float32))
        normals = _normals(self._avatar, vertices)
        bright = np.clip(
            _light_on(normals, self._light) / _light_on(self._normals, self._light), *_RELIGHT_RANGE
        )
        if self._creases is not None:
            smiling = smile_at(latents.dyn[0], self._rest) - self._smiled
            bright = bright * np.exp(self._creases * smiling)
        rgb = _remap(self._photo, source) * over(bright[:, None].astype(np.float32))
        turned = facing(vertices, normals, camera_center(camera))
        shown = self._seen * np.clip(turned / 0.3, 0.0, 1.0)
        stretched = face_areas(vertices, head.faces) / np.maximum(self._areas, 1e-12)
        whole = (stretched < _FOLDED)[np.maximum(face, 0)] & (face >= 0)
        confidence = over(shown[:, None].astype(np.float32))[..., 0] * whole
        confidence *= _remap(self._trusted, source)
        # What borders on something unknown may already show it.
        confidence = np.minimum(confidence, cv2.erode(confidence, np.ones((3, 3))))
        known = np.where(confidence > 0.05, confidence, 0.0).astype(np.float32)
        return TrainingFrame(
            rgb=np.clip(rgb, 0.0, 1.0).astype(np.float32),
            alpha=(known > 0.0).astype(np.float32),
            confidence=known,
            latents=latents,
            camera=camera,
            whole=False,
        )


def random_motion(rng: np.random.Generator, photo: MotionLatents) -> MotionLatents:
    """One frame of motion around the portrait's own: some groups of channels, a turn of the head."""
    dyn = photo.dyn[0] * rng.uniform(0.0, 1.0)
    for group in rng.permutation(len(_GROUPS))[: rng.integers(1, 5)]:
        strength = rng.beta(1.5, 1.5)
        for name, most in _GROUPS[group].items():
            dyn[ARKIT_INDEX[name]] += strength * most
    pose = np.concatenate(
        [np.clip(rng.normal(0.0, _TURN_RADIANS), -0.6, 0.6), rng.normal(0.0, _SHIFT_METRES, 3)]
    )
    assert dyn.shape == (NUM_CHANNELS,)
    return MotionLatents(
        np.clip(dyn, 0.0, 1.0)[None].astype(np.float32), pose[None].astype(np.float32)
    )


def _normals(avatar: Avatar, vertices: F32) -> F32:
    head = avatar.head
    return vertex_normals(vertices, head.weld[head.faces])[head.weld]


def _lookup(image: np.ndarray, pixels: F32, how: int) -> np.ndarray:
    """(N, C) values of an image (H, W, C) at pixels (N, 2)."""
    at = (pixels - 0.5).astype(np.float32)[:, None]
    found = cv2.remap(image, at, None, how, borderMode=cv2.BORDER_REPLICATE)  # type: ignore[call-overload]
    return found.reshape(len(pixels), -1)


def _remap(image: F32, source: F32) -> F32:
    """An image looked up at (H, W, 2) pixels."""
    at = source - np.float32(0.5)
    return np.asarray(
        cv2.remap(image, at[..., 0], at[..., 1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE),
        np.float32,
    )


def _like_skin(photo: F32, alpha: F32, pixels: F32, seen: F32) -> np.ndarray:
    """(S, S) 0 where something unlike the middle of the face hangs before it, else 1."""
    lab = cv2.cvtColor(photo, cv2.COLOR_RGB2LAB)
    usual = _lookup(lab, pixels[seen > 0.7], cv2.INTER_LINEAR)
    if len(usual) < 50:
        return np.ones(alpha.shape, np.float32)
    middle = np.median(usual, 0)
    spread = np.maximum(1.5 * np.median(np.abs(usual - middle), 0), (14.0, 5.0, 5.0))
    unlike = np.sqrt((((lab - middle) / spread) ** 2).sum(-1))
    # Small dark things are brows, lashes and nostrils; they belong to the face.
    large = cv2.GaussianBlur((unlike > 3.0).astype(np.float32), (0, 0), 7.0)
    return np.clip(1.0 - 2.0 * (large - 0.4), 0.0, 1.0)


def _harmonics(normals: np.ndarray) -> np.ndarray:
    """(N, 9) real spherical harmonics up to second order, without their constant factors."""
    x, y, z = normals.T
    return np.stack(
        [np.ones_like(x), x, y, z, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], axis=1
    )


def _fit_light(photo: F32, pixels: F32, normals: F32, seen: F32) -> np.ndarray:
    """(9,) light that explains the brightness of the skin, as if it had one colour; damped towards even light."""
    chosen = seen > 0.3
    bright = _lookup(photo, pixels[chosen], cv2.INTER_LINEAR).mean(1).astype(np.float64)
    basis = _harmonics(normals[chosen].astype(np.float64))
    weight = seen[chosen].astype(np.float64)
    level = max(float(np.average(bright, weights=weight)), 1e-3) if chosen.any() else 1.0
    light = np.zeros(9)
    light[0] = level
    damping = np.diag([0.0] + [0.05 * weight.sum()] * 8)
    for _ in range(5):  # dark brows and bright spots lose their say
        error = bright - basis @ light
        robust = weight / (1.0 + (error / (0.15 * level)) ** 2)
        system = basis.T @ (robust[:, None] * basis) + damping + 1e-9 * np.eye(9)
        light = np.linalg.solve(system, basis.T @ (robust * bright) + damping @ np.zeros(9))
    return light


def _light_on(normals: F32, light: np.ndarray) -> np.ndarray:
    """(N,) brightness of surfaces with these normals."""
    return np.maximum(_harmonics(normals.astype(np.float64)) @ light, 0.15 * light[0])

"""Colours of the side that the photo does not show: the back of the head, the nape, the clothes from behind.

Colours go on around from the silhouette: what covers the skull down to the nape, below it neck and clothes. On the
skull lies the texture of the person's own hair, continued by quilting patches of the photo (Efros and Freeman 2001,
without the seam search) and wrapped around the head's vertical axis. Light comes from the front: the farther behind,
the darker.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vasa3d.avatar.sampling import read_pixels
from vasa3d.geometry.cameras import project, unproject
from vasa3d.portrait.inpainting import fill_holes
from vasa3d.types import F32, I32, Camera

_RIM_PIXELS = 40.0
_OUTLINE_PIXELS = 80.0
_FINE_DETAIL_PIXELS = 10.0
_SKIN_UNLIKE = 2.5
_RIM_SHADE = 0.95
_BACK_SHADE = 0.55
_BRIGHT_BACK_SHADE = 0.4
_TEXTURE_SIDE = 480
_FALL_PIXELS = 6.0
"""How far strands are drawn out downwards, as hair falls."""
_MESH_STEP = 2
_FULL_SHADE_AT = 0.8
_PATCHES = (48, 32, 20, 12)
_CANDIDATES = 24


def silhouette_distance(alpha: F32) -> F32:
    """(S, S) distance in pixels to the silhouette, 0 outside; the picture's own border is no silhouette."""
    pad = 128
    padded = np.pad((alpha > 0.5).astype(np.uint8), pad, mode="edge")
    return np.asarray(cv2.distanceTransform(padded, cv2.DIST_L2, 5)[pad:-pad, pad:-pad], np.float32)


@dataclass(frozen=True)
class HeadCover:
    """What covers the skull: hair, a hat, a scarf, or bare scalp.

    Attributes:
        rim: (S, S) bool pixels that show it next to the silhouette; their colours go on around.
        whole: (S, S) bool all pixels that show it; their texture goes on around.
    """

    rim: np.ndarray
    whole: np.ndarray


@dataclass(frozen=True)
class Skull:
    """Size and place of the head.

    Attributes:
        middle: Column of the picture through its middle.
        plane: Camera depth of its widest place, the ears.
        reach: How far it goes on behind, metres.
        width: Its width in metres.
    """

    middle: float
    plane: float
    reach: float
    width: float


def head_cover(layer: np.ndarray, distance: F32, unlike_skin: F32, nape: float) -> HeadCover | None:
    """Find what covers the skull.

    Args:
        layer: (S, S) bool pixels that surely show the person but not the face, ears or neck.
        distance: (S, S) distance to the silhouette in pixels.
        unlike_skin: (S, S) how far a pixel's colour is from the face's, in its spreads.
        nape: Row below which nothing is read.

    Returns:
        The cover, or None where too little of it is to be seen.
    """
    rows = np.arange(len(layer))[:, None] + 0.5
    above = layer & (rows < nape)
    rim = above & (distance < _RIM_PIXELS)
    if rim.sum() < 200:
        rim = above
    foreign = unlike_skin > _SKIN_UNLIKE
    if (rim & foreign).sum() > 0.25 * rim.sum():
        rim, above = rim & foreign, above & foreign
    rim = _without_specks(rim)
    if rim.sum() < 50:
        return None
    whole = cv2.morphologyEx(above.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
    return HeadCover(rim, _without_specks((whole > 0) & layer))


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """Parts of a mask that hold at least a tenth of it, opened a little."""
    opened = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    _, labels = cv2.connectedComponents(opened, connectivity=4)
    area = np.bincount(labels.ravel())
    area[0] = 0
    large = np.flatnonzero(area >= 0.1 * max(int(area.sum()), 1))
    return np.isin(labels, large)


class BackColors:
    """Colours of surfaces behind the plane of the silhouette."""

    def __init__(
        self,
        image: F32,
        outline: np.ndarray,
        cover: HeadCover | None,
        distance: F32,
        nape: tuple[float, float],
        skull: Skull,
        camera: Camera,
        seed: int,
    ) -> None:
        """Prepare the colours of one portrait.

        Args:
            image: (S, S, 3) colours of the person alone.
            outline: (S, S) bool pixels that show clothes, hair or neck.
            cover: What covers the skull, or None.
            distance: (S, S) distance to the silhouette in pixels.
            nape: Rows between which the hair ends.
            skull: Size and place of the head.
            camera: Camera of the window.
            seed: Seed of the choice of patches.
        """
        self.skull, self.camera, self.nape = skull, camera, nape
        known = outline & (distance < _OUTLINE_PIXELS)
        below = fill_holes(image, known.astype(np.float32)) if known.any() else image
        self.below = np.asarray(cv2.GaussianBlur(below, (0, 0), 4.0), np.float32)
        self.hair = self.texture = None
        self.bright = 0.0
        if cover is not None:
            usual = np.median(image[cover.rim], 0)
            self.bright = float(np.clip((usual.mean() - 0.25) / 0.35, 0.0, 1.0))
            hair = fill_holes(image, cover.rim.astype(np.float32))
            hair = usual + 0.6 * (cv2.GaussianBlur(hair, (0, 0), 12.0) - usual)
            self.hair = np.asarray(hair, np.float32)
            self.texture = _quilt(image, cover.whole, seed)

    def __call__(self, points: F32) -> F32:
        """(N, 3) colours of world points (N, 3)."""
        pixels, depth = project(points, self.camera)
        behind = (depth - self.skull.plane) / (_FULL_SHADE_AT * self.skull.reach)
        colors = read_pixels(self.below, pixels)
        end = np.full((len(points), 1), _BACK_SHADE, np.float32)
        if self.hair is not None and self.texture is not None:
            share = (self.nape[1] - pixels[:, 1:]) / max(self.nape[1] - self.nape[0], 1.0)
            share = np.clip(share, 0.0, 1.0)
            hair = read_pixels(self.hair, pixels) + self._texture(pixels, depth)
            colors = colors + share * (hair - colors)
            end = end + share * self.bright * (_BRIGHT_BACK_SHADE - _BACK_SHADE)
        turned = np.clip(behind, 0.0, 1.0)[:, None]
        colors = colors * (_RIM_SHADE + (end - _RIM_SHADE) * turned)
        return np.clip(colors, 0.0, 1.0).astype(np.float32)

    def _texture(self, pixels: F32, depth: F32) -> F32:
        """The texture, wrapped around the head's vertical axis."""
        assert self.texture is not None
        focal = float(self.camera.K[0, 0])
        aside = (pixels[:, 0] - self.skull.middle) * depth / focal
        angle = np.arctan2(aside, depth - self.skull.plane)
        radius = 0.5 * self.skull.width * focal / self.skull.plane
        size = len(self.texture)
        at = np.stack([radius * angle, pixels[:, 1]], 1) % (2 * size)
        at = np.where(at < size, at, 2 * size - at)
        return read_pixels(self.texture, at.astype(np.float32))


def back_mesh(
    front: F32, back: F32, rear: np.ndarray, covered: np.ndarray, plane: F32, camera: Camera
) -> tuple[F32, I32]:
    """The back as a triangle mesh, joined along its edge to the layer's front or to a plane.

    Args:
        front: (S, S) camera depth of the front.
        back: (S, S) camera depth of the back.
        rear: (S, S) bool where there is a back.
        covered: (S, S) bool where the photo shows bare skin: before the plane the head model closes itself.
        plane: (S, 1) camera depth of that plane in each row.
        camera: Camera of the window.

    Returns:
        (V, 3) vertices and (F, 3) faces.
    """
    at = slice(_MESH_STEP // 2, None, _MESH_STEP)
    there = rear[at, at]
    edge = np.where(covered, np.maximum(front, plane), front)
    depth = np.where(there, back[at, at], edge[at, at])
    rows, cols = np.mgrid[: len(rear), : len(rear)][:, at, at] + 0.5
    pixels = np.stack([cols.ravel(), rows.ravel()], 1).astype(np.float32)
    vertices = unproject(pixels, depth.ravel().astype(np.float32), camera)
    number = np.arange(depth.size).reshape(depth.shape)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, :-1], number[1:, 1:]
    used = there[:-1, :-1] | there[:-1, 1:] | there[1:, :-1] | there[1:, 1:]
    halves = (np.stack(corners, -1)[used] for corners in ((a, b, c), (b, d, c)))
    return vertices, np.concatenate(list(halves)).astype(np.int32)


def _quilt(image: F32, source: np.ndarray, seed: int) -> F32:
    """(T, T, 3) fine detail of the source pixels, without slow shades, continued over a square."""
    weight = source.astype(np.float32)
    total = cv2.GaussianBlur(weight, (0, 0), _FINE_DETAIL_PIXELS)
    slow = cv2.GaussianBlur(image * weight[..., None], (0, 0), _FINE_DETAIL_PIXELS)
    detail = (image - slow / np.maximum(total, 1e-3)[..., None]) * weight[..., None]
    size = _TEXTURE_SIDE
    quilt = np.zeros((size, size, 3), np.float32)
    for side in _PATCHES:
        corners = _patch_corners(source, side)
        if len(corners) > 40:
            break
    else:
        return quilt
    random = np.random.default_rng(seed)
    step = 2 * side // 3
    ramp = np.minimum(np.arange(side) + 1, side - np.arange(side)) / (side - step)
    window = np.clip(np.minimum.outer(ramp, ramp), 0.0, 1.0).astype(np.float32)[..., None]
    filled = np.zeros((size, size, 1), np.float32)
    for row in range(0, size, step):
        for col in range(0, size, step):
            high, wide = min(side, size - row), min(side, size - col)
            there = slice(row, row + high), slice(col, col + wide)
            before = quilt[there] / np.maximum(filled[there], 1e-3)
            held = filled[there] > 0
            patches = [
                detail[top : top + high, left : left + wide]
                for top, left in corners[random.integers(len(corners), size=_CANDIDATES)]
            ]
            errors = [float((((p - before) * held)[::3, ::3] ** 2).sum()) for p in patches]
            quilt[there] += patches[int(np.argmin(errors))] * window[:high, :wide]
            filled[there] += window[:high, :wide]
    quilt /= np.maximum(filled, 1e-3)
    quilt = np.asarray(cv2.GaussianBlur(quilt, (0, 0), sigmaX=1.0, sigmaY=_FALL_PIXELS), np.float32)
    gain = detail[source].std() / max(float(quilt.std()), 1e-6)
    return np.asarray(quilt * min(float(gain), 2.5), np.float32)


def _patch_corners(source: np.ndarray, side: int) -> np.ndarray:
    """(N, 2) row and column of the upper left corners of square patches that lie almost whole in the source."""
    total = cv2.integral(source.astype(np.uint8))
    held = total[side:, side:] - total[:-side, side:] - total[side:, :-side] + total[:-side, :-side]
    return np.argwhere(held > 0.93 * side * side)

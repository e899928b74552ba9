"""Ears of the head model laid over those of the photo.

Landmarks stop before the ears, and the head model knows few shapes of them: fitted to the face alone, its cheeks often
reach as far out as the photo's ears, which are then painted on the cheeks and look torn from the side. What the matte
shows beside the outline of the face, between brow and mouth, is an ear if it ends above the jaw; long hair does not.
There the model's ear is scaled and moved across the view,

    p' = c' + S (p - c),   v' = v + z / f (p' - p),

the flank of the head draws back behind the outline of the face, and a displacement between the two is found by
solving Laplace's equation over the skin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import spsolve

from vasa3d.geometry.cameras import project
from vasa3d.geometry.meshes import vertex_normals
from vasa3d.head import ArkitHead
from vasa3d.portrait.fitting import FACE_OVAL
from vasa3d.types import F32, Camera

_BROWS = (70, 300)
_MOUTH_CORNERS = (61, 291)
"""Landmarks of the person's right and left side."""
_NOSE_BASE = 2
_LEAST_WIDTH, _LARGEST_WIDTH = 0.025, 0.17
"""Of an ear seen from before, as a part of the width of the face."""
_ENDS_BELOW, _ENDS_ABOVE = 0.4, 0.5
"""Part of its width at which an ear ends."""
_RISE_PIXELS = 2.0
"""By how much the outline must widen again for what follows to be hair."""
_INSET_PIXELS = 2.0
_SCALES = (0.75, 1.4)
_FLANK_NORMAL = 0.4
"""Least share of its normal to the side of what counts as the flank of the head."""


@dataclass(frozen=True)
class PhotoEar:
    """An ear in the photo.

    Attributes:
        top: First row, pixels.
        bottom: Last row, pixels.
        rim: Column of its rim.
        inner: (S,) column of the outline of the face beside it, NaN in other rows.
    """

    top: float
    bottom: float
    rim: float
    inner: F32


def find_ear(landmarks: F32, alpha: F32, side: int) -> PhotoEar | None:
    """Find an ear beside the outline of a face.

    Args:
        landmarks: (478, 3) pixels of the face's landmarks.
        alpha: (S, S) person matte.
        side: -1 for the one left in the picture (the person's right ear), 1 for the other.

    Returns:
        The ear; None where hair covers it or the head is turned away.
    """
    points = landmarks[:, :2]
    outlines = _outline_columns(points[list(FACE_OVAL)], len(alpha))
    inner = outlines[0 if side < 0 else 1]
    which = 0 if side < 0 else 1
    brow, mouth = points[_BROWS[which], 1], points[_MOUTH_CORNERS[which], 1]
    base = points[_NOSE_BASE, 1]
    high = max(int(brow - 0.5 * (base - brow)), 0)
    low = min(int(mouth + 0.5 * (mouth - base)), len(alpha) - 1)
    if not np.isfinite(inner[high : low + 1]).all() or low - high < 20:
        return None
    rows = np.arange(high, low + 1)
    # Above its widest place the outline of the face draws in to the forehead; an ear does not.
    flank = side * np.maximum.accumulate((side * inner[rows])[::-1])[::-1]
    width = np.array(
        [_strip_width(alpha[row], column, side) for row, column in zip(rows, flank, strict=True)]
    )
    width = np.convolve(np.pad(width, 2, "edge"), np.full(5, 0.2), "valid")
    expected = width[(rows > brow) & (rows < base)]
    face = float(np.nanmax(outlines[1] - outlines[0]))
    if len(expected) == 0:
        return None
    widest = float(np.percentile(expected, 90))
    if not _LEAST_WIDTH * face < widest < _LARGEST_WIDTH * face:
        return None
    middle = int(np.argmax(np.where((rows > brow) & (rows < base), width, -1.0)))
    below = np.flatnonzero(width[middle:] < _ENDS_BELOW * widest)
    if len(below) == 0:
        return None
    first = int(np.clip(_upper_end(width, middle, widest, brow - high), 0, middle))
    last = middle + int(below[0])
    rim = float(np.max(side * flank[first : last + 1] + width[first : last + 1]))
    columns = np.full(len(alpha), np.nan, np.float32)
    columns[rows] = flank
    return PhotoEar(float(rows[first]), float(rows[last]), side * rim, columns)


def _upper_end(width: np.ndarray, middle: int, widest: float, brow: float) -> float:
    """Index at which an ear begins: where its strip closes, or widens again into hair; else the brow's."""
    least = width[middle]
    for index in range(middle, -1, -1):
        if width[index] < _ENDS_ABOVE * widest:
            return index
        if width[index] > least + _RISE_PIXELS and least < 0.8 * widest:
            return index + int(np.argmin(width[index : middle + 1]))
        least = min(least, width[index])
    return brow


def _strip_width(row: F32, inner: float, side: int) -> float:
    """Pixels from the outline of the face to the end of the person, along one row."""
    start = int(inner)
    beyond = row[start:] if side > 0 else row[: start + 1][::-1]
    outside = np.flatnonzero(beyond < 0.5)
    return float(outside[0] if len(outside) else len(beyond))


def _outline_columns(oval: F32, size: int) -> F32:
    """(2, S) leftmost and rightmost column of a polygon (N, 2) in every row; NaN outside."""
    columns = np.full((2, size), np.nan, np.float32)
    rows = np.arange(size) + 0.5
    for a, b in zip(oval, np.roll(oval, -1, axis=0), strict=True):
        low, high = min(a[1], b[1]), max(a[1], b[1])
        hit = (rows >= low) & (rows <= high)
        if high - low < 1e-6 or not hit.any():
            continue
        x = a[0] + (rows[hit] - a[1]) / (b[1] - a[1]) * (b[0] - a[0])
        columns[0, hit] = np.fmin(columns[0, hit], x)
        columns[1, hit] = np.fmax(columns[1, hit], x)
    return columns


def ear_offsets(
    vertices: F32, landmarks: F32, alpha: F32, head: ArkitHead, camera: Camera
) -> tuple[F32, np.ndarray]:
    """Displacements that lay the head's ears over those of the photo.

    Args:
        vertices: (V, 3) the head in the photo's pose.
        landmarks: (478, 3) pixels of the face's landmarks.
        alpha: (S, S) person matte.
        head: Its model.
        camera: Camera of the matte.

    Returns:
        (V, 3) displacements in metres, 0 where no ear was found and on the face itself; and (V,) bool the vertices of
        ears and flanks that now lie as in the photo.
    """
    pixels, depth = project(vertices, camera)
    normals = vertex_normals(vertices, head.weld[head.faces])[head.weld]
    aside = normals @ camera.viewmat[0, :3]
    step = np.zeros((len(vertices), 2))
    held = ~head.regions["skin"] | head.regions["shoulders"] | _within(landmarks, pixels)
    settled = np.zeros(len(vertices), bool)
    held |= depth > np.percentile(depth[head.regions["ears"]], 95) + 0.02
    for side in (-1, 1):
        ear = find_ear(landmarks, alpha, side)
        # The face looks along +z: the person's left is right in the picture.
        own = head.regions["ears"] & (
            np.sign(pixels[:, 0] - pixels[head.regions["ears"], 0].mean()) == side
        )
        if ear is None or not own.any():
            continue
        step[own] = _onto(pixels[own], ear, side)
        rows = np.clip(pixels[:, 1].astype(int), 0, len(alpha) - 1)
        beyond = side * (pixels[:, 0] - ear.inner[rows]) + 1.0
        flank = head.regions["skin"] & ~head.regions["ears"] & (side * aside > _FLANK_NORMAL)
        flank &= (pixels[:, 1] > ear.top) & (pixels[:, 1] < ear.bottom) & ~held
        flank &= side * (pixels[:, 0] - landmarks[_NOSE_BASE, 0]) > 0
        step[flank, 0] = -side * np.maximum(beyond[flank], 0.0)
        settled |= own | flank
    if not settled.any():
        return np.zeros_like(vertices), settled
    step *= (depth / float(camera.K[0, 0]))[:, None]
    step = _spread(head, step, held | settled)
    right, down = camera.viewmat[0, :3], camera.viewmat[1, :3]
    return (step[:, :1] * right + step[:, 1:] * down).astype(np.float32), settled


def _onto(pixels: F32, ear: PhotoEar, side: int) -> np.ndarray:
    """(N, 2) steps in pixels that bring the vertices of an ear over that of the photo."""
    low, high = pixels.min(0), pixels.max(0)
    tall = np.clip((ear.bottom - ear.top) / max(high[1] - low[1], 1.0), *_SCALES)
    rows = np.clip(np.arange(int(ear.top), int(ear.bottom) + 1), 0, len(ear.inner) - 1)
    inner = float(np.nanmedian(ear.inner[rows]))
    rim = ear.rim - side * _INSET_PIXELS
    # The root of an ear lies behind the cheek: as wide as it is seen, so wide is what stands out of it.
    outer = high[0] if side > 0 else low[0]
    root = low[0] if side > 0 else high[0]
    wide = np.clip(abs(rim - inner) / max(0.8 * abs(outer - root), 1.0), *_SCALES)
    middle = 0.5 * (ear.top + ear.bottom)
    target = np.stack(
        [
            rim + wide * (pixels[:, 0] - outer),
            middle + tall * (pixels[:, 1] - 0.5 * (low[1] + high[1])),
        ],
        axis=1,
    )
    return target - pixels


def _within(landmarks: F32, pixels: F32) -> np.ndarray:
    """(V,) bool vertices well within the outline of the face."""
    oval = landmarks[list(FACE_OVAL), :2]
    middle = oval.mean(0)
    columns = _outline_columns(middle + 0.9 * (oval - middle), 4096)
    rows = np.clip(pixels[:, 1].astype(int), 0, 4095)
    with np.errstate(invalid="ignore"):
        return (pixels[:, 0] > columns[0, rows]) & (pixels[:, 0] < columns[1, rows])


def _spread(head: ArkitHead, step: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Steps (V, 2) of held vertices (V,) bool carried on over the skin between them, seams joined."""
    faces = head.weld[head.faces[head.regions["skin"][head.faces].all(1)]]
    edges = np.concatenate([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    rows, cols = np.concatenate([edges, edges[:, ::-1]]).T
    count = len(step)
    links = coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(count, count)).tocsr()
    laplacian = (diags(np.asarray(links.sum(1)).ravel()) - links).tocsr()
    held = held[head.weld]
    free = np.zeros(count, bool)
    free[np.unique(faces)] = True
    free &= ~held
    result = np.where(held[:, None], step[head.weld], 0.0)
    if free.any():
        inside = laplacian[free][:, free] + 1e-9 * diags(np.ones(int(free.sum())))
        right = -(laplacian[free][:, ~free] @ result[~free])
        for axis in range(2):
            result[free, axis] = spsolve(inside.tocsc(), right[:, axis])
    return result[head.weld]

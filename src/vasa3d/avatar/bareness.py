"""Parts of the head that nothing of the layer may hide: the face from before, bare ears and necks from the sides.

Behind the silhouette of a photo the layer's depth is made up, and where the head is turned or its ears lie close it
may come to lie before skin. Looking at the head in its own frame (x to its left, y up, z forward) from a direction
tells which of the layer's points do.
"""

from __future__ import annotations

import cv2
import numpy as np

from vasa3d.avatar.sampling import read_pixels
from vasa3d.geometry.cameras import project
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.types import F32, I32, Camera

_SIDE = 256
_SEAM_METRES = 0.01
"""Width of gaps in a surface, such as seams between regions, that count as its own."""
_DISTANCE = 20.0
"""Of the camera from the head, in sizes of what it looks at: almost a parallel projection."""
FRONT, BEHIND = (0.0, 0.0, 1.0), (0.0, 0.0, -1.0)
LEFT, RIGHT = (1.0, 0.0, 0.0), (-1.0, 0.0, 0.0)


def hides(
    points: F32,
    vertices: F32,
    faces: I32,
    direction: tuple[float, float, float],
    margin: float,
) -> np.ndarray:
    """Find the points that hide a surface from somebody who stands in a direction from the head.

    Args:
        points: (N, 3) points in the head's frame, metres.
        vertices: (V, 3) vertices of the head.
        faces: (F, 3) triangles of the surface.
        direction: Where the beholder stands, a unit vector in the plane y = 0.
        margin: How far behind the surface a point still counts as before it, metres: Gaussians are no points.

    Returns:
        (N,) bool which points lie before the surface.
    """
    if not len(faces) or not len(points):
        return np.zeros(len(points), bool)
    camera = _looking_from(np.array(direction, np.float32), vertices[np.unique(faces)])
    _, _, depth = rasterize_mesh(vertices, faces, camera)
    if not (depth > 0).any():
        return np.zeros(len(points), bool)
    pixel = float(np.median(depth[depth > 0])) / float(camera.K[0, 0])
    side = 2 * round(0.5 * _SEAM_METRES / pixel) + 1
    depth = cv2.morphologyEx(depth, cv2.MORPH_CLOSE, np.ones((side, side), np.uint8))
    pixels, own = project(points, camera)
    inside = ((pixels >= 0) & (pixels < _SIDE)).all(1)
    shown = read_pixels(depth, pixels, nearest=True)
    return inside & (shown > 0) & (own < shown + margin)


def _looking_from(direction: F32, surface: F32) -> Camera:
    middle = 0.5 * (surface.min(0) + surface.max(0))
    extent = 1.1 * float(np.ptp(surface, axis=0).max())
    down = np.array([0.0, -1.0, 0.0], np.float32)
    viewmat = np.eye(4, dtype=np.float32)
    viewmat[:3, :3] = np.stack([np.cross(down, -direction), down, -direction])
    viewmat[:3, 3] = -viewmat[:3, :3] @ (middle + direction * (_DISTANCE * extent))
    focal = _SIDE * _DISTANCE
    half = 0.5 * _SIDE
    intrinsics = np.array([[focal, 0, half], [0, focal, half], [0, 0, 1]], np.float32)
    return Camera(viewmat, intrinsics, _SIDE, _SIDE)

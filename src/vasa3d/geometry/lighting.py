"""Soft light on a mesh: how much of an even sky each point faces and sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from vasa3d.geometry.cameras import intrinsics, look_at, project
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.types import F32, I32, Camera

_AWAY_METRES, _PICTURE_SIDE = 1.0, 160
_TOLERANCE_METRES = 8e-4


def half_sky(toward: ArrayLike, count: int) -> F32:
    """Directions spread evenly, as seen from below, over half the sky.

    Args:
        toward: (3,) middle of the half.
        count: Number of directions.

    Returns:
        (count, 3) unit vectors.
    """
    middle = np.asarray(toward, np.float64) / np.linalg.norm(toward)
    across = np.cross(middle, np.eye(3)[np.argmin(np.abs(middle))])
    across /= np.linalg.norm(across)
    basis = np.stack([across, np.cross(middle, across), middle])
    step = np.arange(count) + 0.5
    away = np.sqrt(step / count)
    turn = step * np.pi * (3.0 - np.sqrt(5.0))
    local = np.stack([away * np.cos(turn), away * np.sin(turn), np.sqrt(1.0 - away**2)], 1)
    return (local @ basis).astype(np.float32)


def received_light(
    vertices: F32, faces: I32, normals: F32, chosen: np.ndarray, sky: F32, width: float
) -> F32:
    """Light that reaches vertices, each direction of the sky drawn as a picture: what it shows, it lights.

    Args:
        vertices: (V, 3) mesh, metres.
        faces: (F, 3).
        normals: (V, 3) unit.
        chosen: (V,) bool vertices to light.
        sky: (K, 3) unit directions that light comes from.
        width: Of the part of the mesh around the chosen ones that may stand in the light, metres.

    Returns:
        (M,) light at the chosen vertices; 1 for one that faces the middle of the sky and sees all of it.
    """
    points, facing = vertices[chosen], normals[chosen]
    center = 0.5 * (points.min(0) + points.max(0))
    K = intrinsics(_PICTURE_SIDE * _AWAY_METRES / width, _PICTURE_SIDE, _PICTURE_SIDE)
    light = np.zeros(len(points), np.float32)
    for side in sky:
        camera = Camera(
            look_at(center + _AWAY_METRES * side, center), K, _PICTURE_SIDE, _PICTURE_SIDE
        )
        _, _, depth = rasterize_mesh(vertices, faces, camera)
        pixels, z = project(points, camera)
        columns, rows = np.clip(pixels.astype(int), 0, _PICTURE_SIDE - 1).T
        nearest = depth[rows, columns]
        reached = (nearest == 0.0) | (z < nearest + _TOLERANCE_METRES)
        light += np.clip(facing @ side, 0.0, 1.0) * reached
    middle = sky.mean(0)
    full = float((sky @ (middle / np.linalg.norm(middle))).sum())
    return light / np.float32(full)

"""Pinhole cameras: building, turning, projecting.

World: right-handed, metres, y up. Camera: OpenCV, x right, y down, z forward. A world point X has
    camera coordinates
c = R X + t with [R | t] the upper rows of ``viewmat``, pixel u = (K c)_xy / c_z, and depth c_z in
metres.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.types import F32, Camera

WORLD_UP = (0.0, 1.0, 0.0)


def look_at(eye: ArrayLike, target: ArrayLike, up: ArrayLike = WORLD_UP) -> F32:
    """World-to-camera transform of a camera at ``eye`` that looks at ``target``.

    Args:
        eye: (3,) camera centre, world metres.
        target: (3,) point on the optical axis, world metres, different from ``eye``.
        up: (3,) direction that appears upwards in the picture. Where it is parallel to the view,
            another is chosen.

    Returns:
        (4, 4) float32 ``viewmat``.

    Raises:
        ValueError: ``eye`` and ``target`` coincide.
    """
    centre = np.asarray(eye, np.float64)
    forward = np.asarray(target, np.float64) - centre
    length = np.linalg.norm(forward)
    if not length > 0.0:
        raise ValueError("eye and target must be different points")
    forward /= length
    right = np.cross(forward, np.asarray(up, np.float64))
    if np.linalg.norm(right) < 1e-9:
        right = np.cross(forward, np.eye(3)[np.argmin(np.abs(forward))])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    return _viewmat(rotation, -rotation @ centre)


def intrinsics(focal: float, width: int, height: int) -> F32:
    """Intrinsics with square pixels and the principal point in the middle of the picture.

    Args:
        focal: Focal length in pixels.
        width: Image width in pixels.
        height: Image height in pixels.

    Returns:
        (3, 3) float32 ``K``.
    """
    return np.array(
        [[focal, 0.0, width / 2.0], [0.0, focal, height / 2.0], [0.0, 0.0, 1.0]], np.float32
    )


def project(points: F32, camera: Camera) -> tuple[F32, F32]:
    """Pixels and depths of world points.

    Args:
        points: (N, 3) world metres.
        camera: The camera.

    Returns:
        Pixels (N, 2) as (x, y), NaN for points in the plane of the camera centre, and depth (N,) in
        metres, negative behind the camera.
    """
    view, k = camera.viewmat.astype(np.float64), camera.K.astype(np.float64)
    local = np.asarray(points, np.float64) @ view[:3, :3].T + view[:3, 3]
    depth = local[:, 2]
    homogeneous = local @ k.T
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = homogeneous[:, :2] / homogeneous[:, 2:]
    pixels[depth == 0.0] = np.nan
    return pixels.astype(np.float32), depth.astype(np.float32)


def unproject(pixels: F32, depth: F32, camera: Camera) -> F32:
    """World points seen at these pixels and depths; the inverse of ``project``.

    Args:
        pixels: (N, 2) as (x, y).
        depth: (N,) camera z in metres.
        camera: The camera.

    Returns:
        (N, 3) float32 world metres.
    """
    view, k = camera.viewmat.astype(np.float64), camera.K.astype(np.float64)
    xy = np.asarray(pixels, np.float64)
    homogeneous = np.concatenate([xy, np.ones((len(xy), 1))], axis=1)
    local = np.linalg.solve(k, homogeneous.T).T
    local *= (np.asarray(depth, np.float64) / local[:, 2])[:, None]
    return ((local - view[:3, 3]) @ view[:3, :3]).astype(np.float32)


def camera_center(camera: Camera) -> F32:
    """(3,) float32 centre of projection, world metres."""
    view = camera.viewmat.astype(np.float64)
    return (-view[:3, :3].T @ view[:3, 3]).astype(np.float32)


def facing(points: F32, normals: F32, eye: F32) -> F32:
    """(N,) cosine between unit normals (N, 3) at points (N, 3) and the way to an eye (3,); below 0 turned away."""
    rays = points - eye
    return -np.sum(normals * rays, 1) / np.linalg.norm(rays, axis=1)


def orbit(
    camera: Camera,
    target: ArrayLike,
    yaw_degrees: float,
    pitch_degrees: float,
    distance_scale: float = 1.0,
) -> Camera:
    """The camera turned around a world point, which keeps its pixel.

    Args:
        camera: The camera to start from.
        target: (3,) world point to turn around, metres.
        yaw_degrees: Turn about the world's up axis; positive moves a camera in front of the face
            towards +x, so the viewer sees the person's left side.
        pitch_degrees: Turn about the camera's right axis, before the yaw; positive raises the
            camera.
        distance_scale: Factor on the distance between camera and target.

    Returns:
        The turned camera, with the same intrinsics and size.
    """
    view, pivot = camera.viewmat.astype(np.float64), np.asarray(target, np.float64)
    yaw = axis_angle_to_matrix(math.radians(yaw_degrees) * np.array(WORLD_UP))
    pitch = axis_angle_to_matrix(-math.radians(pitch_degrees) * view[0, :3])
    rotation = view[:3, :3] @ (yaw @ pitch).T
    local = (view[:3, :3] @ pivot + view[:3, 3]) * distance_scale
    return Camera(
        _viewmat(rotation, local - rotation @ pivot), camera.K, camera.width, camera.height
    )


def _viewmat(rotation: np.ndarray, translation: np.ndarray) -> F32:
    viewmat = np.eye(4, dtype=np.float32)
    viewmat[:3, :3] = rotation
    viewmat[:3, 3] = translation
    return viewmat

"""Surface directions of Gaussians: the shortest axis of each, turned towards the camera.

A Gaussian on a surface is flat, so the eigenvector v of its covariance with the least eigenvalue is
the surface's normal up to its sign; n = v or -v, such that n . (e - mu) >= 0 for the mean mu and the
camera's centre e. All in the world frame. A round Gaussian has no such axis: some unit vector
stands for it.
"""

from __future__ import annotations

import numpy as np

from vasa3d.geometry.cameras import camera_center
from vasa3d.kernels.axes import shortest_axes_of
from vasa3d.kernels.threads import run_chunks
from vasa3d.types import F32, Camera

_CHUNK = 4096


def shortest_axes(covariances: F32) -> F32:
    """Unit eigenvectors of the least eigenvalues.

    Args:
        covariances: (N, 6) upper triangles xx, xy, xz, yy, yz, zz, square metres.

    Returns:
        (N, 3) float32 in the world frame, of either sign; zero where a covariance is
        not finite or has no positive trace.
    """
    upper = np.ascontiguousarray(covariances, np.float32)
    axes = np.empty((len(upper), 3), np.float32)

    def find(start: int, stop: int) -> None:
        shortest_axes_of(start, stop, upper, axes)

    run_chunks(find, len(upper), _CHUNK)
    return axes


def turned_to_camera(axes: F32, means: F32, camera: Camera) -> F32:
    """The axes, each with the sign that faces the camera.

    Args:
        axes: (N, 3) directions, world frame.
        means: (N, 3) centres of the Gaussians, world metres.
        camera: The camera.

    Returns:
        (N, 3) float32, world frame.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # such Gaussians are not drawn
        away = ((camera_center(camera) - means) * axes).sum(1) < 0.0
    return np.where(away[:, None], -axes, axes).astype(np.float32)


def unit_or_zero(blended: F32, alpha: F32) -> F32:
    """Blended directions (H, W, 3) at unit length, zero where alpha (H, W) is 0."""
    length = np.linalg.norm(blended, axis=2)
    known = (alpha > 0.0) & (length > 1e-12)
    return blended * (known / np.where(known, length, 1.0)).astype(np.float32)[..., None]

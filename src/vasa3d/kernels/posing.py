"""Posing of bound Gaussians: every Gaussian follows an affine map.

A surface Gaussian n follows its triangle's map A_f (3, 4); a layer Gaussian follows the blend sum_j
w_nj G_j of joint transforms. With A = [L | t]:

    mean'  = L mean + t          covariance' = L covariance L^T

so Gaussians stretch exactly as the surface under them does: the skin neither tears nor bunches when
the jaw opens. Each Gaussian is posed by itself, so the result does not depend on the number of
threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from vasa3d.kernels.threads import run_chunks
from vasa3d.types import F32, I32

_CHUNK = 4096


def pose_gaussians(
    means: F32,
    covariances: F32,
    triangles: I32,
    triangle_maps: F32,
    layer_weights: F32,
    joint_maps: F32,
    out_means: F32,
    out_covariances: F32,
) -> None:
    """Move canonical Gaussians into a pose.

    Args:
        means: (N, 3) canonical centres.
        covariances: (N, 6) canonical covariances.
        triangles: (S,) triangle of the first S Gaussians.
        triangle_maps: (F, 3, 4) map of each triangle, canonical to posed.
        layer_weights: (N - S, J) joint weights of the remaining Gaussians, rows sum to 1.
        joint_maps: (J, 3, 4) map of each joint, canonical to posed.
        out_means: (N, 3) written.
        out_covariances: (N, 6) written.
    """

    def pose(start: int, stop: int) -> None:
        _pose(
            start, stop, means, covariances, triangles, triangle_maps, layer_weights, joint_maps,
            out_means, out_covariances,
        )  # fmt: skip

    run_chunks(pose, len(means), _CHUNK)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _pose(
    start, stop, means, covs, triangles, tri_maps, weights, joint_maps, out_means, out_covs
):  # pragma: no cover - compiled
    """Pose Gaussians ``start`` to ``stop``; all arrays as in ``pose_gaussians``."""
    num_surface = len(triangles)
    a = np.empty((3, 4), np.float32)
    b = np.empty((3, 3), np.float32)
    for n in range(start, stop):
        if n < num_surface:
            for i in range(3):
                for j in range(4):
                    a[i, j] = tri_maps[triangles[n], i, j]
        else:
            for i in range(3):
                for j in range(4):
                    total = np.float32(0.0)
                    for k in range(weights.shape[1]):
                        total += weights[n - num_surface, k] * joint_maps[k, i, j]
                    a[i, j] = total
        x, y, z = means[n, 0], means[n, 1], means[n, 2]
        for i in range(3):
            out_means[n, i] = a[i, 0] * x + a[i, 1] * y + a[i, 2] * z + a[i, 3]
        xx, xy, xz = covs[n, 0], covs[n, 1], covs[n, 2]
        yy, yz, zz = covs[n, 3], covs[n, 4], covs[n, 5]
        # rows of L C
        for i in range(3):
            b[i, 0] = a[i, 0] * xx + a[i, 1] * xy + a[i, 2] * xz
            b[i, 1] = a[i, 0] * xy + a[i, 1] * yy + a[i, 2] * yz
            b[i, 2] = a[i, 0] * xz + a[i, 1] * yz + a[i, 2] * zz
        slot = 0
        for i in range(3):
            for j in range(i, 3):
                out_covs[n, slot] = b[i, 0] * a[j, 0] + b[i, 1] * a[j, 1] + b[i, 2] * a[j, 2]
                slot += 1

"""Posing of bound Gaussians: every Gaussian follows an affine map.

A surface Gaussian n follows its triangle's map A_f (3, 4); a layer Gaussian follows the blend sum_j
w_nj G_j of joint transforms. With A = [L | t]:

    mean'  = L mean + t          covariance' = L covariance L^T

so Gaussians stretch exactly as the surface under them does: the skin neither tears nor bunches when
the jaw opens. Each Gaussian is posed by itself, so the result does not depend on the number of
threads.

The derivative: with g the loss's gradient by mean' and H that by covariance', as a full symmetric
matrix,

    dL/dmean = L^T g    dL/dcovariance = L^T H L    dL/dA = [g mean^T + 2 H L covariance | g]

and dL/dA_f sums over the Gaussians of triangle f, dL/dG_j = sum_n w_nj dL/dA_n.
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


def differentiate_posing(
    means: F32,
    covariances: F32,
    triangles: I32,
    triangle_maps: F32,
    layer_weights: F32,
    joint_maps: F32,
    by_means: F32,
    by_covariances: F32,
    grad_means: F32,
    grad_covariances: F32,
    grad_triangle_maps: F32 | None,
    grad_joint_maps: F32 | None,
) -> None:
    """Gradients by the inputs of ``pose_gaussians``, whose arguments come first.

    Args:
        means: (N, 3).
        covariances: (N, 6).
        triangles: (S,).
        triangle_maps: (F, 3, 4).
        layer_weights: (N - S, J), constant.
        joint_maps: (J, 3, 4).
        by_means: (N, 3) gradient of the loss by the posed means.
        by_covariances: (N, 6) by the six stored values of the posed covariances.
        grad_means: (N, 3) written.
        grad_covariances: (N, 6) written.
        grad_triangle_maps: (F, 3, 4) written; ``None`` when it and ``grad_joint_maps`` are not
            needed.
        grad_joint_maps: (J, 3, 4) written, or ``None`` as well.
    """
    wanted = grad_triangle_maps is not None and grad_joint_maps is not None
    by_maps = np.empty((len(means), 3, 4), np.float32) if wanted else None

    def differentiate(start: int, stop: int) -> None:
        _differentiate(
            start, stop, means, covariances, triangles, triangle_maps, layer_weights, joint_maps,
            by_means, by_covariances, grad_means, grad_covariances, by_maps,
        )  # fmt: skip

    run_chunks(differentiate, len(means), _CHUNK)
    if wanted:
        _sum_maps(triangles, layer_weights, by_maps, grad_triangle_maps, grad_joint_maps)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _map_of(n, triangles, tri_maps, weights, joint_maps, a):  # pragma: no cover - compiled
    """Write the map (3, 4) that Gaussian n follows to ``a``."""
    layer = n - len(triangles)
    for i in range(3):
        for j in range(4):
            if layer < 0:
                a[i, j] = tri_maps[triangles[n], i, j]
            else:
                total = np.float32(0.0)
                for k in range(weights.shape[1]):
                    total += weights[layer, k] * joint_maps[k, i, j]
                a[i, j] = total


@njit(nogil=True, cache=True, fastmath={"contract"})
def _pose(
    start, stop, means, covs, triangles, tri_maps, weights, joint_maps, out_means, out_covs
):  # pragma: no cover - compiled
    """Pose Gaussians ``start`` to ``stop``; all arrays as in ``pose_gaussians``."""
    a = np.empty((3, 4), np.float32)
    b = np.empty((3, 3), np.float32)
    for n in range(start, stop):
        _map_of(n, triangles, tri_maps, weights, joint_maps, a)
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


@njit(nogil=True, cache=True, fastmath={"contract"})
def _differentiate(
    start,
    stop,
    means,
    covs,
    triangles,
    tri_maps,
    weights,
    joint_maps,
    by_means,
    by_covs,
    grad_means,
    grad_covs,
    by_maps,
):  # pragma: no cover - compiled
    """Gradients of Gaussians ``start`` to ``stop``; ``by_maps`` (N, 3, 4) by each one's map."""
    half = np.float32(0.5)
    a = np.empty((3, 4), np.float32)
    hl = np.empty((3, 3), np.float32)
    for n in range(start, stop):
        _map_of(n, triangles, tri_maps, weights, joint_maps, a)
        gx, gy, gz = by_means[n, 0], by_means[n, 1], by_means[n, 2]
        hxx, hxy, hxz = by_covs[n, 0], half * by_covs[n, 1], half * by_covs[n, 2]
        hyy, hyz, hzz = by_covs[n, 3], half * by_covs[n, 4], by_covs[n, 5]
        for j in range(3):
            grad_means[n, j] = a[0, j] * gx + a[1, j] * gy + a[2, j] * gz
            # columns of H L
            hl[0, j] = hxx * a[0, j] + hxy * a[1, j] + hxz * a[2, j]
            hl[1, j] = hxy * a[0, j] + hyy * a[1, j] + hyz * a[2, j]
            hl[2, j] = hxz * a[0, j] + hyz * a[1, j] + hzz * a[2, j]
        slot = 0
        for i in range(3):
            for j in range(i, 3):
                value = a[0, i] * hl[0, j] + a[1, i] * hl[1, j] + a[2, i] * hl[2, j]
                # An entry beside the diagonal stands for two.
                grad_covs[n, slot] = value if i == j else value + value
                slot += 1
        if by_maps is not None:
            x, y, z = means[n, 0], means[n, 1], means[n, 2]
            xx, xy, xz = covs[n, 0], covs[n, 1], covs[n, 2]
            yy, yz, zz = covs[n, 3], covs[n, 4], covs[n, 5]
            for i in range(3):
                g, two = by_means[n, i], np.float32(2.0)
                h0, h1, h2 = two * hl[i, 0], two * hl[i, 1], two * hl[i, 2]
                by_maps[n, i, 0] = g * x + h0 * xx + h1 * xy + h2 * xz
                by_maps[n, i, 1] = g * y + h0 * xy + h1 * yy + h2 * yz
                by_maps[n, i, 2] = g * z + h0 * xz + h1 * yz + h2 * zz
                by_maps[n, i, 3] = g


@njit(nogil=True, cache=True, fastmath={"contract"})
def _sum_maps(
    triangles, weights, by_maps, grad_tri_maps, grad_joint_maps
):  # pragma: no cover - compiled
    """Add up the gradients of the Gaussians' maps by triangle and joint, in the Gaussians' order."""
    grad_tri_maps[:] = np.float32(0.0)
    for n in range(len(triangles)):
        for i in range(3):
            for j in range(4):
                grad_tri_maps[triangles[n], i, j] += by_maps[n, i, j]
    # Thousands of Gaussians share a joint: float32 would lose digits.
    joints = np.zeros(grad_joint_maps.shape, np.float64)
    for n in range(len(weights)):
        for k in range(weights.shape[1]):
            weight = weights[n, k]
            if weight != np.float32(0.0):
                for i in range(3):
                    for j in range(4):
                        joints[k, i, j] += weight * by_maps[len(triangles) + n, i, j]
    grad_joint_maps[:] = joints

"""Covariances of Gaussians from quaternions and scales, and the derivative.

With the rotation R of the quaternion q / |q| (w first) and standard deviations s,

    C = R diag(s^2) R^T = sum_k s_k^2 r_k r_k^T,    r_k the columns of R.

With H the loss's gradient by C as a full symmetric matrix:

    dL/ds_k = 2 s_k r_k^T H r_k    dL/dR = 2 H R diag(s^2)    dL/dq = (I - u u^T) dL/du / |q|

where u = q / |q| and dL/du follows from dL/dR. A quaternion without direction (zero, or not finite)
has a covariance of NaN, which is not drawn, and no gradients.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from vasa3d.kernels.threads import run_chunks
from vasa3d.types import F32

_CHUNK = 4096


def shape_covariances(quats: F32, scales: F32, covariances: F32) -> None:
    """Covariances of N Gaussians.

    Args:
        quats: (N, 4) quaternions wxyz of any length.
        scales: (N, 3) standard deviations, metres.
        covariances: (N, 6) written: xx, xy, xz, yy, yz, zz, square metres.
    """

    def build(start: int, stop: int) -> None:
        _build(start, stop, quats, scales, covariances)

    run_chunks(build, len(quats), _CHUNK)


def differentiate_shapes(
    quats: F32, scales: F32, by_covariances: F32, grad_quats: F32, grad_scales: F32
) -> None:
    """Gradients by the inputs of ``shape_covariances``.

    Args:
        quats: (N, 4).
        scales: (N, 3).
        by_covariances: (N, 6) gradient of the loss by the six stored values.
        grad_quats: (N, 4) written.
        grad_scales: (N, 3) written.
    """

    def differentiate(start: int, stop: int) -> None:
        _differentiate(start, stop, quats, scales, by_covariances, grad_quats, grad_scales)

    run_chunks(differentiate, len(quats), _CHUNK)


@njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _rotation(quats, n, r):  # pragma: no cover - compiled
    """Write R (3, 3) to ``r``; returns 1 / |q| and q / |q|."""
    w, x, y, z = quats[n, 0], quats[n, 1], quats[n, 2], quats[n, 3]
    # Components of about 1e-30 have squares below float32.
    largest = max(max(abs(w), abs(x)), max(abs(y), abs(z)))
    shrink = np.float32(1.0) / largest
    w, x, y, z = w * shrink, x * shrink, y * shrink, z * shrink
    inverse = np.float32(1.0) / np.float32(math.sqrt(w * w + x * x + y * y + z * z))
    w, x, y, z = w * inverse, x * inverse, y * inverse, z * inverse
    one, two = np.float32(1.0), np.float32(2.0)
    r[0, 0] = one - two * (y * y + z * z)
    r[0, 1] = two * (x * y - w * z)
    r[0, 2] = two * (x * z + w * y)
    r[1, 0] = two * (x * y + w * z)
    r[1, 1] = one - two * (x * x + z * z)
    r[1, 2] = two * (y * z - w * x)
    r[2, 0] = two * (x * z - w * y)
    r[2, 1] = two * (y * z + w * x)
    r[2, 2] = one - two * (x * x + y * y)
    return inverse * shrink, w, x, y, z


@njit(nogil=True, cache=True, fastmath={"contract"})
def _build(start, stop, quats, scales, covariances):  # pragma: no cover - compiled
    """Covariances of Gaussians ``start`` to ``stop``."""
    r = np.empty((3, 3), np.float32)
    for n in range(start, stop):
        _rotation(quats, n, r)
        a, b, c = scales[n, 0] ** 2, scales[n, 1] ** 2, scales[n, 2] ** 2
        slot = 0
        for i in range(3):
            for j in range(i, 3):
                value = a * r[i, 0] * r[j, 0] + b * r[i, 1] * r[j, 1] + c * r[i, 2] * r[j, 2]
                covariances[n, slot] = value
                slot += 1


@njit(nogil=True, cache=True, fastmath={"contract"})
def _differentiate(
    start, stop, quats, scales, by_covs, grad_quats, grad_scales
):  # pragma: no cover - compiled
    """Gradients of Gaussians ``start`` to ``stop``."""
    half, two = np.float32(0.5), np.float32(2.0)
    r = np.empty((3, 3), np.float32)
    d = np.empty((3, 3), np.float32)
    for n in range(start, stop):
        inverse, w, x, y, z = _rotation(quats, n, r)
        if not math.isfinite(inverse * (w + x + y + z)):
            grad_quats[n] = np.float32(0.0)
            grad_scales[n] = np.float32(0.0)
            continue
        hxx, hxy, hxz = by_covs[n, 0], half * by_covs[n, 1], half * by_covs[n, 2]
        hyy, hyz, hzz = by_covs[n, 3], half * by_covs[n, 4], by_covs[n, 5]
        for k in range(3):
            r0, r1, r2 = r[0, k], r[1, k], r[2, k]
            h0 = hxx * r0 + hxy * r1 + hxz * r2
            h1 = hxy * r0 + hyy * r1 + hyz * r2
            h2 = hxz * r0 + hyz * r1 + hzz * r2
            s = scales[n, k]
            grad_scales[n, k] = two * s * (r0 * h0 + r1 * h1 + r2 * h2)
            d[0, k], d[1, k], d[2, k] = two * s * s * h0, two * s * s * h1, two * s * s * h2
        tx, ty, tz = d[2, 1] - d[1, 2], d[0, 2] - d[2, 0], d[1, 0] - d[0, 1]
        pxy, pxz, pyz = d[0, 1] + d[1, 0], d[0, 2] + d[2, 0], d[1, 2] + d[2, 1]
        gw = two * (x * tx + y * ty + z * tz)
        gx = two * (w * tx + y * pxy + z * pxz - two * x * (d[1, 1] + d[2, 2]))
        gy = two * (w * ty + x * pxy + z * pyz - two * y * (d[0, 0] + d[2, 2]))
        gz = two * (w * tz + x * pxz + y * pyz - two * z * (d[0, 0] + d[1, 1]))
        along = gw * w + gx * x + gy * y + gz * z
        grad_quats[n, 0] = inverse * (gw - along * w)
        grad_quats[n, 1] = inverse * (gx - along * x)
        grad_quats[n, 2] = inverse * (gy - along * y)
        grad_quats[n, 3] = inverse * (gz - along * z)

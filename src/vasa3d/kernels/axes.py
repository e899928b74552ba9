"""Shortest axes of Gaussians: eigenvectors of the least eigenvalues of 3x3 covariances.

Cyclic Jacobi (Golub and Van Loan, Matrix Computations, section 8.5): rotations in the planes
(0, 1), (0, 2) and (1, 2) in turn make the entries beside the diagonal vanish; their product holds
the eigenvectors. Each squares what is left, so a few rounds reach the end of float64.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

_ROUNDS = 10
_DONE = 1e-30
"""Squared size, relative to the trace, of entries beside the diagonal that count as none."""


@njit(nogil=True, cache=True)
def shortest_axes_of(start, stop, covariances, axes):  # pragma: no cover - compiled
    """Find the axes of Gaussians ``start`` to ``stop``.

    Args:
        start: First Gaussian.
        stop: One past the last Gaussian.
        covariances: (N, 6) float32 upper triangles xx, xy, xz, yy, yz, zz.
        axes: (N, 3) float32 output, unit vectors of either sign; zero where a covariance is not
            finite or has no positive trace.
    """
    a, v = np.empty((3, 3)), np.empty((3, 3))
    for n in range(start, stop):
        axes[n] = 0.0
        xx, xy, xz = float(covariances[n, 0]), float(covariances[n, 1]), float(covariances[n, 2])
        yy, yz, zz = float(covariances[n, 3]), float(covariances[n, 4]), float(covariances[n, 5])
        trace = xx + yy + zz
        if not (trace > 0.0 and math.isfinite(trace + xy + xz + yz)):
            continue
        a[0, 0], a[0, 1], a[0, 2] = xx / trace, xy / trace, xz / trace
        a[1, 1], a[1, 2], a[2, 2] = yy / trace, yz / trace, zz / trace
        v[:] = 0.0
        v[0, 0] = v[1, 1] = v[2, 2] = 1.0
        for _ in range(_ROUNDS):
            if a[0, 1] * a[0, 1] + a[0, 2] * a[0, 2] + a[1, 2] * a[1, 2] < _DONE:
                break
            _turn(a, v, 0, 1, 2)
            _turn(a, v, 0, 2, 1)
            _turn(a, v, 1, 2, 0)
        least = 0
        if a[1, 1] < a[0, 0]:
            least = 1
        if a[2, 2] < a[least, least]:
            least = 2
        for c in range(3):
            axes[n, c] = v[c, least]


@njit(nogil=True, cache=True)
def _turn(a, v, p, q, r):  # pragma: no cover - compiled
    """Rotate in the plane (p, q), p < q, such that a[p, q] vanishes; r is the third axis."""
    apq = a[p, q]
    if apq == 0.0:
        return
    cotangent = (a[q, q] - a[p, p]) / (2.0 * apq)
    t = 1.0 / (abs(cotangent) + math.sqrt(1.0 + cotangent * cotangent))
    if cotangent < 0.0:
        t = -t
    c = 1.0 / math.sqrt(1.0 + t * t)
    s = t * c
    a[p, p] -= t * apq
    a[q, q] += t * apq
    a[p, q] = 0.0
    # Only the upper triangle is kept.
    p0, p1, q0, q1 = min(p, r), max(p, r), min(q, r), max(q, r)
    apr, aqr = a[p0, p1], a[q0, q1]
    a[p0, p1] = c * apr - s * aqr
    a[q0, q1] = s * apr + c * aqr
    for k in range(3):
        vp, vq = v[k, p], v[k, q]
        v[k, p] = c * vp - s * vq
        v[k, q] = s * vp + c * vq

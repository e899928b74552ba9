"""The VAS residual of one frame: a mixture of modes, added to every Gaussian's canonical attributes.

With weights w_r of R modes, bytes q_rna in [-127, 127] and reaches m_ra, attribute a of Gaussian n
changes by

    d_na = sum_r c_ra q_rna,    c_ra = w_r m_ra / 127,

and its mean becomes mu + d, its covariance that of the quaternion q + d and the scales s exp(d)
(C = R diag(s^2) R^T, ``kernels.shapes``), its colour and opacity their sums clipped to [0, 1].

Memory is what this costs, so modes stay bytes. Gaussians are packed by blocks of ``BLOCK``, inside
which each attribute is a row: every loop runs along a row and becomes vector instructions, and a
block is read from one place. exp(d) = 2^k exp(f) with |f| <= ln 2 / 2 and the Taylor polynomial of
degree 6, whose relative error there is 1.3e-7; |d| counts as at most 87. Each block is computed by
itself, so results do not depend on the number of threads.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasa3d.kernels.threads import run_chunks
from vasa3d.types import F32

BLOCK = 128
"""Gaussians of a block: what it reads, holds and writes stays in the first-level cache."""
ATTRIBUTES = 14
"""Mean 3, quaternion 4, (log) scale 3, colour 3, opacity 1."""

_CHUNK = 32
_QUAT, _SCALE, _COLOR, _OPACITY = 3, 7, 10, 13
_MAX_EXPONENT = np.float32(87.0)
_ROUNDER = np.float32(1.5 * 2**23)
"""Added to a float and taken away again, it rounds to an integer."""


def pack_rows(values: np.ndarray) -> np.ndarray:
    """Values (N, ..., 14) as blocks (ceil(N / BLOCK), ..., 14, BLOCK); zeros fill the last one."""
    count = len(values)
    blocks = -(-count // BLOCK)
    padded = np.zeros((blocks * BLOCK, *values.shape[1:]), values.dtype)
    padded[:count] = values
    return np.ascontiguousarray(
        np.moveaxis(padded.reshape(blocks, BLOCK, *values.shape[1:]), 1, -1)
    )


def add_residual(
    base: F32,
    modes: NDArray[np.int8],
    factors: F32,
    means: F32,
    covariances: F32,
    opacities: F32,
    colors: F32,
) -> None:
    """Canonical Gaussians with the residual of one frame.

    Args:
        base: (K, 14, BLOCK) of ``pack_rows``: mean, quaternion, scale, colour and opacity.
        modes: (K, R, 14, BLOCK) of ``pack_rows``.
        factors: (R, 14) what one unit of each mode and attribute changes.
        means: (N, 3) written.
        covariances: (N, 6) written.
        opacities: (N,) written.
        colors: (N, 3) written.
    """

    def add(start: int, stop: int) -> None:
        _add_blocks(start, stop, base, modes, factors, means, covariances, opacities, colors)

    run_chunks(add, len(base), _CHUNK)


@njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _add_blocks(
    start, stop, base, modes, factors, means, covs, opacities, colors
):  # pragma: no cover - compiled
    """Blocks ``start`` to ``stop``; arrays as in ``add_residual``."""
    rows = np.empty((ATTRIBUTES, BLOCK), np.float32)
    for block in range(start, stop):
        _mix(modes[block], factors, rows)
        _apply(base[block], rows)
        first = block * BLOCK
        for n in range(first, min(first + BLOCK, len(means))):
            i = n - first
            for j in range(3):
                means[n, j] = rows[j, i]
                colors[n, j] = rows[_COLOR + j, i]
            for j in range(6):
                covs[n, j] = rows[_QUAT + j, i]
            opacities[n] = rows[_OPACITY, i]


@njit(nogil=True, cache=True, fastmath={"contract"})
def _mix(modes, factors, rows):  # pragma: no cover - compiled
    """Write the change of a block's attributes (14, BLOCK) to ``rows``."""
    for a in range(ATTRIBUTES):
        row = rows[a]
        row[:] = np.float32(0.0)
        for r in range(len(factors)):
            factor, mode = factors[r, a], modes[r, a]
            if factor != np.float32(0.0):
                for i in range(BLOCK):
                    row[i] += factor * np.float32(mode[i])


@njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _apply(base, rows):  # pragma: no cover - compiled
    """Changes (14, BLOCK) in ``rows`` become means, covariances (in rows 3 to 8), colours, opacities."""
    one, two = np.float32(1.0), np.float32(2.0)
    for a in range(_QUAT):
        for i in range(BLOCK):
            rows[a, i] += base[a, i]
    for a in range(_COLOR, ATTRIBUTES):
        for i in range(BLOCK):
            value = rows[a, i] + base[a, i]
            # Comparisons in this order leave NaN, which is not drawn.
            value = np.float32(0.0) if value < np.float32(0.0) else value
            rows[a, i] = one if value > one else value
    for a in range(_SCALE, _COLOR):
        for i in range(BLOCK):
            rows[a, i] = base[a, i] * _exp(rows[a, i])
    for i in range(BLOCK):
        w, x = base[3, i] + rows[3, i], base[4, i] + rows[4, i]
        y, z = base[5, i] + rows[5, i], base[6, i] + rows[6, i]
        a, b, c = rows[7, i], rows[8, i], rows[9, i]
        s = two / (w * w + x * x + y * y + z * z)
        sx, sy, sz = s * x, s * y, s * z
        xx, xy, xz, wx = sx * x, sx * y, sx * z, sx * w
        yy, yz, wy, zz, wz = sy * y, sy * z, sy * w, sz * z, sz * w
        a0, a1, a2 = a * (one - (yy + zz)), a * (xy + wz), a * (xz - wy)
        b0, b1, b2 = b * (xy - wz), b * (one - (xx + zz)), b * (yz + wx)
        c0, c1, c2 = c * (xz + wy), c * (yz - wx), c * (one - (xx + yy))
        rows[3, i] = a0 * a0 + b0 * b0 + c0 * c0
        rows[4, i] = a0 * a1 + b0 * b1 + c0 * c1
        rows[5, i] = a0 * a2 + b0 * b2 + c0 * c2
        rows[6, i] = a1 * a1 + b1 * b1 + c1 * c1
        rows[7, i] = a1 * a2 + b1 * b2 + c1 * c2
        rows[8, i] = a2 * a2 + b2 * b2 + c2 * c2


@njit(nogil=True, cache=True, fastmath={"contract"})
def _exp(x):  # pragma: no cover - compiled
    """exp(x) in float32; NaN stays."""
    x = -_MAX_EXPONENT if x < -_MAX_EXPONENT else x
    x = _MAX_EXPONENT if x > _MAX_EXPONENT else x
    shifted = x * np.float32(1.4426950408889634) + _ROUNDER
    k = shifted - _ROUNDER
    # ln 2 in two parts, the first of few digits, so that k times it is exact.
    f = (x - k * np.float32(0.693359375)) - k * np.float32(-2.12194440e-4)
    p = np.float32(1.0 / 720.0)
    p = p * f + np.float32(1.0 / 120.0)
    p = p * f + np.float32(1.0 / 24.0)
    p = p * f + np.float32(1.0 / 6.0)
    p = p * f + np.float32(0.5)
    p = p * f + np.float32(1.0)
    p = p * f + np.float32(1.0)
    power = (np.float32(shifted).view(np.int32) - np.int32(0x4B400000 - 127)) << np.int32(23)
    return p * np.int32(power).view(np.float32)

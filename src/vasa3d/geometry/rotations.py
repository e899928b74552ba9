"""Rotations: axis-angle, matrices and unit quaternions.

Every function takes numpy arrays or torch tensors with any leading shape and returns the same kind
and dtype; with tensors they are differentiable, at the identity too. Axis-angle vectors r (..., 3)
are in radians, matrices R (..., 3, 3) act on column vectors, quaternions q (..., 4) are ordered w,
x, y, z.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

A = TypeVar("A")  # numpy array or torch tensor

SMALL_ANGLE_SQUARED = 1e-6
"""Below this squared angle the Taylor series is exact in float32 and in float64 to 1e-14."""


def axis_angle_to_matrix(axis_angle: A) -> A:
    """Rotation matrices of axis-angle vectors (Rodrigues' formula).

    Args:
        axis_angle: (..., 3) axis times angle, radians.

    Returns:
        (..., 3, 3) rotation matrices.
    """
    xp, r = _namespace(axis_angle), _any(axis_angle)
    squared = (r * r).sum(-1)
    small = squared < SMALL_ANGLE_SQUARED
    angle = xp.sqrt(xp.where(small, xp.ones_like(squared), squared))
    half_sine = xp.sin(angle * 0.5)
    # R = I + a [r] + b [r]^2 with a = sin(t)/t and b = (1 - cos t)/t^2
    a = xp.where(small, 1.0 - squared / 6.0 + squared * squared / 120.0, xp.sin(angle) / angle)
    b = xp.where(small, 0.5 - squared / 24.0, 2.0 * half_sine * half_sine / (angle * angle))
    x, y, z = r[..., 0], r[..., 1], r[..., 2]
    return _matrix(
        xp,
        (1.0 - b * (y * y + z * z), b * x * y - a * z, b * x * z + a * y),
        (b * x * y + a * z, 1.0 - b * (x * x + z * z), b * y * z - a * x),
        (b * x * z - a * y, b * y * z + a * x, 1.0 - b * (x * x + y * y)),
    )


def matrix_to_axis_angle(matrix: A) -> A:
    """Axis-angle vectors of rotation matrices, with angles in [0, pi].

    Args:
        matrix: (..., 3, 3) rotation matrices.

    Returns:
        (..., 3) axis times angle, radians. At exactly pi either of the two opposite axes may come
        back.
    """
    xp = _namespace(matrix)
    quat = _any(matrix_to_quat(matrix))
    w, vector = quat[..., 0], quat[..., 1:]
    squared = (vector * vector).sum(-1)
    small = squared < SMALL_ANGLE_SQUARED
    sine = xp.sqrt(xp.where(small, xp.ones_like(squared), squared))
    # angle / sin(angle / 2); the series is that of 2 asin(s) / s
    scale = xp.where(
        small,
        2.0 + squared / 3.0 + 0.15 * squared * squared,
        2.0 * xp.arctan2(sine, xp.where(small, xp.ones_like(w), w)) / sine,
    )
    return vector * scale[..., None]


def quat_to_matrix(quat: A) -> A:
    """Rotation matrices of quaternions, which need not be of unit length.

    Args:
        quat: (..., 4) quaternions, w first, not zero.

    Returns:
        (..., 3, 3) rotation matrices.
    """
    xp, q = _namespace(quat), _any(quat)
    s = 2.0 / (q * q).sum(-1)
    w, x, y, z = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return _matrix(
        xp,
        (1.0 - s * (y * y + z * z), s * (x * y - w * z), s * (x * z + w * y)),
        (s * (x * y + w * z), 1.0 - s * (x * x + z * z), s * (y * z - w * x)),
        (s * (x * z - w * y), s * (y * z + w * x), 1.0 - s * (x * x + y * y)),
    )


def matrix_to_quat(matrix: A) -> A:
    """Unit quaternions of rotation matrices, with w >= 0.

    Builds the rank-one matrix 4 q q^T from R and normalises its row of largest diagonal, so no
    angle is special (Bar-Itzhack 2000 uses the same matrix).

    Args:
        matrix: (..., 3, 3) rotation matrices.

    Returns:
        (..., 4) unit quaternions, w first.
    """
    xp, m = _namespace(matrix), _any(matrix)
    r00, r01, r02 = m[..., 0, 0], m[..., 0, 1], m[..., 0, 2]
    r10, r11, r12 = m[..., 1, 0], m[..., 1, 1], m[..., 1, 2]
    r20, r21, r22 = m[..., 2, 0], m[..., 2, 1], m[..., 2, 2]
    wx, wy, wz = r21 - r12, r02 - r20, r10 - r01
    xy, xz, yz = r01 + r10, r02 + r20, r12 + r21
    outer = _matrix(
        xp,
        (1.0 + r00 + r11 + r22, wx, wy, wz),
        (wx, 1.0 + r00 - r11 - r22, xy, xz),
        (wy, xy, 1.0 - r00 + r11 - r22, yz),
        (wz, xz, yz, 1.0 - r00 - r11 + r22),
    ).reshape(-1, 4, 4)
    best = xp.stack([outer[:, i, i] for i in range(4)], axis=-1).argmax(-1)
    row = outer[xp.arange(len(outer)), best]
    quat = row / xp.sqrt((row * row).sum(-1))[:, None]
    quat = xp.where(quat[:, :1] < 0.0, -quat, quat)
    return quat.reshape(*m.shape[:-2], 4)


def quat_multiply(left: A, right: A) -> A:
    """Hamilton product: the rotation ``right`` followed by ``left``.

    Args:
        left: (..., 4) quaternions, w first.
        right: (..., 4) quaternions; leading shapes broadcast.

    Returns:
        (..., 4) products.
    """
    xp, p, q = _namespace(left), _any(left), _any(right)
    pw, px, py, pz = p[..., 0], p[..., 1], p[..., 2], p[..., 3]
    qw, qx, qy, qz = q[..., 0], q[..., 1], q[..., 2], q[..., 3]
    return xp.stack(
        [
            pw * qw - px * qx - py * qy - pz * qz,
            pw * qx + px * qw + py * qz - pz * qy,
            pw * qy - px * qz + py * qw + pz * qx,
            pw * qz + px * qy - py * qx + pz * qw,
        ],
        axis=-1,
    )


def _namespace(value: Any) -> Any:
    """numpy, or torch for tensors; torch takes seconds to import and arrays do not need it."""
    if isinstance(value, np.ndarray):
        return np
    import torch

    if not isinstance(value, torch.Tensor):
        raise TypeError(f"expected a numpy array or a torch tensor, got {type(value).__name__}")
    return torch


def _any(value: Any) -> Any:
    """The value untyped: numpy and torch share the operations used here, but no static type."""
    return value


def _matrix(xp: Any, *rows: tuple[Any, ...]) -> Any:
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)

"""Covariances of Gaussians as rotations and scales, and back.

A covariance is C = R diag(s^2) R^T with the rotation R of a unit quaternion (w first) and standard
deviations s in metres. Arrays hold its upper triangle: xx, xy, xz, yy, yz, zz.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vasa3d.geometry.rotations import matrix_to_quat, quat_to_matrix
from vasa3d.types import F32

_UPPER = (np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 1, 2, 2]))


def build_covariances(quats: F32, scales: F32) -> F32:
    """(N, 6) covariances xx, xy, xz, yy, yz, zz of quaternions (N, 4) and scales (N, 3)."""
    factor = quat_to_matrix(quats) * scales[:, None, :]
    full = factor @ np.swapaxes(factor, 1, 2)
    return np.ascontiguousarray(full[:, _UPPER[0], _UPPER[1]], np.float32)


def unpack_covariances(covariances: F32) -> NDArray[np.float64]:
    """(N, 3, 3) float64 symmetric matrices of covariances (N, 6)."""
    full = np.empty((len(covariances), 3, 3), np.float64)
    full[:, _UPPER[0], _UPPER[1]] = covariances
    full[:, _UPPER[1], _UPPER[0]] = covariances
    return full


def split_covariances(covariances: F32) -> tuple[F32, F32]:
    """Quaternions (N, 4) and scales (N, 3) of covariances (N, 6); the inverse of ``build_covariances``."""
    values, vectors = np.linalg.eigh(unpack_covariances(covariances))
    vectors[np.linalg.det(vectors) < 0, :, 0] *= -1.0
    scales = np.sqrt(np.maximum(values, 1e-14))
    return matrix_to_quat(vectors).astype(np.float32), scales.astype(np.float32)


def transform_covariances(covariances: F32, linear: F32) -> F32:
    """(N, 6) of L C L^T for maps L (N, 3, 3)."""
    moved = linear @ unpack_covariances(covariances) @ np.swapaxes(linear, 1, 2)
    return moved[:, _UPPER[0], _UPPER[1]].astype(np.float32)

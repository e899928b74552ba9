"""Real spherical harmonics up to degree 3, with the signs of 3D Gaussian splatting.

With the complex harmonics Y_l^m of physics (orthonormal, Condon-Shortley phase included), the basis
holds, for each degree l, the orders m = -l .. l in turn:

    sqrt(2) Im Y_l^|m|  for m < 0,    Y_l^0,    sqrt(2) Re Y_l^m  for m > 0,

as polynomials of a unit vector (x, y, z). Kerbl et al. 2023 colour a Gaussian by
c = max(0, 1/2 + sum_k sh_k B_k(d)) with d from the camera's centre towards the Gaussian.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np

from vasa3d.types import F32

MAX_DEGREE = 3

CONSTANT = sqrt(1 / (4 * pi))
"""Value of the basis function of degree 0."""

_LINEAR = sqrt(3 / (4 * pi))
_PRODUCT, _ZONAL_2, _SQUARES = sqrt(15 / (4 * pi)), sqrt(5 / (16 * pi)), sqrt(15 / (16 * pi))
_CUBE, _TRIPLE, _MIXED = sqrt(35 / (32 * pi)), sqrt(105 / (4 * pi)), sqrt(21 / (32 * pi))
_ZONAL_3, _TILTED = sqrt(7 / (16 * pi)), sqrt(105 / (16 * pi))


def harmonic_basis(directions: F32, degree: int) -> F32:
    """The basis functions at unit vectors.

    Args:
        directions: (N, 3) unit vectors.
        degree: 0 to ``MAX_DEGREE``.

    Returns:
        (N, (degree + 1)^2) float32.
    """
    if not 0 <= degree <= MAX_DEGREE:
        raise ValueError(f"degree must lie in 0 to {MAX_DEGREE}, got {degree}")
    x, y, z = np.asarray(directions, np.float32).T
    xx, yy, zz = x * x, y * y, z * z
    columns = [np.full_like(x, CONSTANT)]
    if degree >= 1:
        columns += [-_LINEAR * y, _LINEAR * z, -_LINEAR * x]
    if degree >= 2:
        columns += [
            _PRODUCT * x * y,
            -_PRODUCT * y * z,
            _ZONAL_2 * (2.0 * zz - xx - yy),
            -_PRODUCT * x * z,
            _SQUARES * (xx - yy),
        ]
    if degree >= 3:
        columns += [
            -_CUBE * y * (3.0 * xx - yy),
            _TRIPLE * x * y * z,
            -_MIXED * y * (4.0 * zz - xx - yy),
            _ZONAL_3 * z * (2.0 * zz - 3.0 * xx - 3.0 * yy),
            -_MIXED * x * (4.0 * zz - xx - yy),
            _TILTED * z * (xx - yy),
            -_CUBE * x * (xx - 3.0 * yy),
        ]
    return np.stack(columns, axis=1).astype(np.float32)

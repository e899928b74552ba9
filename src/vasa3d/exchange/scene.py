"""A scene of Gaussians whose colours depend on the direction they are seen from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vasa3d.exchange.harmonics import MAX_DEGREE, harmonic_basis
from vasa3d.geometry.cameras import camera_center, intrinsics, look_at
from vasa3d.geometry.covariances import build_covariances
from vasa3d.types import F32, Camera, GaussianCloud, check_array

_HALF_VIEW = math.radians(15.0)
"""Half the field of view of a scene's front camera."""


@dataclass(frozen=True)
class SplatScene:
    """Gaussians as 3D Gaussian splatting keeps them, in the frame and units of their file.

    Attributes:
        means: (N, 3) float32 centres.
        quats: (N, 4) float32 unit quaternions wxyz.
        scales: (N, 3) float32 standard deviations along the local axes.
        opacities: (N,) float32 in [0, 1].
        sh: (N, K, 3) float32 coefficients of ``harmonics.harmonic_basis`` for red, green and blue;
            K is 1, 4, 9 or 16.
    """

    means: F32
    quats: F32
    scales: F32
    opacities: F32
    sh: F32

    def __post_init__(self) -> None:
        n = len(self.means)
        check_array("means", self.means, (n, 3))
        check_array("quats", self.quats, (n, 4))
        check_array("scales", self.scales, (n, 3))
        check_array("opacities", self.opacities, (n,))
        check_array("sh", self.sh, (n, None, 3))
        if self.sh.shape[1] not in [(degree + 1) ** 2 for degree in range(MAX_DEGREE + 1)]:
            raise ValueError(f"sh must have 1, 4, 9 or 16 coefficients, got {self.sh.shape[1]}")

    def __len__(self) -> int:
        return len(self.means)

    @property
    def degree(self) -> int:
        """Degree of the harmonics, 0 for colours that are the same from everywhere."""
        return math.isqrt(self.sh.shape[1]) - 1

    @cached_property
    def covariances(self) -> F32:
        """(N, 6) upper triangles xx, xy, xz, yy, yz, zz."""
        return build_covariances(self.quats, self.scales)

    def seen_from(self, camera: Camera) -> GaussianCloud:
        """The scene with the colours that a camera sees; they are at least 0 and may pass 1."""
        rays = self.means - camera_center(camera)
        rays /= np.maximum(np.linalg.norm(rays, axis=1, keepdims=True), 1e-12)
        colors = np.einsum("nk,nkc->nc", harmonic_basis(rays, self.degree), self.sh) + 0.5
        return GaussianCloud(
            self.means, self.covariances, self.opacities, np.maximum(colors, 0.0, dtype=np.float32)
        )

    @cached_property
    def middle(self) -> F32:
        """(3,) point that most of the scene lies around: the median of the centres."""
        if not len(self):
            return np.zeros(3, np.float32)
        return np.median(self.means, axis=0).astype(np.float32)

    def front_camera(self, size: int) -> Camera:
        """A square camera on the +z side that looks at the scene, its y axis upwards.

        Args:
            size: Side of the picture in pixels.
        """
        reach = 1.0
        if len(self):
            reach = float(np.quantile(np.linalg.norm(self.means - self.middle, axis=1), 0.95))
        # Far from the origin, float32 does not tell near points apart.
        least = max(1e-2, 1e-5 * float(np.abs(self.middle).max()))
        distance = max(reach, least) / math.sin(_HALF_VIEW)
        eye = self.middle + np.array([0.0, 0.0, distance], np.float32)
        focal = 0.5 * size / math.tan(_HALF_VIEW)
        return Camera(look_at(eye, self.middle), intrinsics(focal, size, size), size, size)

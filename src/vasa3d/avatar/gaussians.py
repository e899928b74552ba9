"""Gaussians of an avatar in canonical space, and what each is bound to.

Canonical space is the person's own head with lids and jaw half open (``portrait.fitting.unfolded_expression``):
there no triangle is folded away, so every Gaussian has a well-conditioned shape. The first S Gaussians ride on
triangles of the head (skin, eyes, teeth, tongue, mouth cavity); the rest form the layer (hair, clothes, shoulders)
that follows the joints with smooth weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vasa3d.geometry.covariances import build_covariances
from vasa3d.types import F32, I32, check_array


@dataclass(frozen=True)
class Gaussians:
    """Canonical Gaussians.

    Attributes:
        means: (N, 3) float32 centres, metres.
        quats: (N, 4) float32 unit quaternions wxyz.
        scales: (N, 3) float32 standard deviations along the local axes, metres.
        opacities: (N,) float32 in [0, 1].
        colors: (N, 3) float32 sRGB in [0, 1].
        triangles: (S,) int32 triangle of each surface Gaussian, S <= N.
        layer_weights: (N - S, J) float32 joint weights of the layer, rows sum to 1.
    """

    means: F32
    quats: F32
    scales: F32
    opacities: F32
    colors: F32
    triangles: I32
    layer_weights: F32

    def __post_init__(self) -> None:
        n = len(self.means)
        check_array("means", self.means, (n, 3))
        check_array("quats", self.quats, (n, 4))
        check_array("scales", self.scales, (n, 3))
        check_array("opacities", self.opacities, (n,))
        check_array("colors", self.colors, (n, 3))
        check_array("triangles", self.triangles, (None,), np.int32)
        check_array("layer_weights", self.layer_weights, (n - len(self.triangles), None))

    def __len__(self) -> int:
        return len(self.means)

    @property
    def num_surface(self) -> int:
        """Gaussians bound to triangles; they come first."""
        return len(self.triangles)

    def covariances(self) -> F32:
        """(N, 6) upper triangles of R diag(s^2) R^T."""
        return build_covariances(self.quats, self.scales)

"""What the renderer computes, written plainly in float64 torch: specification and measure of the
kernels.

Symbols as in ``projection`` and ``rasterization``. Every Gaussian is evaluated at every pixel, so
memory is N H W and this is for small pictures. Differentiable in every input but for the culling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch

from vasa3d.kernels.projection import (
    ALPHA_CAP,
    ALPHA_FLOOR,
    CLAMP_MARGIN,
    LOW_PASS,
)
from vasa3d.types import Camera


@dataclass(frozen=True)
class ReferenceSplats:
    """Splats of all N Gaussians.

    Attributes:
        means: (N, 2) pixels.
        covariances: (N, 2, 2) square pixels, low-pass included.
        depths: (N,) metres.
        opacities: (N,) at most 1, compensated for the low-pass where antialiasing is asked for.
        drawn: (N,) bool; the other values mean nothing where it is false.
    """

    means: torch.Tensor
    covariances: torch.Tensor
    depths: torch.Tensor
    opacities: torch.Tensor
    drawn: torch.Tensor


def reference_project(
    means: torch.Tensor,
    covariances: torch.Tensor,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    camera: Camera,
    *,
    viewmat: torch.Tensor | None = None,
    near: float = 0.05,
    far: float = math.inf,
    antialias: bool = False,
) -> ReferenceSplats:
    """EWA projection.

    Args:
        means: (N, 3) float64 world metres.
        covariances: (N, 6) float64 upper triangles, square metres.
        opacities: (N,) float64.
        colors: (N, 3) float64; only looked at for values that are not finite.
        camera: The camera.
        viewmat: (4, 4) float64 in place of the camera's own, to differentiate by.
        near: Least depth of a drawn centre, metres.
        far: Largest depth of a drawn centre, metres.
        antialias: Whether to compensate opacities for the low-pass.
    """
    view = torch.from_numpy(camera.viewmat).double() if viewmat is None else viewmat
    k = torch.from_numpy(camera.K).double()
    rotation, translation = view[:3, :3], view[:3, 3]
    local = means @ rotation.T + translation
    depths = local[:, 2]
    pixels = local @ k.T
    pixels = pixels[:, :2] / depths[:, None]

    size = torch.tensor([camera.width, camera.height], dtype=torch.float64)
    focal, centre = torch.diagonal(k)[:2], k[:2, 2]
    margin = CLAMP_MARGIN * 0.5 * size / focal
    slope = local[:, :2] / depths[:, None]
    slope = torch.minimum(
        torch.maximum(slope, -centre / focal - margin), (size - centre) / focal + margin
    )
    # Derivative of (x / z, y / z) by (x, y, z), then of the pixel by that.
    by_point = torch.zeros(len(means), 2, 3, dtype=torch.float64)
    by_point[:, 0, 0] = by_point[:, 1, 1] = 1.0
    by_point[:, :, 2] = -slope
    jacobian = k[:2, :2] @ (by_point / depths[:, None, None]) @ rotation

    full = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    sharp = jacobian @ full @ jacobian.mT
    flat = sharp + LOW_PASS * torch.eye(2, dtype=torch.float64)
    shown = opacities.clamp(max=1.0)
    if antialias:
        share = torch.linalg.det(sharp).clamp(min=0.0) / torch.linalg.det(flat)
        # The root has no finite slope at 0, where the splat is not drawn anyway.
        shown = torch.where(share > 0.0, shown * share.clamp(min=1e-30).sqrt(), 0.0)
    finite = torch.isfinite(means).all(1) & torch.isfinite(flat).all(2).all(1)
    finite &= torch.isfinite(colors).all(1) & torch.isfinite(opacities)
    positive = (torch.diagonal(full, dim1=1, dim2=2) >= 0.0).all(1)
    positive &= (torch.diagonal(flat, dim1=1, dim2=2) > 0.0).all(1) & (torch.linalg.det(flat) > 0.0)
    drawn = finite & positive & (depths >= near) & (depths <= far) & (shown >= ALPHA_FLOOR)
    return ReferenceSplats(pixels, flat, depths, shown, drawn)


def reference_weights(
    means: torch.Tensor,
    covariances: torch.Tensor,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    camera: Camera,
    **options: Any,
) -> torch.Tensor:
    """(N, H, W) blend weight of every Gaussian at every pixel; arguments as for ``reference_project``."""
    splats = reference_project(means, covariances, opacities, colors, camera, **options)
    ys, xs = torch.meshgrid(
        torch.arange(camera.height, dtype=torch.float64) + 0.5,
        torch.arange(camera.width, dtype=torch.float64) + 0.5,
        indexing="ij",
    )
    nearest_first = torch.argsort(splats.depths.float(), stable=True)
    nearest_first = nearest_first[splats.drawn[nearest_first]]
    x, y = splats.means[nearest_first].T[:, :, None, None]
    across, down = xs - x, ys - y
    inverse = torch.linalg.inv(splats.covariances[nearest_first])[:, :, :, None, None]
    q = 0.5 * (inverse[:, 0, 0] * across**2 + inverse[:, 1, 1] * down**2)
    q = q + 0.5 * (inverse[:, 0, 1] + inverse[:, 1, 0]) * across * down
    raw = splats.opacities[nearest_first, None, None] * torch.exp(-q)
    alpha = torch.where(raw >= ALPHA_FLOOR, raw.clamp(max=ALPHA_CAP), 0.0)
    left = torch.cumprod(torch.cat([torch.ones_like(xs)[None], 1.0 - alpha]), 0)[:-1]
    weights = torch.zeros(len(means), *xs.shape, dtype=torch.float64)
    return weights.index_put((nearest_first,), alpha * left)


def reference_render(
    means: torch.Tensor,
    covariances: torch.Tensor,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    camera: Camera,
    **options: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw Gaussians; arguments as for ``reference_project``.

    Returns:
        rgb (H, W, 3) premultiplied, alpha (H, W), and expected depth (H, W), 0 where alpha is 0.
    """
    splats = reference_project(means, covariances, opacities, colors, camera, **options)
    weights = reference_weights(means, covariances, opacities, colors, camera, **options)
    drawn = splats.drawn
    rgb = torch.einsum("nhw,nc->hwc", weights[drawn], colors[drawn])
    alpha = weights.sum(0)
    depth = torch.einsum("nhw,n->hw", weights[drawn], splats.depths[drawn])
    return rgb, alpha, torch.where(alpha > 0.0, depth / alpha.clamp(min=1e-12), 0.0)


def reference_normals(
    means: torch.Tensor,
    covariances: torch.Tensor,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    camera: Camera,
    **options: Any,
) -> torch.Tensor:
    """Normals of the surface; arguments as for ``reference_project``.

    Each Gaussian's shortest axis, with the sign that turns it towards the camera's centre, is
    blended as a colour would be.

    Returns:
        (H, W, 3) unit vectors in the world frame, 0 where nothing is drawn.
    """
    drawn = reference_project(means, covariances, opacities, colors, camera, **options).drawn
    full = covariances[drawn][:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    axes = torch.linalg.eigh(full)[1][:, :, 0]
    view = torch.from_numpy(camera.viewmat).double()
    centre = -view[:3, :3].T @ view[:3, 3]
    away = ((centre - means[drawn]) * axes).sum(1, keepdim=True) < 0.0
    weights = reference_weights(means, covariances, opacities, colors, camera, **options)
    blended = torch.einsum("nhw,nc->hwc", weights[drawn], torch.where(away, -axes, axes))
    return torch.nn.functional.normalize(blended, dim=-1)

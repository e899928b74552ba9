"""What the kernels of an optimisation compute, in torch's own operations, for tensors that compiled code cannot reach.

``shapes``, ``posing`` and ``similarity`` hold the equations; values and gradients here are theirs up to rounding, and
follow from torch's differentiation. Nothing here waits for a GPU, so that its work can be queued ahead.
"""

from __future__ import annotations

from functools import lru_cache

import torch

from vasa3d.kernels.similarity import C1, C2, RADIUS, WINDOW


def is_needed(tensor: torch.Tensor) -> bool:
    """Whether a tensor lies elsewhere than in the processor's memory, where the kernels work."""
    return tensor.device.type != "cpu"


def full_matrices(upper: torch.Tensor) -> torch.Tensor:
    """(N, 3, 3) symmetric matrices from upper triangles (N, 6) xx, xy, xz, yy, yz, zz."""
    xx, xy, xz, yy, yz, zz = upper.unbind(1)
    return torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).view(-1, 3, 3)


def shape_covariances(quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Covariances (N, 6) of Gaussians; see ``shapes``.

    Args:
        quats: (N, 4) quaternions wxyz of any length; without direction the covariance is NaN and has no gradients.
        scales: (N, 3) standard deviations, metres.
    """
    largest = quats.detach().abs().amax(1, keepdim=True)  # squares of small components would vanish
    good = largest.isfinite() & (largest > 0.0)
    straight = torch.zeros_like(quats)
    straight[:, 0] = 1.0
    sound = torch.where(good, quats, straight) / torch.where(good, largest, 1.0)
    unit = torch.nn.functional.normalize(sound, dim=1)
    w, x, y, z = unit.unbind(1)
    columns = torch.stack(
        [
            1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y),
            2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x),
            2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y),
        ],
        1,
    )  # fmt: skip
    factor = columns.view(-1, 3, 3) * scales[:, None]
    return torch.where(good, _upper(factor @ factor.mT), torch.nan)


def pose_gaussians(
    means: torch.Tensor,
    covariances: torch.Tensor,
    triangles: torch.Tensor,
    triangle_maps: torch.Tensor,
    layer_weights: torch.Tensor,
    joint_maps: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posed means (N, 3) and covariances (N, 6); see ``posing``, whose arguments these are."""
    surface = triangle_maps.index_select(0, triangles)
    layer = (layer_weights @ joint_maps.flatten(1)).view(-1, 3, 4)
    maps = torch.cat([surface, layer])
    linear, shift = maps[:, :, :3], maps[:, :, 3]
    posed = (linear @ means[:, :, None])[:, :, 0] + shift
    return posed, _upper(linear @ full_matrices(covariances) @ linear.mT)


class Similarity:
    """Structural similarity to a target; see ``similarity``.

    Args:
        target: (H, W, 3).
        weights: (H, W) how much each pixel counts; all alike when ``None``. Not looked at: that would wait for the GPU.
    """

    def __init__(self, target: torch.Tensor, weights: torch.Tensor | None) -> None:
        self._target = target.detach().permute(2, 0, 1) - 0.5
        self._mean, self._square = _windows(torch.stack([self._target, self._target**2]))
        self._weights: torch.Tensor | None = None
        if weights is not None:
            inside = weights.detach()[RADIUS:-RADIUS, RADIUS:-RADIUS]
            self._weights = inside / (3.0 * inside.sum())

    def __call__(self, picture: torch.Tensor) -> torch.Tensor:
        """Scalar of a picture (H, W, 3)."""
        x, y = picture.permute(2, 0, 1) - 0.5, self._target
        mean, square, mixed = _windows(torch.stack([x, x * x, x * y]))
        a, b = mean + 0.5, self._mean + 0.5
        above = (2.0 * a * b + C1) * (2.0 * (mixed - mean * self._mean) + C2)
        spread = square - mean * mean + self._square - self._mean * self._mean
        value = above / ((a * a + b * b + C1) * (spread + C2))
        return value.mean() if self._weights is None else (value * self._weights).sum()


def _upper(full: torch.Tensor) -> torch.Tensor:
    """(N, 6) upper triangles of symmetric matrices (N, 3, 3)."""
    xx, xy, xz, _, yy, yz, _, _, zz = full.flatten(1).unbind(1)
    return torch.stack([xx, xy, xz, yy, yz, zz], 1)


def _windows(pictures: torch.Tensor) -> torch.Tensor:
    """(K, 3, H - 10, W - 10) weighted means of pictures (K, 3, H, W) over windows.

    Products of matrices, which stay float32 where convolutions on a GPU would round to fewer digits.
    """
    height, width = pictures.shape[-2:]
    return _band(height, pictures.device) @ pictures @ _band(width, pictures.device).T


@lru_cache(maxsize=16)
def _band(side: int, device: torch.device) -> torch.Tensor:
    """(side - 10, side) weights of the windows of a line."""
    inside = side - 2 * RADIUS
    matrix = torch.zeros(inside, side)
    for step, weight in enumerate(WINDOW):
        matrix.diagonal(step).copy_(torch.full((inside,), weight))
    return matrix.to(device)

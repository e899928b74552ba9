"""Shape and posing of an avatar's Gaussians as differentiable functions of torch tensors.

They stand here and not in the renderer, which knows Gaussians of the world by their covariances
only: rotations and scales, triangles and joints that carry Gaussians are the avatar's. On the CPU,
results and gradients do not depend on the number of threads, and each function can be
differentiated once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from vasa3d.kernels import plain
from vasa3d.kernels.posing import differentiate_posing, pose_gaussians
from vasa3d.kernels.shapes import differentiate_shapes, shape_covariances
from vasa3d.types import F32, I32


def covariances_from(quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Covariances R diag(s^2) R^T; ``kernels.shapes`` holds the equations.

    Args:
        quats: (N, 4) float32 quaternions wxyz of any length. One that is zero or not finite has a
            covariance of NaN, which is not drawn, and no gradients.
        scales: (N, 3) float32 standard deviations, metres, on the same device.

    Returns:
        (N, 6) xx, xy, xz, yy, yz, zz, square metres.

    Raises:
        ValueError: A tensor has another shape, type or device.
    """
    _check("quats", quats, (len(quats), 4), quats.device)
    _check("scales", scales, (len(quats), 3), quats.device)
    if plain.is_needed(quats):
        return plain.shape_covariances(quats, scales)
    return _Shape.apply(quats, scales)


def pose_tensors(
    means: torch.Tensor,
    covariances: torch.Tensor,
    triangle_maps: torch.Tensor,
    joint_maps: torch.Tensor,
    triangles: I32 | torch.Tensor,
    layer_weights: F32 | torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Move canonical Gaussians into a pose; ``kernels.posing`` holds the equations.

    Args:
        means: (N, 3) float32 canonical centres, metres; all others are on the same device.
        covariances: (N, 6) float32 canonical covariances, square metres.
        triangle_maps: (F, 3, 4) float32 map of each triangle, canonical to posed.
        joint_maps: (J, 3, 4) float32 map of each joint, canonical to posed.
        triangles: (S,) int32 triangle of the first S Gaussians.
        layer_weights: (N - S, J) float32 joint weights of the remaining Gaussians, constant.

    Returns:
        Posed means (N, 3) and covariances (N, 6).

    Raises:
        ValueError: A tensor has another shape, type or device, or, on the CPU, a triangle has no
            map.
    """
    count, surface = len(means), len(triangles)
    for name, value, shape in (
        ("means", means, (count, 3)), ("covariances", covariances, (count, 6)),
        ("triangle_maps", triangle_maps, (len(triangle_maps), 3, 4)),
        ("joint_maps", joint_maps, (layer_weights.shape[1], 3, 4)),
    ):  # fmt: skip
        _check(name, value, shape, means.device)
    if len(layer_weights) != count - surface:
        raise ValueError(
            f"layer_weights must have {count - surface} rows, got {len(layer_weights)}"
        )
    if plain.is_needed(means):
        on, weights = (torch.as_tensor(v, device=means.device) for v in (triangles, layer_weights))
        return plain.pose_gaussians(means, covariances, on, triangle_maps, weights, joint_maps)
    triangles, layer_weights = np.asarray(triangles), np.asarray(layer_weights)
    if surface and not 0 <= triangles.min() <= triangles.max() < len(triangle_maps):
        raise ValueError(f"triangles must lie in [0, {len(triangle_maps)})")
    return _Pose.apply(means, covariances, triangle_maps, joint_maps, triangles, layer_weights)


def _check(name: str, value: torch.Tensor, shape: tuple[int, ...], device: torch.device) -> None:
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if value.dtype != torch.float32 or value.device != device:
        raise ValueError(f"{name} must be float32 on {device}, got {value.dtype} on {value.device}")


class _Shape(torch.autograd.Function):
    """``covariances_from`` with its derivative."""

    @staticmethod
    def forward(ctx: Any, quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(quats, scales)
        covariances = np.empty((len(quats), 6), np.float32)
        shape_covariances(_array(quats), _array(scales), covariances)
        return torch.from_numpy(covariances)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        quats, scales = (_array(value) for value in ctx.saved_tensors)
        by_quats, by_scales = np.empty_like(quats), np.empty_like(scales)
        differentiate_shapes(quats, scales, _array(grads[0]), by_quats, by_scales)
        return torch.from_numpy(by_quats), torch.from_numpy(by_scales)


class _Pose(torch.autograd.Function):
    """``pose_tensors`` with its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        means: torch.Tensor,
        covariances: torch.Tensor,
        triangle_maps: torch.Tensor,
        joint_maps: torch.Tensor,
        triangles: I32,
        layer_weights: F32,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(means, covariances, triangle_maps, joint_maps)
        ctx.binding = triangles, layer_weights
        m, c, by_triangle, by_joint = (
            _array(value) for value in (means, covariances, triangle_maps, joint_maps)
        )
        posed, turned = np.empty_like(m), np.empty_like(c)
        pose_gaussians(m, c, triangles, by_triangle, layer_weights, by_joint, posed, turned)
        return torch.from_numpy(posed), torch.from_numpy(turned)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        triangles, layer_weights = ctx.binding
        means, covariances, triangle_maps, joint_maps = (_array(v) for v in ctx.saved_tensors)
        by_means, by_covariances = (_array(value) for value in grads)
        results = np.empty_like(means), np.empty_like(covariances)
        maps = None, None
        if ctx.needs_input_grad[2] or ctx.needs_input_grad[3]:
            maps = np.empty_like(triangle_maps), np.empty_like(joint_maps)
        differentiate_posing(
            means, covariances, triangles, triangle_maps, layer_weights, joint_maps,
            by_means, by_covariances, *results, *maps,
        )  # fmt: skip
        return (
            *(None if v is None else torch.from_numpy(v) for v in (*results, *maps)), None, None,
        )  # fmt: skip


def _array(tensor: torch.Tensor) -> F32:
    return np.ascontiguousarray(tensor.detach().numpy())

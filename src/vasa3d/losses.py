"""Losses between pictures, differentiable and fast enough not to matter beside drawing.

Pictures are (H, W, 3) float32 tensors with values in [0, 1], all on one device. On the CPU, results and gradients do
not depend on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from vasa3d.kernels import plain
from vasa3d.kernels.similarity import (
    MARGIN,
    RADIUS,
    compare_rows,
    differentiate_rows,
    empty_fields,
    target_moments,
)
from vasa3d.kernels.threads import run_chunks
from vasa3d.types import F32

_ROWS = 16


class SsimTarget:
    """A picture to be approached, with what ``ssim`` needs of it computed once.

    Args:
        picture: (H, W, 3) target, at least 11 pixels on each side.
        weights: (H, W) how much each pixel's similarity counts, not negative; all alike when
            ``None``. Pixels nearer than 5 to an edge do not count, as their window is cut.

    Raises:
        ValueError: Shape or type are wrong, or, on the CPU, no weight is positive.
    """

    def __init__(self, picture: torch.Tensor, weights: torch.Tensor | None = None) -> None:
        _check_picture("target", picture)
        height, width = picture.shape[:2]
        if min(height, width) <= 2 * RADIUS:
            raise ValueError(f"pictures must have at least 11 pixels a side, got {(height, width)}")
        if weights is not None and (
            weights.shape != (height, width) or weights.dtype != torch.float32
        ):
            raise ValueError(f"weights must be ({height}, {width}) float32")
        self.shape, self.device = (height, width, 3), picture.device
        self.plain: plain.Similarity | None = None
        if plain.is_needed(picture):
            self.plain = plain.Similarity(picture, weights)
            return
        self.rows = _rows(picture).copy()
        self.moments = np.empty((2, height, 3 * width), np.float32)
        run_chunks(
            lambda start, stop: target_moments(
                start + RADIUS, stop + RADIUS, self.rows, self.moments
            ),
            height - 2 * RADIUS,
            _ROWS,
        )
        self.weights: F32 | None = None
        self.total = 3.0 * (height - 2 * RADIUS) * (width - 2 * RADIUS)
        if weights is not None:
            self.weights = np.repeat(weights.detach().numpy(), 3, axis=1)
            inside = self.weights[RADIUS:-RADIUS, MARGIN:-MARGIN]
            self.total = float(inside.sum(dtype=np.float64))
            if not (inside.min() >= 0.0 and self.total > 0.0):
                raise ValueError("weights must not be negative, and one must be positive")


def ssim(picture: torch.Tensor, target: SsimTarget) -> torch.Tensor:
    """Structural similarity, as ``metrics.ssim`` defines it without a mask.

    Gaussian window of 11 x 11 (sigma 1.5), K = (0.01, 0.03), range 1, averaged over channels and
    the pixels whose window lies inside the picture (``kernels.similarity``). A loss is 1 - ssim.

    Args:
        picture: (H, W, 3); the gradient goes here.
        target: What it is compared with.

    Returns:
        Scalar, at most 1. Can be differentiated once.

    Raises:
        ValueError: Shape or type are wrong.
    """
    _check_picture("picture", picture)
    if picture.shape != target.shape:
        raise ValueError(f"picture must have shape {target.shape}, got {tuple(picture.shape)}")
    if picture.device != target.device:
        raise ValueError(f"picture must be on {target.device}, got {picture.device}")
    if target.plain is not None:
        return target.plain(picture)
    return _Ssim.apply(picture, target)


def l1(
    picture: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean absolute difference over channels and pixels.

    Args:
        picture: (H, W, 3).
        target: (H, W, 3), constant.
        weights: (H, W) how much each pixel counts; all alike when ``None``.

    Returns:
        Scalar: the sum of weights times differences by three times the sum of weights.
    """
    difference = (picture - target.detach()).abs()
    if weights is None:
        return difference.mean()
    return (difference * weights[:, :, None]).sum() / (3.0 * weights.sum())


class _Ssim(torch.autograd.Function):
    """``ssim`` with its derivative."""

    @staticmethod
    def forward(ctx: Any, picture: torch.Tensor, target: SsimTarget) -> torch.Tensor:
        x = _rows(picture)
        height, row = x.shape
        similarity = np.zeros(height, np.float64)
        fields = empty_fields(height, row) if ctx.needs_input_grad[0] else None
        run_chunks(
            lambda start, stop: compare_rows(
                start + RADIUS, stop + RADIUS, x, target.rows, target.moments, target.weights,
                similarity, fields,
            ),
            height - 2 * RADIUS,
            _ROWS,
        )  # fmt: skip
        ctx.save_for_backward(picture)
        ctx.fields, ctx.target = fields, target
        return picture.new_tensor(similarity.sum() / target.total)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (picture,), target = ctx.saved_tensors, ctx.target
        x, scale = _rows(picture), np.float32(float(grads[0]) / target.total)
        grad = np.empty_like(x)
        run_chunks(
            lambda start, stop: differentiate_rows(
                start, stop, x, target.rows, ctx.fields, scale, grad
            ),
            len(x),
            _ROWS,
        )
        return torch.from_numpy(grad.reshape(target.shape)), None


def _rows(picture: torch.Tensor) -> F32:
    """(H, 3 W) values of a picture."""
    return np.ascontiguousarray(picture.detach().numpy()).reshape(len(picture), -1)


def _check_picture(name: str, picture: torch.Tensor) -> None:
    if picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"{name} must have shape (H, W, 3), got {tuple(picture.shape)}")
    if picture.dtype != torch.float32:
        raise ValueError(f"{name} must be float32, got {picture.dtype}")

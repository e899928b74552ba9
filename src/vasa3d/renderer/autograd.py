"""Drawing as a differentiable function of torch tensors.

On the CPU the picture is that of ``drawing``, to the last bit, the derivative is that of
``kernels.gradients``, and nothing depends on the number of threads. Tensors on a GPU are drawn and
differentiated by gsplat (``cuda``), whose sums are in no fixed order.

A loop that draws and differentiates should give torch itself one thread (``torch.set_num_threads(1)``):
torch's workers keep spinning for a while after each of its operations, and so take the processors
from these kernels; on two of them that costs a third of the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from vasa3d.kernels import plain
from vasa3d.kernels.gradients import (
    NUM_SUMS,
    add_sums,
    differentiate_projection,
    differentiate_tiles,
)
from vasa3d.kernels.threads import run_chunks
from vasa3d.renderer.config import DEFAULT_CONFIG, RenderConfig
from vasa3d.renderer.cuda import draw_tensors
from vasa3d.renderer.drawing import draw_splats, shape_background
from vasa3d.renderer.splats import Splats, TileLists, project_cloud, tile_bands
from vasa3d.types import F32, Camera, GaussianCloud

_GAUSSIAN_CHUNK = 4096


@dataclass(frozen=True)
class RenderedTensors:
    """A drawn picture.

    Attributes:
        rgb: (H, W, 3) float32 colour, on the background or premultiplied without one.
        alpha: (H, W) float32 coverage in [0, 1].
        depth: (H, W) float32 expected depth in metres, 0 where nothing is drawn.
    """

    rgb: torch.Tensor
    alpha: torch.Tensor
    depth: torch.Tensor


def render_tensors(
    means: torch.Tensor,
    covariances: torch.Tensor,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    camera: Camera,
    *,
    viewmat: torch.Tensor | None = None,
    background: torch.Tensor | None = None,
    config: RenderConfig = DEFAULT_CONFIG,
) -> RenderedTensors:
    """Draw Gaussians, differentiably in every tensor.

    Gaussians that ``render_cloud`` skips (not finite, no positive covariance, out of range) and
    those outside the picture get zero gradients. What is constant: which pixels a splat reaches
    (alpha at least 1/255) and the order in depth. Where alpha is capped, where the slope is clamped
    in the projection's Jacobian and where an opacity exceeds 1, the derivative is that of the
    constant. Can be differentiated once.

    Args:
        means: (N, 3) float32 world metres; all others are on the same device.
        covariances: (N, 6) float32 upper triangles xx, xy, xz, yy, yz, zz, square metres.
        opacities: (N,) float32.
        colors: (N, 3) float32 sRGB.
        camera: The camera.
        viewmat: (4, 4) float32 world-to-camera in place of the camera's own. Its first three rows
            get plain gradients by their twelve entries, not kept to rigid motions.
        background: (3,) colour or (H, W, 3) picture, float32.
        config: Options of the drawing; supersampling is for stills.

    Returns:
        The picture.

    Raises:
        ValueError: A tensor has another shape, type or device, the view matrix is not finite (on
            the CPU), or supersampling is asked for.
        MissingError: The tensors are on a GPU, and gsplat is not installed.
        InputError: They are, and the camera has skewed pixels.
    """
    if config.supersample != 1:
        raise ValueError("supersampled pictures have no derivative; draw with a larger camera")
    count = len(means)
    for name, value, shape in (
        ("means", means, (count, 3)), ("covariances", covariances, (count, 6)),
        ("opacities", opacities, (count,)), ("colors", colors, (count, 3)),
        ("viewmat", viewmat, (4, 4)), ("background", background, None),
    ):  # fmt: skip
        if value is None:
            continue
        if value.dtype != torch.float32 or value.device != means.device:
            raise ValueError(f"{name} must be float32 on {means.device}, got {value.dtype}")
        if shape is not None and value.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(value.shape)}")
    if plain.is_needed(means):
        rgb, alpha, depth = draw_tensors(
            means, covariances, opacities, colors, camera, viewmat, config
        )
        if background is not None:
            rgb = rgb + (1.0 - alpha)[:, :, None] * background
        return RenderedTensors(rgb, alpha, depth)
    rgb, alpha, depth = _Render.apply(
        means, covariances, opacities, colors, viewmat, background, camera, config
    )  # fmt: skip
    return RenderedTensors(rgb, alpha, depth)


@dataclass(frozen=True)
class _Drawn:
    """What the derivative needs of a drawing; ``bands`` is ``None`` when there were several."""

    cloud: GaussianCloud
    camera: Camera
    config: RenderConfig
    splats: Splats
    bands: tuple[TileLists, ...] | None
    background: F32


class _Render(torch.autograd.Function):
    """``render_tensors`` with its derivative."""

    @staticmethod
    def forward(
        ctx: Any,
        means: torch.Tensor,
        covariances: torch.Tensor,
        opacities: torch.Tensor,
        colors: torch.Tensor,
        viewmat: torch.Tensor | None,
        background: torch.Tensor | None,
        camera: Camera,
        config: RenderConfig,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        cloud = GaussianCloud(*(_array(v) for v in (means, covariances, opacities, colors)))
        if viewmat is not None:
            camera = replace(camera, viewmat=_array(viewmat).copy())
        behind = shape_background(None if background is None else _array(background), camera)
        splats = project_cloud(cloud, camera, config)
        bands = tile_bands(splats)
        first = next(bands)
        frame = draw_splats(splats, chain((first,), bands), camera, behind, depth=True)
        assert frame.depth is not None
        rgb, alpha, depth = (torch.from_numpy(v) for v in (frame.rgb, frame.alpha, frame.depth))
        whole = len(first.offsets) - 1 == splats.tiles_x * splats.tiles_y
        ctx.drawn = _Drawn(cloud, camera, config, splats, (first,) if whole else None, behind)
        # Inputs are saved too, so that torch notices when they are overwritten before the backward.
        ctx.save_for_backward(rgb, alpha, depth, means, covariances, opacities, background)
        ctx.set_materialize_grads(False)
        return rgb, alpha, depth

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        drawn: _Drawn = ctx.drawn
        rgb, alpha, depth = (_array(v) for v in ctx.saved_tensors[:3])
        by_rgb, by_alpha, by_depth = (None if g is None else _array(g) for g in grads)
        if by_rgb is None:
            by_rgb = np.zeros_like(rgb)
        if by_alpha is None:
            by_alpha = np.zeros((1, 1), np.float32)
        totals = _sum_tiles(drawn, (rgb, alpha, depth), (by_rgb, by_alpha, by_depth))
        by_cloud, by_view = _through_projection(drawn, totals)
        by_background = None
        if ctx.needs_input_grad[5]:
            by_background = by_rgb * (1.0 - alpha)[:, :, None]
            if drawn.background.shape == (1, 1, 3):
                by_background = by_background.sum((0, 1), dtype=np.float64).astype(np.float32)
            by_background = torch.from_numpy(by_background)
        return (
            *(torch.from_numpy(value) for value in by_cloud),
            torch.from_numpy(by_view) if ctx.needs_input_grad[4] else None,
            by_background,
            None,
            None,
        )


def _array(tensor: torch.Tensor) -> F32:
    return np.ascontiguousarray(tensor.detach().numpy())


def _sum_tiles(
    drawn: _Drawn, pictures: tuple[F32, F32, F32], grads: tuple[F32, F32, F32 | None]
) -> F32:
    """(N, NUM_SUMS) sums of ``kernels.gradients`` over the picture."""
    splats = drawn.splats
    totals = np.zeros((len(splats.values), NUM_SUMS), np.float32)
    for lists in drawn.bands or tile_bands(splats):
        sums = np.empty((len(lists.items), NUM_SUMS), np.float32)

        def differentiate(
            start: int, stop: int, lists: TileLists = lists, sums: F32 = sums
        ) -> None:
            differentiate_tiles(
                start, stop, lists.first_tile, splats.tiles_x, lists.offsets, lists.items,
                splats.values, drawn.background, *pictures, *grads, sums,
            )  # fmt: skip

        run_chunks(differentiate, len(lists.offsets) - 1, splats.tiles_x)
        add_sums(lists.items, sums, totals)
    return totals


def _through_projection(drawn: _Drawn, totals: F32) -> tuple[tuple[F32, ...], F32]:
    """Gradients by means, covariances, opacities and colours, and by the view matrix (4, 4)."""
    cloud, camera = drawn.cloud, drawn.camera
    grads = (
        np.empty_like(cloud.means),
        np.empty_like(cloud.covariances),
        np.empty_like(cloud.opacities),
        np.empty_like(cloud.colors),
    )
    view, k = camera.viewmat[:3].astype(np.float64), camera.K.astype(np.float64)
    # One partial sum for each chunk, added in order: the same for every number of threads.
    by_view = np.zeros((-(-len(cloud) // _GAUSSIAN_CHUNK), 3, 4), np.float64)

    def differentiate(start: int, stop: int) -> None:
        differentiate_projection(
            start, stop, cloud.means, cloud.covariances, cloud.opacities, view, k,
            camera.width, camera.height, drawn.config.antialias, drawn.splats.rects, totals,
            *grads, by_view[start // _GAUSSIAN_CHUNK],
        )  # fmt: skip

    run_chunks(differentiate, len(cloud), _GAUSSIAN_CHUNK)
    full = np.zeros((4, 4), np.float32)
    full[:3] = by_view.sum(0)
    return grads, full

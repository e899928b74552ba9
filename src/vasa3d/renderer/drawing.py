"""The one way to make pixels from Gaussians: forward EWA splatting on the CPU.

Projection (``kernels.projection``), depth order and tile lists (``kernels.tiles``), compositing
(``kernels.rasterization``). What is computed is written plainly in ``kernels.reference``; the
kernels stay within 1/255 of it. Results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasa3d.kernels.projection import SPLAT_WIDTH, TILE, project_splats
from vasa3d.kernels.rasterization import adjoint_tiles, composite_tiles, scatter_sums
from vasa3d.kernels.threads import get_num_threads, run_chunks
from vasa3d.kernels.tiles import count_items, depth_order, list_items
from vasa3d.renderer.config import DEFAULT_CONFIG, RenderConfig
from vasa3d.types import F32, Camera, Frame, GaussianCloud

MAX_ITEMS = 1 << 22
"""Entries of all tile lists held at once; scenes with more are drawn in several bands."""

_PROJECT_CHUNK = 4096


def render_cloud(
    cloud: GaussianCloud,
    camera: Camera,
    *,
    background: F32 | None = None,
    depth: bool = False,
    config: RenderConfig = DEFAULT_CONFIG,
) -> Frame:
    """Draw a cloud of Gaussians.

    Gaussians that hold NaN or Inf, have no positive covariance, or lie outside the range of depths
    of ``config`` are not drawn.

    Args:
        cloud: The Gaussians, N of them, also none.
        camera: The camera.
        background: (3,) colour or (H, W, 3) picture behind the cloud; ``None`` leaves the colour
            premultiplied.
        depth: Also compute the expected depth.
        config: Options.

    Returns:
        The picture.

    Raises:
        ValueError: The background has another shape.
    """
    height, width = camera.height, camera.width
    behind = _background(background, height, width)
    rgb = np.empty((height, width, 3), np.float32)
    alpha = np.empty((height, width), np.float32)
    depth_image = np.empty((height, width), np.float32) if depth else None
    splats = _project(cloud, camera, config)
    for lists in _bands(splats):

        def draw(start: int, stop: int, lists: _Lists = lists) -> None:
            composite_tiles(
                start, stop, lists.first_tile, splats.tiles_x, lists.offsets, lists.items,
                splats.values, behind, rgb, alpha, depth_image,
            )  # fmt: skip

        run_chunks(draw, len(lists.offsets) - 1, splats.tiles_x)
    return Frame(rgb, alpha, depth_image)


def color_adjoint(
    cloud: GaussianCloud, camera: Camera, image: F32, *, config: RenderConfig = DEFAULT_CONFIG
) -> F32:
    """Transpose of the colour part of drawing: sum_p w_i(p) image(p) for each Gaussian i.

    Drawing without background is linear in the colours, rgb(p) = sum_i w_i(p) c_i; this is its
    transpose. With an image of ones it gives each Gaussian's total weight in the picture. The
    cloud's own colours do not matter.

    Args:
        cloud: The Gaussians.
        camera: The camera.
        image: (H, W, C) any number of channels.
        config: Options of the drawing.

    Returns:
        (N, C) float32; zero for Gaussians that are not drawn.

    Raises:
        ValueError: The image's size is not the camera's.
    """
    if image.ndim != 3 or image.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f"image must have shape ({camera.height}, {camera.width}, any), got {image.shape}"
        )
    channels = image.shape[2]
    pixels = np.zeros((-(-channels // 3), *image.shape[:2], 3), np.float32)
    for channel in range(channels):
        pixels[channel // 3, :, :, channel % 3] = image[:, :, channel]
    totals = np.zeros((len(pixels), len(cloud), 3), np.float32)
    splats = _project(cloud, camera, config)
    for lists in _bands(splats):
        sums = np.empty((len(lists.items), 3), np.float32)
        for part, total in zip(pixels, totals, strict=True):

            def gather(
                start: int, stop: int, lists: _Lists = lists, sums: F32 = sums, part: F32 = part
            ) -> None:
                adjoint_tiles(
                    start, stop, lists.first_tile, splats.tiles_x, lists.offsets, lists.items,
                    splats.values, part, sums,
                )  # fmt: skip

            run_chunks(gather, len(lists.offsets) - 1, splats.tiles_x)
            scatter_sums(lists.items, sums, total)
    per_gaussian = totals.transpose(1, 0, 2).reshape(len(cloud), 3 * len(pixels))
    return np.ascontiguousarray(per_gaussian[:, :channels])


@dataclass(frozen=True)
class _Splats:
    """Projected Gaussians: values (N, SPLAT_WIDTH), tile rectangles (N, 4), drawn ones by depth."""

    values: F32
    rects: NDArray[np.int32]
    order: NDArray[np.uint32]
    tiles_x: int
    tiles_y: int


@dataclass(frozen=True)
class _Lists:
    """Splats of the tiles from ``first_tile`` on, one list after another."""

    first_tile: int
    offsets: NDArray[np.int64]
    items: NDArray[np.uint32]


def _project(cloud: GaussianCloud, camera: Camera, config: RenderConfig) -> _Splats:
    count, width, height = len(cloud), camera.width, camera.height
    means, covariances, opacities, colors = (
        np.ascontiguousarray(value, np.float32)
        for value in (cloud.means, cloud.covariances, cloud.opacities, cloud.colors)
    )
    view = camera.viewmat[:3].astype(np.float64, order="C")
    k = camera.K.astype(np.float64, order="C")
    values = np.empty((count, SPLAT_WIDTH), np.float32)
    rects = np.empty((count, 4), np.int32)
    keys = np.empty(count, np.uint32)

    def project(start: int, stop: int) -> None:
        project_splats(
            start, stop, means, covariances, opacities, colors, view, k, width, height,
            config.near, config.far, config.antialias, values, rects, keys,
        )  # fmt: skip

    run_chunks(project, count, _PROJECT_CHUNK)
    return _Splats(values, rects, depth_order(keys), -(-width // TILE), -(-height // TILE))


def _bands(splats: _Splats) -> Iterator[_Lists]:
    """Tile lists, in as few consecutive bands as ``MAX_ITEMS`` allows; no tile is divided."""
    counts = count_items(splats.rects, splats.tiles_x, splats.tiles_y)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    first = 0
    while first < len(counts):
        fitting = int(np.searchsorted(ends, ends[first] + MAX_ITEMS, side="right")) - 1
        last = max(first + 1, fitting)
        offsets = ends[first : last + 1] - ends[first]
        items = np.empty(offsets[-1], np.uint32)

        def fill(
            start: int,
            stop: int,
            first: int = first,
            offsets: NDArray[np.int64] = offsets,
            items: NDArray[np.uint32] = items,
        ) -> None:
            list_items(
                start, stop, first, splats.order, splats.rects, splats.tiles_x, offsets, items
            )

        # Every call walks all splats, so one call for each thread.
        run_chunks(fill, last - first, -(-(last - first) // get_num_threads()))
        yield _Lists(first, offsets, items)
        first = last


def _background(background: F32 | None, height: int, width: int) -> F32:
    """The background as (1, 1, 3) or (H, W, 3)."""
    if background is None:
        return np.zeros((1, 1, 3), np.float32)
    value = np.ascontiguousarray(background, np.float32)
    if value.shape == (3,):
        return value.reshape(1, 1, 3)
    if value.shape != (height, width, 3):
        raise ValueError(
            f"background must have shape (3,) or ({height}, {width}, 3), got {value.shape}"
        )
    return value

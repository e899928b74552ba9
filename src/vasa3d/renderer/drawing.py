"""Forward EWA splatting on the CPU, and its transpose by colour.

Projection (``kernels.projection``), depth order and tile lists (``kernels.tiles``), compositing
(``kernels.rasterization``). What is computed is written plainly in ``kernels.reference``; the
kernels stay within 1/255 of it. Results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from vasa3d.kernels.rasterization import (
    adjoint_tiles,
    composite_bytes,
    composite_tiles,
    scatter_sums,
)
from vasa3d.kernels.threads import run_chunks
from vasa3d.renderer.config import DEFAULT_CONFIG, RenderConfig
from vasa3d.renderer.splats import Splats, TileLists, project_cloud, tile_bands
from vasa3d.types import F32, U8, Camera, Frame, GaussianCloud


def draw_splats(
    splats: Splats, bands: Iterable[TileLists], camera: Camera, background: F32, *, depth: bool
) -> Frame:
    """Composite projected Gaussians.

    Args:
        splats: Of ``project_cloud``.
        bands: Tile lists that together cover the picture.
        camera: The camera of the splats.
        background: Of ``shape_background``.
        depth: Also compute the expected depth.
    """
    size = camera.height, camera.width
    rgb, alpha = np.empty((*size, 3), np.float32), np.empty(size, np.float32)
    depth_image = np.empty(size, np.float32) if depth else None
    for lists in bands:

        def draw(start: int, stop: int, lists: TileLists = lists) -> None:
            composite_tiles(
                start, stop, lists.first_tile, splats.tiles_x, lists.offsets, lists.items,
                splats.values, background, rgb, alpha, depth_image,
            )  # fmt: skip

        run_chunks(draw, len(lists.offsets) - 1, splats.tiles_x)
    return Frame(rgb, alpha, depth_image)


def draw_bytes(splats: Splats, bands: Iterable[TileLists], background: F32 | None, out: U8) -> U8:
    """Composite projected Gaussians to bytes, as screens and video want them.

    Args:
        splats: Of ``project_cloud``.
        bands: Tile lists that together cover the picture.
        background: Of ``shape_background``, or ``None``.
        out: Written: (H, W, 3) uint8 over a background; (H, W, 4) without one, colours not
            premultiplied.

    Returns:
        ``out``.
    """
    for lists in bands:

        def draw(start: int, stop: int, lists: TileLists = lists) -> None:
            composite_bytes(
                start, stop, lists.first_tile, splats.tiles_x, lists.offsets, lists.items,
                splats.values, background, out,
            )  # fmt: skip

        run_chunks(draw, len(lists.offsets) - 1, splats.tiles_x)
    return out


def color_adjoint(
    cloud: GaussianCloud,
    camera: Camera,
    image: F32,
    *,
    config: RenderConfig = DEFAULT_CONFIG,
    device: str = "cpu",
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
        device: ``cpu``, or ``cuda`` for a GPU.

    Returns:
        (N, C) float32; zero for Gaussians that are not drawn.

    Raises:
        ValueError: The image's size is not the camera's, or the device is unknown.
        MissingError: The device cannot be used here.
    """
    if image.ndim != 3 or image.shape[:2] != (camera.height, camera.width):
        raise ValueError(
            f"image must have shape ({camera.height}, {camera.width}, any), got {image.shape}"
        )
    if device != "cpu":
        from vasa3d.renderer.cuda import adjoint_by_color

        return adjoint_by_color(cloud, camera, image, config, device)
    channels = image.shape[2]
    pixels = np.zeros((-(-channels // 3), *image.shape[:2], 3), np.float32)
    for channel in range(channels):
        pixels[channel // 3, :, :, channel % 3] = image[:, :, channel]
    totals = np.zeros((len(pixels), len(cloud), 3), np.float32)
    splats = project_cloud(cloud, camera, config)
    for lists in tile_bands(splats):
        sums = np.empty((len(lists.items), 3), np.float32)
        for part, total in zip(pixels, totals, strict=True):

            def gather(
                start: int, stop: int, lists: TileLists = lists, sums: F32 = sums, part: F32 = part
            ) -> None:
                adjoint_tiles(
                    start, stop, lists.first_tile, splats.tiles_x, lists.offsets, lists.items,
                    splats.values, part, sums,
                )  # fmt: skip

            run_chunks(gather, len(lists.offsets) - 1, splats.tiles_x)
            scatter_sums(lists.items, sums, total)
    per_gaussian = totals.transpose(1, 0, 2).reshape(len(cloud), 3 * len(pixels))
    return np.ascontiguousarray(per_gaussian[:, :channels])


def shape_background(background: F32 | None, camera: Camera) -> F32:
    """A background for ``draw_splats``, (1, 1, 3) or (H, W, 3); black for ``None``.

    Raises:
        ValueError: It is neither a colour nor a picture of the camera's size.
    """
    height, width = camera.height, camera.width
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

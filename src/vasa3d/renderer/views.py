"""Pictures of clouds: one, several views of one cloud, or one view each of several clouds.

What is common to all devices stands here: supersampling, normals and backgrounds. Drawing itself is
``renderer.drawing`` on the CPU and ``renderer.cuda`` on a GPU.

Supersampling by k draws k x k samples a pixel and averages: colour, coverage and blended normals
plainly, depth weighted by coverage, so that each means the same as in a picture drawn at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from vasa3d.kernels.projection import BLUE, RED
from vasa3d.renderer.config import DEFAULT_CONFIG, DEVICES, MAX_DRAWN_SIDE, RenderConfig, Shot
from vasa3d.renderer.drawing import draw_splats, shape_background
from vasa3d.renderer.normals import shortest_axes, turned_to_camera, unit_or_zero
from vasa3d.renderer.splats import project_cloud, tile_bands
from vasa3d.types import F32, Camera, Frame, GaussianCloud

_BLACK = np.zeros((1, 1, 3), np.float32)


def render_cloud(
    cloud: GaussianCloud,
    camera: Camera,
    *,
    background: F32 | None = None,
    depth: bool = False,
    normals: bool = False,
    config: RenderConfig = DEFAULT_CONFIG,
    device: str = "cpu",
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
        normals: Also compute the normals of the surface.
        config: Options.
        device: ``cpu``, or ``cuda`` for a GPU.

    Returns:
        The picture.

    Raises:
        ValueError: The background has another shape, the supersampled picture is too large, or the
            device is unknown.
        MissingError: The device cannot be used here.
    """
    views = render_views(
        cloud, [camera], background=background, depth=depth, normals=normals, config=config,
        device=device,
    )  # fmt: skip
    return next(views)


def render_views(
    cloud: GaussianCloud,
    cameras: Iterable[Camera],
    *,
    background: F32 | None = None,
    depth: bool = False,
    normals: bool = False,
    config: RenderConfig = DEFAULT_CONFIG,
    device: str = "cpu",
) -> Iterator[Frame]:
    """Draw one cloud from several cameras; arguments and errors as for ``render_cloud``.

    The cloud's axes are found once; a GPU takes the cloud once and draws many views together.

    Yields:
        One picture for each camera.
    """
    axes = shortest_axes(cloud.covariances) if normals else None
    shots = ((cloud, camera, axes) for camera in cameras)
    return _render(shots, background, depth, config, device)


def render_clouds(
    clouds: Iterable[GaussianCloud],
    cameras: Iterable[Camera],
    *,
    background: F32 | None = None,
    depth: bool = False,
    normals: bool = False,
    config: RenderConfig = DEFAULT_CONFIG,
    device: str = "cpu",
) -> Iterator[Frame]:
    """Draw several clouds, each from its own camera; arguments and errors as for ``render_cloud``.

    A GPU draws many clouds together, so it takes them ahead of the pictures that come out.

    Yields:
        One picture for each cloud.
    """
    shots = (
        (cloud, camera, shortest_axes(cloud.covariances) if normals else None)
        for cloud, camera in zip(clouds, cameras, strict=True)
    )
    return _render(shots, background, depth, config, device)


def _render(
    shots: Iterable[tuple[GaussianCloud, Camera, F32 | None]],
    background: F32 | None,
    depth: bool,
    config: RenderConfig,
    device: str,
) -> Iterator[Frame]:
    """Pictures of clouds, cameras and the clouds' axes."""
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    factor = config.supersample
    plain = device == "cpu" and factor == 1
    behind: deque[F32] = deque()

    def enlarged() -> Iterator[Shot]:
        for cloud, camera, axes in shots:
            behind.append(shape_background(background, camera))
            facing = None if axes is None else turned_to_camera(axes, cloud.means, camera)
            yield Shot(cloud, _enlarged(camera, factor), facing)

    if device == "cuda":
        from vasa3d.renderer.cuda import draw_shots

        drawn = draw_shots(enlarged(), depth=depth, config=config)
    else:
        drawn = (
            draw_shot(shot, behind[0] if plain else _BLACK, depth=depth, config=config)
            for shot in enlarged()
        )
    for frame in drawn:
        picture = _averaged(frame, factor) if factor > 1 else frame
        rest = behind.popleft()
        if background is not None and not plain:
            rgb = picture.rgb + (1.0 - picture.alpha[..., None]) * rest
            picture = replace(picture, rgb=rgb)
        if picture.normals is not None:
            picture = replace(picture, normals=unit_or_zero(picture.normals, picture.alpha))
        yield picture


def draw_shot(shot: Shot, background: F32, *, depth: bool, config: RenderConfig) -> Frame:
    """Draw on the CPU; the frame's normals are the blended vectors, at their own length."""
    splats = project_cloud(shot.cloud, shot.camera, config)
    frame = draw_splats(splats, tile_bands(splats), shot.camera, background, depth=depth)
    if shot.vectors is None:
        return frame
    values = splats.values.copy()
    values[:, RED : BLUE + 1] = shot.vectors
    turned = replace(splats, values=values)
    blended = draw_splats(turned, tile_bands(turned), shot.camera, _BLACK, depth=False).rgb
    return replace(frame, normals=blended)


def _enlarged(camera: Camera, factor: int) -> Camera:
    """The camera with ``factor`` samples along each side of a pixel."""
    if factor == 1:
        return camera
    width, height = camera.width * factor, camera.height * factor
    if max(width, height) > MAX_DRAWN_SIDE:
        raise ValueError(
            f"supersample {factor} of a {camera.width}x{camera.height} picture draws "
            f"{width}x{height} pixels, more than {MAX_DRAWN_SIDE} a side"
        )
    return camera.resized(width, height)


def _averaged(frame: Frame, factor: int) -> Frame:
    """A frame reduced by ``factor``, each square of samples to its mean."""
    alpha, depth = _block_mean(frame.alpha, factor), frame.depth
    if depth is not None:
        seen = alpha > 0.0
        weighted = _block_mean(depth * frame.alpha, factor)
        depth = np.where(seen, weighted / np.where(seen, alpha, 1.0), 0.0).astype(np.float32)
    normals = None if frame.normals is None else _block_mean(frame.normals, factor)
    return Frame(_block_mean(frame.rgb, factor), alpha, depth, normals)


def _block_mean(image: F32, factor: int) -> F32:
    """(H, W, ...) image as means over squares of ``factor`` pixels."""
    total = np.zeros_like(image[::factor, ::factor])
    for row in range(factor):
        for column in range(factor):
            total += image[row::factor, column::factor]
    return total / np.float32(factor * factor)

"""Drawing on an NVIDIA GPU through gsplat (Ye et al. 2024, gsplat: an open-source library for
Gaussian splatting), whose rasteriser computes what ``kernels.reference`` specifies.

The same world, cameras, units, low-pass, near and far bounds and 1/255 floor hold there. What
differs: gsplat 1.5.3 caps alpha at 0.999, and a pixel stops before the splat that would take its
transmittance below 1e-4. Where no opacity is above 0.99 the first makes no difference.

Shots of one size are drawn together: views of one cloud as C cameras of one scene, other clouds as
B scenes of one camera each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vasa3d.errors import InputError, MissingError
from vasa3d.kernels.projection import LOW_PASS
from vasa3d.renderer.config import RenderConfig, Shot
from vasa3d.types import F32, Frame, GaussianCloud

if TYPE_CHECKING:
    import torch

MAX_SHOTS = 32
"""Shots drawn together."""
MAX_PIXELS = 1 << 25
"""Pixels drawn together; a single larger shot is drawn alone."""
MAX_VARIANCE = 1e6
"""Gaussians with a larger variance, square metres, would overflow float32 and are not drawn."""

_FARTHEST = 1e10
_CPU_HINT = "use --device cpu"


def find_rasterizer() -> tuple[Callable[..., Any], str]:
    """gsplat's ``rasterization`` and the device that it draws on.

    Raises:
        MissingError: There is no GPU that torch can use, or no gsplat.
    """
    import torch

    if not torch.cuda.is_available():
        reason = "has no CUDA support" if torch.version.cuda is None else "finds no CUDA device"
        raise MissingError(
            f"no GPU can be used: this installation of torch {reason}.",
            hint=f"install a CUDA build of torch and a driver, or {_CPU_HINT}",
        )
    try:
        from gsplat import rasterization  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise MissingError(
            "gsplat, which draws on the GPU, is not installed.",
            hint=f"pip install 'vasa3d[gsplat]', or {_CPU_HINT}",
        ) from error
    return rasterization, "cuda"


def draw_shots(shots: Iterable[Shot], *, depth: bool, config: RenderConfig) -> Iterator[Frame]:
    """Draw without backgrounds.

    Args:
        shots: What to draw; taken ahead, as many as are drawn together.
        depth: Also compute the expected depth.
        config: Options; supersampling is the caller's.

    Yields:
        Frames, whose normals are the blended vectors, at their own length.

    Raises:
        MissingError: As ``find_rasterizer``.
        InputError: A camera has skewed pixels.
    """
    rasterize, device = find_rasterizer()
    batch: list[Shot] = []
    for shot in shots:
        pixels = shot.camera.width * shot.camera.height * (len(batch) + 1)
        if batch and (
            len(batch) == MAX_SHOTS or pixels > MAX_PIXELS or _kind(batch[0]) != _kind(shot)
        ):
            yield from _draw(batch, rasterize, device, depth, config)
            batch = []
        batch.append(shot)
    if batch:
        yield from _draw(batch, rasterize, device, depth, config)


def _kind(shot: Shot) -> tuple[int, int, int, bool]:
    """Shots of one kind can be drawn together."""
    return len(shot.cloud), shot.camera.width, shot.camera.height, shot.vectors is None


def _draw(
    batch: list[Shot], rasterize: Callable[..., Any], device: str, depth: bool, config: RenderConfig
) -> Iterator[Frame]:
    """Frames of shots of one kind."""
    import torch

    first = batch[0]
    if len(first.cloud) == 0:
        yield from (_empty(shot, depth) for shot in batch)
        return
    if any(shot.camera.K[0, 1] != 0.0 for shot in batch):
        raise InputError("a camera with skewed pixels cannot be drawn on a GPU.", hint=_CPU_HINT)
    views = _stack([shot.camera.viewmat for shot in batch], device)
    ks = _stack([shot.camera.K for shot in batch], device)
    vectors = [shot.vectors for shot in batch if shot.vectors is not None]
    if all(shot.cloud is first.cloud for shot in batch):
        means, covars, opacities, colors = _upload(first.cloud, device)
        if vectors:  # they face the camera, so that every view has its own
            shared = colors.expand(len(batch), -1, -1)
            colors = torch.cat([shared, _stack(vectors, device)], -1)
    else:
        parts = [_upload(shot.cloud, device) for shot in batch]
        means, covars, opacities, colors = (torch.stack(v) for v in zip(*parts, strict=True))
        if vectors:
            colors = torch.cat([colors, _stack(vectors, device)], -1)
        views, ks = views[:, None], ks[:, None]
    with torch.inference_mode():
        drawn, alphas, _ = rasterize(
            means=means, quats=None, scales=None, opacities=opacities, colors=colors,
            viewmats=views, Ks=ks, width=first.camera.width, height=first.camera.height,
            near_plane=config.near, far_plane=min(config.far, _FARTHEST), eps2d=LOW_PASS,
            packed=False, render_mode="RGB+ED" if depth else "RGB",
            rasterize_mode="antialiased" if config.antialias else "classic", covars=covars,
        )  # fmt: skip
    size = (len(batch), first.camera.height, first.camera.width, -1)
    pictures = drawn.reshape(size).cpu().numpy()
    coverage = alphas.reshape(size[:3]).cpu().numpy()
    for picture, alpha in zip(pictures, coverage, strict=True):
        yield Frame(
            np.ascontiguousarray(picture[..., :3]),
            alpha,
            np.where(alpha > 0.0, picture[..., -1], np.float32(0.0)) if depth else None,
            np.ascontiguousarray(picture[..., 3:6]) if vectors else None,
        )


def _upload(cloud: GaussianCloud, device: str) -> tuple[torch.Tensor, ...]:
    """Means (N, 3), covariances (N, 3, 3), opacities (N,) and colours (N, 3) on the device.

    Gaussians that are not to be drawn become invisible ones: gsplat expects finite numbers.
    """
    means, upper, opacities, colors = (
        _stack([value], device)[0]
        for value in (cloud.means, cloud.covariances, cloud.opacities, cloud.colors)
    )
    variances = upper[:, [0, 3, 5]]
    good = (means.abs() <= _FARTHEST).all(1) & upper.isfinite().all(1) & colors.isfinite().all(1)
    good &= ((variances >= 0.0) & (variances <= MAX_VARIANCE)).all(1) & ~opacities.isnan()
    means, upper, colors = (value.where(good[:, None], 0.0) for value in (means, upper, colors))
    full = upper[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    return means, full, opacities.where(good, 0.0).clamp(0.0, 1.0), colors


def _stack(values: Sequence[F32], device: str) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.stack(values).astype(np.float32, copy=False)).to(device)


def _empty(shot: Shot, depth: bool) -> Frame:
    size = shot.camera.height, shot.camera.width
    black, nothing = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    return Frame(
        black, nothing, nothing.copy() if depth else None,
        None if shot.vectors is None else black.copy(),
    )  # fmt: skip

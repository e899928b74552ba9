"""Drawing on an NVIDIA GPU through gsplat (Ye et al. 2024, gsplat: an open-source library for
Gaussian splatting), whose rasteriser computes what ``kernels.reference`` specifies.

The same world, cameras, units, low-pass, near and far bounds and 1/255 floor hold there. What
differs: gsplat 1.5.3 caps alpha at 0.999, and a pixel stops before the splat that would take its
transmittance below 1e-4. Where no opacity is above 0.99 the first makes no difference.

Shots of one size are drawn together: views of one cloud as C cameras of one scene, other clouds as
B scenes of one camera each. Tensors that are differentiated are drawn one shot at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from vasa3d.errors import InputError, MissingError
from vasa3d.kernels.plain import full_matrices
from vasa3d.kernels.projection import LOW_PASS
from vasa3d.renderer.config import DEFAULT_CONFIG, DEVICES, RenderConfig, Shot
from vasa3d.types import F32, Camera, Frame, GaussianCloud

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


def place_of(device: str) -> str:
    """Where torch keeps the tensors that a device draws.

    Args:
        device: ``cpu``, or ``cuda`` for a GPU.

    Raises:
        ValueError: The device is unknown.
        MissingError: As ``find_rasterizer``.
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}")
    return "cpu" if device == "cpu" else find_rasterizer()[1]


def draw_tensors(
    means: torch.Tensor,
    covariances: torch.Tensor,
    opacities: torch.Tensor,
    colors: torch.Tensor,
    camera: Camera,
    viewmat: torch.Tensor | None = None,
    config: RenderConfig = DEFAULT_CONFIG,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw without background, differentiably; tensors lie on the GPU.

    Args:
        means: (N, 3) float32 world metres.
        covariances: (N, 6) float32 upper triangles, square metres.
        opacities: (N,) float32.
        colors: (N, C) float32, any number of channels.
        camera: The camera.
        viewmat: (4, 4) float32 in place of the camera's own.
        config: Options; not supersampled.

    Returns:
        Premultiplied colour (H, W, C), coverage (H, W) and expected depth (H, W), 0 where nothing is drawn.

    Raises:
        MissingError: As ``find_rasterizer``.
        InputError: The camera has skewed pixels.
    """
    rasterize, device = find_rasterizer()
    _refuse_skew(camera)
    if len(means) == 0:
        nothing = means.new_zeros(camera.height, camera.width)
        return means.new_zeros(*nothing.shape, colors.shape[1]), nothing, nothing.clone()
    means, covars, opacities, colors = _presentable(means, covariances, opacities, colors)
    view = _stack([camera.viewmat], device) if viewmat is None else viewmat[None]
    drawn, alphas, _ = rasterize(
        means=means, quats=None, scales=None, opacities=opacities, colors=colors,
        viewmats=view, Ks=_stack([camera.K], device), width=camera.width, height=camera.height,
        **_options(config), render_mode="RGB+ED", covars=covars,
    )  # fmt: skip
    alpha = alphas[0, :, :, 0]
    return drawn[0, :, :, :-1], alpha, torch.where(alpha > 0.0, drawn[0, :, :, -1], 0.0)


def adjoint_by_color(
    cloud: GaussianCloud, camera: Camera, image: F32, config: RenderConfig, device: str
) -> F32:
    """``drawing.color_adjoint`` on a GPU: the derivative of the drawing by colours."""
    place = place_of(device)
    values = (cloud.means, cloud.covariances, cloud.opacities)
    means, covariances, opacities = (_stack([value], place)[0] for value in values)
    # The cloud's own colours do not matter, but to those that are not drawn for them.
    good = torch.from_numpy(np.isfinite(cloud.colors).all(1)).to(place)
    opacities = opacities.where(good, 0.0)
    colors = torch.zeros(len(cloud), image.shape[2], device=place, requires_grad=True)
    with torch.enable_grad():
        drawn, _, _ = draw_tensors(means, covariances, opacities, colors, camera, config=config)
        if not drawn.requires_grad:  # nothing to draw
            return colors.detach().cpu().numpy()
        (found,) = torch.autograd.grad(drawn, colors, _stack([image], place)[0])
    return found.cpu().numpy()


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
    first = batch[0]
    if len(first.cloud) == 0:
        yield from (_empty(shot, depth) for shot in batch)
        return
    for shot in batch:
        _refuse_skew(shot.camera)
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
            **_options(config), render_mode="RGB+ED" if depth else "RGB", covars=covars,
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


def _options(config: RenderConfig) -> dict[str, Any]:
    """What gsplat is told every time."""
    return {
        "near_plane": config.near, "far_plane": min(config.far, _FARTHEST), "eps2d": LOW_PASS,
        "packed": False, "rasterize_mode": "antialiased" if config.antialias else "classic",
    }  # fmt: skip


def _refuse_skew(camera: Camera) -> None:
    if camera.K[0, 1] != 0.0:
        raise InputError("a camera with skewed pixels cannot be drawn on a GPU.", hint=_CPU_HINT)


def _upload(cloud: GaussianCloud, device: str) -> tuple[torch.Tensor, ...]:
    """``_presentable`` values of a cloud on the device."""
    return _presentable(
        *(
            _stack([value], device)[0]
            for value in (cloud.means, cloud.covariances, cloud.opacities, cloud.colors)
        )
    )


def _presentable(
    means: torch.Tensor, upper: torch.Tensor, opacities: torch.Tensor, colors: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """Means (N, 3), covariances (N, 3, 3), opacities (N,) and colours (N, C).

    Gaussians that are not to be drawn become invisible ones: gsplat expects finite numbers.
    """
    good = (means.abs() <= _FARTHEST).all(1) & upper.isfinite().all(1) & colors.isfinite().all(1)
    for variance in (upper[:, 0], upper[:, 3], upper[:, 5]):
        good &= (variance >= 0.0) & (variance <= MAX_VARIANCE)
    good &= ~opacities.isnan()
    means, upper, colors = (value.where(good[:, None], 0.0) for value in (means, upper, colors))
    opacities = opacities.where(good, 0.0).clamp(0.0, 1.0)
    return means, full_matrices(upper), opacities, colors


def _stack(values: Sequence[F32], device: str) -> torch.Tensor:
    return torch.from_numpy(np.stack(values).astype(np.float32, copy=False)).to(device)


def _empty(shot: Shot, depth: bool) -> Frame:
    size = shot.camera.height, shot.camera.width
    black, nothing = np.zeros((*size, 3), np.float32), np.zeros(size, np.float32)
    return Frame(
        black, nothing, nothing.copy() if depth else None,
        None if shot.vectors is None else black.copy(),
    )  # fmt: skip

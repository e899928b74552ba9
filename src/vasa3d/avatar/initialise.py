"""Avatar from one photo: Gaussians laid on the fitted head and on the layer around it, in the photo's colours.

Three coats. The detail coat: one Gaussian per cell of the photo, on whatever surface the pixel shows. The base coat:
the whole head, seen or hidden, evenly sampled in canonical space, in completed colours; it closes every gap when skin
stretches or the camera turns. The layer: hair, clothes, shoulders as a closed solid (``layer.py``). Last, the colours
are solved so that the source view gives the photo back.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.coats import (
    Coat,
    join_coats,
)
from vasa3d.avatar.colouring import solve_colors
from vasa3d.avatar.covering import LayerCoats
from vasa3d.avatar.deformation import VasResidual
from vasa3d.avatar.gaussians import Gaussians
from vasa3d.avatar.scene import Scene, flat_faces
from vasa3d.avatar.surface import SurfaceCoats
from vasa3d.geometry.cameras import camera_center
from vasa3d.geometry.covariances import split_covariances
from vasa3d.head import ArkitHead
from vasa3d.portrait.analysis import FRAMING_SIDE, WINDOW_SIDE, Analysis
from vasa3d.types import F32, Camera

_FLAT_DAMPING = 2.5
"""Of skin that the photo sees at a flat angle and mixes with what lies beside: it stays clean from the side."""


@dataclass(frozen=True)
class InitConfig:
    """How many Gaussians go where.

    Attributes:
        detail_budget: Cells on the face, ears and neck.
        layer_budget: Cells on hair, clothes and shoulders.
        layer_reserve: Further cells there, for finely patterned cloth.
        lining_budget: Cells of what lies under the layer's front and closes it.
        back_budget: Cells of the layer's back.
        solve_side: Side of the picture on which the colours are solved, pixels.
        seed: Seed of the surface sampling.
    """

    detail_budget: int = 11_800
    layer_budget: int = 20_000
    layer_reserve: int = 20_000
    lining_budget: int = 5_500
    back_budget: int = 4_500
    solve_side: int = 512
    seed: int = 0


def initialise(
    analysis: Analysis, head: ArkitHead, config: InitConfig, provenance: dict[str, object]
) -> Avatar:
    """Build an avatar from an analysed portrait.

    Args:
        analysis: The portrait.
        head: The head model it was fitted with.
        config: Budgets.
        provenance: Recorded in the avatar.

    Returns:
        The avatar, drawing the photo in its source view.
    """
    scene = Scene(analysis, head, config.seed)
    skin = SurfaceCoats(scene)
    surface = [skin.base_coat(config.seed), skin.detail_coat(config.detail_budget)]
    layer = LayerCoats(scene, surface[0]).layer_coats(
        config.layer_budget,
        config.layer_reserve,
        config.lining_budget,
        config.back_budget,
        config.seed,
    )
    gaussians = _assemble(surface, layer)
    avatar = Avatar(
        identity=analysis.fit.identity,
        offsets=scene.offsets,
        mood=scene.mood,
        photo_expression=analysis.fit.expression,
        photo_eyes=analysis.fit.eyes,
        camera=framing_camera(analysis.fit.camera),
        gaussians=gaussians,
        vas=VasResidual.zero(len(gaussians)),
        background_bytes=_encode_picture(analysis.background),
        provenance=dict(provenance),
    )
    damping = np.concatenate([coat.damping for coat in (*surface, layer)])
    return with_solved_colors(avatar, analysis, damping, config.solve_side)


def with_solved_colors(avatar: Avatar, analysis: Analysis, damping: F32, side: int = 512) -> Avatar:
    """The avatar in the colours that give the photo back from its own view.

    Args:
        avatar: The avatar.
        analysis: The portrait.
        damping: (N,) how firmly Gaussians keep the colours they have, in pixels of their weight; skin seen at a flat
            angle keeps them in any case.
        side: Of the picture on which colours are solved.
    """
    camera = avatar.camera.resized(side, side)
    posed = avatar.posed_vertices(avatar.photo_latents)
    flat = flat_faces(posed, avatar.head, camera_center(camera))[avatar.gaussians.triangles]
    damping = damping.copy()
    damping[: len(flat)] = np.maximum(damping[: len(flat)], _FLAT_DAMPING * flat)
    weight = np.clip((framing_of(analysis.alpha, side) - 0.5) / 0.3, 0.0, 1.0)
    colors = solve_colors(
        avatar.pose(avatar.photo_latents),
        camera,
        framing_of(analysis.rgb, side),
        framing_of(analysis.background, side),
        weight.astype(np.float32),
        damping,
    )
    return replace(avatar, gaussians=replace(avatar.gaussians, colors=colors))


def framing_camera(window: Camera) -> Camera:
    """The source camera: the inner part of the analysis window."""
    margin = (WINDOW_SIDE - FRAMING_SIDE) / 2
    intrinsics = window.K.copy()
    intrinsics[:2, 2] -= margin
    return Camera(window.viewmat, intrinsics, FRAMING_SIDE, FRAMING_SIDE)


def framing_of(window: np.ndarray, side: int) -> np.ndarray:
    """The source camera's part of a window picture, resized to ``side`` pixels."""
    margin = (WINDOW_SIDE - FRAMING_SIDE) // 2
    inner = window[margin : margin + FRAMING_SIDE, margin : margin + FRAMING_SIDE]
    return cv2.resize(inner, (side, side), interpolation=cv2.INTER_AREA)


def _assemble(surface: list[Coat], layer: Coat) -> Gaussians:
    bound = join_coats(surface)
    assert bound.triangles is not None and layer.weights is not None
    covariances = np.concatenate([bound.covariances, layer.covariances])
    quats, scales = split_covariances(covariances)
    return Gaussians(
        means=np.concatenate([bound.means, layer.means]).astype(np.float32),
        quats=quats,
        scales=np.clip(scales, 2e-5, 0.02),
        opacities=np.concatenate([bound.opacities, layer.opacities]).astype(np.float32),
        colors=np.concatenate([bound.colors, layer.colors]).astype(np.float32),
        triangles=bound.triangles.astype(np.int32),
        layer_weights=layer.weights.astype(np.float32),
    )


def _encode_picture(picture: F32) -> np.ndarray:
    buffer = io.BytesIO()
    image = Image.fromarray((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8))
    image.save(buffer, "WEBP", quality=88, method=4)
    return np.frombuffer(buffer.getvalue(), np.uint8).copy()

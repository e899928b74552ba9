"""Which Gaussians an avatar needs: those that nobody sees are pruned, those that would be two are split.

A Gaussian of standard deviations s along its axes becomes two along the longest, at +-a s, of standard deviation
s sqrt(1 - a^2): together they keep its mean and covariance. Both get the opacity at which their sum is as high in
the middle as the one was.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VasResidual
from vasa3d.geometry.cameras import orbit, project
from vasa3d.geometry.rotations import quat_to_matrix
from vasa3d.renderer import color_adjoint, render_cloud
from vasa3d.types import ARKIT_INDEX, F32, Camera, GaussianCloud, MotionLatents

_APART = 0.7
"""a: how far the halves of a split Gaussian lie from its middle."""
_SIDE = 384
_DETAIL, _AROUND = 40.0, 7
"""Weight of a pixel that differs by 1 from those in a square around it, and the side of that."""
_YAWS_DEGREES = tuple(range(-180, 180, 30))
_PITCHES_DEGREES = (-20.0, 0.0, 20.0)
_SHAPES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.9, "eyeWideLeft": 1.0, "eyeWideRight": 1.0, "eyeLookUpLeft": 0.9, "eyeLookUpRight": 0.9},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0, "mouthPucker": 0.9},
    {"jawOpen": 0.5, "mouthUpperUpLeft": 0.8, "mouthUpperUpRight": 0.8, "eyeLookDownLeft": 1, "eyeLookDownRight": 1},
    {"eyeLookOutLeft": 0.9, "eyeLookInRight": 0.9, "mouthSmileLeft": 0.9, "mouthSmileRight": 0.9},
    {"eyeLookInLeft": 0.9, "eyeLookOutRight": 0.9, "mouthLowerDownLeft": 0.8, "mouthLowerDownRight": 0.8},
)  # fmt: skip
"""Expressions that between them bare every part of eyes and mouth."""
_CLOSE_UPS = (
    ("lidUpperLeft", "lidLowerLeft"), ("lidUpperRight", "lidLowerRight"), ("lipUpper", "lipLower"),
)  # fmt: skip
"""Eyes and mouth also fill pictures of their own: small as they are, they are what people look at."""
_LOOKED_AT = 6.0
"""How much more a pixel of those counts."""


def seen_weight(avatar: Avatar, pivot: F32) -> F32:
    """Largest weight of each Gaussian in a picture, over views from all around and bared eyes and mouth.

    Args:
        avatar: The avatar.
        pivot: (3,) point that the views turn around, world metres.

    Returns:
        (N,) float32 blend weight summed over a picture of 384 x 384 pixels; of eyes and mouth over close-ups. In the
        source view, pixels count more the finer the picture is there.
    """
    front = avatar.camera.resized(_SIDE, _SIDE)
    ones = np.ones((_SIDE, _SIDE, 1), np.float32)
    close = [(_close_up(avatar, front, part), _LOOKED_AT * ones) for part in _CLOSE_UPS]
    still = avatar.pose(avatar.photo_latents)
    most = color_adjoint(still, front, 1.0 + _DETAIL * _fineness(still, front))[:, 0]
    for yaw in _YAWS_DEGREES:
        for pitch in _PITCHES_DEGREES:
            view = orbit(front, pivot, float(yaw), pitch)
            most = np.maximum(most, color_adjoint(still, view, ones)[:, 0])
    for shape in _SHAPES:
        latents = MotionLatents.rest()
        for name, value in shape.items():
            latents.dyn[0, ARKIT_INDEX[name]] = value
        posed = avatar.pose(latents)
        for yaw in (-40.0, 0.0, 40.0):
            for camera, worth in [(front, ones), *close]:
                view = orbit(camera, pivot, yaw, 0.0)
                most = np.maximum(most, color_adjoint(posed, view, worth)[:, 0])
    return most


def _fineness(cloud: GaussianCloud, camera: Camera) -> F32:
    """(H, W, 1) how far each pixel of a picture differs from those around it."""
    picture = render_cloud(cloud, camera, background=np.zeros(3, np.float32)).rgb
    return np.abs(picture - cv2.blur(picture, (_AROUND, _AROUND))).mean(-1, keepdims=True)


def _close_up(avatar: Avatar, front: Camera, part: tuple[str, ...]) -> Camera:
    """The camera with regions of the face filling its picture."""
    chosen = np.any([avatar.head.regions[name] for name in part], axis=0)
    pixels, _ = project(avatar.canonical_vertices[chosen], front)
    zoom = _SIDE / float(np.ptp(pixels, axis=0).max())
    enlarged = np.eye(3, dtype=np.float32)
    enlarged[:2, :2] *= zoom
    enlarged[:2, 2] = 0.5 * _SIDE - zoom * 0.5 * (pixels.min(0) + pixels.max(0))
    return Camera(front.viewmat, enlarged @ front.K, front.width, front.height)


def prune(avatar: Avatar, pivot: F32, least_weight: float = 0.05) -> Avatar:
    """The avatar without Gaussians that hardly show from anywhere.

    Args:
        avatar: The avatar.
        pivot: As for ``seen_weight``.
        least_weight: Weight, in pixels of ``seen_weight``, below which a Gaussian goes.
    """
    return keep(avatar, seen_weight(avatar, pivot) >= least_weight)


def plan(seen: F32, gain: F32, budget: int, split_share: float, least_weight: float) -> np.ndarray:
    """How many Gaussians each becomes: 0 pruned, 1 kept, 2 split.

    Args:
        seen: (N,) of ``seen_weight``.
        gain: (N,) what a Gaussian would gain by moving by its own width: large where one does the work of two.
        budget: Most Gaussians in all.
        split_share: Share of the budget that may be split.
        least_weight: As for ``prune``.
    """
    splits = min(int(split_share * budget), budget // 2)
    count = np.where(seen >= least_weight, 1, 0)
    room = max(budget - splits, 1)
    if count.sum() > room:
        count[np.argsort(seen, kind="stable")[:-room]] = 0
    hopeful = np.argsort(-np.where(count > 0, gain, 0.0), kind="stable")[:splits]
    count[hopeful[gain[hopeful] > 0.0]] *= 2
    return count


def split_in_two(
    means: np.ndarray,
    quats: np.ndarray,
    scales: np.ndarray,
    opacities: np.ndarray,
    sign: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One half of each Gaussian.

    Args:
        means: (N, 3).
        quats: (N, 4) wxyz, of any length.
        scales: (N, 3).
        opacities: (N,).
        sign: (N,) -1 or 1: which half.

    Returns:
        Means (N, 3), scales (N, 3) and opacities (N,).
    """
    longest, rows = scales.argmax(1), np.arange(len(scales))
    unit = quats / np.linalg.norm(quats, axis=1, keepdims=True)
    axes = quat_to_matrix(unit)[rows, :, longest]
    step = _APART * scales[rows, longest] * sign
    scales = scales.copy()
    scales[rows, longest] *= np.sqrt(1.0 - _APART**2)
    height = 2.0 * np.exp(-0.5 * _APART**2 / (1.0 - _APART**2))
    return means + step[:, None] * axes, scales, opacities / height


def keep(avatar: Avatar, kept: np.ndarray) -> Avatar:
    """The avatar with only the Gaussians (N,) bool that are kept."""
    g, surface = avatar.gaussians, avatar.gaussians.num_surface
    gaussians = replace(
        g, means=g.means[kept], quats=g.quats[kept], scales=g.scales[kept],
        opacities=g.opacities[kept], colors=g.colors[kept],
        triangles=g.triangles[kept[:surface]], layer_weights=g.layer_weights[kept[surface:]],
    )  # fmt: skip
    vas = avatar.vas
    modes = np.ascontiguousarray(vas.modes[:, kept])
    return replace(avatar, gaussians=gaussians, vas=VasResidual(modes, vas.reach, vas.mixing))

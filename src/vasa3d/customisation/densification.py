"""Which Gaussians an avatar needs: those that nobody ever sees are pruned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VasResidual
from vasa3d.geometry.cameras import orbit
from vasa3d.renderer import color_adjoint
from vasa3d.types import ARKIT_INDEX, F32, MotionLatents

_SIDE = 384
_YAWS_DEGREES = tuple(range(-180, 180, 30))
_PITCHES_DEGREES = (-20.0, 0.0, 20.0)
_SHAPES: tuple[dict[str, float], ...] = (
    {"jawOpen": 0.9, "eyeWideLeft": 1.0, "eyeWideRight": 1.0, "browInnerUp": 0.8},
    {"eyeBlinkLeft": 1.0, "eyeBlinkRight": 1.0, "mouthPucker": 0.9},
    {"jawOpen": 0.5, "mouthUpperUpLeft": 0.8, "mouthUpperUpRight": 0.8, "tongueOut": 0.8},
    {"eyeLookOutLeft": 0.9, "eyeLookInRight": 0.9, "mouthSmileLeft": 0.9, "mouthSmileRight": 0.9},
    {"eyeLookInLeft": 0.9, "eyeLookOutRight": 0.9, "mouthLowerDownLeft": 0.8, "mouthLowerDownRight": 0.8},
)  # fmt: skip
"""Expressions that between them bare every part of eyes and mouth."""


def seen_weight(avatar: Avatar, pivot: F32) -> F32:
    """Largest weight of each Gaussian in a picture, over views from all around and bared eyes and mouth.

    Args:
        avatar: The avatar.
        pivot: (3,) point that the views turn around, world metres.

    Returns:
        (N,) float32 blend weight summed over a picture of 384 x 384 pixels.
    """
    front = avatar.camera.resized(_SIDE, _SIDE)
    ones = np.ones((_SIDE, _SIDE, 1), np.float32)
    most = np.zeros(len(avatar.gaussians), np.float32)
    still = avatar.pose(avatar.photo_latents)
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
            view = orbit(front, pivot, yaw, 0.0)
            most = np.maximum(most, color_adjoint(posed, view, ones)[:, 0])
    return most


def prune(avatar: Avatar, pivot: F32, least_weight: float = 0.05) -> Avatar:
    """The avatar without Gaussians that hardly show from anywhere.

    Args:
        avatar: The avatar.
        pivot: As for ``seen_weight``.
        least_weight: Weight, in pixels of ``seen_weight``, below which a Gaussian goes.
    """
    return keep(avatar, seen_weight(avatar, pivot) >= least_weight)


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

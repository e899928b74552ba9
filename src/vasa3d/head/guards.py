"""Lids that rest on the eyeball: a soft push away from the eye's centre.

An eyeball is a surface of revolution about its corneal axis a, r(u) = g sum_k h_k exp(beta_k (u . R a - 1)) metres in
direction u from its centre c, with R the eye's own rotation and g a person's growth. A lid vertex p = c + n u with
margin m moves to

    p' = c + u (n + rho + sqrt((n - rho)^2 + eps^2)) / 2,    rho = r(u) + m,

which leaves it where it is well outside and puts it at rho + eps / 2 or more where it would cut into the ball.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasa3d.types import F32, I32

SOFTNESS_METRES = 0.0002


@dataclass(frozen=True)
class Guard:
    """An eyeball and the vertices that must stay outside of it.

    Attributes:
        joint: Joint at the eyeball's centre.
        vertices: (N,) int32 lid vertices.
        margins: (N,) float32 metres that each keeps from the eyeball.
        axis: (3,) float32 unit axis of the cornea at rest.
        heights: (K,) float32 h_k, metres.
        falloffs: (K,) float32 beta_k.
        growth: (I,) float32 how identity scales the eyeball: g = 1 + growth . identity.
    """

    joint: int
    vertices: I32
    margins: F32
    axis: F32
    heights: F32
    falloffs: F32
    growth: F32


def eyeball_radius(
    directions: NDArray[np.float64],
    axis: NDArray[np.float64],
    heights: NDArray[np.float64],
    falloffs: NDArray[np.float64],
) -> NDArray[np.float64]:
    """(N,) radius of the mean eyeball in unit directions (N, 3), metres."""
    return np.exp((directions @ axis - 1.0)[:, None] * falloffs) @ heights


@njit(cache=True)
def push_in_place(
    vertices, lids, margins, centre, axis, heights, falloffs, growth
):  # pragma: no cover - compiled
    """Push lid vertices of one frame off the eyeball; ``axis`` is already turned, ``growth`` is g."""
    for i in range(len(lids)):
        v = lids[i]
        x = vertices[v, 0] - centre[0]
        y = vertices[v, 1] - centre[1]
        z = vertices[v, 2] - centre[2]
        length = math.sqrt(x * x + y * y + z * z)
        cosine = (x * axis[0] + y * axis[1] + z * axis[2]) / length
        limit = 0.0
        for k in range(len(heights)):
            limit += heights[k] * math.exp((cosine - 1.0) * falloffs[k])
        limit = growth * limit + margins[i]
        gap = limit - length
        added = 0.5 * (gap + math.sqrt(gap * gap + SOFTNESS_METRES**2)) / length
        vertices[v, 0] += added * x
        vertices[v, 1] += added * y
        vertices[v, 2] += added * z

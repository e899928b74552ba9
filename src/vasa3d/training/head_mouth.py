"""Mouth of the shipped head: lips that touch at rest, and the tongue that comes out.

The source's mean head keeps its lips 0.8 mm apart, and its identities vary that gap. Here identity never opens the
mouth: half of the gap between the contact loops is added to each lip, in the mean head and in every identity mode.
``tongueOut`` is not in the source: tongue vertices slide along a curve over the lower teeth and lip.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from vasa3d.training.head_loops import face, ramp
from vasa3d.training.head_shapes import Shapes

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

_FULL_RINGS, _FADED_RINGS = (5, 8), (0, 13)

TONGUE_REACH_METRES = 0.036
_TONGUE_LIFT_METRES = 0.006
_TONGUE_DROOP_METRES = 0.010


def close_lips(shapes: Shapes, lips: dict[str, I64]) -> None:
    """Make the lips touch in the mean head and in all identities, in place.

    Args:
        shapes: Our mesh.
        lips: Contact loops ``upper`` and ``lower``, corner to corner.
    """
    opened = shapes.neutral + shapes.expressions["jawOpen"]
    ring = shapes.mouth_ring
    weight = ramp(ring, (_FULL_RINGS[1], _FADED_RINGS[1]), (_FADED_RINGS[0], _FULL_RINGS[0]))
    near = np.flatnonzero((ring > _FADED_RINGS[0]) & (ring < _FADED_RINGS[1]))
    to_upper = _nearest(opened[near], opened[lips["upper"]])
    to_lower = _nearest(opened[near], opened[lips["lower"]])
    pairs = []
    for own, other, side in (
        ("upper", "lower", to_upper < to_lower),
        ("lower", "upper", to_upper > to_lower),
    ):
        pairs.append(face(shapes.neutral, near[side], lips[own], lips[other], opened))
    for values in (shapes.neutral, *shapes.identity):
        moves = [(p.vertices, p.gaps(values)) for p in pairs]
        for vertices, gap in moves:
            values[vertices] += 0.5 * weight[vertices, None] * gap


def tongue_out(shapes: Shapes, tongue: NDArray[np.bool_]) -> F64:
    """(V, 3) delta of ``tongueOut``.

    Args:
        shapes: Our mesh.
        tongue: (V,) the tongue's vertices.
    """
    points = shapes.neutral[tongue]
    root, tip = np.quantile(points[:, 2], 0.02), points[:, 2].max()
    along = np.clip((points[:, 2] - root) / (tip - root), 0.0, 1.0)
    middle = np.interp(points[:, 2], *_centre_line(points))
    lift = _TONGUE_LIFT_METRES * _smooth(along, 0.15, 0.65)
    droop = _TONGUE_DROOP_METRES * _smooth(along, 0.6, 1.0)
    thinner = -0.35 * _smooth(along, 0.1, 0.8) * (points[:, 1] - middle)
    delta = np.zeros_like(shapes.neutral)
    delta[tongue] = np.stack(
        [
            -0.12 * _smooth(along, 0.2, 1.0) * points[:, 0],
            lift - droop + thinner,
            TONGUE_REACH_METRES * along**1.3,
        ],
        axis=1,
    )
    return delta


def _nearest(points: F64, curve: F64) -> F64:
    """(N,) distance of each point to the nearest of a curve's vertices."""
    return np.linalg.norm(points[:, None] - curve[None], axis=-1).min(axis=1)


def _centre_line(points: F64) -> tuple[F64, F64]:
    """Depths z and the mean height there of the tongue's upper and lower side."""
    edges = np.linspace(points[:, 2].min(), points[:, 2].max(), 9)
    centres, heights = [], []
    for low, high in pairwise(edges):
        inside = (points[:, 2] >= low) & (points[:, 2] <= high)
        if inside.any():
            centres.append(0.5 * (low + high))
            heights.append(0.5 * (points[inside, 1].min() + points[inside, 1].max()))
    return np.array(centres), np.array(heights)


def _smooth(value: F64, low: float, high: float) -> F64:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)

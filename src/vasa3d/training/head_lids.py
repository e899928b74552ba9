"""Eyelids of the shipped head: they close without a gap, for every identity, and slide over the eyeball.

The source's ``eyeBlink`` leaves up to a millimetre open and cuts into the eyeball half-way. Here:

- at full blink, upper and lower lid edges meet (each takes its share of what is missing);
- a closure (see ``head.linear``) lets the same hold when identity changes the rest shape of the lids;
- a guard (``head.guards``) keeps lids outside the eyeball on their way, whatever the identity, channel and gaze;
- products take other lid channels back as the eye closes, so that a closed eye stays closed when it looks around.

Symbols: V vertices; metres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vasa3d.head.arkit import JOINT_NAMES
from vasa3d.head.guards import Guard
from vasa3d.head.linear import Closure, Term
from vasa3d.training.head_eyes import FALLOFFS, Eyes
from vasa3d.training.head_loops import Facing, face, ramp
from vasa3d.training.head_shapes import Shapes
from vasa3d.types import ARKIT_INDEX

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

UPPER_SHARE = 0.6
_UPPER_FULL, _UPPER_FADED = (-1, 4), (-4, 11)
_LOWER_FULL, _LOWER_FADED = (-1, 3), (-4, 9)
_FADING = ("eyeLookDown", "eyeLookIn", "eyeLookOut", "eyeLookUp", "eyeSquint", "eyeWide")
_FADE_FULL, _FADE_GONE = 6, 12
_GUARDED_RINGS = (1, 10)
_MARGIN_RINGS = (1, 2, 3, 4, 5)
_MARGINS_METRES = (-0.0003, -0.0001, 0.0002, 0.0004, 0.0006)
"""The margin's inner edge dips into the tear film, so that no gap shows; skin keeps a lid's thickness."""


def close_lids(
    shapes: Shapes, lids: dict[str, I64]
) -> tuple[tuple[Term, ...], tuple[Closure, ...]]:
    """Refine ``eyeBlink`` of both eyes in place.

    Args:
        shapes: Our mesh.
        lids: Edge loops ``upperLeft`` and so on, inner to outer corner.

    Returns:
        Corrective terms and closures.
    """
    terms: list[Term] = []
    closures: list[Closure] = []
    for side in ("Left", "Right"):
        name = f"eyeBlink{side}"
        channel = ARKIT_INDEX[name]
        upper, lower = _facing_lids(shapes, lids, side)
        upper_weight = _weights(shapes, upper, _UPPER_FULL, _UPPER_FADED)
        lower_weight = _weights(shapes, lower, _LOWER_FULL, _LOWER_FADED)
        blink = shapes.expressions[name]
        closed = shapes.neutral + blink
        up, low = upper.gaps(closed), lower.gaps(closed)
        blink[upper.vertices] += UPPER_SHARE * upper_weight[:, None] * up
        blink[lower.vertices] += (1.0 - UPPER_SHARE) * lower_weight[:, None] * low
        closures.append(_closure(channel, upper, upper_weight))
        terms += _fades(shapes, side, channel)
    return tuple(terms), tuple(closures)


def _facing_lids(shapes: Shapes, lids: dict[str, I64], side: str) -> tuple[Facing, Facing]:
    """Vertices around each lid's edge and the vector from there to the other lid's edge."""
    up, low = lids[f"upper{side}"], lids[f"lower{side}"]
    sign = 1.0 if side == "Left" else -1.0
    ring, points = shapes.eye_ring, shapes.neutral
    closed = points + shapes.expressions[f"eyeBlink{side}"]
    on_side = points[:, 0] * sign > 0.0
    near = np.flatnonzero((ring > _UPPER_FADED[0]) & (ring < _UPPER_FADED[1]) & on_side)
    corners = points[up[[0, -1]]]
    line = np.polyfit(corners[:, 0], corners[:, 1], 1)
    above = points[near, 1] > np.polyval(line, points[near, 0])
    return (
        face(closed, near[above], up, low, points),
        face(closed, near[~above], low, up, points),
    )


def _weights(shapes: Shapes, facing: Facing, full: tuple[int, int], faded: tuple[int, int]) -> F64:
    return ramp(shapes.eye_ring[facing.vertices], (full[1], faded[1]), (faded[0], full[0]))


def _closure(channel: int, upper: Facing, weight: F64) -> Closure:
    kept = weight > 0.0
    return Closure(
        channel=channel,
        vertices=upper.vertices[kept].astype(np.int32),
        sources=upper.sources[kept].astype(np.int32),
        coefficients=(upper.coefficients * weight[:, None])[kept].astype(np.float32),
    )


def lid_guards(shapes: Shapes, eyes: Eyes, modes_growth: F64) -> tuple[Guard, ...]:
    """Eyeballs that the lids rest on.

    Args:
        shapes: Our mesh.
        eyes: Our eyeballs.
        modes_growth: (I, 2) relative growth of both eyeballs under the final identity modes.
    """
    guards = []
    ring = shapes.eye_ring
    on_lid = (ring >= _GUARDED_RINGS[0]) & (ring <= _GUARDED_RINGS[1])
    for side, sign in enumerate((1.0, -1.0)):
        lids = np.flatnonzero(on_lid & (shapes.neutral[:, 0] * sign > 0.0))
        margins = np.interp(ring[lids], _MARGIN_RINGS, _MARGINS_METRES)
        guards.append(
            Guard(
                joint=JOINT_NAMES.index(("eyeLeft", "eyeRight")[side]),
                vertices=lids.astype(np.int32),
                margins=margins.astype(np.float32),
                axis=(eyes.axis * [sign, 1.0, 1.0]).astype(np.float32),
                heights=eyes.heights.astype(np.float32),
                falloffs=FALLOFFS.astype(np.float32),
                growth=modes_growth[:, side].astype(np.float32),
            )
        )
    return tuple(guards)


def _fades(shapes: Shapes, side: str, channel: int) -> list[Term]:
    """Products that undo other lid channels where the eye is closed."""
    sign = 1.0 if side == "Left" else -1.0
    ring = shapes.eye_ring
    share = np.clip((_FADE_GONE - np.abs(ring)) / (_FADE_GONE - _FADE_FULL), 0.0, 1.0)
    near = (ring > -_FADE_GONE) & (ring < _FADE_GONE) & (shapes.neutral[:, 0] * sign > 0.0)
    terms = []
    for stem in _FADING:
        delta = shapes.expressions[f"{stem}{side}"]
        moved = np.flatnonzero(near & (np.abs(delta).max(axis=1) > 2e-5))
        undo = -share[moved, None] * delta[moved]
        other = ARKIT_INDEX[f"{stem}{side}"]
        terms.append(Term((channel, other), moved.astype(np.int32), undo.astype(np.float32)))
    return terms

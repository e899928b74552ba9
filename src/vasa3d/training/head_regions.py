"""Names for the parts of the shipped head's surface: region masks, edge loops, joints and skinning weights.

Positions are those of the symmetric neutral source head in metres; V vertices of our mesh.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vasa3d.training.head_eyes import Eyes
from vasa3d.training.head_shapes import Shapes
from vasa3d.training.head_source import PARTS, HeadSource
from vasa3d.training.head_topology import (
    LID_CONTACT_RING,
    LIP_CONTACT_RING,
    TONGUE_START,
    Rings,
)

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

VERMILION_UPPER, VERMILION_LOWER = 13, 12
"""Outermost loop of the red of each lip."""

LID_UPPER_LOOPS, LID_LOWER_LOOPS = 9, 7

ROOT, NECK, HEAD = (0.0, -0.165, -0.02), (0.0, -0.105, -0.03), (0.0, -0.022, -0.005)
"""Rest positions: base of the shoulders, base of the neck (C7), skull base (atlas)."""

_HAIRLINE_Z = (-0.10, -0.075, -0.03, 0.02, 0.065, 0.10)
_HAIRLINE_Y = (-0.045, -0.04, 0.0, 0.058, 0.092, 0.105)
_NECK_SLOPE = 0.35


def find_regions(source: HeadSource, rings: Rings, eyes: Eyes, shapes: Shapes) -> dict[str, Mask]:
    """Region masks of our mesh by name."""
    masks = _source_regions(source, rings)
    safe = np.maximum(shapes.source, 0)
    out = {name: np.where(shapes.source >= 0, mask[safe], False) for name, mask in masks.items()}
    half = len(eyes.ring) // 2
    ring = np.where(shapes.eye >= 0, eyes.ring[np.maximum(shapes.eye, 0)], -1)
    for side, name in enumerate(("Left", "Right")):
        ball = (shapes.eye >= side * half) & (shapes.eye < (side + 1) * half)
        out[f"eye{name}"] = ball
        out[f"iris{name}"] = ball & (ring >= eyes.pupil_ring) & (ring <= eyes.limbus_ring)
        out[f"pupil{name}"] = ball & (ring <= eyes.pupil_ring)
    return out


def lip_rings(source: HeadSource, rings: Rings, shapes: Shapes) -> dict[str, I64]:
    """Edge loops along which the lips touch, right corner to left corner."""
    loop = _ordered_loop(source, rings.mouth == LIP_CONTACT_RING)
    x = source.neutral[loop, 0]
    upper, lower = _split(loop, int(x.argmin()), int(x.argmax()), source.neutral[:, 1])
    return {"upper": shapes.place[upper], "lower": shapes.place[lower]}


def lid_rings(source: HeadSource, rings: Rings, shapes: Shapes) -> dict[str, I64]:
    """Lid edge loops at the eyeballs, inner corner to outer corner."""
    out = {}
    for name, sign in (("Left", 1.0), ("Right", -1.0)):
        on_side = (rings.eye == LID_CONTACT_RING) & (source.neutral[:, 0] * sign > 0)
        loop = _ordered_loop(source, on_side)
        x = source.neutral[loop, 0] * sign
        upper, lower = _split(loop, int(x.argmin()), int(x.argmax()), source.neutral[:, 1])
        out[f"upper{name}"] = shapes.place[upper]
        out[f"lower{name}"] = shapes.place[lower]
    return out


def skin_weights(source: HeadSource, eyes: Eyes, shapes: Shapes) -> NDArray[np.float32]:
    """(V, 5) smooth weights of root, neck, head and both eyes."""
    points = source.neutral
    height = points[:, 1] + _NECK_SLOPE * points[:, 2]
    to_head = _smoothstep(height, -0.112, -0.042)
    low = height - 0.5 * np.maximum(np.abs(points[:, 0]) - 0.06, 0.0)
    to_neck = _smoothstep(low, -0.165, -0.098)
    inner = np.arange(len(points)) >= PARTS["socket"][0]
    to_head[inner], to_neck[inner] = 1.0, 1.0
    weights = np.zeros((len(shapes.source), 5))
    own = shapes.source >= 0
    index = shapes.source[own]
    weights[own, 2] = to_head[index]
    weights[own, 1] = (1.0 - to_head[index]) * to_neck[index]
    weights[own, 0] = np.maximum(1.0 - weights[own, 1] - weights[own, 2], 0.0)
    half = len(eyes.ring) // 2
    weights[(shapes.eye >= 0) & (shapes.eye < half), 3] = 1.0
    weights[shapes.eye >= half, 4] = 1.0
    return weights.astype(np.float32)


def joints(source: HeadSource, eyes: Eyes) -> tuple[F64, F64]:
    """(5, 3) joint positions and (M, 5, 3) how identity moves them.

    Root, neck and head move with the mean of the skin at their height.
    """
    skin = source.neutral[: PARTS["head"][1]]
    moved = []
    for centre in (ROOT, NECK, HEAD):
        height = skin[:, 1] + _NECK_SLOPE * skin[:, 2]
        near = np.abs(height - (centre[1] + _NECK_SLOPE * centre[2])) < 0.012
        delta = source.identity[:, np.flatnonzero(near)].mean(axis=1)
        moved.append(delta)
    positions = np.concatenate([np.array([ROOT, NECK, HEAD]), eyes.centres])
    return positions, np.concatenate([np.stack(moved, axis=1), eyes.centre_identity], axis=1)


def _source_regions(source: HeadSource, rings: Rings) -> dict[str, Mask]:
    points = source.neutral
    x, y, z = np.abs(points[:, 0]), points[:, 1], points[:, 2]
    index = np.arange(len(points))

    def part(name: str) -> Mask:
        start, end = PARTS[name]
        return (index >= start) & (index < end)

    skin = index < PARTS["head"][1]
    height = y + _NECK_SLOPE * z
    ears = skin & (x > 0.071) & (np.abs(y - 0.012) < 0.036) & (z > -0.03) & (z < 0.022)
    shoulders = skin & (height - 0.5 * np.maximum(x - 0.06, 0.0) < -0.128)
    neck = skin & ~shoulders & (height < -0.062)
    scalp = skin & ~ears & ~neck & ~shoulders & (y > np.interp(z, _HAIRLINE_Z, _HAIRLINE_Y))
    jaw = source.expressions["jawOpen"]
    sinking = np.linalg.norm(jaw, axis=1) > 0.006
    gums, teeth = part("gums"), part("teeth")
    tongue = gums & (index >= TONGUE_START) & (source.mirror >= TONGUE_START)
    open_mouth = points + jaw
    lips = (rings.mouth >= 0) & (rings.mouth <= 20) & (index < PARTS["face"][1])
    corner_y = open_mouth[lips & (rings.mouth == LIP_CONTACT_RING)]
    corner_y = corner_y[np.abs(corner_y[:, 0]).argmax(), 1]
    above = open_mouth[:, 1] > corner_y
    out = {
        "face": skin & ~ears & ~scalp & ~neck & ~shoulders,
        "ears": ears,
        "scalp": scalp,
        "neck": neck,
        "shoulders": shoulders,
        "lipUpper": lips & above & (rings.mouth <= VERMILION_UPPER),
        "lipLower": lips & ~above & (rings.mouth <= VERMILION_LOWER),
        "mouthCavity": part("socket"),
        "eyeSockets": part("orbit"),
        "gumsUpper": gums & ~tongue & ~sinking,
        "gumsLower": gums & ~tongue & sinking,
        "teethUpper": teeth & ~sinking,
        "teethLower": teeth & sinking,
        "tongue": tongue,
        "skin": skin,
    }
    corner = _lid_corner_line(source, rings)
    lids = (rings.eye >= 1) & skin
    for name, side in (("Left", points[:, 0] > 0), ("Right", points[:, 0] < 0)):
        above = y > np.polyval(corner, x)
        out[f"lidUpper{name}"] = lids & side & above & (rings.eye <= LID_UPPER_LOOPS)
        out[f"lidLower{name}"] = lids & side & ~above & (rings.eye <= LID_LOWER_LOOPS)
    return out


def _lid_corner_line(source: HeadSource, rings: Rings) -> F64:
    """Line y(x) through the inner and outer corner of the left eye."""
    on_ring = (rings.eye == LID_CONTACT_RING) & (source.neutral[:, 0] > 0)
    loop = source.neutral[on_ring]
    inner, outer = loop[loop[:, 0].argmin()], loop[loop[:, 0].argmax()]
    return np.polyfit([inner[0], outer[0]], [inner[1], outer[1]], 1)


def _ordered_loop(source: HeadSource, member: Mask) -> I64:
    """Walk the closed edge loop through these source vertices."""
    quads = source.quads
    edges = np.concatenate([quads[:, [i, (i + 1) % 4]] for i in range(4)])
    edges = edges[(edges >= 0).all(axis=1)]
    edges = edges[member[edges].all(axis=1)]
    neighbours: dict[int, set[int]] = {}
    for a, b in edges:
        neighbours.setdefault(int(a), set()).add(int(b))
        neighbours.setdefault(int(b), set()).add(int(a))
    start = min(neighbours)
    loop, previous = [start], -1
    while True:
        onward = sorted(neighbours[loop[-1]] - {previous} - set(loop[1:]))
        if not onward or (onward[0] == start and len(loop) > 2):
            break
        previous = loop[-1]
        loop.append(onward[-1] if onward[0] == start else onward[0])
    return np.array(loop, np.int64)


def _split(loop: I64, first: int, last: int, height: F64) -> tuple[I64, I64]:
    """Cut a closed loop at two corners into its upper and lower half, both from first to last."""
    forward = np.roll(loop, -first)
    stop = (last - first) % len(loop)
    one, other = forward[: stop + 1], np.concatenate([forward[stop:], forward[:1]])[::-1]
    return (one, other) if height[one].mean() > height[other].mean() else (other, one)


def _smoothstep(value: F64, low: float, high: float) -> F64:
    t = np.clip((value - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)

"""Texture atlas of the shipped head: charts, seams and places in [0, 1]^2.

Charts: the skin, cut along the back of the head and flattened with its left and right side as mirror images (u = 0.5 is
the face's mid-line, the face drawn larger than scalp and shoulders); mouth cavity, eye sockets, eyeballs, gums, tongue
and teeth in a strip below. Charts share no vertices: a vertex on a seam is doubled, and ``weld`` names the first copy.
Skin, cavity, sockets and eyeballs do not overlap themselves; gums, tongue and teeth may.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from vasa3d.training.head_shapes import Shapes
from vasa3d.training.head_source import PARTS
from vasa3d.training.head_unwrap import boundary_loops, relax, tutte

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

SKIN, CAVITY, ORBIT_LEFT, ORBIT_RIGHT, EYE_LEFT, EYE_RIGHT = range(6)
GUMS_UPPER, GUMS_LOWER, TEETH_UPPER, TEETH_LOWER, TONGUE = range(6, 11)

CAVITY_RING, ORBIT_RING = -2, -1
"""Loops inside the lips and lids where the skin's chart ends."""

SEAM_START_Z = -0.02
"""The seam runs down the back of the head from here on the crown."""

_STRIP_TOP = 0.16
_MARGIN = 0.004
_RELAX_STEPS = 60
_FAR_MAGNIFICATION = 0.45
_JAW_OPENING = 0.4
_ARCH_CENTRE_Z = 0.055
_ON_PLANE = 1e-7


def chart_faces(shapes: Shapes, regions: dict[str, Mask]) -> I64:
    """(F,) chart of every face."""
    faces, points = shapes.faces, shapes.neutral
    source = shapes.source[faces].max(axis=1)
    left = points[faces][:, :, 0].mean(axis=1) > 0.0
    charts = np.full(len(faces), SKIN)
    inside = (shapes.mouth_ring[faces] <= CAVITY_RING).all(axis=1)
    charts[inside] = CAVITY
    inside = (shapes.eye_ring[faces] <= ORBIT_RING).all(axis=1)
    charts[inside] = np.where(left, ORBIT_LEFT, ORBIT_RIGHT)[inside]
    balls = (shapes.eye[faces] >= 0).all(axis=1)
    charts[balls] = np.where(left, EYE_LEFT, EYE_RIGHT)[balls]

    def mostly(name: str) -> Mask:
        return regions[name][faces].sum(axis=1) >= 2

    gums = (source >= PARTS["gums"][0]) & (source < PARTS["gums"][1])
    charts[gums] = np.where(
        mostly("tongue"), TONGUE, np.where(mostly("gumsLower"), GUMS_LOWER, GUMS_UPPER)
    )[gums]
    teeth = (source >= PARTS["teeth"][0]) & (source < PARTS["teeth"][1])
    charts[teeth] = np.where(mostly("teethLower"), TEETH_LOWER, TEETH_UPPER)[teeth]
    return charts


def split_seams(shapes: Shapes, charts: I64) -> tuple[Shapes, I64, I64]:
    """Double the vertices on seams.

    Args:
        shapes: Our mesh without doubled vertices.
        charts: (F,) chart of every face.

    Returns:
        The mesh with doubled vertices, (V,) chart of every vertex, (V,) first copy of every vertex.
    """
    faces, points = shapes.faces, shapes.neutral
    # The right side of the seam down the back is a chart of its own while vertices are doubled.
    on_seam = _seam_vertices(shapes, charts)
    right = points[faces][:, :, 0].mean(axis=1) < 0.0
    sheet = charts * 2 + (right & (charts == SKIN))
    keys: dict[tuple[int, int], int] = {}
    origin: list[int] = []
    out = np.empty_like(faces)
    corner_sheet = np.where(on_seam[faces], sheet[:, None], (charts * 2)[:, None])
    order = np.argsort(sheet, kind="stable")
    for index in order:
        for k in range(3):
            key = (int(faces[index, k]), int(corner_sheet[index, k]))
            if key not in keys:
                keys[key] = len(origin)
                origin.append(key[0])
            out[index, k] = keys[key]
    sheets = np.array([key[1] for key in keys], np.int64)
    old = np.array(origin, np.int64)
    first = np.full(len(points), -1, np.int64)
    for new in range(len(old) - 1, -1, -1):
        first[old[new]] = new
    split = replace(
        shapes,
        neutral=points[old],
        identity=shapes.identity[:, old],
        expressions={name: delta[old] for name, delta in shapes.expressions.items()},
        faces=out,
        mirror=_mirror(shapes.mirror, keys, old, sheets),
        source=shapes.source[old],
        eye=shapes.eye[old],
        place=np.where(shapes.place >= 0, first[np.maximum(shapes.place, 0)], -1),
        mouth_ring=shapes.mouth_ring[old],
        eye_ring=shapes.eye_ring[old],
    )
    return split, sheets // 2, first[old]


def layout(shapes: Shapes, charts: I64) -> F64:
    """(V, 2) places of all vertices in the atlas, u right and v up.

    Args:
        shapes: Our mesh with doubled vertices.
        charts: (V,) chart of every vertex.
    """
    uvs = np.zeros((len(shapes.neutral), 2))
    boxes = _strip_boxes()
    skin = charts == SKIN
    uvs[skin] = _fit(_flat_skin(shapes, skin)[skin], (0.0, _STRIP_TOP, 1.0, 1.0))
    for chart, box in boxes.items():
        own = charts == chart
        if chart in (CAVITY, ORBIT_LEFT, ORBIT_RIGHT):
            flat = _disc(shapes.faces[own[shapes.faces].all(axis=1)], len(own))[own]
        elif chart in (EYE_LEFT, EYE_RIGHT):
            flat = _fisheye(shapes.neutral[own])
        elif chart == TONGUE:
            flat = shapes.neutral[own][:, [0, 2]]
        else:
            flat = _arch(shapes.neutral[own])
        uvs[own] = _fit(flat, box)
    return uvs


def _seam_vertices(shapes: Shapes, charts: I64) -> Mask:
    """(V,) vertices on the seam down the back, its upper end left whole."""
    skin = np.zeros(len(shapes.neutral), bool)
    skin[shapes.faces[charts == SKIN]] = True
    x, _, z = shapes.neutral.T
    return skin & (np.abs(x) < _ON_PLANE) & (z < SEAM_START_Z) & (shapes.source < PARTS["head"][1])


def _mirror(mirror: I64, keys: dict[tuple[int, int], int], old: I64, sheets: I64) -> I64:
    """(V,) mirror partners after doubling: charts of the left side swap with those of the right."""
    swap = {ORBIT_LEFT: ORBIT_RIGHT, ORBIT_RIGHT: ORBIT_LEFT, EYE_LEFT: EYE_RIGHT, EYE_RIGHT: EYE_LEFT}  # fmt: skip
    out = np.empty(len(old), np.int64)
    for new, (vertex, sheet) in enumerate(zip(old, sheets, strict=True)):
        partner = int(mirror[vertex])
        chart = int(sheet) // 2
        wanted = (partner, swap.get(chart, chart) * 2 + int(sheet) % 2)
        other = (wanted[0], wanted[1] ^ 1)
        # On the seam both copies exist and left answers to right.
        out[new] = keys[other] if other in keys and partner == vertex else keys[wanted]
    return out


def _flat_skin(shapes: Shapes, skin: Mask) -> F64:
    """(V, 2) the skin in metres: the left half relaxed, the right half its mirror image.

    The mouth is half open meanwhile and its hole, like those of the eyes, is filled with a fan around one more vertex:
    so the lips and lids stay clear of each other.
    """
    count = len(shapes.neutral)
    faces = shapes.faces[skin[shapes.faces].all(axis=1)]
    points = shapes.neutral + _JAW_OPENING * shapes.expressions["jawOpen"]
    outline, *holes = boundary_loops(faces)
    fans = [
        np.stack([hole, np.roll(hole, 1), np.full(len(hole), count + i)], axis=1)
        for i, hole in enumerate(holes)
    ]
    points = np.concatenate([points, [points[hole].mean(axis=0) for hole in holes]])
    points[np.abs(points[:, 0]) < _ON_PLANE, 0] = 0.0
    filled = np.concatenate([faces, *fans])
    half = filled[(points[filled][:, :, 0] >= 0.0).all(axis=1)]
    left = np.zeros(len(points), bool)
    left[half] = True
    own = np.concatenate([shapes.mirror == np.arange(count), np.ones(len(holes), bool)])
    on_axis = left & own & (points[:, 0] == 0.0)
    start = tutte(filled, len(points), outline, _circle(shapes, outline))
    start[on_axis, 0] = 0.0
    centre = shapes.neutral[np.minimum(half, count - 1)].mean(axis=1)
    near = np.exp(-(((centre - [0.0, 0.01, 0.10]) / [0.08, 0.09, 0.09]) ** 2).sum(axis=1))
    magnification = _FAR_MAGNIFICATION + (1.0 - _FAR_MAGNIFICATION) * near
    flat = relax(points, half, start, magnification, on_axis, _RELAX_STEPS)[:count]
    right = skin & ~left[:count]
    flat[right] = flat[shapes.mirror[right]] * [-1.0, 1.0]
    return flat


def _circle(shapes: Shapes, outline: I64) -> F64:
    """(B, 2) the skin's outline on a circle, symmetric, the crown's end of the seam on top."""
    on_axis = shapes.mirror[outline] == outline
    top = int(np.flatnonzero(on_axis)[shapes.neutral[outline[on_axis], 1].argmax()])
    outline = np.roll(outline, -top)
    bottom = int(np.flatnonzero(shapes.mirror[outline] == outline)[-1])
    steps = np.linalg.norm(np.diff(shapes.neutral[outline[: bottom + 1]], axis=0), axis=1)
    share = np.concatenate([[0.0], np.cumsum(steps)]) / steps.sum()
    # The outline runs counter-clockwise seen from outside, so the person's left side is on the right of the chart.
    side = 1.0 if shapes.neutral[outline[bottom // 2], 0] > 0.0 else -1.0
    angles = np.full(len(outline), np.nan)
    position = {int(vertex): i for i, vertex in enumerate(outline)}
    for i in range(bottom + 1):
        angles[i] = 0.5 * np.pi - side * np.pi * share[i]
        angles[position[int(shapes.mirror[outline[i]])]] = 0.5 * np.pi + side * np.pi * share[i]
    angles = np.roll(angles, top)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _disc(faces: I64, count: int) -> F64:
    """(count, 2) a surface with one open edge, on a disc."""
    rim = boundary_loops(faces)[0]
    angle = np.linspace(0.0, 2.0 * np.pi, len(rim), endpoint=False)
    return tutte(faces, count, rim, np.stack([np.cos(angle), np.sin(angle)], axis=1))


def _fisheye(points: F64) -> F64:
    """(N, 2) an eyeball seen along the gaze, distance from the middle in proportion to the angle."""
    direction = points - 0.5 * (points.min(axis=0) + points.max(axis=0))
    angle = np.arctan2(np.linalg.norm(direction[:, :2], axis=1), direction[:, 2])
    around = np.arctan2(direction[:, 1], direction[:, 0])
    return angle[:, None] * np.stack([np.cos(around), np.sin(around)], axis=1)


def _arch(points: F64) -> F64:
    """(N, 2) a row of teeth or gums, unrolled around the middle of the mouth."""
    around = np.arctan2(points[:, 0], points[:, 2] - _ARCH_CENTRE_Z)
    return np.stack([0.04 * around, points[:, 1] + 0.2 * points[:, 2]], axis=1)


def _strip_boxes() -> dict[int, tuple[float, float, float, float]]:
    """Chart -> (u0, v0, u1, v1) of the charts below the skin."""
    names = (CAVITY, ORBIT_LEFT, ORBIT_RIGHT, EYE_LEFT, EYE_RIGHT)
    width = 1.0 / (len(names) + 2)
    boxes = {chart: (i * width, 0.0, (i + 1) * width, _STRIP_TOP) for i, chart in enumerate(names)}
    left = len(names) * width
    boxes[TONGUE] = (1.0 - 0.4 * width, 0.0, 1.0, _STRIP_TOP)
    rows = (GUMS_UPPER, GUMS_LOWER, TEETH_UPPER, TEETH_LOWER)
    height = _STRIP_TOP / len(rows)
    for i, chart in enumerate(rows):
        boxes[chart] = (left, i * height, 1.0 - 0.4 * width, (i + 1) * height)
    return boxes


def _fit(flat: F64, box: tuple[float, float, float, float]) -> F64:
    """Scale and centre places into a box, keeping their proportions and a margin."""
    low = np.array(box[:2]) + _MARGIN
    size = np.array(box[2:]) - _MARGIN - low
    extent = np.ptp(flat, axis=0)
    scale = (size / extent).min()
    middle = 0.5 * (flat.min(axis=0) + flat.max(axis=0))
    return low + 0.5 * size + (flat - middle) * scale

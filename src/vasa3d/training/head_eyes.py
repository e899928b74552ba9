"""Eyeballs of the shipped head: polar grids about the line of sight.

Each eyeball is r(d) d about its centre c, with directions d on rings around +z (the gaze at rest) and the profile r of
``head.guards`` fitted to the source's outer shell, which has the corneal bulge that the lids slide over. Rings lie
exactly on the pupil's rim and on the limbus. An identity moves c and scales the ball; it never turns it, so that a gaze
of zero always means +z.

Symbols: theta angle from the gaze in degrees, c (3,) metres, r metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from vasa3d.head.guards import eyeball_radius
from vasa3d.training.head_source import LEFT_CORNEA, X_FLIP, HeadSource

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

SPOKES = 24
PUPIL_METRES, LIMBUS_METRES = 0.0019, 0.0059
"""Radii of pupil and iris across the line of sight (a human iris is 11.7 mm wide at any age and size)."""

FALLOFFS = np.array([0.0, 2.0, 10.0, 40.0])
"""Angular falloffs beta_k of the eyeball's profile (``head.guards``): sclera, its slope, cornea and its tip."""

_ROUNDING_STEPS = 8
_BETWEEN = {"pupil": 2, "iris": 4}
_SCLERA_DEGREES = (24.0, 28.0, 33.0, 39.0, 46.0, 55.0, 66.0, 80.0, 96.0, 114.0, 134.0, 156.0)


@dataclass(frozen=True)
class Eyes:
    """Both eyeballs, left first.

    Attributes:
        neutral: (E, 3) rest positions, metres.
        identity: (M, E, 3) deltas for the source's identity modes.
        faces: (F, 3) triangles seen counter-clockwise from outside.
        mirror: (E,) mirror partners.
        ring: (E,) ring of each vertex: 0 the pole, then outwards.
        pupil_ring: Ring on the pupil's rim.
        limbus_ring: Ring on the iris' outer rim.
        centres: (2, 3) centres of the left and the right eyeball.
        centre_identity: (M, 2, 3) deltas of the centres.
        growth: (M, 2) relative growth.
        axis: (3,) corneal axis of the left eyeball.
        heights: (K,) heights h_k of its profile for ``FALLOFFS``.
    """

    neutral: F64
    identity: F64
    faces: I64
    mirror: I64
    ring: I64
    pupil_ring: int
    limbus_ring: int
    centres: F64
    centre_identity: F64
    growth: F64
    axis: F64
    heights: F64


def build_eyes(source: HeadSource) -> Eyes:
    """Fit both eyeballs to the source; the right one is the left one's mirror image."""
    shell = source.neutral[slice(*LEFT_CORNEA)]
    centre = _sphere_centre(shell[shell[:, 2] < shell[:, 2].max() - 0.011])
    axis, heights = _profile(shell - centre)
    radius = partial(eyeball_radius, axis=axis, heights=heights, falloffs=FALLOFFS)
    theta, pupil_ring, limbus_ring = _ring_angles(radius)
    directions, ring = _directions(theta)
    directions = _rounded(directions, ring, radius, pupil_ring, limbus_ring)
    local = directions * radius(directions)[:, None]
    indices = np.arange(*LEFT_CORNEA)
    shift, scale = _similarity(source.identity[:, indices], shell, centre)
    right_shift, right_scale = _similarity(
        source.identity[:, source.mirror[indices]], shell * X_FLIP, centre * X_FLIP
    )
    left = shift[:, None] + scale[:, None, None] * local
    right = right_shift[:, None] + right_scale[:, None, None] * local * X_FLIP
    faces = _faces(len(theta))
    count = len(local)
    return Eyes(
        neutral=np.concatenate([centre + local, (centre + local) * X_FLIP]),
        identity=np.concatenate([left, right], axis=1),
        faces=np.concatenate([faces, faces[:, ::-1] + count]),
        mirror=np.concatenate([np.arange(count) + count, np.arange(count)]),
        ring=np.concatenate([ring, ring]),
        pupil_ring=pupil_ring,
        limbus_ring=limbus_ring,
        centres=np.stack([centre, centre * X_FLIP]),
        centre_identity=np.stack([shift, right_shift], axis=1),
        growth=np.stack([scale, right_scale], axis=1),
        axis=axis,
        heights=heights,
    )


def _sphere_centre(points: F64) -> F64:
    """Least-squares centre of the sphere through points away from the cornea."""
    system = np.concatenate([2.0 * points, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    return solution[:3]


def _profile(offsets: F64) -> tuple[F64, F64]:
    """Corneal axis (3,) and heights (K,) of the surface of revolution through the shell's offsets."""
    lengths = np.linalg.norm(offsets, axis=1)
    directions = offsets / lengths[:, None]
    axis = directions[lengths > np.quantile(lengths, 0.85)].mean(axis=0)
    axis /= np.linalg.norm(axis)
    system = np.exp((directions @ axis - 1.0)[:, None] * FALLOFFS)
    return axis, np.linalg.lstsq(system, lengths, rcond=None)[0]


def _ring_angles(radius: Callable[[F64], F64]) -> tuple[F64, int, int]:
    """Angles of all rings between the poles, and which are the pupil's and the iris' rims."""
    grid = np.radians(np.linspace(0.5, 40.0, 400))
    around = np.linspace(0.0, 2.0 * np.pi, 8, endpoint=False)
    # The bulge leans outwards from the gaze: the mean over a circle stands for its radius.
    across = np.array([np.sin(t) * radius(_circle(t, around)).mean() for t in grid])
    pupil = float(np.interp(PUPIL_METRES, across, grid))
    limbus = float(np.interp(LIMBUS_METRES, across, grid))
    inner = np.linspace(0.0, pupil, _BETWEEN["pupil"] + 1)[1:]
    iris = np.linspace(pupil, limbus, _BETWEEN["iris"] + 1)[1:]
    theta = np.concatenate([inner, iris, np.radians(_SCLERA_DEGREES)])
    return theta, _BETWEEN["pupil"], _BETWEEN["pupil"] + _BETWEEN["iris"]


def _rounded(
    directions: F64, ring: I64, radius: Callable[[F64], F64], pupil_ring: int, limbus_ring: int
) -> F64:
    """Tilt directions so that pupil and iris are true circles seen along the gaze."""
    out = directions.copy()
    lateral = np.linalg.norm(directions[:, :2], axis=1)
    for number in range(1, limbus_ring + 1):
        on = ring == number
        if number <= pupil_ring:
            wanted = PUPIL_METRES * number / pupil_ring
        else:
            share = (number - pupil_ring) / (limbus_ring - pupil_ring)
            wanted = PUPIL_METRES + (LIMBUS_METRES - PUPIL_METRES) * share
        around = directions[on][:, :2] / lateral[on][:, None]
        for _ in range(_ROUNDING_STEPS):
            sine = wanted / radius(out[on])
            out[on] = np.concatenate(
                [around * sine[:, None], np.sqrt(1.0 - sine**2)[:, None]], axis=1
            )
    return out


def _circle(theta: float, around: F64) -> F64:
    """(N, 3) unit directions at angle theta from +z."""
    x, y = np.cos(around) * np.sin(theta), np.sin(around) * np.sin(theta)
    return np.stack([x, y, np.full(len(around), np.cos(theta))], axis=1)


def _directions(theta: F64) -> tuple[F64, I64]:
    """Front pole, rings of ``SPOKES`` directions, back pole; and the ring number of each."""
    around = np.linspace(0.0, 2.0 * np.pi, SPOKES, endpoint=False)
    rows = [np.array([[0.0, 0.0, 1.0]])]
    rows += [_circle(t, around) for t in theta]
    rows.append(np.array([[0.0, 0.0, -1.0]]))
    ring = np.concatenate([np.full(len(row), i) for i, row in enumerate(rows)])
    return np.concatenate(rows), ring


def _faces(num_rings: int) -> I64:
    """Triangles of the grid, counter-clockwise from outside."""
    step = (np.arange(SPOKES) + 1) % SPOKES
    here = np.arange(SPOKES)
    first = 1 + here
    faces = [np.stack([np.zeros(SPOKES, np.int64), first, 1 + step], axis=1)]
    for k in range(num_rings - 1):
        a, b = 1 + k * SPOKES, 1 + (k + 1) * SPOKES
        faces.append(np.stack([a + here, b + here, b + step], axis=1))
        faces.append(np.stack([a + here, b + step, a + step], axis=1))
    last = 1 + (num_rings - 1) * SPOKES
    back = np.full(SPOKES, last + SPOKES)
    faces.append(np.stack([back, last + step, last + here], axis=1))
    return np.concatenate(faces)


def _similarity(deltas: F64, shell: F64, centre: F64) -> tuple[F64, F64]:
    """Shift (M, 3) of the centre and relative growth (M,) of an eyeball under each identity mode.

    The source moves its eyeballs by delta(x) = t + (g + [w]) (x - c); the turn w is left out.
    """
    system = np.concatenate([shell - centre, np.ones((len(shell), 1))], axis=1)
    maps = np.einsum("an,mnk->mak", np.linalg.pinv(system), deltas)
    return maps[:, 3], np.trace(maps[:, :3], axis1=1, axis2=2) / 3.0

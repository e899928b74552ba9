"""Our own mesh over the source statistics: fewer vertices, dense where a talking face is looked at.

The half with x >= 0 of each part is decimated (``head_decimate``) and mirrored, so the mesh is symmetric and its
mid-line is shared. Rings of the source's edge loops around lips and lids are kept whole. Eyeballs are our own polar
grids (``head_eyes``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from vasa3d.training.head_decimate import decimate
from vasa3d.training.head_source import PARTS, SKIN_END, HeadSource, ring_distance

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

SKIN_HALF, GUMS_HALF, TEETH_HALF = 3650, 430, 500
"""Vertices kept of each half: skin with cavity and eye sockets, gums with tongue, teeth."""

LIP_RINGS_KEPT = (-2, 9)
LID_RINGS_KEPT = (-1, 7)
LIP_CONTACT_RING = 7
"""Loop along which the closed lips touch."""

LID_CONTACT_RING = 2
"""Loop of the lid margin that touches the eyeball."""

TONGUE_START = 16600
"""First source vertex of the tongue, which continues the gums."""

_ROOT_DEPTH_METRES = 0.0012
_ON_PLANE = 1e-7
_POSES = (
    "eyeBlinkLeft", "jawOpen", "mouthPucker", "mouthSmileLeft", "browInnerUp", "mouthFunnel",
    "noseSneerLeft",
)  # fmt: skip


@dataclass(frozen=True)
class Rings:
    """Signed number of edge loops between each source vertex and the rims of mouth and eye sockets.

    0 is the rim where the face's skin ends, positive outwards over the face, negative inside.

    Attributes:
        mouth: (S,) loops from the rim of the mouth cavity.
        eye: (S,) loops from the rim of the nearer eye socket.
    """

    mouth: I64
    eye: I64


def find_rings(source: HeadSource) -> Rings:
    """Count edge loops from the rims of the mouth cavity and the eye sockets."""
    return Rings(_signed_rings(source, "socket"), _signed_rings(source, "orbit"))


def build_faces(source: HeadSource, rings: Rings, seed: int) -> I64:
    """(F, 3) triangles over source vertices: skin, cavity, sockets, gums, tongue and teeth.

    Args:
        source: Symmetric source statistics.
        rings: From ``find_rings``.
        seed: Of the random identities that the decimation must also serve.
    """
    poses = _poses(source, seed)
    importance = _importance(source)
    locked = _locked(source, rings)
    halves = []
    for names, target in (
        (("face", "head", "socket", "orbit"), SKIN_HALF),
        (("gums",), GUMS_HALF),
        (("teeth",), TEETH_HALF),
    ):
        faces = source.part_triangles(*names)
        if names == ("teeth",):
            faces = _without_roots(source, faces)
        half = faces[(source.neutral[faces][:, :, 0] >= -_ON_PLANE).all(axis=1)]
        halves.append(decimate(poses, half, target, importance, locked))
    half = np.concatenate(halves)
    return np.concatenate([half, source.mirror[half][:, ::-1]])


def _signed_rings(source: HeadSource, part: str) -> I64:
    start, end = PARTS[part]
    quads = source.quads[source.quads[:, 0] < SKIN_END]
    inside = (quads >= start) & (quads < end)
    face = (quads >= 0) & (quads < PARTS["head"][1])
    mixed = inside.any(axis=1) & face.any(axis=1)
    rim = np.unique(quads[mixed][face[mixed]])
    distance = ring_distance(source.quads, len(source.neutral), rim)
    distance[start:end] *= -1
    return distance


def _poses(source: HeadSource, seed: int) -> F64:
    """(P, S, 3) rest, key expressions and random identities; blink and open jaw come second and third."""
    rng = np.random.default_rng(seed)
    shapes = [source.neutral]
    shapes += [source.neutral + source.expressions[name] for name in _POSES]
    for _ in range(4):
        code = rng.standard_normal(len(source.identity))
        shapes.append(source.neutral + np.tensordot(code, source.identity, axes=1))
    return np.stack(shapes)


def _importance(source: HeadSource) -> F64:
    """(S,) price of error: high at lips, lids and nose, low where nobody looks."""
    points = source.neutral
    importance = np.full(len(points), 0.3)
    for centre, radius, weight in (
        ((0.0, 0.0, 0.10), 0.07, 3.0),
        ((0.0, -0.033, 0.108), 0.03, 25.0),
        ((0.034, 0.039, 0.093), 0.03, 40.0),
        ((0.0, -0.005, 0.125), 0.025, 10.0),
        ((0.08, 0.02, 0.0), 0.04, 2.0),
    ):
        distance = np.linalg.norm(points - np.array(centre), axis=1)
        importance += weight * np.exp(-((distance / radius) ** 2))
    importance[slice(*PARTS["socket"])] = 0.05
    importance[slice(*PARTS["orbit"])] = 0.3
    importance[slice(*PARTS["gums"])] = 1.0
    importance[TONGUE_START : PARTS["gums"][1]] = 4.0
    front = points[:, 2] > 0.085
    importance[slice(*PARTS["teeth"])] = np.where(front[slice(*PARTS["teeth"])], 6.0, 1.0)
    return importance


def _locked(source: HeadSource, rings: Rings) -> Mask:
    """Vertices that stay: loops around lips and lids, and the lower edge of the shoulders."""
    skin = np.arange(len(source.neutral)) < SKIN_END
    lips = (rings.mouth >= LIP_RINGS_KEPT[0]) & (rings.mouth <= LIP_RINGS_KEPT[1])
    lids = (rings.eye >= LID_RINGS_KEPT[0]) & (rings.eye <= LID_RINGS_KEPT[1])
    faces = source.part_triangles("face", "head", "socket", "orbit")
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    bottom = np.zeros(len(source.neutral), bool)
    bottom[unique[count == 1]] = True
    return skin & (lips | lids | bottom)


def _without_roots(source: HeadSource, faces: I64) -> I64:
    """Drop what lies inside the gums or behind their edge: roots are never seen."""
    points = source.neutral
    gums = source.part_triangles("gums")
    cross = np.cross(
        points[gums[:, 1]] - points[gums[:, 0]], points[gums[:, 2]] - points[gums[:, 0]]
    )
    normals = np.zeros_like(points)
    for corner in range(3):
        np.add.at(normals, gums[:, corner], cross)
    used = np.unique(gums)
    normals[used] /= np.linalg.norm(normals[used], axis=1, keepdims=True)
    tree = KDTree(points[used])
    start, end = PARTS["teeth"]
    _, near = tree.query(points[start:end])
    nearest = used[near]
    height = ((points[start:end] - points[nearest]) * normals[nearest]).sum(axis=1)
    hidden = np.zeros(len(points), bool)
    hidden[start:end] = height < -_ROOT_DEPTH_METRES
    upper, lower = points[start:end, 1] > -0.0135, points[start:end, 1] < -0.0465
    hidden[start:end] |= upper | lower
    return faces[~hidden[faces].all(axis=1)]

"""Closest points of a triangle mesh.

A bounding-volume hierarchy over the triangles (median splits along the longest axis) finds, for
each query point p, the surface point x minimising |p - x|; exact, with O(log F) work a point.
Metres; barycentric weights as in ``meshes``.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasa3d.types import F32, I32

_LEAF = 4
_STACK = 128


def closest_points(points: F32, vertices: F32, faces: NDArray[np.integer]) -> tuple[I32, F32, F32]:
    """Closest surface point of each query point.

    Args:
        points: (N, 3) metres.
        vertices: (V, 3) metres.
        faces: (F, 3) vertex indices, at least one face.

    Returns:
        Face (N,) int32, barycentric weights (N, 3) float32 and distance (N,) float32 in metres.

    Raises:
        ValueError: The mesh has no faces, or a vertex or point is not finite.
    """
    corners = np.ascontiguousarray(np.asarray(vertices, np.float64)[np.asarray(faces)])
    queries = np.ascontiguousarray(points, np.float64)
    if len(corners) == 0:
        raise ValueError("the mesh has no faces")
    if not (np.isfinite(corners).all() and np.isfinite(queries).all()):
        raise ValueError("vertices and points must be finite")
    order, low, high, span = _build(corners)
    return _query(queries, corners, order, low, high, span)


def _build(
    corners: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """A complete binary tree over the triangles, level by level.

    Args:
        corners: (F, 3, 3) corner positions.

    Returns:
        Triangles in tree order (F,), boxes' low and high corners (M, 3), and the range of each
        node in the order (M, 2); node i has children 2 i + 1 and 2 i + 2.
    """
    centre, order = corners.mean(axis=1), np.arange(len(corners))
    lowest, highest = corners.min(axis=1), corners.max(axis=1)
    cuts = np.array([0, len(corners)])
    lows, highs, spans = [], [], []
    while True:
        spans.append(np.stack([cuts[:-1], cuts[1:]], axis=1))
        lows.append(np.minimum.reduceat(lowest[order], cuts[:-1]))
        highs.append(np.maximum.reduceat(highest[order], cuts[:-1]))
        sizes = np.diff(cuts)
        if sizes.max() <= _LEAF:
            break
        node = np.repeat(np.arange(len(sizes)), sizes)
        axis = (highs[-1] - lows[-1]).argmax(axis=1)[node]
        order = order[np.lexsort((centre[order, axis], node))]
        cuts = np.append(np.stack([cuts[:-1], (cuts[:-1] + cuts[1:]) // 2], axis=1), len(order))
    return order, np.concatenate(lows), np.concatenate(highs), np.concatenate(spans)


@njit(nogil=True, cache=True)
def _closest_on_triangle(p, t, bary):  # pragma: no cover - compiled
    """Weights of the point of triangle t (3, 3) closest to p; returns the squared distance.

    Walks the Voronoi regions of corners, edges and face (Ericson 2005, Real-Time Collision
    Detection, 5.1.5).
    """
    d1 = d2 = d3 = d4 = d5 = d6 = 0.0
    for i in range(3):
        ab, ac = t[1, i] - t[0, i], t[2, i] - t[0, i]
        d1 += ab * (p[i] - t[0, i])
        d2 += ac * (p[i] - t[0, i])
        d3 += ab * (p[i] - t[1, i])
        d4 += ac * (p[i] - t[1, i])
        d5 += ab * (p[i] - t[2, i])
        d6 += ac * (p[i] - t[2, i])
    va, vb, vc = d3 * d6 - d5 * d4, d5 * d2 - d1 * d6, d1 * d4 - d3 * d2
    if d1 <= 0.0 and d2 <= 0.0:
        b1, b2 = 0.0, 0.0
    elif d3 >= 0.0 and d4 <= d3:
        b1, b2 = 1.0, 0.0
    elif d6 >= 0.0 and d5 <= d6:
        b1, b2 = 0.0, 1.0
    elif vc <= 0.0 and d1 >= 0.0 and d3 <= 0.0:
        b1, b2 = d1 / (d1 - d3), 0.0
    elif vb <= 0.0 and d2 >= 0.0 and d6 <= 0.0:
        b1, b2 = 0.0, d2 / (d2 - d6)
    elif va <= 0.0 and d4 >= d3 and d5 >= d6:
        b2 = (d4 - d3) / ((d4 - d3) + (d5 - d6))
        b1 = 1.0 - b2
    else:
        b1, b2 = vb / (va + vb + vc), vc / (va + vb + vc)
    bary[0], bary[1], bary[2] = 1.0 - b1 - b2, b1, b2
    squared = 0.0
    for i in range(3):
        gap = p[i] - (bary[0] * t[0, i] + b1 * t[1, i] + b2 * t[2, i])
        squared += gap * gap
    return squared


@njit(nogil=True, cache=True)
def _box_distance(p, low, high):  # pragma: no cover - compiled
    squared = 0.0
    for i in range(3):
        gap = max(low[i] - p[i], p[i] - high[i], 0.0)
        squared += gap * gap
    return squared


@njit(nogil=True, cache=True)
def _query(points, corners, order, low, high, span):  # pragma: no cover - compiled
    count, nodes = len(points), len(span)
    face = np.zeros(count, np.int32)
    weights = np.zeros((count, 3), np.float32)
    distance = np.zeros(count, np.float32)
    stack = np.zeros(_STACK, np.int64)
    bary = np.zeros(3)
    for n in range(count):
        p = points[n]
        stack[0] = 0
        top, best = 1, np.inf
        while top > 0:
            top -= 1
            node = stack[top]
            if not _box_distance(p, low[node], high[node]) < best:
                continue
            left = 2 * node + 1
            if left < nodes:
                near, far = left, left + 1
                if _box_distance(p, low[far], high[far]) < _box_distance(p, low[near], high[near]):
                    near, far = far, near
                stack[top], stack[top + 1] = far, near
                top += 2
                continue
            for s in range(span[node, 0], span[node, 1]):
                squared = _closest_on_triangle(p, corners[order[s]], bary)
                if squared < best:
                    best = squared
                    face[n] = order[s]
                    for i in range(3):
                        weights[n, i] = bary[i]
        distance[n] = np.sqrt(best)
    return face, weights, distance

"""Closest points of a triangle mesh.

A bounding-volume hierarchy over the triangles (median splits along the longest axis) finds, for
each query point p, the surface point x minimising |p - x|; exact, with O(log F) work a point.
Metres; barycentric weights as in ``meshes``.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
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
    order = np.arange(len(corners))
    low, high, span = _build(corners, order)
    return _query(queries, corners, order, low, high, span)


@njit(cache=True)
def _build(corners, order):  # pragma: no cover - compiled
    """Split ``order`` in place into a complete binary tree: node i has children 2i + 1, 2i + 2."""
    count = len(order)
    depth = 0
    while (count >> depth) > _LEAF:
        depth += 1
    nodes = (1 << (depth + 1)) - 1
    low, high = np.empty((nodes, 3)), np.empty((nodes, 3))
    span = np.zeros((nodes, 2), np.int64)
    centre = np.empty((count, 3))
    for f in range(count):
        for i in range(3):
            centre[f, i] = (corners[f, 0, i] + corners[f, 1, i] + corners[f, 2, i]) / 3.0
    span[0, 1] = count
    for node in range(nodes):
        first, last = span[node]
        axis = 0
        for i in range(3):
            low[node, i], high[node, i] = np.inf, -np.inf
            for s in range(first, last):
                for c in range(3):
                    low[node, i] = min(low[node, i], corners[order[s], c, i])
                    high[node, i] = max(high[node, i], corners[order[s], c, i])
            if high[node, i] - low[node, i] > high[node, axis] - low[node, axis]:
                axis = i
        if 2 * node + 2 < nodes:
            part = order[first:last].copy()
            order[first:last] = part[np.argsort(centre[part, axis])]
            middle = (first + last) // 2
            span[2 * node + 1] = (first, middle)
            span[2 * node + 2] = (middle, last)
    return low, high, span


@njit(cache=True)
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


@njit(cache=True)
def _box_distance(p, low, high):  # pragma: no cover - compiled
    squared = 0.0
    for i in range(3):
        gap = max(low[i] - p[i], p[i] - high[i], 0.0)
        squared += gap * gap
    return squared


@njit(cache=True, parallel=True)
def _query(points, corners, order, low, high, span):  # pragma: no cover - compiled
    count, nodes = len(points), len(span)
    face = np.zeros(count, np.int32)
    weights = np.zeros((count, 3), np.float32)
    distance = np.zeros(count, np.float32)
    for n in prange(count):
        p = points[n]
        stack = np.zeros(_STACK, np.int64)
        bary = np.zeros(3)
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

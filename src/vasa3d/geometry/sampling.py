"""Even (blue-noise) sampling of a surface.

Weighted sample elimination (Yuksel 2015, Sample Elimination for Generating Poisson Disk Sample
Sets): from a pool of random points the most crowded one is removed until as many are left as asked
for. Point i with target density p_i (points per square metre) has the radius r_i = 1 / sqrt(2
sqrt(3) p_i) of the densest packing of discs; two points at distance d crowd each other by (1 - d /
(r_i + r_j))^8 when that is positive and their faces look the same way, so sheets that lie on each
other, such as closed lips, do not thin each other out.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.spatial import KDTree

from vasa3d.types import F32, I32

_POOL = 4
"""Candidates for each point kept."""
_NEIGHBOURS = 24
"""Candidates looked at around each; 15 lie in reach on average."""
_MORTON_BITS = 10


def sample_surface(
    vertices: F32,
    faces: NDArray[np.integer],
    count: int,
    seed: int,
    density: F32 | None = None,
) -> tuple[I32, F32]:
    """Spread points evenly over a surface.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3) vertex indices.
        count: Number of points N.
        seed: Seed of all randomness.
        density: (F,) relative points per area; uniform when ``None``.

    Returns:
        Face of each point (N,) int32 in ascending order, and barycentric weights (N, 3) float32.

    Raises:
        ValueError: The surface has no area (under the density).
    """
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = 0.5 * np.linalg.norm(normals, axis=1)
    wanted = np.ones(len(corners)) if density is None else np.asarray(density, np.float64)
    mass = area * wanted
    if not (mass.sum() > 0.0 and np.isfinite(mass).all() and (mass >= 0.0).all()):
        raise ValueError("the surface has no area to sample, or a density is negative or infinite")
    face, bary = _candidates(corners, mass, _POOL * count, np.random.default_rng(seed))
    if count > 1:
        points = np.einsum("nc,nci->ni", bary, corners[face])
        per_area = wanted * count / mass.sum()
        radius = 1.0 / np.sqrt(2.0 * math.sqrt(3.0) * per_area[face])
        kept = _eliminate(points, normals[face], radius, count)
    else:
        kept = np.arange(count)
    kept = kept[np.argsort(face[kept], kind="stable")]
    return face[kept].astype(np.int32), bary[kept].astype(np.float32)


def _candidates(
    corners: NDArray[np.float64], mass: NDArray[np.float64], count: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Random points, already stratified: steps of equal mass along a space-filling curve.

    Returns:
        Face (count,) and barycentric weights (count, 3).
    """
    curve = np.argsort(_morton(corners.mean(axis=1)), kind="stable")
    cumulative = np.cumsum(mass[curve])
    strata = (np.arange(count) + rng.random(count)) / max(count, 1) * cumulative[-1]
    face = curve[np.searchsorted(cumulative, strata, side="right").clip(0, len(curve) - 1)]
    uv = rng.random((count, 2))
    folded = uv.sum(axis=1) > 1.0
    uv[folded] = 1.0 - uv[folded]
    return face, np.stack([1.0 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], axis=1).clip(0.0, 1.0)


def _morton(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N,) place of each point (N, 3) along a Z-order curve through the bounding box."""
    low = points.min(axis=0)
    span = max(float((points.max(axis=0) - low).max()), 1e-12)
    cells = ((points - low) / span * ((1 << _MORTON_BITS) - 1)).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code


def _eliminate(
    points: NDArray[np.float64],
    normals: NDArray[np.float64],
    radius: NDArray[np.float64],
    count: int,
) -> NDArray[np.int64]:
    """Indices of the ``count`` points left, ascending.

    Args:
        points: (M, 3) metres.
        normals: (M, 3) of any length.
        radius: (M,) metres.
        count: Points to keep.
    """
    num_neighbours = min(_NEIGHBOURS, len(points) - 1)
    distance, near = KDTree(points).query(points, num_neighbours + 1, workers=-1)
    distance, near = np.asarray(distance)[:, 1:], np.asarray(near)[:, 1:]
    reach = np.maximum(radius[:, None] + radius[near], 1e-30)
    crowding = np.maximum(1.0 - distance / reach, 0.0) ** 8
    crowding[np.einsum("ni,nki->nk", normals, normals[near]) <= 0.0] = 0.0
    # Among points that coincide, one may come out as its own neighbour.
    crowding[near == np.arange(len(points))[:, None]] = 0.0
    total = crowding.sum(axis=1)
    heap = np.argsort(-total, kind="stable")
    alive = _remove_most_crowded(heap, total, near, crowding, len(points) - count)
    return np.flatnonzero(alive)


@njit(nogil=True, cache=True)
def _remove_most_crowded(heap, total, near, crowding, number):  # pragma: no cover - compiled
    """Remove points one by one; returns (M,) whether each is left.

    ``heap`` lists points by descending ``total``, which makes it a heap. Totals only fall, so a
    point's place in the heap is put right when it comes to the top.
    """
    alive = np.ones(len(total), np.bool_)
    key = total.copy()
    size = len(heap)
    while number > 0:
        point = heap[0]
        if key[point] > total[point]:
            key[point] = total[point]
        else:
            alive[point] = False
            number -= 1
            for k in range(near.shape[1]):
                total[near[point, k]] -= crowding[point, k]
            size -= 1
            heap[0] = heap[size]
        hole, moved = 0, heap[0]
        while 2 * hole + 1 < size:
            child = 2 * hole + 1
            if child + 1 < size and key[heap[child + 1]] > key[heap[child]]:
                child += 1
            if key[heap[child]] <= key[moved]:
                break
            heap[hole] = heap[child]
            hole = child
        heap[hole] = moved
    return alive

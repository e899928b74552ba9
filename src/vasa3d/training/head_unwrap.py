"""Flatten a surface with little distortion and without flipped triangles.

``tutte`` maps a disc into a convex shape (always injective); ``relax`` then minimises the symmetric Dirichlet energy

    E = sum_t A_t (|J_t|^2 + |J_t^-1|^2),    J_t the Jacobian from triangle t's own plane to the atlas,

by scalable locally injective mappings (Rabinovich et al. 2017, section 4): each step solves a weighted least-squares
problem towards the nearest rotations and walks along its direction only as far as no triangle flips.
Symbols: V vertices, T triangles, A areas.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.linalg import spsolve

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

_SAFE_STEP = 0.8
_MIN_DETERMINANT = 1e-12


def boundary_loops(faces: I64) -> list[I64]:
    """Open edges of a surface as ordered vertex loops, longest first; each runs with its faces on the left."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    known = {(int(a), int(b)) for a, b in edges}
    onward = {a: b for a, b in known if (b, a) not in known}
    loops = []
    while onward:
        start = next(iter(onward))
        loop = [start]
        following = onward.pop(start)
        while following != start:
            loop.append(following)
            following = onward.pop(following)
        loops.append(np.array(loop, np.int64))
    return sorted(loops, key=len, reverse=True)


def tutte(faces: I64, count: int, fixed: I64, positions: F64) -> F64:
    """Spring embedding with equal springs (Tutte 1963).

    Args:
        faces: (T, 3) triangles.
        count: Number of vertices.
        fixed: (B,) boundary vertices.
        positions: (B, 2) their places, convex in order.

    Returns:
        (count, 2) places; zero for vertices without faces.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    rows = np.concatenate([edges[:, 0], edges[:, 1]])
    columns = np.concatenate([edges[:, 1], edges[:, 0]])
    graph = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count)).tocsr()
    graph.data[:] = 1.0
    degree = np.asarray(graph.sum(axis=1)).ravel()
    laplacian = csr_matrix(diags(degree) - graph)
    out = np.zeros((count, 2))
    out[fixed] = positions
    free = np.setdiff1d(np.unique(faces), fixed)
    right = -laplacian[free][:, fixed] @ positions
    out[free] = np.asarray(spsolve(laplacian[free][:, free].tocsc(), right)).reshape(-1, 2)
    return out


def relax(points: F64, faces: I64, start: F64, scale: F64, on_axis: Mask, steps: int) -> F64:
    """Minimise distortion from an injective start.

    Args:
        points: (V, 3) the surface, metres.
        faces: (T, 3) triangles.
        start: (V, 2) places without flipped triangles.
        scale: (T,) wanted magnification of each triangle.
        on_axis: (V,) vertices whose first coordinate stays 0.
        steps: Iterations.

    Returns:
        (V, 2) places, in metres times magnification.
    """
    gradients, area = _gradients(points, faces, scale)
    places = start * np.sqrt(area.sum() / max(_flat_area(start, faces).sum(), 1e-30))
    free = np.concatenate([~on_axis, np.ones(len(points), bool)])
    used = np.zeros(len(points), bool)
    used[faces] = True
    free &= np.concatenate([used, used])
    energy = _energy(places, faces, gradients, area)
    for _ in range(steps):
        target = _solve(places, faces, gradients, area, free)
        direction = target - places
        step = min(1.0, _SAFE_STEP * _largest_step(places, direction, faces))
        while step > 1e-8:
            trial = places + step * direction
            trial_energy = _energy(trial, faces, gradients, area)
            if trial_energy < energy:
                break
            step *= 0.5
        else:
            break
        gain, places, energy = energy - trial_energy, trial, trial_energy
        if gain < 1e-6 * energy:
            break
    return places


def _gradients(points: F64, faces: I64, scale: F64) -> tuple[F64, F64]:
    """(T, 3, 2) gradients of the corners' hat functions in each triangle's own plane, and (T,) areas."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    x = (b - a) / np.linalg.norm(b - a, axis=1, keepdims=True)
    normal = np.cross(b - a, c - a)
    y = np.cross(normal / np.linalg.norm(normal, axis=1, keepdims=True), x)
    flat = np.zeros((len(faces), 3, 2))
    flat[:, 1, 0] = ((b - a) * x).sum(axis=1)
    flat[:, 2] = np.stack([((c - a) * x).sum(axis=1), ((c - a) * y).sum(axis=1)], axis=1)
    flat *= scale[:, None, None]
    edges = np.stack([flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]], axis=1)
    inverse = np.linalg.inv(edges)
    gradients = np.empty((len(faces), 3, 2))
    gradients[:, 1], gradients[:, 2] = inverse[:, :, 0], inverse[:, :, 1]
    gradients[:, 0] = -gradients[:, 1] - gradients[:, 2]
    return gradients, 0.5 * np.abs(np.linalg.det(edges))


def _jacobians(places: F64, faces: I64, gradients: F64) -> F64:
    return np.einsum("tki,tkj->tij", places[faces], gradients)


def _energy(places: F64, faces: I64, gradients: F64, area: F64) -> float:
    jacobian = _jacobians(places, faces, gradients)
    determinant = np.linalg.det(jacobian)
    if determinant.min() <= _MIN_DETERMINANT:
        return np.inf
    square = (jacobian**2).sum(axis=(1, 2))
    return float((area * square * (1.0 + 1.0 / determinant**2)).sum())


def _solve(places: F64, faces: I64, gradients: F64, area: F64, free: Mask) -> F64:
    """Minimum of the weighted distance to the nearest rotations."""
    jacobian = _jacobians(places, faces, gradients)
    u, stretch, vt = np.linalg.svd(jacobian)
    rotation = u @ vt
    near_one = np.abs(stretch - 1.0) < 1e-6
    safe = np.where(near_one, 2.0, stretch)
    weight = np.where(near_one, 2.0, np.sqrt((safe - safe**-3) / (safe - 1.0)))
    proxy = np.einsum("tik,tk,tjk->tij", u, weight, u) * np.sqrt(area)[:, None, None]
    count, triangles = len(places), len(faces)
    # Row (t, i, j): sum_k proxy[i, m] * gradients[k, j] * place[k, m] = (proxy rotation)[i, j].
    values = np.einsum("tim,tkj->tijkm", proxy, gradients)
    rows = np.broadcast_to(np.arange(triangles * 4).reshape(triangles, 2, 2, 1, 1), values.shape)
    columns = faces[:, None, None, :, None] + count * np.arange(2)
    columns = np.broadcast_to(columns, values.shape)
    system = csr_matrix(
        (values.ravel(), (rows.ravel(), columns.ravel())), shape=(triangles * 4, 2 * count)
    )
    right = (proxy @ rotation).reshape(-1)
    flat = places.T.ravel().copy()
    reduced = system[:, np.flatnonzero(free)]
    rest = right - system @ np.where(free, 0.0, flat)
    normal = (reduced.T @ reduced).tocsc()
    flat[free] = spsolve(normal, reduced.T @ rest)
    return flat.reshape(2, count).T


def _flat_area(places: F64, faces: I64) -> F64:
    a, b, c = (places[faces[:, k]] for k in range(3))
    return 0.5 * np.abs(_cross(b - a, c - a))


def _cross(a: F64, b: F64) -> F64:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _largest_step(places: F64, direction: F64, faces: I64) -> float:
    """Smallest positive step at which a triangle loses its area: det(t) = c0 + c1 t + c2 t^2 = 0."""
    p, d = places[faces], direction[faces]
    e1, e2 = p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]
    f1, f2 = d[:, 1] - d[:, 0], d[:, 2] - d[:, 0]
    c0, c1, c2 = _cross(e1, e2), _cross(e1, f2) + _cross(f1, e2), _cross(f1, f2)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.sqrt(c1**2 - 4.0 * c2 * c0)
        linear = np.where(np.abs(c2) < 1e-20, -c0 / c1, np.inf)
        candidates = np.stack([(-c1 - root) / (2.0 * c2), (-c1 + root) / (2.0 * c2), linear])
    candidates = candidates[np.isfinite(candidates) & (candidates > 0.0)]
    return float(candidates.min(initial=np.inf))

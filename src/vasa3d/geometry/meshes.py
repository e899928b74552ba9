"""Triangle meshes: normals, areas, deformation of triangles, sampling and drawing.

Vertices v (V, 3) float32 in metres, faces f (F, 3) integer with the outside seen counter-clockwise.
A point on a face is sum_k b_k v[f_k] with barycentric weights b (3,), b_k >= 0, sum b = 1.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from vasa3d.geometry.closest import closest_points as closest_points
from vasa3d.types import F32, I32, Camera

NEAR_METRES = 0.01
"""Surfaces nearer to the camera's plane than this are not drawn."""

_BAND_ROWS = 32
_MORTON_BITS = 10


def face_normals(vertices: F32, faces: NDArray[np.integer]) -> F32:
    """(F, 3) unit outward normals; zero for faces without area."""
    cross = _face_crosses(vertices, faces)
    length = np.linalg.norm(cross, axis=1, keepdims=True)
    return (cross / np.where(length > 0.0, length, 1.0)).astype(np.float32)


def face_areas(vertices: F32, faces: NDArray[np.integer]) -> F32:
    """(F,) areas in square metres."""
    return (0.5 * np.linalg.norm(_face_crosses(vertices, faces), axis=1)).astype(np.float32)


def vertex_normals(vertices: F32, faces: NDArray[np.integer]) -> F32:
    """(V, 3) unit normals, area-weighted over the faces around each vertex; zero where none are."""
    cross = _face_crosses(vertices, faces)
    corners = np.asarray(faces).ravel()
    summed = np.stack(
        [
            np.bincount(corners, np.repeat(cross[:, k], 3), minlength=len(vertices))
            for k in range(3)
        ],
        axis=1,
    )
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    return (summed / np.where(length > 0.0, length, 1.0)).astype(np.float32)


def triangle_affines(rest_vertices: F32, posed_vertices: F32, faces: NDArray[np.integer]) -> F32:
    """Affine map of each triangle from its rest to its posed shape.

    In the plane it is the triangle's deformation gradient, so corners map to corners exactly;
    across the plane the unit rest normal maps to the unit posed normal, so thickness is kept.

    Args:
        rest_vertices: (V, 3) metres.
        posed_vertices: (V, 3) metres.
        faces: (F, 3) vertex indices.

    Returns:
        (F, 3, 4) float32 maps [A | t]: a rest point x moves to A x + t. A face without rest area
        only moves with its first corner.
    """
    return _triangle_affines(
        np.ascontiguousarray(rest_vertices, np.float32),
        np.ascontiguousarray(posed_vertices, np.float32),
        np.ascontiguousarray(faces, np.int32),
    )


def sample_surface(
    vertices: F32,
    faces: NDArray[np.integer],
    count: int,
    seed: int,
    density: F32 | None = None,
) -> tuple[I32, F32]:
    """Spread points evenly over a surface.

    Faces are walked along a space-filling curve and drawn by stratified steps of equal mass, so
    neighbouring strata are neighbours in space; inside a face points follow the R2 low-discrepancy
    sequence from a random start.

    Args:
        vertices: (V, 3) metres.
        faces: (F, 3) vertex indices.
        count: Number of points.
        seed: Seed of all randomness.
        density: (F,) relative points per area; uniform when ``None``.

    Returns:
        Face of each point (N,) int32 in ascending order, and barycentric weights (N, 3) float32.

    Raises:
        ValueError: The surface has no area (under the density).
    """
    mass = face_areas(vertices, faces).astype(np.float64)
    if density is not None:
        mass *= np.asarray(density, np.float64)
    if not (mass.sum() > 0.0 and np.isfinite(mass).all() and (mass >= 0.0).all()):
        raise ValueError(
            "the surface has no area to sample, or a density is negative or not finite"
        )
    rng = np.random.default_rng(seed)
    curve = np.argsort(_morton(vertices[faces].mean(axis=1)), kind="stable")
    cumulative = np.cumsum(mass[curve])
    strata = (np.arange(count) + rng.random(count)) / max(count, 1) * cumulative[-1]
    slot = np.searchsorted(cumulative, strata, side="right").clip(0, len(curve) - 1)
    face = np.sort(curve[slot]).astype(np.int32)
    first = np.searchsorted(face, face, side="left")
    rank = np.arange(count) - first
    start = rng.random((len(faces), 2))[face]
    uv = (start + rank[:, None] * np.array([0.7548776662466927, 0.5698402909980532])) % 1.0
    folded = uv.sum(axis=1) > 1.0
    uv[folded] = 1.0 - uv[folded]
    bary = np.stack([1.0 - uv[:, 0] - uv[:, 1], uv[:, 0], uv[:, 1]], axis=1)
    return face, bary.clip(0.0, 1.0).astype(np.float32)


def rasterize_mesh(
    vertices: F32,
    faces: NDArray[np.integer],
    camera: Camera,
    *,
    cull_back_faces: bool = False,
) -> tuple[I32, F32, F32]:
    """Which face, and which point of it, is seen at each pixel centre.

    Ray-plane barycentrics without clipping (Olano and Greer 1997, homogeneous edge functions):
    perspective-correct, safe for triangles that reach behind the camera, and free of cracks along
    shared edges.

    Args:
        vertices: (V, 3) world metres.
        faces: (F, 3) vertex indices.
        camera: The camera.
        cull_back_faces: Do not draw faces seen from inside.

    Returns:
        Face index (H, W) int32, -1 where nothing is seen; barycentric weights (H, W, 3) float32 and
        camera depth (H, W) float32 in metres, both 0 where nothing is seen.
    """
    k = camera.K.astype(np.float64)
    view = camera.viewmat.astype(np.float64)
    local = np.asarray(vertices, np.float64) @ view[:3, :3].T + view[:3, 3]
    return _rasterize(
        np.ascontiguousarray(local),
        np.ascontiguousarray(faces, np.int32),
        k,
        np.ascontiguousarray(np.linalg.inv(k)),
        camera.width,
        camera.height,
        cull_back_faces,
    )


def _face_crosses(vertices: F32, faces: NDArray[np.integer]) -> NDArray[np.float64]:
    """(F, 3) outward normals of twice the face's area in length."""
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)]
    return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])


def _morton(points: NDArray[np.floating]) -> NDArray[np.int64]:
    """(N,) index of each point (N, 3) along a Z-order curve through the bounding box."""
    low = points.min(axis=0)
    span = max(float((points.max(axis=0) - low).max()), math.ulp(0.0) * 2.0)
    cells = ((points - low) / span * ((1 << _MORTON_BITS) - 1)).astype(np.int64)
    code = np.zeros(len(points), np.int64)
    for bit in range(_MORTON_BITS):
        for axis in range(3):
            code |= ((cells[:, axis] >> bit) & 1) << (3 * bit + axis)
    return code


@njit(cache=True)
def _frame(corners, face, out):  # pragma: no cover - compiled
    """Write edges and unit normal of a triangle as columns of ``out``; returns twice its area."""
    for i in range(3):
        origin = corners[face[0], i]
        out[i, 0] = corners[face[1], i] - origin
        out[i, 1] = corners[face[2], i] - origin
    nx = out[1, 0] * out[2, 1] - out[2, 0] * out[1, 1]
    ny = out[2, 0] * out[0, 1] - out[0, 0] * out[2, 1]
    nz = out[0, 0] * out[1, 1] - out[1, 0] * out[0, 1]
    area = math.sqrt(nx * nx + ny * ny + nz * nz)
    inverse = 1.0 / area if area > 0.0 else 0.0
    out[0, 2], out[1, 2], out[2, 2] = nx * inverse, ny * inverse, nz * inverse
    return area


@njit(cache=True, parallel=True)
def _triangle_affines(rest, posed, faces):  # pragma: no cover - compiled
    result = np.empty((len(faces), 3, 4), np.float32)
    for f in prange(len(faces)):
        face = faces[f]
        a, b = np.empty((3, 3)), np.empty((3, 3))
        area = _frame(rest, face, a)
        _frame(posed, face, b)
        longest = 0.0
        for i in range(3):
            longest += a[i, 0] * a[i, 0] + a[i, 1] * a[i, 1]
        out = result[f]
        if not area > 1e-9 * longest:
            out[:, :] = 0.0
            for i in range(3):
                out[i, i] = 1.0
        else:
            # Rows of the inverse of a = [e1 e2 n] are (e2 x n, n x e1, e1 x e2) / det, with det =
            # twice the area.
            for i in range(3):
                j, k = (i + 1) % 3, (i + 2) % 3
                i0 = (a[j, 1] * a[k, 2] - a[k, 1] * a[j, 2]) / area
                i1 = (a[j, 2] * a[k, 0] - a[k, 2] * a[j, 0]) / area
                for row in range(3):
                    out[row, i] = b[row, 0] * i0 + b[row, 1] * i1 + b[row, 2] * a[i, 2]
        for i in range(3):
            moved = 0.0
            for j in range(3):
                moved += out[i, j] * rest[face[0], j]
            out[i, 3] = posed[face[0], i] - moved
    return result


@njit(cache=True)
def _pixel_bounds(local, face, k, width, height, bounds):  # pragma: no cover - compiled
    """Pixel rectangle [x0, x1) x [y0, y1) that holds a triangle; False when it is out of view."""
    behind = 0
    x0, x1, y0, y1 = np.inf, -np.inf, np.inf, -np.inf
    for c in range(3):
        x, y, z = local[face[c], 0], local[face[c], 1], local[face[c], 2]
        if not math.isfinite(x + y + z):
            return False
        if z < NEAR_METRES:
            behind += 1
            continue
        u = (k[0, 0] * x + k[0, 1] * y) / z + k[0, 2]
        v = k[1, 1] * y / z + k[1, 2]
        x0, x1 = min(x0, u), max(x1, u)
        y0, y1 = min(y0, v), max(y1, v)
    if behind == 3:
        return False
    if behind > 0:  # the part in front may reach anywhere
        x0, x1, y0, y1 = 0.0, float(width), 0.0, float(height)
    bounds[0] = int(max(0.0, min(math.floor(x0 - 0.5), float(width))))
    bounds[1] = int(max(0.0, min(math.ceil(x1 + 0.5), float(width))))
    bounds[2] = int(max(0.0, min(math.floor(y0 - 0.5), float(height))))
    bounds[3] = int(max(0.0, min(math.ceil(y1 + 0.5), float(height))))
    return bounds[0] < bounds[1] and bounds[2] < bounds[3]


@njit(cache=True)
def _edge(local, a, b, out):  # pragma: no cover - compiled
    """Plane through the camera and an edge; exactly antisymmetric, so shared edges do not crack."""
    ax, ay, az = local[a, 0], local[a, 1], local[a, 2]
    bx, by, bz = local[b, 0], local[b, 1], local[b, 2]
    out[0] = ay * bz - az * by
    out[1] = az * bx - ax * bz
    out[2] = ax * by - ay * bx


@njit(cache=True, parallel=True)
def _rasterize(local, faces, k, k_inverse, width, height, cull):  # pragma: no cover - compiled
    face_id = np.full((height, width), -1, np.int32)
    bary = np.zeros((height, width, 3), np.float32)
    depth = np.zeros((height, width), np.float32)
    bands = (height + _BAND_ROWS - 1) // _BAND_ROWS
    for band in prange(bands):
        top, bottom = band * _BAND_ROWS, min(height, (band + 1) * _BAND_ROWS)
        nearest = np.full((_BAND_ROWS, width), np.inf)
        bounds = np.empty(4, np.int64)
        edges = np.empty((3, 3))
        for f in range(len(faces)):
            face = faces[f]
            if not _pixel_bounds(local, face, k, width, height, bounds):
                continue
            y0, y1 = max(bounds[2], top), min(bounds[3], bottom)
            if y0 >= y1:
                continue
            for c in range(3):
                _edge(local, face[(c + 1) % 3], face[(c + 2) % 3], edges[c])
            # Negative when the outside faces the camera: the normal then points against the view.
            det = 0.0
            for i in range(3):
                det += local[face[0], i] * edges[0, i]
            if det == 0.0 or (cull and det > 0.0):
                continue
            sign = 1.0 if det > 0.0 else -1.0
            size = abs(det)
            for y in range(y0, y1):
                for x in range(bounds[0], bounds[1]):
                    u, v = x + 0.5, y + 0.5
                    dx = k_inverse[0, 0] * u + k_inverse[0, 1] * v + k_inverse[0, 2]
                    dy = k_inverse[1, 1] * v + k_inverse[1, 2]
                    b0 = sign * (edges[0, 0] * dx + edges[0, 1] * dy + edges[0, 2])
                    b1 = sign * (edges[1, 0] * dx + edges[1, 1] * dy + edges[1, 2])
                    b2 = sign * (edges[2, 0] * dx + edges[2, 1] * dy + edges[2, 2])
                    total = b0 + b1 + b2
                    if b0 < 0.0 or b1 < 0.0 or b2 < 0.0 or not total > 0.0:
                        continue
                    z = size / total
                    if z < NEAR_METRES or not z < nearest[y - top, x]:
                        continue
                    nearest[y - top, x] = z
                    face_id[y, x] = f
                    depth[y, x] = z
                    bary[y, x, 0] = b0 / total
                    bary[y, x, 1] = b1 / total
                    bary[y, x, 2] = b2 / total
    return face_id, bary, depth

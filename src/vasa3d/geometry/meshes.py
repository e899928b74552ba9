"""Triangle meshes: normals, areas, deformation of triangles and drawing.

Vertices v (V, 3) float32 in metres, faces f (F, 3) integer with the outside seen counter-clockwise.
A point on a face is sum_k b_k v[f_k] with barycentric weights b (3,), b_k >= 0, sum b = 1.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from vasa3d.geometry.closest import closest_points as closest_points
from vasa3d.geometry.sampling import sample_surface as sample_surface
from vasa3d.types import F32, I32, Camera

NEAR_METRES = 0.01
"""Surfaces nearer to the camera's plane than this are not drawn."""


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
    rest = np.ascontiguousarray(rest_vertices, np.float32)
    posed = np.ascontiguousarray(posed_vertices, np.float32)
    corners = np.ascontiguousarray(faces, np.int32)
    maps = np.empty((len(corners), 3, 4), np.float32)
    inverses = triangle_inverses(rest, corners)
    map_triangles(0, len(corners), rest, inverses, posed, corners, np.eye(3, 4), maps)
    return maps


def triangle_inverses(vertices: F32, faces: I32) -> F32:
    """Inverses of the frames [e1 e2 n] of triangles: two edges and the unit normal in columns.

    Args:
        vertices: (V, 3) float32 metres.
        faces: (F, 3) int32.

    Returns:
        (F, 3, 3) float32; zero for faces without area.
    """
    return _triangle_inverses(vertices, faces)


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


@njit(nogil=True, cache=True)
def _triangle_inverses(vertices, faces):  # pragma: no cover - compiled
    result = np.zeros((len(faces), 3, 3), np.float32)
    a = np.empty((3, 3))
    for f in range(len(faces)):
        area = _frame(vertices, faces[f], a)
        longest = 0.0
        for i in range(3):
            longest += a[0, i] * a[0, i] + a[1, i] * a[1, i]
        if area > 1e-9 * longest:
            # Rows e2 x n, n x e1 and e1 x e2, over twice the area.
            for i in range(3):
                j, k = (i + 1) % 3, (i + 2) % 3
                result[f, 0, i] = (a[1, j] * a[2, k] - a[1, k] * a[2, j]) / area
                result[f, 1, i] = (a[2, j] * a[0, k] - a[2, k] * a[0, j]) / area
                result[f, 2, i] = a[2, i]
    return result


@njit(nogil=True, cache=True, fastmath={"contract"})
def map_triangles(
    start, stop, rest, inverses, posed, faces, after, out
):  # pragma: no cover - compiled
    """Affine maps of the triangles ``start`` to ``stop``; see ``triangle_affines``.

    Args:
        start: First triangle.
        stop: One past the last.
        rest: (V, 3) float32 rest vertices.
        inverses: (F, 3, 3) float32 of ``triangle_inverses`` at rest.
        posed: (V, 3) float32 posed vertices.
        faces: (F, 3) int32.
        after: (3, 4) float64 map of posed space to apply last, such as a world-to-camera transform.
        out: (F, 3, 4) float32 output.
    """
    b = np.empty((3, 3))
    m = np.empty((3, 4))
    for f in range(start, stop):
        corner = faces[f, 0]
        _frame(posed, faces[f], b)
        flat = inverses[f, 2, 0] == 0.0 and inverses[f, 2, 1] == 0.0 and inverses[f, 2, 2] == 0.0
        for i in range(3):
            m[i, 3] = posed[corner, i]
            for j in range(3):
                m[i, j] = (
                    b[0, i] * inverses[f, 0, j]
                    + b[1, i] * inverses[f, 1, j]
                    + b[2, i] * inverses[f, 2, j]
                )
                if flat:
                    m[i, j] = 1.0 if i == j else 0.0
                m[i, 3] -= m[i, j] * rest[corner, j]
        for i in range(3):
            for j in range(4):
                out[f, i, j] = after[i, 0] * m[0, j] + after[i, 1] * m[1, j] + after[i, 2] * m[2, j]
            out[f, i, 3] += after[i, 3]


@njit(nogil=True, cache=True)
def _frame(vertices, face, out):  # pragma: no cover - compiled
    """Write edges and unit normal of a triangle as rows of ``out``; returns twice its area."""
    for i in range(3):
        origin = float(vertices[face[0], i])
        out[0, i] = vertices[face[1], i] - origin
        out[1, i] = vertices[face[2], i] - origin
    for i in range(3):
        j, k = (i + 1) % 3, (i + 2) % 3
        out[2, i] = out[0, j] * out[1, k] - out[0, k] * out[1, j]
    area = math.sqrt(out[2, 0] ** 2 + out[2, 1] ** 2 + out[2, 2] ** 2)
    for i in range(3):
        out[2, i] = out[2, i] / area if area > 0.0 else 0.0
    return area


@njit(nogil=True, cache=True)
def _pixel_bounds(corners, k, width, height):  # pragma: no cover - compiled
    """Pixels x0 <= x < x1, y0 <= y < y1 that a triangle can reach; none when out of view."""
    behind = 0
    x0, x1, y0, y1 = np.inf, -np.inf, np.inf, -np.inf
    for c in range(3):
        x, y, z = corners[c]
        if not math.isfinite(x + y + z):
            return 0, 0, 0, 0
        if z < NEAR_METRES:
            behind += 1
            continue
        u = (k[0, 0] * x + k[0, 1] * y) / z + k[0, 2]
        v = k[1, 1] * y / z + k[1, 2]
        x0, x1 = min(x0, u), max(x1, u)
        y0, y1 = min(y0, v), max(y1, v)
    if behind == 3:
        return 0, 0, 0, 0
    if behind > 0:  # the part in front may reach anywhere
        return 0, width, 0, height
    return (
        int(min(max(np.floor(x0 - 0.5), 0.0), width)),
        int(min(max(np.ceil(x1 + 0.5), 0.0), width)),
        int(min(max(np.floor(y0 - 0.5), 0.0), height)),
        int(min(max(np.ceil(y1 + 0.5), 0.0), height)),
    )


@njit(nogil=True, cache=True)
def _edge_planes(corners, planes):  # pragma: no cover - compiled
    """Planes through the camera and each edge, opposite corner by corner; returns the determinant.

    A plane is exactly the negative of the same edge's from the other face, so edges do not crack.
    """
    for c in range(3):
        a, b = corners[(c + 1) % 3], corners[(c + 2) % 3]
        for i in range(3):
            j, k = (i + 1) % 3, (i + 2) % 3
            planes[c, i] = a[j] * b[k] - a[k] * b[j]
    return (
        corners[0, 0] * planes[0, 0] + corners[0, 1] * planes[0, 1] + corners[0, 2] * planes[0, 2]
    )


@njit(nogil=True, cache=True)
def _rasterize(local, faces, k, k_inverse, width, height, cull):  # pragma: no cover - compiled
    face_id = np.full((height, width), -1, np.int32)
    bary = np.zeros((height, width, 3), np.float32)
    depth = np.zeros((height, width), np.float32)
    nearest = np.full((height, width), np.inf)
    corners, planes = np.empty((3, 3)), np.empty((3, 3))
    for f in range(len(faces)):
        for c in range(3):
            for i in range(3):
                corners[c, i] = local[faces[f, c], i]
        x0, x1, y0, y1 = _pixel_bounds(corners, k, width, height)
        if x0 >= x1 or y0 >= y1:
            continue
        # Positive when seen from inside: the outward normal then points along the view.
        det = _edge_planes(corners, planes)
        if det == 0.0 or (cull and det > 0.0):
            continue
        sign, size = (1.0, det) if det > 0.0 else (-1.0, -det)
        for y in range(y0, y1):
            dy = k_inverse[1, 1] * (y + 0.5) + k_inverse[1, 2]
            for x in range(x0, x1):
                dx = k_inverse[0, 0] * (x + 0.5) + k_inverse[0, 1] * (y + 0.5) + k_inverse[0, 2]
                b0 = sign * (planes[0, 0] * dx + planes[0, 1] * dy + planes[0, 2])
                b1 = sign * (planes[1, 0] * dx + planes[1, 1] * dy + planes[1, 2])
                b2 = sign * (planes[2, 0] * dx + planes[2, 1] * dy + planes[2, 2])
                total = b0 + b1 + b2
                if b0 < 0.0 or b1 < 0.0 or b2 < 0.0 or not total > 0.0:
                    continue
                z = size / total
                if z < NEAR_METRES or not z < nearest[y, x]:
                    continue
                nearest[y, x] = z
                face_id[y, x] = f
                depth[y, x] = z
                bary[y, x, 0], bary[y, x, 1], bary[y, x, 2] = b0 / total, b1 / total, b2 / total
    return face_id, bary, depth

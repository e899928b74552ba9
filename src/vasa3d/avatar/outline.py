"""The head fitted into the silhouette of the photo.

The head model knows few shapes of ears and necks, so parts of it stand out beside the person. Each vertex whose
projection lies outside the matte moves across the view, at its own depth, to the nearest place inside,

    v' = v + z / f (p - project(v)),

and the displacement is smoothed over the mesh so that the surface stays whole. Seen from the side an ear that was
pressed to the head this way keeps its form. Cheeks and neck that end a little inside the silhouette move out to it
where they turn away from the camera, so that no strip of skin is left beside them.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags

from vasa3d.avatar.back import silhouette_distance
from vasa3d.avatar.sampling import read_pixels
from vasa3d.geometry.cameras import camera_center, facing, project
from vasa3d.geometry.meshes import vertex_normals
from vasa3d.head import ArkitHead
from vasa3d.types import F32, Camera

FARTHEST_METRES = 0.02
"""What stands out farther is hidden by something, not too large."""
_INSET_PIXELS = 3
_WIDEST_GAP_PIXELS = 12.0
_TURNED_AWAY = 0.45
"""Cosine between view and normal below which cheeks and neck may move out."""
_ROUNDS = 4
_SMOOTHING_PASSES = 3
_KEEP_OUT = (
    "lidUpperLeft",
    "lidUpperRight",
    "lidLowerLeft",
    "lidLowerRight",
    "lipUpper",
    "lipLower",
)


def outline_offsets(
    vertices: F32,
    alpha: F32,
    head: ArkitHead,
    camera: Camera,
    settled: np.ndarray | None = None,
) -> F32:
    """Displacements that bring skull, ears, cheeks and neck inside a person's silhouette.

    Args:
        vertices: (V, 3) the head in the photo's pose.
        alpha: (S, S) person matte.
        head: Its model.
        camera: Camera of the matte.
        settled: (V,) bool vertices that shall not move out to the silhouette; none by default.

    Returns:
        (V, 3) displacements in metres; 0 on eyes, lids, lips, inner mouth and shoulders.
    """
    loose = head.regions["skin"] & ~head.regions["shoulders"]
    for name in _KEEP_OUT:
        loose &= ~head.regions[name]
    nearest, distance = nearest_inside(alpha), silhouette_distance(alpha)
    average = _neighbour_average(head)
    right, down = camera.viewmat[0, :3], camera.viewmat[1, :3]
    focal = float(camera.K[0, 0])
    moved = np.zeros_like(vertices)
    for round_ in range(_ROUNDS):
        pixels, depth = project(vertices + moved, camera)
        step = (read_pixels(nearest, pixels, nearest=True) - pixels) * (depth / focal)[:, None]
        seen = ((pixels >= 0) & (pixels < len(alpha))).all(1) & loose
        out = read_pixels(nearest[..., :1], pixels, nearest=True).reshape(len(pixels)) >= 0
        near = np.linalg.norm(step, axis=1) < FARTHEST_METRES
        step = np.where((seen & out & near)[:, None], step, 0.0)
        outward = _outward(vertices + moved, pixels, depth / focal, distance, head, camera)
        step = step + (outward if settled is None else np.where(settled[:, None], 0.0, outward))
        moved = moved + step[:, :1] * right + step[:, 1:] * down
        if round_ < _ROUNDS - 1:
            for _ in range(_SMOOTHING_PASSES):
                moved = 0.5 * (moved + average @ moved[head.weld])
        moved = np.where(loose[:, None], moved[head.weld], 0.0)
    return moved.astype(np.float32)


def _outward(
    vertices: F32, pixels: F32, scale: F32, distance: F32, head: ArkitHead, camera: Camera
) -> np.ndarray:
    """(V, 2) steps in metres, x right and y down, from the turn of cheeks and neck to the silhouette."""
    normals = vertex_normals(vertices, head.weld[head.faces])[head.weld]
    edge_on = np.abs(facing(vertices, normals, camera_center(camera)))
    turned = np.clip((_TURNED_AWAY - edge_on) / (0.5 * _TURNED_AWAY), 0.0, 1.0)
    gap = read_pixels(distance, pixels) - _INSET_PIXELS - 1.0
    used = (head.regions["face"] | head.regions["neck"]) & (gap > 0) & (gap < _WIDEST_GAP_PIXELS)
    aside = normals @ camera.viewmat[:2, :3].T
    aside /= np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-6)
    return np.where(used[:, None], aside * (gap * scale * turned)[:, None], 0.0)


def nearest_inside(alpha: F32) -> F32:
    """(S, S, 2) centre of the nearest pixel well inside the matte; -1 where the pixel itself is inside."""
    size = 2 * _INSET_PIXELS + 1
    inside = cv2.erode(
        (alpha > 0.6).astype(np.uint8),
        np.ones((size, size), np.uint8),
        borderType=cv2.BORDER_REPLICATE,
    )
    nearest = np.full((*alpha.shape, 2), -1.0, np.float32)
    if not inside.any():
        return nearest
    _, labels = cv2.distanceTransformWithLabels(
        1 - inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    rows, cols = np.nonzero(inside)
    place = np.zeros((int(labels.max()) + 1, 2), np.float32)
    place[labels[rows, cols]] = np.stack([cols, rows], 1) + 0.5
    outside = np.nonzero(inside == 0)
    nearest[outside] = place[np.asarray(labels, np.int64)[outside]]
    return nearest


def _neighbour_average(head: ArkitHead) -> csr_matrix:
    """(V, V) sparse matrix that averages over the neighbours of each skin vertex, seams joined."""
    faces = head.weld[head.faces[head.regions["skin"][head.faces].all(1)]]
    edges = np.concatenate([faces[:, [a, b]] for a, b in ((0, 1), (1, 2), (2, 0))])
    rows, cols = np.concatenate([edges, edges[:, ::-1]]).T
    count = head.num_vertices
    links = coo_matrix((np.ones(len(rows)), (rows, cols)), shape=(count, count)).tocsr()
    degree = np.maximum(np.asarray(links.sum(1)).ravel(), 1.0)
    return csr_matrix(diags(1.0 / degree) @ links)

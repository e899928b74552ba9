"""What the head's mesh says of a view: how far its skin is, and how open eyes and mouth are.

Openings are read as areas: the mesh is drawn with the inside of the mouth and each eyeball in a colour of its own and
everything else in black, and so are the Gaussians that ride on these parts; lids and lips in front hide them in both.
"""

from __future__ import annotations

import cv2
import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.geometry.cameras import camera_center, facing, project
from vasa3d.geometry.meshes import rasterize_mesh, vertex_normals
from vasa3d.renderer import color_adjoint
from vasa3d.types import F32, I32, Camera

OPENINGS = (
    ("mouthCavity", "gumsUpper", "gumsLower", "teethUpper", "teethLower", "tongue"),
    ("eyeLeft",),
    ("eyeRight",),
)
"""Regions that show through mouth and eyes; each opening is one channel of a picture."""
_HIDDEN_SIDE = 384
_MARGIN = 1.3
_FINE = 2
_FACING = 0.4


def face_camera(avatar: Avatar, side: int) -> Camera:
    """A camera that sees what moves in the face, in ``side`` pixels."""
    vertices = avatar.posed_vertices(avatar.photo_latents)
    pixels, _ = project(vertices[np.any(_inside(avatar), axis=0)], avatar.camera)
    low, high = pixels.min(0), pixels.max(0)
    extent = _MARGIN * float((high - low).max())
    intrinsics = avatar.camera.K.copy()
    intrinsics[:2, 2] -= (low + high) / 2 - extent / 2
    intrinsics[:2] *= side / extent
    return Camera(avatar.camera.viewmat, intrinsics.astype(np.float32), side, side)


def part_colors(avatar: Avatar, triangles: I32, count: int) -> F32:
    """(N, 3) colours of Gaussians that show openings, one channel each.

    Args:
        avatar: The avatar.
        triangles: (S,) triangle of each of the first Gaussians.
        count: N, how many there are.
    """
    colors = np.zeros((count, len(OPENINGS)), np.float32)
    colors[: len(triangles)] = _face_colors(avatar)[triangles]
    return colors


def hidden_share(avatar: Avatar) -> F32:
    """How far Gaussians of eyes and inner mouth hide behind lids and lips in the photo.

    Args:
        avatar: The avatar.

    Returns:
        (N,) float32 part of what each would show without skin before it; 0 off the openings.
    """
    cloud, camera = avatar.pose(avatar.photo_latents), face_camera(avatar, _HIDDEN_SIDE)
    triangles = avatar.gaussians.triangles
    inside = np.flatnonzero(part_colors(avatar, triangles, len(triangles)).any(1))
    ones = np.ones((_HIDDEN_SIDE, _HIDDEN_SIDE, 1), np.float32)
    shown = color_adjoint(cloud, camera, ones)[inside, 0]
    bared = color_adjoint(cloud.subset(inside), camera, ones)[:, 0]
    hidden = np.zeros(len(avatar.gaussians), np.float32)
    hidden[inside] = 1.0 - np.minimum(shown / np.maximum(bared, 1e-6), 1.0)
    return hidden


def openings_of(avatar: Avatar, vertices: F32, camera: Camera) -> F32:
    """(H, W, 3) the mesh's openings in a view.

    Args:
        avatar: The avatar.
        vertices: (V, 3) its posed mesh.
        camera: The view.
    """
    fine = camera.resized(_FINE * camera.width, _FINE * camera.height)
    face, _, _ = rasterize_mesh(vertices, avatar.head.faces, fine)
    picture = _face_colors(avatar)[np.maximum(face, 0)] * (face >= 0)[..., None]
    shrunk = cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunk, np.float32)


def surface_of(avatar: Avatar, vertices: F32, camera: Camera) -> tuple[F32, np.ndarray]:
    """Depth (H, W) of the mesh in metres, and where (H, W) the skin of the face is what is seen.

    Args:
        avatar: The avatar.
        vertices: (V, 3) its posed mesh.
        camera: The view.
    """
    head = avatar.head
    normals = vertex_normals(vertices, head.weld[head.faces])[head.weld]
    turned = facing(vertices, normals, camera_center(camera))
    skin = head.regions["face"] & head.regions["skin"] & ~head.regions["scalp"]
    skin = (skin & ~head.regions["ears"] & (turned > _FACING))[head.faces].all(1)
    face, _, depth = rasterize_mesh(vertices, head.faces, camera)
    trust = (face >= 0) & skin[np.maximum(face, 0)]
    # Hair over the forehead lies before the mesh; the rim of what is trusted may too.
    trust = cv2.erode(trust.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return depth, trust


def _inside(avatar: Avatar) -> np.ndarray:
    """(K, V) vertices of each opening."""
    regions = avatar.head.regions
    return np.stack([np.any([regions[n] for n in names], axis=0) for names in OPENINGS])


def _face_colors(avatar: Avatar) -> F32:
    """(F, K) 1 for triangles of an opening."""
    return _inside(avatar)[:, avatar.head.faces].all(2).T.astype(np.float32)

"""A textured head scan (Wavefront .obj and a picture) and drawing it: truth for views that no photo shows.

Only what scans need is read: ``v``, ``vt`` and ``f`` lines, polygons being cut into fans. The surface is drawn without
light, each pixel in the texture's colour, averaged over 2 x 2 rays.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from vasa3d.errors import InputError
from vasa3d.files import input_file
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.portrait.image import load_image
from vasa3d.types import F32, I32, U8, Camera

_MAX_BYTES = 256 << 20
_HINT = "give a triangulated .obj with texture coordinates"
_SUPERSAMPLE = 2


@dataclass(frozen=True)
class Scan:
    """A surface with colours.

    Attributes:
        vertices: (V, 3) float32, any unit.
        faces: (F, 3) int32, outside counter-clockwise.
        uvs: (F, 3, 2) float32 place of each corner in the texture, v up.
        texture: (H, W, 3) uint8 sRGB.
    """

    vertices: F32
    faces: I32
    uvs: F32
    texture: U8

    def moved(self, scale: float, rotation: np.ndarray, shift: np.ndarray) -> Scan:
        """The scan after x -> scale R x + t."""
        vertices = scale * self.vertices.astype(np.float64) @ rotation.T + shift
        return Scan(vertices.astype(np.float32), self.faces, self.uvs, self.texture)


@dataclass(frozen=True)
class View:
    """A scan seen by a camera.

    Attributes:
        rgb: (H, W, 3) uint8 picture.
        covered: (H, W) bool where the scan is.
        points: (H, W, 3) float32 surface point at the centre of each covered pixel, world frame; 0 elsewhere.
    """

    rgb: U8
    covered: np.ndarray
    points: F32


def load_scan(mesh: str | Path, texture: str | Path, flip: bool = False) -> Scan:
    """Read a scan.

    Args:
        mesh: ``.obj`` file.
        texture: Picture of its colours.
        flip: The file counts v from the top of the picture, against the format's rule.

    Returns:
        The scan, in the units of the file.

    Raises:
        InputError: Not a mesh with texture coordinates, damaged, or too large.
        ImageError: The texture is no readable picture.
    """
    file = input_file(mesh, "a mesh", InputError)
    if file.stat().st_size > _MAX_BYTES:
        raise InputError(f"{file} is larger than {_MAX_BYTES >> 20} MiB.", hint=_HINT)
    places: list[list[float]] = []
    uvs: list[list[float]] = []
    corners: list[list[int]] = []
    try:
        for line in file.read_text("utf-8", "replace").splitlines():
            kind, *words = line.split() or [""]
            if kind == "v":
                places.append([float(w) for w in words[:3]])
            elif kind == "vt":
                uvs.append([float(w) for w in words[:2]])
            elif kind == "f":
                ends = [[int(n) for n in w.split("/")[:2]] for w in words]
                corners += [[*ends[0], *ends[i], *ends[i + 1]] for i in range(1, len(ends) - 1)]
        vertices = np.array(places, np.float32).reshape(-1, 3)
        index = np.array(corners, np.int64).reshape(-1, 3, 2)
        counts = np.array([len(places), len(uvs)])
        index = np.where(index < 0, index + counts, index - 1)
        if not len(index) or (index < 0).any() or (index >= counts).any():
            raise ValueError("a face names a corner that is not there")
        if not np.isfinite(vertices).all():
            raise ValueError("a vertex is no number")
        at = np.array(uvs, np.float32).reshape(-1, 2)[index[..., 1]]
        if flip:
            at[..., 1] = 1.0 - at[..., 1]
    except (ValueError, IndexError, OverflowError) as error:
        raise InputError(f"{file} is not a mesh that can be read: {error}.", hint=_HINT) from error
    return Scan(vertices, index[..., 0].astype(np.int32), at, load_image(texture).rgb)


def draw_scan(scan: Scan, camera: Camera, background: int = 200) -> View:
    """Draw a scan.

    Args:
        scan: In world metres.
        camera: What sees it.
        background: Grey level behind it.

    Returns:
        The view, of the camera's size.
    """
    factor = _SUPERSAMPLE
    fine = camera.resized(camera.width * factor, camera.height * factor)
    face, bary = rasterize_mesh(scan.vertices, scan.faces, fine)[:2]
    hit = face >= 0
    at = np.einsum("nk,nkc->nc", bary[hit], scan.uvs[face[hit]])
    height, width = scan.texture.shape[:2]
    columns = (at[:, 0] * width - 0.5).astype(np.float32)
    rows = ((1.0 - at[:, 1]) * height - 0.5).astype(np.float32)
    # OpenCV samples pictures of at most 32767 rows, so the list of places is folded.
    folded = -(-len(rows) // 1024) * 1024
    maps = [np.resize(m, folded).reshape(-1, 1024) for m in (columns, rows)]
    colors = cv2.remap(
        scan.texture, maps[0], maps[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    rgb = np.full((*face.shape, 3), float(background), np.float32)
    rgb[hit] = colors.reshape(-1, 3)[: len(rows)]
    size = (camera.width, camera.height)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    face, bary = rasterize_mesh(scan.vertices, scan.faces, camera)[:2]
    hit = face >= 0
    points = np.zeros((*face.shape, 3), np.float32)
    points[hit] = np.einsum("nk,nkc->nc", bary[hit], scan.vertices[scan.faces[face[hit]]])
    return View((small + 0.5).astype(np.uint8), hit, points)

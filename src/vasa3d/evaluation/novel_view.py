"""Is a head that was made of one photo right from other sides? A known head scan is the photo and the truth.

The scan, drawn from the front by a known camera, becomes an avatar. Pixels of the photo that show the face name
matching points of scan and avatar, which give a first similarity between the two worlds; closest points refine it (Besl
and McKay 1992). Then

    surface_error_mm  mean distance of the scan's face (what the photo shows within the landmarks' hull) to the mesh,
    psnr_Y            PSNR(avatar, scan), both seen from Y degrees to the side, over what the photo showed of the scan.

Beside the avatar stand the one of quality ``draft``, and the photo itself, held against each view.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vasa3d.avatar.avatar import Avatar, photo_vertices
from vasa3d.evaluation.comparison import SIDE, face_region, sheet_row
from vasa3d.evaluation.readback import EYE_OUTER, EYE_OUTER_METRES
from vasa3d.evaluation.reenactment import Portrayed, last_result, portray_events
from vasa3d.evaluation.scan import Scan, View, draw_scan
from vasa3d.geometry.alignment import similarity
from vasa3d.geometry.cameras import intrinsics, look_at, orbit, project
from vasa3d.geometry.meshes import closest_points, rasterize_mesh
from vasa3d.metrics import psnr
from vasa3d.pipeline import render, turning_point
from vasa3d.portrait.alignment import face_landmarks
from vasa3d.types import F32, U8, Camera, Event

VIEWS_DEGREES = (0, 30, 60)
BACKGROUND = 200
"""Grey level behind the head in all pictures."""
PHOTO_SIDE = 1024

_BUST_METRES = 0.42
_DISTANCE_METRES = 1.0
_FIELD_METRES = 0.5
_SAME_SURFACE_METRES = 0.006
_REFINEMENTS = 15


def novel_view_events(scan: Scan, *, quality: str = "draft", seed: int = 0) -> Iterator[Event]:
    """Compare an avatar of a drawn scan with the scan from other sides.

    Args:
        scan: A head that looks along +z, y up, in any unit.
        quality: How much work is spent on the avatar.
        seed: Seed of its making.

    Yields:
        Progress; the last event's ``data`` holds ``surface_error_mm`` and ``psnr_0``, ``psnr_30``, ``psnr_60`` under
        ``ours``, ``draft`` and (PSNR only) ``held_still``, and a contact ``sheet`` (H, W, 3) uint8.

    Raises:
        FaceError: No face is seen in the scan from the front.
    """
    metric, camera = photographed(scan)
    photo = draw_scan(metric, camera, BACKGROUND)
    rows, sheet = {}, None
    for way in ("ours", "draft") if quality != "draft" else ("ours",):
        how = quality if way == "ours" else "draft"
        made = yield from last_result(portray_events(photo.rgb, how, seed))
        rows[way], still, drawn = _compare(made, metric, photo)
        if sheet is None:
            sheet, rows["held_still"] = drawn, still
        yield Event("comparing")
    rows.setdefault("draft", dict(rows["ours"]))
    yield Event("done", data={**rows, "sheet": sheet})


def photographed(scan: Scan) -> tuple[Scan, Camera]:
    """The scan at life size with its face in the origin, and the camera of its photo."""
    scale = _BUST_METRES / float(np.ptp(scan.vertices[:, 1]))
    middle = 0.5 * (scan.vertices.min(0) + scan.vertices.max(0)).astype(np.float64)
    lens = intrinsics(PHOTO_SIDE * _DISTANCE_METRES / _FIELD_METRES, PHOTO_SIDE, PHOTO_SIDE)
    eye = (0.0, 0.0, _DISTANCE_METRES)
    camera = Camera(look_at(eye, np.zeros(3)), lens, PHOTO_SIDE, PHOTO_SIDE)
    for _ in range(2):  # the second picture, of the right size, is measured better
        view = draw_scan(scan.moved(scale, np.eye(3), -scale * middle), camera, BACKGROUND)
        at = np.clip(face_landmarks(view.rgb)[:, :2].astype(int), 0, PHOTO_SIDE - 1)
        points = view.points[at[:, 1], at[:, 0]].astype(np.float64)
        middle += points[view.covered[at[:, 1], at[:, 0]]].mean(0) / scale
        right, left = points[list(EYE_OUTER)]
        scale *= EYE_OUTER_METRES / float(np.linalg.norm(left - right))
    return scan.moved(scale, np.eye(3), -scale * middle), camera


def _compare(
    made: Portrayed, metric: Scan, photo: View
) -> tuple[dict[str, float], dict[str, float], U8]:
    """Figures of an avatar, those of its photo, and a sheet."""
    avatar = made.avatar
    fit = made.fit(PHOTO_SIDE, PHOTO_SIDE)
    mesh = photo_vertices(
        avatar.personal_head, avatar.photo_expression, avatar.mood, avatar.photo_eyes
    )
    face = face_region(face_landmarks(photo.rgb), PHOTO_SIDE) & photo.covered
    transform, error = _registered(avatar, mesh, fit.camera, photo, face)
    placed = metric.moved(*transform)
    front = avatar.camera.resized(SIDE, SIDE)
    source = draw_scan(placed, front, BACKGROUND)
    behind = np.full(3, BACKGROUND / 255.0, np.float32)
    figures, still, rows = {"surface_error_mm": round(1000.0 * error, 3)}, {}, []
    for yaw in VIEWS_DEGREES:
        camera = orbit(front, turning_point(avatar), float(yaw), 0.0)
        truth = draw_scan(placed, camera, BACKGROUND)
        shown = _shown_before(truth, source, front)
        drawn = next(render(avatar, avatar.photo_latents, [camera], background=behind))
        real = (truth.rgb / 255.0).astype(np.float32)
        figures[f"psnr_{yaw}"] = round(psnr(drawn.rgb, real, shown), 2)
        held = (source.rgb / 255.0).astype(np.float32)
        still[f"psnr_{yaw}"] = round(min(psnr(held, real, shown), 99.0), 2)
        pictures = (truth.rgb, drawn.to_uint8())
        rows.append(sheet_row(*(np.where(shown[..., None], p, p // 2) for p in pictures)))
    return figures, still, np.vstack(rows)


def _registered(
    avatar: Avatar, mesh: F32, camera: Camera, photo: View, face: np.ndarray
) -> tuple[tuple[float, np.ndarray, np.ndarray], float]:
    """The similarity from the scan's to the avatar's world, and the mean distance that is left, metres."""
    head = avatar.head
    skin = head.regions["face"][head.faces].all(1)
    faces = head.faces[skin]
    hit, bary = rasterize_mesh(mesh, faces, camera)[:2]
    both = (hit >= 0) & face
    ours = np.einsum("nk,nkc->nc", bary[both], mesh[faces[hit[both]]])
    transform = similarity(photo.points[both], ours)
    target = photo.points[face][:: max(1, int(face.sum()) // 20_000)].astype(np.float64)
    distance = np.zeros(1)
    for _ in range(_REFINEMENTS):
        scale, rotation, shift = transform
        moved = (scale * target @ rotation.T + shift).astype(np.float32)
        index, weights, distance = closest_points(moved, mesh, faces)
        nearest = np.einsum("nk,nkc->nc", weights, mesh[faces[index]])
        transform = similarity(target, nearest)
    return transform, float(np.mean(distance))


def _shown_before(view: View, source: View, front: Camera) -> np.ndarray:
    """(S, S) bool where a view shows what the source view shows too."""
    pixels, depth = project(view.points.reshape(-1, 3), front)
    at = np.floor(np.nan_to_num(pixels, nan=-1.0)).astype(int)
    inside = ((at >= 0) & (at < np.array([front.width, front.height]))).all(1)
    at = np.where(inside[:, None], at, 0)
    first = project(source.points.reshape(-1, 3), front)[1].reshape(source.covered.shape)
    nearest = np.where(source.covered, first, np.inf)[at[:, 1], at[:, 0]]
    seen = inside & (depth < nearest + _SAME_SURFACE_METRES)
    return seen.reshape(view.covered.shape) & view.covered

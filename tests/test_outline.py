"""The head brought inside the silhouette, and what must not lie before bare skin."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vasa3d.avatar.bareness import BEHIND, FRONT, LEFT, RIGHT, hides
from vasa3d.avatar.outline import outline_offsets
from vasa3d.avatar.sampling import read_pixels
from vasa3d.geometry.cameras import intrinsics, look_at, project
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.head import load_head
from vasa3d.types import F32, Camera

SIDE = 480


@pytest.fixture(scope="module")
def head_and_camera() -> tuple[F32, Camera]:
    vertices = load_head().data.template
    middle = vertices[load_head().regions["face"]].mean(0)
    eye = middle + np.array([0.0, 0.02, 0.95])
    return vertices, Camera(look_at(eye, middle), intrinsics(950.0, SIDE, SIDE), SIDE, SIDE)


def matte_without(vertices: F32, camera: Camera, *regions: str) -> F32:
    """(S, S) matte of the head model, closed, without some of its regions."""
    head = load_head()
    left_out = np.zeros(head.num_vertices, bool)
    for name in regions:
        left_out |= head.regions[name]
    faces = head.faces[~left_out[head.faces].any(1)]
    face_id, _, _ = rasterize_mesh(vertices, faces, camera)
    solid = cv2.morphologyEx((face_id >= 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9)))
    return solid.astype(np.float32)


def test_ears_that_stand_out_come_inside_the_matte_and_keep_their_depth(head_and_camera) -> None:
    vertices, camera = head_and_camera
    head = load_head()
    matte = matte_without(vertices, camera, "ears")
    ears = head.regions["ears"]

    def outside(points: F32) -> float:
        pixels, _ = project(points[ears], camera)
        return float((read_pixels(matte, pixels, nearest=True) < 0.5).mean())

    moved = outline_offsets(vertices, matte, head, camera)
    assert outside(vertices) > 0.3
    assert outside(vertices + moved) < 0.02
    depth_before, depth_after = (project(v, camera)[1] for v in (vertices, vertices + moved))
    assert np.abs(depth_after - depth_before).max() < 1e-4  # from the side an ear keeps its form
    assert np.linalg.norm(moved, axis=1).max() < 0.03


def test_eyes_mouth_and_shoulders_stay_and_seams_stay_closed(head_and_camera) -> None:
    vertices, camera = head_and_camera
    head = load_head()
    moved = outline_offsets(vertices, matte_without(vertices, camera, "ears"), head, camera)
    for name in ("eyeLeft", "lidUpperRight", "lipUpper", "teethUpper", "shoulders"):
        assert not moved[head.regions[name]].any(), name
    assert np.array_equal(moved, moved[head.weld])


def test_a_head_well_within_the_person_stays_as_it_is(head_and_camera) -> None:
    vertices, camera = head_and_camera
    everything = np.ones((SIDE, SIDE), np.float32)
    assert not outline_offsets(vertices, everything, load_head(), camera).any()
    nothing = np.zeros((SIDE, SIDE), np.float32)
    assert not outline_offsets(vertices, nothing, load_head(), camera).any()


def test_cheeks_move_out_to_a_silhouette_close_by(head_and_camera) -> None:
    vertices, camera = head_and_camera
    head = load_head()
    tight = matte_without(vertices, camera)
    wide = np.asarray(cv2.dilate(tight, np.ones((13, 13), np.uint8)), np.float32)
    moved = vertices + outline_offsets(vertices, wide, head, camera)
    jaw = head.regions["face"] & (
        vertices[:, 1] < np.percentile(vertices[head.regions["face"], 1], 30)
    )
    width_before, width_after = (float(np.ptp(v[jaw, 0])) for v in (vertices, moved))
    assert 0.002 < width_after - width_before < 0.015


@pytest.mark.parametrize(
    ("direction", "region"),
    [(FRONT, "face"), (LEFT, "ears"), (RIGHT, "ears"), (BEHIND, "neck")],
)
def test_points_before_a_surface_hide_it_and_points_behind_do_not(direction, region) -> None:
    head = load_head()
    vertices = head.data.template
    toward = np.array(direction, np.float32)
    chosen = head.regions[region] & (
        vertices @ toward > np.median(vertices[head.regions[region]] @ toward)
    )
    faces = head.faces[chosen[head.faces].all(1)]
    middle = vertices[faces].mean(1)
    before = (middle + 0.05 * toward).astype(np.float32)
    far_behind = (middle - 0.5 * toward).astype(np.float32)
    aside = middle + np.array([0.0, 1.0, 0.0], np.float32)
    assert (
        hides(before, vertices, faces, direction, 0.0).mean() > 0.85
    )  # edge-on triangles cover no pixel
    assert not hides(far_behind, vertices, faces, direction, 0.0).any()
    assert not hides(aside, vertices, faces, direction, 0.0).any()


def test_the_margin_counts_what_lies_closely_behind() -> None:
    head = load_head()
    vertices = head.data.template
    faces = head.faces[head.regions["face"][head.faces].all(1)]
    nose = vertices[head.regions["face"]][vertices[head.regions["face"], 2].argmax()]
    behind = (nose - np.array([0.0, 0.0, 0.004], np.float32))[None]
    assert not hides(behind, vertices, faces, FRONT, 0.0)[0]
    assert hides(behind, vertices, faces, FRONT, 0.008)[0]
    assert not hides(behind, vertices, faces[:0], FRONT, 0.008)[0]

"""Ears found in a matte, and the head's ears laid over them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vasa3d.avatar.ears import ear_offsets, find_ear
from vasa3d.geometry.cameras import intrinsics, look_at, project
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.head import load_head
from vasa3d.portrait.fitting import FACE_OVAL
from vasa3d.types import F32, Camera

SIDE = 480
MIDDLE, HALF_WIDTH, HALF_HEIGHT = (240.0, 240.0), 90.0, 130.0


def drawn_face() -> tuple[F32, F32]:
    """Landmarks (478, 3) of an oval face with brows, nose and mouth, and its matte without ears."""
    landmarks = np.zeros((478, 3), np.float32)
    angle = 2 * np.pi * np.arange(len(FACE_OVAL)) / len(FACE_OVAL)
    landmarks[list(FACE_OVAL), 0] = MIDDLE[0] + HALF_WIDTH * np.sin(angle)
    landmarks[list(FACE_OVAL), 1] = MIDDLE[1] - HALF_HEIGHT * np.cos(angle)
    for index, x, y in ((70, -60, -40), (300, 60, -40), (2, 0, 30), (61, -30, 60), (291, 30, 60)):
        landmarks[index, :2] = MIDDLE[0] + x, MIDDLE[1] + y
    matte = np.zeros((SIDE, SIDE), np.float32)
    axes = (int(HALF_WIDTH) + 2, int(HALF_HEIGHT) + 2)
    cv2.ellipse(matte, (240, 240), axes, 0, 0, 360, (1,), -1)
    return landmarks, matte


@pytest.mark.parametrize("side", [-1, 1])
def test_an_ear_beside_the_face_is_measured(side: int) -> None:
    landmarks, matte = drawn_face()
    cv2.ellipse(matte, (240 + side * 88, 236), (17, 38), 0, 0, 360, (1,), -1)
    ear = find_ear(landmarks, matte, side)
    assert ear is not None
    assert ear.top == pytest.approx(236 - 38, abs=10)
    assert ear.bottom == pytest.approx(236 + 38, abs=10)
    assert ear.rim == pytest.approx(240 + side * 105, abs=3)
    assert find_ear(landmarks, matte, -side) is None


def test_long_hair_and_bare_outlines_are_no_ears() -> None:
    landmarks, matte = drawn_face()
    assert find_ear(landmarks, matte, 1) is None
    hair = matte.copy()
    hair[60:460, 200:345] = 1.0
    assert find_ear(landmarks, hair, 1) is None
    assert find_ear(landmarks, np.ones_like(matte), 1) is None
    assert find_ear(landmarks, np.zeros_like(matte), 1) is None


def test_hair_above_an_ear_is_not_a_part_of_it() -> None:
    landmarks, matte = drawn_face()
    cv2.ellipse(matte, (328, 246), (16, 34), 0, 0, 360, (1,), -1)
    cv2.ellipse(matte, (240, 140), (118, 80), 0, 0, 360, (1,), -1)
    ear = find_ear(landmarks, matte, 1)
    assert ear is not None
    assert ear.top == pytest.approx(246 - 34, abs=12)


@pytest.fixture(scope="module")
def photographed() -> tuple[F32, Camera, F32]:
    """The head model, a camera before it and the pixels of its landmarks."""
    head = load_head()
    vertices = head.data.template
    middle = vertices[head.regions["face"]].mean(0)
    eye = middle + np.array([0.0, 0.02, 0.95])
    camera = Camera(look_at(eye, middle), intrinsics(950.0, SIDE, SIDE), SIDE, SIDE)
    corners = vertices[head.faces[head.landmark_faces]]
    pixels, _ = project(np.einsum("lk,lkd->ld", head.landmark_bary, corners), camera)
    landmarks = np.pad(pixels, ((0, 0), (0, 1))).astype(np.float32)
    # Landmarks of the outline stand where the cheeks turn; those of the model's own lie a little before.
    return vertices, camera, landmarks


def shown_ears(vertices: F32, camera: Camera) -> np.ndarray:
    head = load_head()
    face_id, _, _ = rasterize_mesh(vertices, head.faces, camera)
    ears = head.regions["ears"][head.faces].all(1)
    return (face_id >= 0) & ears[np.maximum(face_id, 0)]


def matte_of(vertices: F32, camera: Camera) -> F32:
    face_id, _, _ = rasterize_mesh(vertices, load_head().faces, camera)
    closed = cv2.morphologyEx((face_id >= 0).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((5, 5)))
    return closed.astype(np.float32)


def test_ears_move_onto_those_of_the_photo(photographed) -> None:
    vertices, camera, landmarks = photographed
    head = load_head()
    ears = head.regions["ears"]
    person = vertices.copy()
    person[ears] += np.array([0.0, -0.008, 0.0], np.float32)
    person[ears, 0] += np.sign(person[ears, 0]) * 0.005
    moved, settled = ear_offsets(vertices, landmarks, matte_of(person, camera), head, camera)
    assert settled[ears].all()
    truth = shown_ears(person, camera)

    def overlap(points: F32) -> float:
        shown = shown_ears(points, camera)
        return float((shown & truth).sum() / (shown | truth).sum())

    before, after = overlap(vertices), overlap((vertices + moved).astype(np.float32))
    assert after > before + 0.1
    assert np.linalg.norm(moved, axis=1).max() < 0.04
    for name in ("eyeLeft", "lidUpperRight", "lipUpper", "teethUpper", "shoulders"):
        assert not moved[head.regions[name]].any(), name
    assert np.array_equal(moved, moved[head.weld])
    depth_before, depth_after = (project(v, camera)[1] for v in (vertices, vertices + moved))
    assert np.abs(depth_after - depth_before).max() < 1e-4


def test_without_an_ear_nothing_moves(photographed) -> None:
    vertices, camera, landmarks = photographed
    matte = np.ones((SIDE, SIDE), np.float32)
    moved, settled = ear_offsets(vertices, landmarks, matte, load_head(), camera)
    assert not moved.any()
    assert not settled.any()

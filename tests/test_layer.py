"""The layer around the head: a closed solid that starts where the face ends."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import pytest

from vasa3d.avatar.layer import (
    LayerShape,
    beside_skull,
    farthest_depth,
    shape_layer,
    surface_points,
)
from vasa3d.geometry.cameras import camera_center, intrinsics, look_at, project
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.head import load_head
from vasa3d.types import F32, Camera

SIDE = 480
MILLIMETRE = 1e-3


@dataclass(frozen=True)
class Scene:
    """The mean head in front of a camera, in a round hood and wide clothes.

    Attributes:
        camera: Looks at the face.
        alpha: (S, S) matte of the person.
        covered: (S, S) bool where skin shows.
        face_depth: (S, S) depth of the mesh, 0 where none.
        under_depth: (S, S) depth of the scalp, 0 elsewhere.
        rear_depth: (S, S) depth of the rear of the head, 0 where none.
        shape: The layer.
    """

    camera: Camera
    alpha: F32
    covered: np.ndarray
    face_depth: F32
    under_depth: F32
    rear_depth: F32
    shape: LayerShape


@pytest.fixture(scope="module")
def scene() -> Scene:
    head = load_head()
    vertices = head.data.template
    middle = vertices[head.regions["face"]].mean(0)
    eye = middle + np.array([0.0, 0.02, 0.95])
    camera = Camera(look_at(eye, middle), intrinsics(950.0, SIDE, SIDE), SIDE, SIDE)
    face_id, bary, depth = rasterize_mesh(vertices, head.faces, camera)

    def shown(*names: str) -> np.ndarray:
        region = np.logical_or.reduce([head.regions[name] for name in names])
        return (face_id >= 0) & region[head.faces].all(1)[np.maximum(face_id, 0)]

    scalp = shown("scalp")
    covered = (face_id >= 0) & ~scalp & ~shown("shoulders")
    pixels, _ = project(vertices, camera)
    skull = pixels[head.regions["scalp"] | head.regions["face"]]
    x, y = (skull.min(0) + skull.max(0)) / 2
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5
    reach = np.ptp(skull, axis=0) / 2 + 16
    hood = ((column - x) / reach[0]) ** 2 + ((row - y) / reach[1]) ** 2 < 1
    body = (row > y + 0.9 * reach[1]) & (np.abs(column - x) < 170)
    alpha = cv2.GaussianBlur((hood | body | (face_id >= 0)).astype(np.float32), (0, 0), 1.5)
    corners = head.weights[head.faces[np.maximum(face_id, 0)]]
    weights = np.where((face_id >= 0)[..., None], np.einsum("hwk,hwkj->hwj", bary, corners), 0.0)
    under = np.where(scalp, depth, 0.0).astype(np.float32)
    skin = np.logical_or.reduce([head.regions[n] for n in ("scalp", "neck", "face")])
    rear = farthest_depth(vertices, head.faces[skin[head.faces].all(1)], camera)
    _, ears = project(vertices[head.regions["ears"]], camera)
    rear = np.where(rear > np.median(ears), rear, 0.0).astype(np.float32)
    shape = shape_layer(
        alpha,
        covered,
        depth,
        under,
        weights.astype(np.float32),
        rear,
        shown("ears"),
        vertices,
        head,
        camera,
    )
    return Scene(camera, alpha, covered, depth, under, rear, shape)


def inside(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Parts of a mask this far from its edge."""
    distance = cv2.distanceTransform(np.pad(mask, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)
    return distance[1:-1, 1:-1] > pixels


def test_the_layer_is_what_the_matte_holds_beside_the_face(scene: Scene) -> None:
    assert not (scene.shape.mask & scene.covered).any()
    assert (scene.shape.mask | scene.covered)[scene.alpha > 0.1].all()
    assert not scene.shape.mask[scene.alpha < 0.05].any()
    assert (
        scene.shape.solid[scene.alpha > 0.6].all()
        and not scene.shape.solid[scene.alpha < 0.4].any()
    )


def test_the_front_lies_before_the_back_everywhere(scene: Scene) -> None:
    assert np.isfinite(scene.shape.front).all() and np.isfinite(scene.shape.back).all()
    thickness = scene.shape.back - scene.shape.front
    assert thickness[scene.shape.solid].min() > 3 * MILLIMETRE
    assert 0.08 < np.median(thickness[inside(scene.shape.solid, 60)]) < 0.35


def test_the_layer_meets_the_face_where_they_join(scene: Scene) -> None:
    near = cv2.dilate(scene.covered.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    rim = near & scene.shape.mask & inside(scene.shape.solid, 6) & (scene.under_depth == 0)
    assert rim.sum() > 100
    _, labels = cv2.distanceTransformWithLabels(
        (~scene.covered).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    depth_of = np.zeros(labels.max() + 1, np.float32)
    depth_of[labels[scene.covered]] = scene.face_depth[scene.covered]
    gap = np.abs(scene.shape.front - depth_of[labels])[rim]
    assert np.median(gap) < 10 * MILLIMETRE
    assert np.percentile(gap, 90) < 22 * MILLIMETRE


def test_the_layer_lies_over_the_scalp(scene: Scene) -> None:
    over = (scene.under_depth > 0) & inside(scene.under_depth > 0, 6)
    assert over.sum() > 500
    assert (scene.shape.front[over] < scene.under_depth[over] + 0.5 * MILLIMETRE).mean() > 0.99


def test_the_sides_curve_back_towards_the_silhouette(scene: Scene) -> None:
    """No paper mask: the rim of the hood lies centimetres behind its middle, front and back meet there."""
    distance = cv2.distanceTransform(scene.shape.solid.astype(np.uint8), cv2.DIST_L2, 5)
    top = np.zeros_like(scene.covered)
    top[: SIDE // 2] = True
    rim = scene.shape.mask & top & (distance > 1) & (distance < 4)
    deep = scene.shape.mask & top & (distance > 25)
    assert rim.sum() > 100 and deep.sum() > 100
    front, back = scene.shape.front, scene.shape.back
    assert np.median(front[rim]) > np.median(front[deep]) + 0.03
    assert np.median((back - front)[rim]) < 0.6 * np.median((back - front)[deep])


def test_the_shoulders_lie_behind_the_face(scene: Scene) -> None:
    low = scene.shape.mask.copy()
    low[: int(0.9 * SIDE)] = False
    assert low.sum() > 1000
    nearest_face = np.percentile(scene.face_depth[scene.covered], 5)
    assert np.median(scene.shape.front[low]) > nearest_face + 0.02


def test_the_front_is_smooth(scene: Scene) -> None:
    calm = inside(scene.shape.mask & scene.shape.solid, 6)
    for axis in (0, 1):
        step = np.abs(np.diff(scene.shape.front, axis=axis, prepend=np.nan))
        assert np.nanpercentile(step[calm], 99) < 8 * MILLIMETRE


def test_weights_share_out_one(scene: Scene) -> None:
    weights = scene.shape.weights
    assert weights.shape == (SIDE, SIDE, len(load_head().joint_names))
    assert weights.min() >= 0.0
    assert np.allclose(weights.sum(-1), 1.0, atol=1e-5)


def test_hair_follows_the_head_and_clothes_the_body(scene: Scene) -> None:
    head = load_head()
    skull = [head.joint_names.index(n) for n in ("head", "eyeLeft", "eyeRight")]
    share = scene.shape.weights[..., skull].sum(-1)
    rows = np.nonzero(scene.shape.mask.any(1))[0]
    top = scene.shape.mask.copy()
    top[rows[0] + 60 :] = False
    bottom = scene.shape.mask.copy()
    bottom[: SIDE - 20] = False
    middle = np.abs(np.arange(SIDE) - SIDE / 2) < 80
    assert share[top].min() > 0.9
    assert share[bottom & middle].max() < 0.1


def test_a_head_without_face_in_view_still_gets_a_layer(scene: Scene) -> None:
    head = load_head()
    nothing = np.zeros((SIDE, SIDE), np.float32)
    shape = shape_layer(
        scene.alpha, np.zeros((SIDE, SIDE), bool), nothing, nothing,
        np.zeros((SIDE, SIDE, len(head.joint_names)), np.float32), nothing, nothing > 0, head.data.template, head,
        scene.camera,
    )  # fmt: skip
    assert np.isfinite(shape.front).all() and (shape.back > shape.front).all()


def test_surface_points_lie_at_their_depth_and_normals_look_at_the_camera(scene: Scene) -> None:
    row, column = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    depth = (0.9 + 0.0004 * (column - 200) + 0.0001 * (row - 100)).astype(np.float32)
    points, normals = surface_points(depth, scene.camera)
    pixels, found = project(points.reshape(-1, 3), scene.camera)
    assert np.allclose(found.reshape(SIDE, SIDE), depth, atol=1e-5)
    assert np.allclose(pixels.reshape(SIDE, SIDE, 2), np.stack([column, row], -1) + 0.5, atol=0.01)
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1.0, atol=1e-4)
    towards = camera_center(scene.camera) - points
    assert ((normals * towards).sum(-1) > 0).all()
    for axis in (0, 1):  # at right angles to the surface
        step = np.gradient(points, axis=axis)
        step /= np.linalg.norm(step, axis=-1, keepdims=True)
        assert np.abs((step * normals).sum(-1))[2:-2, 2:-2].max() < 1e-2


def test_the_farthest_depth_is_that_of_the_rear_of_a_box(scene: Scene) -> None:
    corners = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    faces = np.array(
        [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6],
         [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3]], np.int32
    )  # fmt: skip
    camera = Camera(
        look_at(np.array([0.0, 0.0, 0.9]), np.zeros(3)), intrinsics(400.0, 200, 200), 200, 200
    )
    depth = farthest_depth(0.1 * corners, faces, camera)
    assert depth[100, 100] == pytest.approx(1.0, abs=1e-4)
    assert depth[100, 100 + 48] == pytest.approx(0.1 * 400 / 48.5, abs=2e-2)  # a side wall
    assert depth[5, 5] == 0.0


def test_the_back_follows_the_head_from_skull_to_neck(scene: Scene) -> None:
    """Seen from the side the head is deepest above the ears and narrows towards the neck."""
    head = load_head()
    vertices = head.data.template
    pixels, depth = project(vertices, scene.camera)
    plane = np.median(depth[head.regions["ears"]])
    column = int(pixels[head.regions["face"], 0].mean())
    reach = scene.shape.back[:, column] - plane
    ear = pixels[head.regions["ears"], 1]
    chin = int(pixels[head.regions["face"], 1].max())
    top = reach[int(ear.min()) - 30 : int(ear.min())].max()
    assert 0.06 < top < 0.16
    assert reach[chin] < top - 0.015
    solid = (scene.shape.rear) & (scene.rear_depth > 0)
    assert (scene.shape.back >= scene.rear_depth - 2 * MILLIMETRE)[inside(solid, 8)].mean() > 0.98


def test_little_hangs_beside_a_bare_neck(scene: Scene) -> None:
    assert 0.0 <= scene.shape.hanging <= 1.0
    assert not scene.shape.rear[~scene.shape.solid].any()


def test_ears_that_stand_out_are_not_of_the_skull() -> None:
    skull = np.zeros((200, 200), bool)
    skull[20:180, 60:140] = True
    solid, ears = skull.copy(), np.zeros_like(skull)
    solid[80:120, 45:60] = True  # an ear, and below what the model has of it, in two pieces
    ears[90:115, 50:62] = True
    ears[100:102] = False
    assert np.array_equal(solid & ~beside_skull(ears, solid), skull)
    mirrored = beside_skull(ears[:, ::-1], solid[:, ::-1])
    assert np.array_equal(solid[:, ::-1] & ~mirrored, skull[:, ::-1])
    assert not beside_skull(np.zeros_like(ears), solid).any()
    assert not beside_skull(ears, np.zeros_like(solid)).any()
    # Hair as wide as the ear above and below it stays.
    hair = solid.copy()
    hair[20:180, 40:60] = True
    assert np.array_equal(hair & ~beside_skull(ears, hair), hair)


def test_an_ear_in_the_middle_of_a_round_head_takes_nothing_from_it() -> None:
    row, column = np.mgrid[:200, :200]
    head = (row - 100) ** 2 + (column - 100) ** 2 < 80**2
    ear = (abs(row - 100) < 15) & (abs(column - 85) < 8)
    assert not beside_skull(ear, head).any()
    at_border = np.zeros_like(head)
    at_border[:30, :10] = True
    assert not beside_skull(at_border, head | at_border)[40:].any()

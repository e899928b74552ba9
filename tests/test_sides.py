"""What keeps the sides of a head clean: flanks without holes, colours that one flat look cannot spoil."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vasa3d.avatar.bareness import LEFT, hides
from vasa3d.avatar.coats import FIRM, LOOSE, Coat
from vasa3d.avatar.covering import LayerCoats
from vasa3d.avatar.sampling import read_pixels
from vasa3d.avatar.scene import Scene, flat_faces
from vasa3d.avatar.surface import SurfaceCoats
from vasa3d.geometry.cameras import facing, project, unproject
from vasa3d.head import load_head


@pytest.fixture(scope="module")
def surface(analysis) -> SurfaceCoats:
    return SurfaceCoats(Scene(analysis, load_head(), seed=0))


@pytest.fixture(scope="module")
def layer(surface) -> LayerCoats:
    return LayerCoats(surface.scene, surface.base_coat(0))


def test_facing_is_the_cosine_between_normal_and_sight() -> None:
    points = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], np.float32)
    normals = np.array([[0.0, 0.0, 1.0], [0.0, 0.0, -1.0]], np.float32)
    found = facing(points, normals, np.array([0.0, 0.0, 1.0], np.float32))
    assert np.allclose(found, [1.0, -np.sqrt(0.5)])


def test_skin_is_flat_where_it_is_seen_edge_on() -> None:
    head = load_head()
    vertices = head.data.template
    middle = vertices[head.faces].mean(1)
    nose = np.argmax(np.where(head.regions["face"][head.faces].all(1), middle[:, 2], -1.0))
    ear = np.argmax(np.where(head.regions["ears"][head.faces].all(1), middle[:, 0], -1.0))
    before = flat_faces(vertices, head, np.array([0.0, 0.0, 2.0], np.float32))
    beside = flat_faces(vertices, head, np.array([2.0, 0.0, 0.0], np.float32))
    assert before.min() >= 0.0 and before.max() == 1.0
    assert before[nose] == 0.0 and beside[nose] == 1.0
    assert beside[ear] < before[ear]
    assert not before[head.regions["scalp"][head.faces].all(1)].any()


def test_points_beside_the_person_come_inside_at_their_depth(surface) -> None:
    scene = surface.scene
    solid = (scene.analysis.alpha > 0.6).astype(np.uint8)
    away = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 5)
    rows, cols = np.nonzero((away > 1.0) & (away < 6.0))
    chosen = np.stack([cols, rows], 1)[::50].astype(np.float32) + 0.5
    depth = np.full(len(chosen), 0.8, np.float32)
    beside = unproject(chosen, depth, scene.camera)
    step, kept = surface._drawn_inside(beside)
    pixels, after = project(beside + step, scene.camera)
    assert kept.all() and np.abs(after - depth).max() < 1e-5
    assert (read_pixels(solid, pixels, nearest=True) > 0).all()
    inside = np.argwhere(cv2.erode(solid, np.ones((21, 21), np.uint8)) > 0)[::5000, ::-1] + 0.5
    still = unproject(inside.astype(np.float32), np.full(len(inside), 0.8), scene.camera)
    step, kept = surface._drawn_inside(still.astype(np.float32))
    assert kept.all() and not step.any()
    far = np.unravel_index(int(away.argmax()), away.shape)[::-1]
    lost = unproject(np.array([far], np.float32) + 0.5, depth[:1], scene.camera)
    assert not surface._drawn_inside(lost)[1].any()


def test_what_hangs_before_a_gap_in_an_ear_hides_it_and_what_hangs_beside_does_not() -> None:
    def patch(y: float) -> np.ndarray:
        corners = [[0.0, y, 0.0], [0.0, y, 0.03], [0.0, y + 0.02, 0.03], [0.0, y + 0.02, 0.0]]
        return np.array(corners, np.float32)

    vertices = np.concatenate([patch(0.0), patch(0.025), patch(0.1)])
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    faces = np.concatenate([faces, faces + 4, faces + 8])
    seam, open_space = [0.02, 0.0225, 0.015], [0.02, 0.07, 0.015]
    found = hides(np.array([seam, open_space], np.float32), vertices, faces, LEFT, 0.0)
    assert found.tolist() == [True, False]


def test_chosen_strips_take_the_colour_of_the_nearest_skin(layer) -> None:
    skin, scene = layer.head_coat, layer.scene
    bare = np.flatnonzero(scene.faces_of("face")[skin.triangles])[::500]
    count = len(bare)
    strips = Coat(
        skin.means[bare], skin.covariances[bare], skin.opacities[bare],
        np.zeros((count, 3), np.float32), np.full(count, LOOSE, np.float32),
    )  # fmt: skip
    chosen = np.arange(count) % 2 == 0
    colors = layer._skin_coloured(strips, chosen).colors
    assert np.array_equal(colors[chosen], skin.colors[bare][chosen])
    assert not colors[~chosen].any()


def test_the_rim_of_hair_loses_what_it_took_from_the_background(layer) -> None:
    scene = layer.scene
    plain, _ = layer._without_background()
    foreign = np.array([0.1, 0.9, 0.2], np.float32)  # neither hair nor skin
    edge = (scene.distance > 0.0) & (scene.distance < 5.0) & scene.shape.mask
    edge[int(scene.analysis.landmarks[152, 1]) - 40 :] = False
    mixed = scene.analysis.foreground.copy()
    mixed[edge] += 0.5 * (foreign - mixed[edge])
    background = np.broadcast_to(foreign, mixed.shape).copy()
    other = LayerCoats(_seeing(scene, mixed, background), layer.head_coat)
    cleaned, doubt = other._without_background()

    def green(image: np.ndarray) -> float:
        return float((image[..., 1] - image.mean(-1))[edge].mean())

    # The rim that turns away loses most of it; what faces the camera beside it is the person's own.
    assert green(cleaned) < 0.7 * green(mixed)
    away = edge & (doubt > 0.9)
    taken, added = (mixed - cleaned)[away, 1], (mixed - scene.analysis.foreground)[away, 1]
    assert taken.mean() > 0.6 * added.mean()
    assert doubt.max() <= 1.0 and doubt[edge].mean() > 0.5
    deep = scene.distance > 60.0
    changed = np.abs(cleaned - plain)[deep]
    assert changed.mean() < 1e-4 and changed.max() < 0.05 and not doubt[~scene.shape.mask].any()


def _seeing(scene: Scene, foreground: np.ndarray, background: np.ndarray) -> Scene:
    """A scene whose photo has other colours."""
    other = object.__new__(Scene)
    other.__dict__.update(scene.__dict__)
    other.analysis = replace(scene.analysis, foreground=foreground, background=background)
    return other


def test_coats_say_how_firm_their_colours_are(surface) -> None:
    scene, base = surface.scene, surface.base_coat(0)
    inner = scene.inner_mouth()[base.triangles]
    assert inner.any() and (base.damping[inner] == np.float32(FIRM)).all()
    plain = (scene.faces_of("face") & ~scene.folded)[base.triangles]
    assert (base.damping[plain] == np.float32(LOOSE)).all()

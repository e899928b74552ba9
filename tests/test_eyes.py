"""Eyes: the ball behind the lids is white, lashes are no part of it."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.avatar.eyes import EYES, Eyes, _profile, _white_of
from vasa3d.avatar.scene import Scene
from vasa3d.avatar.surface import SurfaceCoats
from vasa3d.head import load_head


@pytest.fixture(scope="module")
def scene(analysis) -> Scene:
    return Scene(analysis, load_head(), 0)


@pytest.fixture(scope="module")
def eyes(scene: Scene) -> Eyes:
    return Eyes(scene)


def painted(scene: Scene, eyes: Eyes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Faces of the eyeballs, their colours, and which of them the photo shows bare."""
    face = np.flatnonzero(scene.faces_of(*EYES)).astype(np.int32)
    posed = scene.posed[scene.head.faces[face]].mean(1)
    colors = np.full((len(face), 3), -1.0, np.float32)
    return face, colors, eyes.paint(face, posed, colors)


def from_axis(scene: Scene, face: np.ndarray) -> np.ndarray:
    """Least distance of faces from the axis of an eye, in radii of its iris."""
    regions, posed, distances = scene.head.regions, scene.posed, []
    for side in ("Left", "Right"):
        iris = posed[regions[f"iris{side}"] | regions[f"pupil{side}"]]
        middle = iris.mean(0)
        axis = middle - posed[regions[f"eye{side}"]].mean(0)
        local = posed[scene.head.faces[face]].mean(1) - middle
        away = local - (local @ axis)[:, None] * axis / (axis @ axis)
        radius = np.linalg.norm(iris - middle, axis=1).max()
        distances.append(np.linalg.norm(away, axis=1) / radius)
    return np.min(distances, axis=0)


def test_every_point_of_a_ball_gets_a_colour_and_some_are_the_photos(scene, eyes) -> None:
    _, colors, bare = painted(scene, eyes)
    assert colors.min() >= 0.0 and colors.max() <= 1.0
    assert 0.02 < bare.mean() < 0.5


def test_what_the_lids_hide_of_the_white_is_white_and_no_skin(scene, eyes) -> None:
    face, colors, bare = painted(scene, eyes)
    hidden = ~bare & (from_axis(scene, face) > 1.3)
    white = colors[hidden]
    assert (white.min(1) > 0.6 * white.max(1)).all()
    skin = scene.analysis.foreground[scene.middle & scene.shown(scene.faces_of("face"))]
    redness = np.median(skin.min(1) / skin.max(1))
    assert (white.min(1) / white.max(1)).min() > redness


def test_lashes_are_dark_lie_before_eyeballs_and_are_painted_on_none(scene, eyes) -> None:
    lashes = eyes.lashes
    balls = scene.shown(scene.faces_of(*EYES))
    assert lashes.any() and not (lashes & ~balls).any()
    photo = scene.analysis.foreground.mean(-1)
    bare = photo[balls & ~lashes]
    lit = np.median(bare[bare > np.median(bare)])
    assert np.percentile(photo[lashes], 90) < lit and photo[lashes].mean() < 0.7 * lit


def test_cells_of_lashes_ride_on_the_rims_of_lids(scene) -> None:
    coats = SurfaceCoats(scene)
    coat = coats.detail_coat(6000)
    assert not scene.faces_of(*EYES)[coat.triangles].any()
    coats.eyes.lashes = np.zeros_like(coats.eyes.lashes)
    without = coats.detail_coat(6000)
    lids = scene.faces_of("lidUpperLeft", "lidUpperRight", "lidLowerLeft", "lidLowerRight")
    assert lids[coat.triangles].sum() > lids[without.triangles].sum()


def test_the_white_is_told_from_its_lit_part_and_is_never_red() -> None:
    rng = np.random.default_rng(0)
    r = rng.uniform(1.2, 1.9, 400).astype(np.float32)
    photo = np.full((400, 3), (0.80, 0.78, 0.76), np.float32)
    photo[:160] *= 0.4  # the lid's shadow
    assert np.allclose(_white_of(photo, r), (0.80, 0.78, 0.76), atol=1e-6)
    red = np.full((400, 3), (0.8, 0.3, 0.3), np.float32)
    assert _white_of(red, r).min() >= 0.74 * 0.8 - 1e-6


@pytest.mark.parametrize("count", [0, 5])
def test_an_eye_of_which_nothing_shows_gets_usual_colours(count: int) -> None:
    photo = np.full((count, 3), 0.2, np.float32)
    profile = _profile(photo, np.full(count, 1.4, np.float32))
    assert np.isfinite(profile).all() and profile.shape == (16, 3)
    assert profile[0].max() < 0.1 and profile[-1].min() > 0.1
    assert (profile[-1] <= profile[10]).all()

"""Colours: the solve gives a picture back, hidden skin takes its colour from seen skin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vasa3d.avatar.colouring import light_of, skin_colors, solve_colors
from vasa3d.geometry.cameras import intrinsics, look_at, project
from vasa3d.geometry.meshes import rasterize_mesh
from vasa3d.head import load_head
from vasa3d.metrics import psnr
from vasa3d.renderer import render_cloud
from vasa3d.types import Camera, GaussianCloud

SIDE = 64
GREY = np.full((SIDE, SIDE, 3), 0.5, np.float32)
EVEN = np.ones((SIDE, SIDE), np.float32)


def wall(seed: int = 0) -> GaussianCloud:
    """A wall of overlapping Gaussians before the camera and, far behind it, a hidden one."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-0.11, 0.11, 20)
    x, y = np.meshgrid(axis, axis)
    means = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    means = np.concatenate([means, means - np.array([0, 0, 0.001]), [[0.0, 0.0, -0.5]]]).astype(
        np.float32
    )
    covariances = np.tile(np.array([6e-5, 0, 0, 6e-5, 0, 1e-8], np.float32), (len(means), 1))
    return GaussianCloud(
        means,
        covariances,
        np.full(len(means), 0.95, np.float32),
        rng.uniform(0.3, 0.7, (len(means), 3)).astype(np.float32),
    )


def view() -> Camera:
    return Camera(look_at((0, 0, 0.6), (0, 0, 0)), intrinsics(180.0, SIDE, SIDE), SIDE, SIDE)


def draw(cloud: GaussianCloud, colors: np.ndarray) -> np.ndarray:
    return render_cloud(replace(cloud, colors=colors), view(), background=GREY).rgb


def solve(target: np.ndarray, weight: np.ndarray = EVEN, damping: float = 1e-3, steps: int = 30):
    cloud = wall()
    weights = np.full(len(cloud), damping, np.float32)
    return solve_colors(cloud, view(), target, GREY, weight, weights, steps)


def test_colours_that_made_a_picture_are_found_again_in_the_picture() -> None:
    want = wall(1).colors
    target = draw(wall(), want)
    before, after = draw(wall(), wall().colors), draw(wall(), solve(target))
    assert psnr(before, target) < 30
    assert psnr(after, target) > 50


def test_more_steps_come_closer() -> None:
    target = draw(wall(), wall(1).colors)
    errors = [np.abs(draw(wall(), solve(target, steps=n)) - target).mean() for n in (0, 2, 8, 30)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.02 * errors[0]


def test_a_picture_already_met_changes_no_colour() -> None:
    colors = wall().colors
    assert np.allclose(solve(draw(wall(), colors)), colors, atol=1e-5)


def test_what_the_camera_does_not_see_keeps_its_colour() -> None:
    target = draw(wall(), wall(1).colors)
    assert np.abs(solve(target)[-1] - wall().colors[-1]).max() < 0.01


def test_strong_damping_holds_the_first_colours() -> None:
    target = draw(wall(), wall(1).colors)
    assert np.abs(solve(target, damping=1e5) - wall().colors).max() < 0.01


def test_pixels_without_weight_do_not_count() -> None:
    weight = EVEN.copy()
    weight[:, SIDE // 2 :] = 0.0
    target = draw(wall(), wall(1).colors)
    spoilt = target.copy()
    spoilt[:, SIDE // 2 :] = np.random.default_rng(2).uniform(size=(SIDE, SIDE // 2, 3))
    assert np.array_equal(solve(target, weight), solve(spoilt, weight))
    right = draw(wall(), solve(target, weight))[:, -8:]
    assert np.allclose(right, draw(wall(), wall().colors)[:, -8:], atol=1e-3)


def test_colours_stay_colours_when_the_picture_asks_for_more() -> None:
    solved = solve(np.full((SIDE, SIDE, 3), 3.0, np.float32))
    assert solved.min() >= 0.0 and solved.max() <= 1.0 and np.median(solved[:400]) > 0.9


class Photo:
    """The mean head in a picture that is one colour on the left and another on the right."""

    def __init__(self, left: tuple[float, ...], right: tuple[float, ...]) -> None:
        self.head, side = load_head(), 320
        self.vertices = self.head.data.template
        middle = self.vertices[self.head.regions["face"]].mean(0)
        self.camera = Camera(
            look_at(middle + np.array([0, 0, 0.9]), middle),
            intrinsics(900.0, side, side),
            side,
            side,
        )
        self.image = np.empty((side, side, 3), np.float32)
        self.image[:, : side // 2], self.image[:, side // 2 :] = left, right
        _, _, self.depth = rasterize_mesh(self.vertices, self.head.faces, self.camera)
        self.trusted = np.ones((side, side), np.float32)

    def colors(self) -> np.ndarray:
        folded = np.zeros(self.head.num_vertices, bool)
        return skin_colors(
            self.head, self.vertices, self.image, self.trusted, self.depth, self.camera, folded
        )


def test_one_colour_of_skin_covers_the_whole_head() -> None:
    color = (0.8, 0.6, 0.5)
    photo = Photo(color, color)
    colors, skin = photo.colors(), photo.head.regions["skin"]
    assert np.abs(colors[skin] - color).max() < 0.01
    assert not colors[~skin].any()


def test_seen_skin_has_the_photo_s_colour_and_hidden_skin_lies_between() -> None:
    left, right = (0.9, 0.4, 0.2), (0.2, 0.5, 0.8)
    photo = Photo(left, right)
    colors, head = photo.colors(), photo.head
    pixels, _ = project(photo.vertices, photo.camera)
    face = head.regions["face"] & (np.abs(pixels[:, 0] - 160) > 12)
    facing = face & (photo.vertices[:, 2] > np.percentile(photo.vertices[face, 2], 40))
    on_left = pixels[:, 0] < 160
    assert np.abs(colors[facing & on_left] - left).mean() < 0.05
    assert np.abs(colors[facing & ~on_left] - right).mean() < 0.05
    low, high = np.minimum(left, right) - 0.02, np.maximum(left, right) + 0.02
    skin = head.regions["skin"]
    assert (colors[skin] >= low).all() and (colors[skin] <= high).all()


def test_skin_that_is_not_trusted_is_not_read() -> None:
    photo = Photo((0.8, 0.6, 0.5), (0.8, 0.6, 0.5))
    photo.image[:100], photo.trusted[:110] = (0.0, 1.0, 0.0), 0.0
    colors = photo.colors()[photo.head.regions["skin"]]
    assert np.abs(colors - (0.8, 0.6, 0.5)).max() < 0.06


def test_both_copies_of_a_seam_vertex_have_one_colour() -> None:
    photo = Photo((0.9, 0.4, 0.2), (0.2, 0.5, 0.8))
    colors, weld = photo.colors(), photo.head.weld
    skin = photo.head.regions["skin"] & photo.head.regions["skin"][weld]
    assert np.array_equal(colors[skin], colors[weld][skin])


@pytest.mark.parametrize("level", [0.0, 0.3, 0.6, 1.0])
def test_light_rises_with_the_brightness_of_the_skin(level: float) -> None:
    skin = np.ones((8, 8), bool)
    light = light_of(np.full((8, 8, 3), level, np.float32), skin)
    brighter = light_of(np.full((8, 8, 3), level + 0.1, np.float32), skin)
    assert 0.4 <= light <= brighter <= 1.1


def test_light_without_skin_in_view_is_good_light() -> None:
    assert light_of(np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), bool)) == 1.0

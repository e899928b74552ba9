"""Cameras: conventions of direction, inverse pairs, orbits."""

import numpy as np
import pytest

from vasa3d.geometry.cameras import (
    camera_center,
    intrinsics,
    look_at,
    orbit,
    project,
    unproject,
)
from vasa3d.types import Camera

TARGET = np.array([0.01, -0.02, 0.03], np.float32)


def portrait_camera(eye: tuple[float, float, float] = (0.05, 0.1, 0.7)) -> Camera:
    return Camera(look_at(eye, TARGET), intrinsics(900.0, 640, 480), 640, 480)


def test_a_camera_in_front_of_the_face_sees_the_persons_left_on_the_right_of_the_picture() -> None:
    camera = Camera(look_at((0, 0, 1), (0, 0, 0)), intrinsics(500.0, 200, 100), 200, 100)
    pixels, depth = project(np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]], np.float32), camera)
    assert np.allclose(pixels, [[100, 50], [150, 50], [100, 0]], atol=1e-3)
    assert np.allclose(depth, 1.0)


def test_view_matrix_is_rigid_and_its_centre_is_the_eye() -> None:
    camera = portrait_camera()
    rotation = camera.viewmat[:3, :3].astype(np.float64)
    assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-6
    assert np.linalg.det(rotation) > 0.0
    assert np.allclose(camera_center(camera), (0.05, 0.1, 0.7), atol=1e-6)


def test_looking_straight_down_still_gives_a_camera() -> None:
    viewmat = look_at((0, 1, 0), (0, 0, 0))
    assert np.allclose(viewmat[:3, :3] @ viewmat[:3, :3].T, np.eye(3), atol=1e-6)
    assert np.allclose(viewmat @ [0, 0, 0, 1], [0, 0, 1, 1], atol=1e-6)


def test_eye_on_target_is_refused() -> None:
    with pytest.raises(ValueError, match="different"):
        look_at((1, 2, 3), (1, 2, 3))


def test_unproject_undoes_project() -> None:
    camera = portrait_camera()
    points = np.random.default_rng(0).normal(0.0, 0.1, (100, 3)).astype(np.float32)
    pixels, depth = project(points, camera)
    assert np.abs(unproject(pixels, depth, camera) - points).max() < 2e-6


def test_project_matches_the_plain_formula_with_skew() -> None:
    k = np.array([[900, 12, 310], [0, 870, 250], [0, 0, 1]], np.float32)
    camera = Camera(portrait_camera().viewmat, k, 640, 480)
    point = np.array([0.03, -0.04, 0.05, 1.0])
    homogeneous = k @ (camera.viewmat @ point)[:3]
    pixels, depth = project(point[None, :3].astype(np.float32), camera)
    assert np.allclose(pixels[0], homogeneous[:2] / homogeneous[2], atol=1e-3)
    assert np.allclose(depth[0], homogeneous[2], atol=1e-6)
    assert np.allclose(unproject(pixels, depth, camera)[0], point[:3], atol=1e-6)


def test_points_behind_have_negative_depth_and_points_in_the_camera_plane_no_pixel() -> None:
    camera = Camera(look_at((0, 0, 1), (0, 0, 0)), intrinsics(500.0, 200, 100), 200, 100)
    pixels, depth = project(np.array([[0, 0, 2], [0.5, 0, 1]], np.float32), camera)
    assert depth[0] == -1.0
    assert np.isnan(pixels[1]).all()


@pytest.mark.parametrize("yaw", [-120.0, -30.0, 0.0, 45.0])
@pytest.mark.parametrize("pitch", [-20.0, 0.0, 35.0])
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_orbit_keeps_the_targets_pixel_and_scales_its_distance(
    yaw: float, pitch: float, scale: float
) -> None:
    camera, pivot = portrait_camera(), np.array([[0.05, 0.0, -0.03]], np.float32)
    turned = orbit(camera, pivot[0], yaw, pitch, scale)
    before, after = project(pivot, camera), project(pivot, turned)
    assert np.abs(before[0] - after[0]).max() < 2e-2
    assert np.isclose(after[1][0], before[1][0] * scale, rtol=1e-5)
    rotation = turned.viewmat[:3, :3].astype(np.float64)
    assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-6


def test_positive_yaw_moves_to_the_persons_left_and_positive_pitch_up() -> None:
    camera = Camera(look_at((0, 0, 1), (0, 0, 0)), intrinsics(500.0, 200, 100), 200, 100)
    quarter = camera_center(orbit(camera, (0, 0, 0), 90.0, 0.0))
    assert np.allclose(quarter, (1, 0, 0), atol=1e-6)
    above = camera_center(orbit(camera, (0, 0, 0), 0.0, 30.0))
    assert np.allclose(above, (0, 0.5, np.sqrt(0.75)), atol=1e-6)
    both = camera_center(orbit(camera, (0, 0, 0), 90.0, 30.0))
    assert np.allclose(both, (np.sqrt(0.75), 0.5, 0), atol=1e-6)


def test_yaw_keeps_the_horizon_level() -> None:
    camera = Camera(look_at((0, 0, 1), (0, 0, 0)), intrinsics(500.0, 200, 100), 200, 100)
    turned = orbit(camera, (0, 0, 0), 60.0, 25.0)
    assert abs(turned.viewmat[0, 1]) < 1e-6  # the camera's right axis stays horizontal

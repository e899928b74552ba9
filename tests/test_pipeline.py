"""The product in a page: making an avatar, cameras, backgrounds, frames."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vasa3d.avatar.initialise import framing_of
from vasa3d.errors import ImageError, InputError
from vasa3d.geometry.cameras import camera_center, orbit, project
from vasa3d.pipeline import (
    ORBIT_DEGREES,
    SWING_DEGREES,
    camera_path,
    check_size,
    create_events,
    render,
    resolve_background,
    turning_point,
)
from vasa3d.renderer import RenderConfig
from vasa3d.renderer.config import MAX_SIDE, MIN_SIDE
from vasa3d.types import ARKIT_INDEX, Camera, MotionLatents
from vasa3d.weights import sha256

FPS = 25.0


def clip(num_frames: int) -> MotionLatents:
    motion = MotionLatents.rest(num_frames)
    motion.dyn[:, ARKIT_INDEX["jawOpen"]] = np.linspace(0.0, 0.7, num_frames)
    return motion


def yaws(avatar, cameras: list[Camera]) -> np.ndarray:
    """(T,) degrees by which each camera has gone around the head, towards the person's left."""
    target = turning_point(avatar).astype(np.float64)
    away = np.array([camera_center(camera) - target for camera in [cameras[0], *cameras]])
    angle = np.degrees(np.arctan2(away[:, 0], away[:, 2]))
    return angle[1:] - angle[0]


# Making an avatar


def test_events_lead_to_the_avatar(made) -> None:
    stages = [event.stage for event in made.events]
    assert list(dict.fromkeys(stages)) == ["read", "analyse", "initialise", "measure", "done"]
    done = [event.done for event in made.events]
    assert done == sorted(done) and made.events[-1].done == made.events[-1].total
    assert made.events[-1].data["result"] is made.result


def test_every_warning_is_an_event_and_in_the_report(made) -> None:
    said = [event.message for event in made.events if event.warning]
    assert said == list(made.analysis.warnings) == made.result.report["warnings"]
    assert any("soft" in line for line in said)


def test_the_report_measures_the_source_view(made) -> None:
    report = made.result.report
    assert set(report) == {
        "landmark_error", "landmark_fit_error", "psnr_source", "ssim_source", "gaussians", "seconds", "warnings",
    }  # fmt: skip
    assert 0.0 < report["landmark_error"] < 0.015
    assert 0.0 < report["landmark_fit_error"] < 0.015
    assert report["psnr_source"] > 29.0
    assert 0.85 < report["ssim_source"] < 1.0
    assert report["gaussians"] == len(made.result.avatar.gaussians)
    assert report["seconds"] > 0
    json.dumps(report)


def test_provenance_names_photo_and_head(made) -> None:
    provenance = made.result.avatar.provenance
    assert provenance["head_sha256"] == sha256("head")
    assert len(provenance["photo_sha256"]) == 64 and provenance["seed"] == 0
    assert provenance["generator"].startswith("vasa3d")
    json.dumps(provenance)


def test_a_picture_that_is_none_is_refused(tmp_path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(ImageError):
        list(create_events(tmp_path / "a.jpg"))


# Cameras


def test_the_front_camera_is_the_photo_s_own_and_stands_still(avatar) -> None:
    cameras = camera_path(avatar, "front", 7, FPS, 256)
    assert len(cameras) == 7 and all(camera is cameras[0] for camera in cameras)
    assert np.array_equal(cameras[0].viewmat, avatar.camera.viewmat)
    assert np.allclose(cameras[0].K[:2], avatar.camera.K[:2] * 256 / avatar.camera.width)


def test_swing_stands_still_for_half_and_then_goes_both_ways(avatar) -> None:
    yaw = yaws(avatar, camera_path(avatar, "swing", 250, FPS, 256))
    assert np.abs(yaw[:125]).max() < 0.01
    assert np.isclose(yaw.max(), SWING_DEGREES, atol=0.2)
    assert np.isclose(yaw.min(), -SWING_DEGREES, atol=0.2)
    assert np.abs(np.diff(yaw)).max() < 1.6  # 40 degrees a second
    assert abs(yaw[-1]) < 2.0


def test_orbit_moves_smoothly_to_both_sides(avatar) -> None:
    yaw = yaws(avatar, camera_path(avatar, "orbit", 300, FPS, 256))
    assert yaw[0] == 0.0
    assert np.isclose(yaw.max(), ORBIT_DEGREES, atol=1.0)
    assert np.isclose(yaw.min(), -ORBIT_DEGREES, atol=1.0)
    assert np.abs(np.diff(yaw)).max() < 1.6 and np.abs(np.diff(yaw, 2)).max() < 0.1


@pytest.mark.parametrize("spec", ["front", "swing", "orbit"])
@pytest.mark.parametrize("num_frames", [0, 1, 2])
def test_the_shortest_clips_have_cameras(avatar, spec, num_frames) -> None:
    cameras = camera_path(avatar, spec, num_frames, FPS, 256)
    assert len(cameras) == num_frames
    assert all(np.isfinite(camera.viewmat).all() for camera in cameras)


def test_moving_cameras_keep_the_head_in_place(avatar) -> None:
    target = turning_point(avatar)[None]
    places = [
        project(target, camera)[0][0] for camera in camera_path(avatar, "orbit", 60, 5.0, 256)
    ]
    assert np.abs(np.array(places) - places[0]).max() < 0.05


def key_frames(tmp_path: Path, content: object) -> str:
    path = tmp_path / "camera.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_camera_file_is_followed_between_its_key_frames(avatar, tmp_path) -> None:
    spec = key_frames(tmp_path, [{"time": 1, "yaw": 0}, {"time": 3, "yaw": 40, "distance": 2.0}])
    cameras = camera_path(avatar, spec, 101, FPS, 256)
    yaw = yaws(avatar, cameras)
    assert np.abs(yaw[:26]).max() < 1e-3
    assert np.isclose(yaw[50], 20.0, atol=0.3) and np.allclose(yaw[75:], yaw[75], atol=1e-3)
    front, target = avatar.camera.resized(256, 256), turning_point(avatar)
    want = orbit(front, target, 40.0, 0.0, 2.0)
    assert np.allclose(cameras[-1].viewmat, want.viewmat, atol=1e-5)
    depth = [float(project(target[None], camera)[1][0]) for camera in cameras]
    assert np.isclose(depth[-1], 2.0 * depth[0], rtol=1e-4)
    assert np.isclose(depth[50], 1.5 * depth[0], rtol=1e-4)


def test_pitch_looks_from_above(avatar, tmp_path) -> None:
    spec = key_frames(tmp_path, [{"time": 0, "pitch": 20}])
    (camera,) = camera_path(avatar, spec, 1, FPS, 256)
    assert camera_center(camera)[1] > camera_center(avatar.camera)[1] + 0.15


def test_the_ends_of_the_allowed_ranges_are_allowed(avatar, tmp_path) -> None:
    spec = key_frames(
        tmp_path,
        [{"time": 0, "distance": 0.2, "pitch": -80}, {"time": 1, "distance": 5, "pitch": 80}],
    )
    assert len(camera_path(avatar, spec, 30, FPS, 256)) == 30


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "",
        "[]",
        "{}",
        "7",
        "null",
        "[7]",
        '["text"]',
        "[[0, 1]]",
        [{"yaw": 3}],
        [{"time": "soon"}],
        [{"time": None}],
        [{"time": 0, "yaw": []}],
        '[{"time": NaN}]',
        '[{"time": 0, "yaw": Infinity}]',
        '[{"time": 0, "yaw": 1' + "0" * 400 + "}]",
        '[{"time": 0, "yaw": 1' + "0" * 5000 + "}]",
        [{"time": 2}, {"time": 1}],
        [{"time": 0, "distance": 0}],
        [{"time": 0, "distance": 9}],
        [{"time": 0, "pitch": 90}],
        "[" * 100_000,
        "[" + '{"time": 0},' * 100_000 + '{"time": 0}]',
    ],
    ids=range(23),
)
def test_a_bad_camera_file_is_a_clear_error(avatar, tmp_path, content) -> None:
    with pytest.raises(InputError, match="camera") as caught:
        camera_path(avatar, key_frames(tmp_path, content), 5, FPS, 256)
    assert "time" in caught.value.hint and "\n" not in str(caught.value)


def test_what_is_no_camera_file_is_a_clear_error(avatar, tmp_path) -> None:
    (tmp_path / "binary.json").write_bytes(bytes(range(256)))
    names = ["binary.json"]
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.json")
        names.append("pipe.json")
    for spec in ("sideways", str(tmp_path), str(tmp_path / "none.json"), "", "a" * 400, "nul\0"):
        with pytest.raises(InputError, match="camera"):
            camera_path(avatar, spec, 5, FPS, 256)
    for name in names:
        with pytest.raises(InputError, match="camera"):
            camera_path(avatar, str(tmp_path / name), 5, FPS, 256)


@pytest.mark.parametrize("size", [-1, 0, MIN_SIDE - 1, MAX_SIDE + 1, 10**9])
def test_sizes_beyond_the_limits_are_refused(avatar, size) -> None:
    with pytest.raises(InputError, match=f"{size} pixels"):
        camera_path(avatar, "front", 5, FPS, size)


def test_supersampling_beyond_the_limit_is_refused() -> None:
    check_size(512, 16)
    check_size(2048, 4)
    for size, factor in ((512, 17), (2048, 5), (512, 0), (512, -1)):
        with pytest.raises(InputError, match="supersampled"):
            check_size(size, factor)


@pytest.mark.parametrize("size", [MIN_SIDE, MAX_SIDE])
def test_sizes_at_the_limits_are_drawn(avatar, size) -> None:
    (frame,) = render(avatar, clip(1), size=size)
    assert frame.rgb.shape == (size, size, 3)
    assert 0.2 < (frame.alpha > 0.5).mean() < 0.8


# Frames


def test_options_reach_the_renderer(avatar) -> None:
    (plain,) = render(avatar, clip(1), size=96)
    (fine,) = render(avatar, clip(1), size=96, config=RenderConfig(supersample=2, antialias=True))
    assert fine.rgb.shape == plain.rgb.shape
    assert 1e-3 < np.abs(fine.rgb - plain.rgb).mean() < 0.05


def test_there_is_one_frame_for_each_frame_of_motion(avatar) -> None:
    motion = clip(5)
    cameras = camera_path(avatar, "swing", 5, FPS, 96)
    frames = list(render(avatar, motion, "swing", size=96))
    assert len(frames) == 5
    for t in (0, 2, 4):
        alone = MotionLatents(motion.dyn[t : t + 1], motion.pose[t : t + 1], motion.fps)
        (want,) = render(avatar, alone, [cameras[t]])
        assert np.array_equal(frames[t].rgb, want.rgb)
    still = list(render(avatar, motion, size=96))
    assert not np.array_equal(still[0].rgb, still[4].rgb)
    assert list(render(avatar, clip(0), size=96)) == []


def test_frames_are_drawn_as_they_are_asked_for(avatar) -> None:
    long = MotionLatents.rest(100_000)
    assert next(render(avatar, long, size=64)).rgb.shape == (64, 64, 3)


def test_own_cameras_are_used_one_for_each_frame(avatar) -> None:
    front = avatar.camera.resized(96, 96)
    turned = orbit(front, turning_point(avatar), 30.0, 0.0)
    a, b = render(avatar, MotionLatents.rest(2), [front, turned])
    (alone,) = render(avatar, MotionLatents.rest(1), [turned])
    assert np.array_equal(b.rgb, alone.rgb) and not np.array_equal(a.rgb, b.rgb)
    with pytest.raises(InputError, match="1 cameras for 2 frames"):
        next(render(avatar, MotionLatents.rest(2), [front]))


def test_frames_without_a_background_are_premultiplied_and_others_opaque(avatar) -> None:
    (bare,) = render(avatar, clip(1), size=96)
    color = np.array([0.1, 0.9, 0.3], np.float32)
    (colored,) = render(avatar, clip(1), size=96, background=color)
    assert np.allclose(colored.rgb, bare.rgb + (1 - bare.alpha[..., None]) * color, atol=1e-5)
    assert np.allclose(bare.rgb[bare.alpha == 0], 0.0)


def test_backgrounds_in_bytes_and_in_fractions_are_the_same(avatar) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    (a,) = render(avatar, clip(1), size=96, background=picture)
    (b,) = render(avatar, clip(1), size=96, background=(picture / 255.0).astype(np.float32))
    (c,) = render(avatar, clip(1), size=96, background=np.array([255, 0, 0], np.uint8))
    assert np.allclose(a.rgb, b.rgb, atol=1e-6)
    assert np.allclose(c.rgb[c.alpha < 0.01], (1, 0, 0), atol=0.02)


# Backgrounds


def test_the_original_background_is_the_scene_behind_the_photo(avatar, analysis) -> None:
    picture = resolve_background(avatar, "original", 192)
    assert picture is not None and picture.shape == (192, 192, 3) and picture.dtype == np.uint8
    photo, matte = framing_of(analysis.rgb, 192), framing_of(analysis.alpha, 192)
    away = matte < 0.01
    assert away.sum() > 1000
    assert np.abs(picture / 255.0 - photo)[away].mean() < 0.03


def test_transparent_is_no_background(avatar) -> None:
    assert resolve_background(avatar, "transparent", 192) is None


@pytest.mark.parametrize(("spec", "color"), [("#1e293b", (30, 41, 59)), ("#FFFFFF", (255,) * 3)])
def test_a_colour_is_a_flat_picture(avatar, spec, color) -> None:
    picture = resolve_background(avatar, spec, 80)
    assert picture is not None and picture.shape == (80, 80, 3)
    assert (picture == np.array(color)).all()
    picture[0, 0] = 0  # one's own copy


@pytest.mark.parametrize(
    "spec", ["#", "#fff", "#12345", "#1234567", "#12345g", "#١٢٣٤٥٦", "# 12345"]
)
def test_what_is_no_colour_is_a_clear_error(avatar, spec) -> None:
    with pytest.raises(InputError, match="not a colour"):
        resolve_background(avatar, spec, 80)


@pytest.mark.parametrize("shape", [(200, 300), (300, 200), (90, 70)])
def test_a_picture_file_is_cropped_to_its_middle_square(avatar, tmp_path, shape) -> None:
    height, width = shape
    row, column = np.mgrid[:height, :width].astype(np.float64)
    side = min(shape)
    x, y = column - (width - side) / 2, row - (height - side) / 2
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    ramp = np.where(inside, 255 * x / side, 0)
    Image.fromarray(np.stack([ramp, 255 - ramp, 0 * ramp], -1).astype(np.uint8)).save(
        tmp_path / "a.png"
    )
    picture = resolve_background(avatar, str(tmp_path / "a.png"), 128)
    assert picture is not None and picture.shape == (128, 128, 3)
    want = 255 * (np.arange(128) + 0.5) / 128
    assert np.abs(picture[64, :, 0] - want).max() < 6


def test_a_background_that_is_no_picture_is_a_clear_error(avatar, tmp_path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    for spec in (str(tmp_path / "a.png"), str(tmp_path / "none.png"), str(tmp_path), "blue"):
        with pytest.raises(InputError):
            resolve_background(avatar, spec, 80)

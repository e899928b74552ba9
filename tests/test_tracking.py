"""Tracking: known motion of a known head leads back to it, clips that cannot be tracked are refused."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import pytest

import vasa3d
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import base_deformation
from vasa3d.errors import FaceError
from vasa3d.geometry.cameras import intrinsics, project
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import load_head
from vasa3d.pipeline import render, resolve_background
from vasa3d.portrait.fitting import HeadFit, face_width
from vasa3d.portrait.landmarks import LandmarkHead
from vasa3d.portrait.posefit import HeadState, PoseFitter, lip_opening, opening
from vasa3d.portrait.smoothing import smooth, smooth_alike
from vasa3d.portrait.tracking import TrackedClip, _Tracker, pose_of, track_frames
from vasa3d.types import ARKIT_INDEX, F32, NUM_CHANNELS, U8, Camera, MotionLatents

FPS = 25.0
SIDE = 512
GROUPS = {
    "jawOpen": ("jawOpen",),
    "blink": ("eyeBlinkLeft", "eyeBlinkRight"),
    "smile": ("mouthSmileLeft", "mouthSmileRight"),
    "brows": ("browInnerUp", "browOuterUpLeft", "browOuterUpRight"),
}


def scripted(count: int = 60) -> MotionLatents:
    """Jaw, then a blink, then a smile, then brows, over a slow turn and nod."""
    motion = MotionLatents.rest(count, FPS)
    t = np.arange(count) / count

    def bump(center: float, width: float) -> F32:
        shape = np.clip(1.0 - np.abs((t - center) / width), 0.0, 1.0)
        return (shape * shape * (3.0 - 2.0 * shape)).astype(np.float32)

    for group, values in (
        ("jawOpen", 0.5 * bump(0.2, 0.1)),
        ("blink", bump(0.4, 0.06)),
        ("smile", 0.8 * bump(0.62, 0.14)),
        ("brows", 0.9 * bump(0.85, 0.12)),
    ):
        for name in GROUPS[group]:
            motion.dyn[:, ARKIT_INDEX[name]] = values
    motion.pose[:, 0] = np.radians(5.0) * np.sin(2 * np.pi * t)
    motion.pose[:, 1] = np.radians(12.0) * np.sin(2 * np.pi * 1.3 * t)
    motion.pose[:, 2] = np.radians(4.0) * np.sin(2 * np.pi * 0.7 * t)
    motion.pose[:, 3] = 0.01 * np.sin(2 * np.pi * t)
    return motion


def a_camera() -> Camera:
    viewmat = np.diag([1.0, -1.0, -1.0, 1.0]).astype(np.float32)
    viewmat[:3, 3] = (0.0, 0.02, 1.0)
    return Camera(viewmat, intrinsics(1100.0, SIDE, SIDE), SIDE, SIDE)


def a_person(seed: int = 1) -> tuple[F32, F32, F32]:
    head, rng = load_head(), np.random.default_rng(seed)
    identity = (0.6 * rng.standard_normal(head.num_identity)).astype(np.float32)
    eyes = rng.uniform(-0.1, 0.1, (2, 3)).astype(np.float32)
    return identity, np.zeros((head.num_vertices, 3), np.float32), eyes


def landmarks_of(motion: MotionLatents, person: tuple[F32, F32, F32], camera: Camera) -> F32:
    """(T, 478, 3) landmarks in pixels of a head that moves as an avatar does."""
    head, (identity, offsets, eyes) = load_head(), person
    params = base_deformation(motion, head, identity, np.zeros(NUM_CHANNELS, np.float32), eyes)
    posed = head.personalised(identity, offsets)
    out = np.zeros((len(motion), 478, 3), np.float32)
    for t in range(len(motion)):
        vertices = posed.vertices(params.expression[t], params.joints[t], params.translation[t])
        corners = vertices[head.faces[head.landmark_faces]]
        points = np.einsum("lk,lkc->lc", head.landmark_bary, corners)
        out[t, :, :2] = project(points, camera)[0]
    return out


def tracked_landmarks(landmarks: F32, fit: HeadFit | None) -> TrackedClip:
    found = np.ones(len(landmarks), bool)
    tracker = _Tracker(landmarks, found, (SIDE, SIDE), FPS, load_head(), fit)
    for t in range(len(landmarks)):
        tracker.step(t)
    return tracker.result()


def test_exact_landmarks_of_a_known_head_give_its_motion_back() -> None:
    person, camera, motion = a_person(), a_camera(), scripted()
    for look in ("eyeLookOutLeft", "eyeLookInRight"):
        motion.dyn[10:20, ARKIT_INDEX[look]] = 0.4
    identity, offsets, eyes = person
    fit = HeadFit(camera, identity, motion.dyn[0], eyes, offsets, 0.0)
    got = tracked_landmarks(landmarks_of(motion, person, camera), fit).motion
    assert np.degrees(np.abs(got.pose[:, :3] - motion.pose[:, :3])).max() < 0.4
    assert np.abs(got.pose[:, 3:] - motion.pose[:, 3:]).max() < 4e-3
    for name in (*sum(GROUPS.values(), ()), "eyeLookOutLeft", "eyeLookInRight"):
        assert np.abs(got.channel(name) - motion.channel(name)).mean() < 0.03, name
    assert (got.dyn >= 0.0).all() and (got.dyn <= 1.0).all()
    still = [i for name, i in ARKIT_INDEX.items() if motion.channel(name).max() == 0.0]
    assert got.dyn[:, still].mean() < 0.02


def test_pose_is_relative_to_the_first_frame_and_moves_an_avatar_alike() -> None:
    person, camera, motion = a_person(2), a_camera(), scripted(12)
    joints = LandmarkHead(load_head(), *person).joints
    rotations = axis_angle_to_matrix(motion.pose[:, :3].astype(np.float64))
    head = load_head()
    params = base_deformation(motion, head, person[0], np.zeros(52, np.float32), person[2])
    posed = head.personalised(person[0], person[1])
    transforms = np.stack(
        [posed.joint_transforms(params.joints[t], params.translation[t])[2] for t in range(12)]
    )
    assert np.allclose(transforms[:, :3, :3], rotations, atol=1e-5)
    pose = pose_of(rotations, transforms[:, :3, 3].astype(np.float64), joints)
    assert np.allclose(pose, motion.pose, atol=1e-5)
    later = scripted()
    turned = MotionLatents(later.dyn[5:30].copy(), later.pose[5:30].copy(), FPS)
    clip = tracked_landmarks(landmarks_of(turned, person, camera), None)
    assert np.abs(clip.motion.pose[0]).max() < 0.02
    assert clip.confidence.min() > 0.8


def test_a_fit_far_from_the_start_converges() -> None:
    person, camera, motion = a_person(3), a_camera(), MotionLatents.rest(1, FPS)
    motion.pose[0, :3] = np.radians([15.0, 35.0, -20.0])
    motion.dyn[0, ARKIT_INDEX["jawOpen"]] = 0.7
    marks = landmarks_of(motion, person, camera)[0]
    fitter = PoseFitter(LandmarkHead(load_head(), *person), camera, face_width(marks), np.zeros(52))
    found = marks[:, :2].astype(np.float64)
    state, residual = fitter.fit(found, fitter.start(), np.inf)
    assert residual < 1e-3
    assert np.allclose(
        state.rotation, axis_angle_to_matrix(motion.pose[0, :3].astype(np.float64)), atol=0.02
    )
    assert abs(state.expression[ARKIT_INDEX["jawOpen"]] - 0.7) < 0.05


def test_a_jump_between_frames_is_followed() -> None:
    person, camera, motion = a_person(5), a_camera(), MotionLatents.rest(16, FPS)
    motion.pose[8:, 1] = np.radians(40.0)
    motion.pose[:8, 1] = np.radians(-35.0)
    motion.dyn[8:, ARKIT_INDEX["jawOpen"]] = 0.6
    fit = HeadFit(camera, person[0], np.zeros(52, np.float32), person[2], person[1], 0.0)
    still = MotionLatents.rest(1, FPS)
    joined = MotionLatents(
        np.concatenate([still.dyn, motion.dyn]), np.concatenate([still.pose, motion.pose]), FPS
    )
    clip = tracked_landmarks(landmarks_of(joined, person, camera), fit)
    assert clip.confidence.min() > 0.9
    assert np.degrees(clip.motion.pose[-1, 1]) == pytest.approx(40.0, abs=1.0)
    assert clip.motion.channel("jawOpen")[-1] == pytest.approx(0.6, abs=0.05)


def test_settling_makes_a_state_exact() -> None:
    person, camera = a_person(4), a_camera()
    fitter = PoseFitter(LandmarkHead(load_head(), *person), camera, 150.0, np.zeros(52))
    turn = axis_angle_to_matrix(np.array([0.1, -0.2, 0.05]))
    state = HeadState(turn, np.array([0.01, 0.0, 0.02]), np.full(52, 0.1))
    wanted = fitter.project(state) + np.random.default_rng(0).normal(0.0, 2.0, (478, 2))
    fitter.settle(state, wanted)
    assert np.abs(fitter.project(state) - wanted).max() < 0.02


def film(avatar: Avatar, motion: MotionLatents) -> list[U8]:
    behind = resolve_background(avatar, "original", SIDE)
    return [f.to_uint8() for f in render(avatar, motion, size=SIDE, background=behind)]


@pytest.fixture(scope="module")
def filmed(avatar: Avatar) -> tuple[MotionLatents, list[U8], TrackedClip]:
    motion = scripted()
    frames = film(avatar, motion)
    return motion, frames, track_frames(iter(frames), FPS)


def test_drawn_motion_is_found_in_the_pictures(filmed) -> None:
    motion, _, clip = filmed
    assert clip.found.all() and clip.warnings == ()
    # Fringe and lids of the drawn head lie before its mesh, so turns look smaller than they are.
    turn = np.degrees(np.abs(clip.motion.pose[:, :3] - motion.pose[:, :3])).mean(0)
    assert turn[0] < 1.2 and turn[1] < 3.0 and turn[2] < 1.0
    for axis in range(3):
        assert np.corrcoef(clip.motion.pose[:, axis], motion.pose[:, axis])[0, 1] > 0.93
    for group, names in GROUPS.items():
        want = np.mean([motion.channel(n) for n in names], axis=0)
        got = np.mean([clip.motion.channel(n) for n in names], axis=0)
        assert np.corrcoef(want, got)[0, 1] > 0.7, group
        assert 0.35 < np.ptp(got) / np.ptp(want) < 1.6, group


def test_blinks_stay_short_and_deep(filmed) -> None:
    motion, _, clip = filmed
    want, got = motion.channel("eyeBlinkLeft"), clip.motion.channel("eyeBlinkLeft")
    rest = np.median(got)
    assert got.max() > 0.75
    assert abs(int(np.argmax(got)) - int(np.argmax(want))) <= 1
    half = (want > 0.5).sum()
    assert abs(int((got - rest > 0.5 * (got.max() - rest)).sum()) - int(half)) <= 2


def test_a_short_gap_is_bridged_and_told(filmed) -> None:
    _, frames, whole = filmed
    frames = [f.copy() for f in frames[:30]]
    for frame in frames[12:16]:
        frame[:] = 90
    clip = track_frames(iter(frames), FPS)
    assert clip.found.sum() == 26 and not clip.found[12:16].any()
    assert "4 of 30" in clip.warnings[0]
    assert (clip.confidence[12:16] == 0.0).all()
    gap = np.degrees(np.abs(clip.motion.pose[:30, :3] - whole.motion.pose[:30, :3]))
    assert gap.max() < 3.0


def test_a_small_face_is_found_and_followed(filmed) -> None:
    motion, frames, _ = filmed
    small = []
    for frame in frames[:24]:
        scene = np.full((720, 1280, 3), 120, np.uint8)
        scene[300:520, 900:1120] = cv2.resize(frame, (220, 220), interpolation=cv2.INTER_AREA)
        small.append(scene)
    clip = track_frames(iter(small), FPS)
    assert clip.found.mean() > 0.9
    assert np.corrcoef(clip.motion.channel("jawOpen"), motion.channel("jawOpen")[:24])[0, 1] > 0.7


@pytest.mark.parametrize("count", [0, 6])
def test_clips_without_a_face_are_refused(count) -> None:
    rng = np.random.default_rng(0)

    def noise() -> Iterator[U8]:
        for _ in range(count):
            yield rng.integers(0, 255, (120, 160, 3), np.uint8)

    with pytest.raises(FaceError) as caught:
        track_frames(noise(), FPS)
    assert caught.value.hint


def test_smoothing_keeps_a_closure_and_a_parabola() -> None:
    opening_of = np.full(40, 0.05)
    opening_of[20] = 0.0
    rng = np.random.default_rng(1)
    values = (10.0 * opening_of + 0.02 * rng.standard_normal(40))[:, None]
    out = smooth_alike(values, opening_of, 0.006, FPS)
    assert abs(out[20, 0] - values[20, 0]) < 1e-6
    assert out[:19, 0].std() < 0.6 * values[:19, 0].std()
    t = np.arange(40.0)
    assert np.allclose(smooth((t * t)[:, None], FPS)[:, 0], t * t)


def test_openings_are_ratios(filmed) -> None:
    clip = filmed[2]
    moved = clip.landmarks * 2.5 + 17.0
    for measure in (lip_opening, lambda x: opening(x, 0), lambda x: opening(x, 1)):
        assert np.allclose(measure(clip.landmarks), measure(moved), atol=1e-4)


def test_track_is_public_and_needs_a_video(tmp_path) -> None:
    (tmp_path / "a.mp4").write_text("no video" * 99)
    with pytest.raises(vasa3d.VasaError):
        vasa3d.track(tmp_path / "a.mp4")

"""The finished avatar: gives the photo back, does what the latents say, and has no holes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import cv2
import numpy as np
import pytest

from vasa3d.avatar.avatar import Avatar, photo_vertices
from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VasResidual, mix_mood
from vasa3d.avatar.file import decode, encode
from vasa3d.avatar.gaussians import build_covariances
from vasa3d.avatar.initialise import InitConfig, framing_of, initialise
from vasa3d.geometry.cameras import orbit, project
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import load_head
from vasa3d.metrics import psnr, ssim
from vasa3d.pipeline import render, resolve_background, turning_point
from vasa3d.portrait.detection import IRIS_CENTERS, LIP_INNER, LandmarkTracker
from vasa3d.portrait.fitting import FACE_OVAL, unfolded_expression
from vasa3d.renderer import render_cloud
from vasa3d.types import ARKIT_INDEX, NUM_CHANNELS, Frame, MotionLatents

SIDE = 512
UPPER = np.triu_indices(3)
EYES = {"Right": (33, 133, 159, 145), "Left": (263, 362, 386, 374)}
"""Landmarks at the outer, inner, upper and lower edge of each eye."""


def latents(turn: tuple[float, float, float] = (0.0, 0.0, 0.0), **channels: float) -> MotionLatents:
    one = MotionLatents.rest()
    for name, value in channels.items():
        one.dyn[0, ARKIT_INDEX[name]] = value
    one.pose[0, :3] = turn
    return one


def unpacked(upper: np.ndarray) -> np.ndarray:
    full = np.empty((len(upper), 3, 3), np.float64)
    full[:, UPPER[0], UPPER[1]] = upper
    full[:, UPPER[1], UPPER[0]] = upper
    return full


class Tracked:
    """Draws the avatar in its source view and finds the landmarks in the picture."""

    def __init__(self, avatar: Avatar) -> None:
        self.avatar, self.tracker = avatar, LandmarkTracker()
        self.background = resolve_background(avatar, "original", SIDE)
        self.points = cache(self._points)

    def _points(self, *request: Any) -> np.ndarray:
        turn, *channels = request
        motion = latents(turn, **dict(channels))
        drawn = next(render(self.avatar, motion, size=SIDE, background=self.background))
        found = self.tracker(drawn.to_uint8())
        assert found is not None, f"no face in the drawn picture for {request}"
        return found[:, :2].astype(np.float64)

    def __call__(
        self, turn: tuple[float, float, float] = (0.0, 0.0, 0.0), **channels: float
    ) -> np.ndarray:
        """(478, 2) landmarks of the picture of one state."""
        return self.points(turn, *sorted(channels.items()))


@pytest.fixture(scope="module")
def tracked(avatar: Avatar) -> Iterator[Tracked]:
    tool = Tracked(avatar)
    yield tool
    tool.tracker.close()


def gap(points: np.ndarray) -> float:
    """Inner-lip gap over the distance of the outer eye corners."""
    upper, lower = points[list(LIP_INNER)]
    return float(np.linalg.norm(upper - lower) / np.linalg.norm(points[33] - points[263]))


def aperture(points: np.ndarray, side: str) -> float:
    """Height of an eye over its width."""
    outer, inner, top, bottom = points[list(EYES[side])]
    return float(np.linalg.norm(top - bottom) / np.linalg.norm(outer - inner))


def iris_place(points: np.ndarray, side: str) -> np.ndarray:
    """Iris centre from the middle of the eye's corners, over the distance of the outer eye corners."""
    outer, inner = points[list(EYES[side][:2])]
    return (points[IRIS_CENTERS[side]] - (outer + inner) / 2) / np.linalg.norm(
        points[33] - points[263]
    )


def nose_place(points: np.ndarray) -> np.ndarray:
    """Nose tip from the middle of the face's sides and of brow and chin, over the face's size."""
    across = points[1, 0] - (points[234, 0] + points[454, 0]) / 2
    down = points[1, 1] - (points[10, 1] + points[152, 1]) / 2
    size = np.linalg.norm(points[10] - points[152])
    return np.array([across, down]) / size


# The source view


def test_the_source_view_gives_the_photo_back(avatar, analysis) -> None:
    background = resolve_background(avatar, "original", SIDE)
    drawn = next(render(avatar, avatar.photo_latents, size=SIDE, background=background))
    photo, matte = framing_of(analysis.rgb, SIDE), framing_of(analysis.alpha, SIDE)
    assert psnr(drawn.rgb, photo, matte > 0.5) > 29.0
    assert psnr(drawn.rgb, photo) > 25.0
    oval = np.zeros(analysis.alpha.shape, np.uint8)
    cv2.fillPoly(oval, [np.round(analysis.landmarks[list(FACE_OVAL), :2]).astype(np.int32)], (1,))
    face = framing_of(oval.astype(np.float32), SIDE) > 0.5
    assert psnr(drawn.rgb, photo, face) > 28.7
    assert ssim(drawn.rgb, photo, face) > 0.91
    # Another picture of the same person would not do: shifted by two pixels it is no longer met.
    shifted = np.roll(photo, 2, axis=1)
    assert psnr(drawn.rgb, shifted, matte > 0.5) < psnr(drawn.rgb, photo, matte > 0.5) - 3.0


def test_the_drawn_person_has_the_matte_s_outline(avatar, analysis) -> None:
    drawn = next(render(avatar, avatar.photo_latents, size=SIDE))
    matte = framing_of(analysis.alpha, SIDE)
    both, either = (drawn.alpha > 0.5) & (matte > 0.5), (drawn.alpha > 0.5) | (matte > 0.5)
    assert both.sum() / either.sum() > 0.95


def test_photo_latents_pose_the_head_as_it_was_fitted(avatar, analysis) -> None:
    vertices = photo_vertices(
        avatar.personal_head, avatar.photo_expression, avatar.mood, avatar.photo_eyes
    )
    head = avatar.head
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    joints[head.joint_names.index("eyeLeft")] = avatar.photo_eyes[0]
    joints[head.joint_names.index("eyeRight")] = avatar.photo_eyes[1]
    still = np.zeros(3, np.float32)
    fitted = avatar.personal_head.vertices(avatar.photo_expression, joints, still)
    assert np.abs(vertices - fitted).max() < 1e-5  # the mood is taken off and put back
    corners = vertices[head.faces[head.landmark_faces]]
    points = np.einsum("lk,lkd->ld", head.landmark_bary, corners)
    pixels, _ = project(points.astype(np.float32), analysis.fit.camera)
    miss = np.linalg.norm(pixels - analysis.landmarks[:, :2], axis=1)
    width = np.linalg.norm(analysis.landmarks[234, :2] - analysis.landmarks[454, :2])
    assert np.median(miss) < 0.01 * width


# What the face does, seen by a tracker that knows nothing of the avatar


def test_a_dropped_jaw_opens_the_drawn_lips(tracked) -> None:
    gaps = [gap(tracked(jawOpen=value)) for value in (0.0, 0.3, 0.7)]
    assert gaps[0] < 0.04
    assert gaps[1] > gaps[0] + 0.05
    assert gaps[2] > gaps[1] + 0.07


def test_a_closed_mouth_overrules_an_open_jaw(tracked) -> None:
    assert gap(tracked(jawOpen=0.5, mouthClose=0.5)) < 0.45 * gap(tracked(jawOpen=0.5))


def test_lips_widen_in_a_smile_and_narrow_in_a_pucker(tracked) -> None:
    def width(points: np.ndarray) -> float:
        return float(
            np.linalg.norm(points[61] - points[291]) / np.linalg.norm(points[33] - points[263])
        )

    rest = width(tracked())
    assert width(tracked(mouthSmileLeft=1.0, mouthSmileRight=1.0)) > 1.08 * rest
    assert width(tracked(mouthPucker=1.0)) < 0.94 * rest


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_a_blink_closes_the_eye(tracked, side) -> None:
    shut = aperture(tracked(eyeBlinkLeft=1.0, eyeBlinkRight=1.0), side)
    assert shut < 0.7 * aperture(tracked(), side)


@pytest.mark.parametrize("side", ["Left", "Right"])
def test_gaze_moves_the_iris_to_the_side_looked_at(tracked, side) -> None:
    left = iris_place(tracked(eyeLookOutLeft=0.7, eyeLookInRight=0.7), side)
    right = iris_place(tracked(eyeLookInLeft=0.7, eyeLookOutRight=0.7), side)
    assert left[0] - right[0] > 0.03  # the person's left is on the viewer's right


def test_head_turns_are_the_latents_turns(tracked) -> None:
    rest = nose_place(tracked())
    left, right = nose_place(tracked((0.0, 0.35, 0.0))), nose_place(tracked((0.0, -0.35, 0.0)))
    assert left[0] > rest[0] + 0.12 and right[0] < rest[0] - 0.12
    down = nose_place(tracked((0.25, 0.0, 0.0)))
    assert down[1] > rest[1] + 0.02
    eyes = tracked((0.0, 0.0, 0.3))[[263, 33]]
    level = tracked()[[263, 33]]
    tilt = [np.degrees(np.arctan2(*(pair[0] - pair[1])[::-1])) for pair in (eyes, level)]
    assert (
        tilt[0] < tilt[1] - 12.0
    )  # y is up in the world: turning about z raises the person's left eye


# Binding


def neutral(avatar: Avatar) -> Avatar:
    """The avatar without a mood, looking straight ahead."""
    mood, eyes = np.zeros(NUM_CHANNELS, np.float32), np.zeros((2, 3), np.float32)
    return replace(avatar, mood=mood, photo_eyes=eyes)


def test_the_canonical_pose_gives_the_canonical_gaussians(avatar) -> None:
    motion = MotionLatents(unfolded_expression(load_head())[None], np.zeros((1, 6), np.float32))
    cloud, g = neutral(avatar).pose(motion), avatar.gaussians
    assert np.abs(cloud.means - g.means).max() < 2e-6
    size = np.abs(g.covariances()).max(1, keepdims=True)
    assert (np.abs(cloud.covariances - g.covariances()) < 1e-3 * size + 1e-12).all()
    assert np.array_equal(cloud.opacities, g.opacities) and np.array_equal(cloud.colors, g.colors)


def test_moving_the_whole_head_only_moves_the_gaussians(avatar) -> None:
    still, moved = latents(jawOpen=0.4), latents(jawOpen=0.4)
    moved.pose[0, 3:] = (0.03, -0.02, 0.05)
    a, b = avatar.pose(still), avatar.pose(moved)
    assert np.abs(b.means - a.means - moved.pose[0, 3:]).max() < 2e-6
    assert np.abs(b.covariances - a.covariances).max() < 1e-4 * np.abs(a.covariances).max()


def test_turning_the_head_turns_what_hangs_on_the_skull_rigidly(avatar) -> None:
    head = avatar.head
    skull = head.joint_names.index("head")
    face = ("jawOpen", 0.6), ("mouthSmileLeft", 0.8), ("browInnerUp", 1.0)
    still = avatar.pose(latents(**dict(face)))
    turned = avatar.pose(latents((0.2, 0.4, -0.1), **dict(face)))
    rigid = (head.weights[:, skull] > 0.9999)[head.faces].all(1)
    chosen = np.flatnonzero(rigid[avatar.gaussians.triangles])
    assert len(chosen) > 5000
    rotation = axis_angle_to_matrix(np.array([0.2, 0.4, -0.1]))
    before, after = still.means[chosen].astype(np.float64), turned.means[chosen].astype(np.float64)
    expected = (before - before.mean(0)) @ rotation.T
    assert np.abs(after - after.mean(0) - expected).max() < 2e-5
    shape = rotation @ unpacked(still.covariances[chosen]) @ rotation.T
    error = np.abs(unpacked(turned.covariances[chosen]) - shape).max((1, 2))
    assert (error < 2e-3 * np.abs(shape).max((1, 2)) + 1e-12).all()


def test_the_body_stays_when_the_head_turns(avatar) -> None:
    a, b = avatar.pose(latents()), avatar.pose(latents((0.0, 0.4, 0.0)))
    weights = avatar.gaussians.layer_weights
    root = np.flatnonzero(weights[:, 0] > 0.99) + avatar.gaussians.num_surface
    assert len(root) > 300
    assert np.abs(a.means - b.means)[root].max() < 5e-3
    assert np.linalg.norm((a.means - b.means)[: avatar.gaussians.num_surface], axis=1).max() > 0.02


def test_hair_turns_with_the_head(avatar) -> None:
    head, g = avatar.head, avatar.gaussians
    turn = np.array([0.1, 0.4, -0.2])
    a, b = avatar.pose(latents()), avatar.pose(latents((0.1, 0.4, -0.2)))
    hair = (
        np.flatnonzero(g.layer_weights[:, head.joint_names.index("head")] > 0.995) + g.num_surface
    )
    assert len(hair) > 1000
    before, after = a.means[hair].astype(np.float64), b.means[hair].astype(np.float64)
    want = (before - before.mean(0)) @ axis_angle_to_matrix(turn).T
    assert np.linalg.norm(after - after.mean(0) - want, axis=1).max() < 2e-3
    assert np.linalg.norm(after - before, axis=1).mean() > 0.02


def test_lips_carry_their_gaussians(avatar) -> None:
    """The lower lip's Gaussians fall with the jaw, the upper lip's stay, and each stays on its triangle."""
    head, g = avatar.head, avatar.gaussians
    shut, wide = avatar.pose(latents()), avatar.pose(latents(jawOpen=0.8))
    drop = (shut.means - wide.means)[: g.num_surface, 1]
    on = {
        name: head.regions[name][head.faces].all(1)[g.triangles]
        for name in ("lipLower", "lipUpper")
    }
    assert on["lipLower"].sum() > 100 and on["lipUpper"].sum() > 100
    assert np.median(drop[on["lipLower"]]) > 0.008
    assert abs(np.median(drop[on["lipUpper"]])) < 0.4 * np.median(drop[on["lipLower"]])
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    expression = mix_mood(latents(jawOpen=0.8).dyn, avatar.mood)[0]
    vertices = avatar.personal_head.vertices(expression, joints, np.zeros(3, np.float32))
    corners = vertices[head.faces[g.triangles[on["lipLower"]]]]
    reach = np.linalg.norm(corners - corners.mean(1, keepdims=True), axis=2).max(1)
    away = np.linalg.norm(wide.means[: g.num_surface][on["lipLower"]] - corners.mean(1), axis=1)
    assert (away < 1.5 * reach + 1e-3).all()


def test_gaze_moves_the_eyes_and_hardly_anything_else(avatar) -> None:
    a, b = avatar.pose(latents()), avatar.pose(latents(eyeLookOutLeft=0.8, eyeLookInRight=0.8))
    moved = np.linalg.norm(a.means - b.means, axis=1)
    bound = moved[: avatar.gaussians.num_surface]
    iris = avatar.head.regions["irisLeft"] | avatar.head.regions["irisRight"]
    on_iris = iris[avatar.head.faces].all(1)[avatar.gaussians.triangles]
    assert on_iris.sum() > 100 and np.median(bound[on_iris]) > 0.002
    assert (moved[avatar.gaussians.num_surface :] < 1e-3).mean() > 0.98


def test_frames_do_not_depend_on_each_other(avatar) -> None:
    rng = np.random.default_rng(0)
    clip = MotionLatents(
        rng.uniform(0, 0.6, (4, NUM_CHANNELS)).astype(np.float32),
        rng.normal(0, 0.1, (4, 6)).astype(np.float32),
    )
    alone = MotionLatents(clip.dyn[2:3], clip.pose[2:3])
    first = avatar.pose(clip, 2)
    for t in (0, 3, 1):
        assert not np.array_equal(avatar.pose(clip, t).means, first.means)
    for again in (avatar.pose(clip, 2), avatar.pose(alone)):
        assert np.array_equal(again.means, first.means)
        assert np.array_equal(again.covariances, first.covariances)
    assert np.isfinite(first.means).all() and np.isfinite(first.covariances).all()


def test_covariances_stay_positive_in_every_pose(avatar) -> None:
    for motion in (
        latents(jawOpen=1.0, eyeBlinkLeft=1.0, mouthPucker=1.0),
        latents((0.3, -0.6, 0.2)),
    ):
        values = np.linalg.eigvalsh(unpacked(avatar.pose(motion).covariances))
        assert (values[:, 0] > -1e-6 * values[:, 2]).all()


# VAS residual


def with_residual(avatar: Avatar, column: int, size: float, channel: int = -1) -> Avatar:
    """One mode that changes one attribute of every Gaussian, driven by a channel; -1 = always."""
    modes = np.zeros((1, len(avatar.gaussians), VAS_ATTRIBUTES), np.float32)
    modes[:, :, column] = size
    mixing = np.zeros((1, NUM_CHANNELS + 1), np.float32)
    mixing[0, channel] = 1.0
    return replace(avatar, vas=VasResidual(modes, mixing))


def test_a_residual_of_zeros_changes_nothing(avatar) -> None:
    a = avatar.pose(latents(jawOpen=0.5))
    b = with_residual(avatar, 0, 0.0).pose(latents(jawOpen=0.5))
    assert np.allclose(a.means, b.means, atol=1e-7)
    assert np.abs(a.covariances - b.covariances).max() < 1e-5 * np.abs(a.covariances).max()
    assert np.array_equal(a.opacities, b.opacities) and np.array_equal(a.colors, b.colors)


def test_a_residual_acts_in_canonical_space_when_its_channel_does(avatar) -> None:
    avatar = neutral(avatar)
    driven = with_residual(avatar, 1, 0.01, ARKIT_INDEX["browInnerUp"])
    idle = driven.pose(latents())
    assert np.allclose(idle.means, avatar.pose(latents()).means, atol=1e-7)
    base, moved = avatar.pose(latents(browInnerUp=0.5)), driven.pose(latents(browInnerUp=0.5))
    layer = slice(avatar.gaussians.num_surface, None)
    assert np.allclose((moved.means - base.means)[layer], (0, 0.005, 0), atol=1e-5)
    skin = np.linalg.norm((moved.means - base.means)[: avatar.gaussians.num_surface], axis=1)
    assert np.isclose(np.median(skin), 0.005, rtol=0.1)


def test_residuals_reach_every_attribute(avatar) -> None:
    avatar = neutral(avatar)
    g, base = avatar.gaussians, avatar.pose(latents())
    larger = with_residual(avatar, 7, np.log(2.0)).pose(latents())
    scales = g.scales * np.array([2, 1, 1], np.float32)
    layer = slice(g.num_surface, None)
    want = build_covariances(g.quats, scales)[layer]
    assert np.abs(larger.covariances[layer] - want).max() < 1e-4 * np.abs(want).max()
    red = with_residual(avatar, 10, 0.1).pose(latents())
    assert np.allclose(red.colors, np.clip(base.colors + np.array([0.1, 0, 0]), 0, 1), atol=1e-6)
    faint = with_residual(avatar, 13, -0.5).pose(latents())
    assert np.allclose(faint.opacities, np.clip(base.opacities - 0.5, 0, 1), atol=1e-6)
    turned = with_residual(avatar, 4, 0.5).pose(latents())
    quats = g.quats + np.array([0, 0.5, 0, 0], np.float32)
    want = build_covariances(quats, g.scales)[layer]
    assert np.abs(turned.covariances[layer] - want).max() < 1e-4 * np.abs(want).max()


# Holes


def silhouette(alpha: np.ndarray) -> np.ndarray:
    """The person without gaps and without its soft edge."""
    solid = cv2.morphologyEx(
        (alpha > 0.5).astype(np.uint8), cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8)
    )
    return cv2.erode(solid, np.ones((13, 13), np.uint8)) > 0


@pytest.mark.parametrize("yaw", [-45, -20, 0, 20, 45])
def test_nothing_shines_through_from_any_side(avatar, yaw) -> None:
    view = orbit(avatar.camera.resized(384, 384), turning_point(avatar), yaw, 0.0)
    for motion in (latents(), latents(jawOpen=0.7)):
        cloud = avatar.pose(motion)
        green, magenta = (
            render_cloud(cloud, view, background=np.array(color, np.float32))
            for color in ((0, 1, 0), (1, 0, 1))
        )
        inside = silhouette(green.alpha)
        assert inside.sum() > 20_000
        assert (green.alpha[inside] < 0.95).mean() < 0.004
        shows = np.abs(green.rgb - magenta.rgb).max(-1)[inside]
        assert (shows > 0.05).mean() < 0.004


@pytest.mark.parametrize("yaw", [135, 180, 225])
def test_the_head_has_a_solid_back(avatar, yaw) -> None:
    """Seen from behind there is a surface on the viewer's side of the head's middle, as wide as the front."""
    front = avatar.camera.resized(256, 256)
    view = orbit(front, turning_point(avatar), yaw, 0.0)
    cloud = avatar.pose(latents())
    drawn = render_cloud(cloud, view, depth=True)
    assert drawn.depth is not None
    inside = silhouette(drawn.alpha)
    assert inside.sum() > 0.75 * silhouette(render_cloud(cloud, front).alpha).sum()
    assert (drawn.alpha[inside] < 0.95).mean() < 0.01
    _, middle = project(turning_point(avatar)[None], view)
    nearer = float(middle[0]) - drawn.depth[inside]
    assert np.median(nearer) > 0.04
    assert (nearer < -0.02).mean() < 0.1


def test_both_eyes_and_lips_are_free_of_holes(avatar) -> None:
    """The parts that move most are opaque when they have moved."""
    head, side = avatar.head, 384
    view = avatar.camera.resized(side, side)
    names = (
        "lipUpper",
        "lipLower",
        "lidUpperLeft",
        "lidUpperRight",
        "lidLowerLeft",
        "lidLowerRight",
    )
    for motion in (latents(jawOpen=0.6), latents(eyeBlinkLeft=1.0, eyeBlinkRight=1.0)):
        drawn = render_cloud(avatar.pose(motion), view)
        joints = np.zeros((len(head.joint_names), 3), np.float32)
        expression = mix_mood(motion.dyn, avatar.mood)[0]
        vertices = avatar.personal_head.vertices(expression, joints, np.zeros(3, np.float32))
        region = np.logical_or.reduce([head.regions[name] for name in names])
        pixels, _ = project(vertices[region], view)
        columns, rows = np.floor(pixels).astype(int).T
        assert drawn.alpha[rows, columns].min() > 0.9


# Making


def test_the_same_seed_makes_the_same_avatar(avatar, analysis) -> None:
    draft = initialise(analysis, load_head(), InitConfig(), {})
    again = decode(encode(draft), draft.camera, {})
    for name in ("means", "quats", "scales", "opacities", "colors", "triangles", "layer_weights"):
        assert np.array_equal(getattr(avatar.gaussians, name), getattr(again.gaussians, name)), name
    for name in (
        "identity",
        "offsets",
        "mood",
        "photo_expression",
        "photo_eyes",
        "background_bytes",
    ):
        assert np.array_equal(getattr(avatar, name), getattr(again, name)), name


def test_the_number_of_gaussians_is_that_of_a_real_time_head(avatar) -> None:
    assert 30_000 < len(avatar.gaussians) < 80_000
    assert 0.4 < avatar.gaussians.num_surface / len(avatar.gaussians) < 0.95


def test_every_part_of_the_head_has_gaussians(avatar) -> None:
    head = avatar.head
    for name in (
        "face", "lipUpper", "lipLower", "teethUpper", "teethLower", "tongue", "mouthCavity",
        "eyeLeft", "eyeRight", "lidUpperLeft", "lidUpperRight", "neck", "scalp",
    ):  # fmt: skip
        bound = head.regions[name][head.faces].all(1)[avatar.gaussians.triangles]
        assert bound.sum() >= 20, name


def test_frames_carry_colour_coverage_and_the_asked_size(avatar) -> None:
    frame = next(render(avatar, latents(), size=96))
    assert isinstance(frame, Frame) and frame.rgb.shape == (96, 96, 3)
    assert frame.alpha.min() >= 0.0 and frame.alpha.max() > 0.99


def test_parts_that_do_not_fit_are_refused(avatar) -> None:
    g = avatar.gaussians
    for change in (
        {"identity": avatar.identity[:-1]},
        {"offsets": avatar.offsets[:-1]},
        {"mood": avatar.mood[:-1]},
        {
            "vas": VasResidual(
                np.zeros((1, 3, VAS_ATTRIBUTES), np.float32), np.zeros((1, 53), np.float32)
            )
        },
        {"gaussians": replace(g, triangles=g.triangles + np.int32(10**6))},
        {"gaussians": replace(g, triangles=g.triangles - np.int32(10**6))},
        {"gaussians": replace(g, layer_weights=g.layer_weights[:, :2].copy())},
    ):
        with pytest.raises(ValueError, match=r"must have|does not have|another number"):
            replace(avatar, **change)

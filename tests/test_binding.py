"""What the Gaussians of an avatar are bound to: they follow triangles, joints and the VAS residual."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.deformation import VAS_ATTRIBUTES, VAS_INPUTS, VasResidual, mix_mood
from vasa3d.geometry.covariances import build_covariances
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import load_head
from vasa3d.portrait.fitting import unfolded_expression
from vasa3d.types import ARKIT_INDEX, NUM_CHANNELS, MotionLatents

UPPER = np.triu_indices(3)


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
    mixing = np.zeros((1, VAS_INPUTS), np.float32)
    mixing[0, channel] = 1.0
    return replace(avatar, vas=VasResidual.of(modes, mixing))


def test_a_residual_of_zeros_changes_nothing(avatar) -> None:
    moves = latents(jawOpen=0.5)
    wanted = avatar.pose(moves)
    # No change at all, and a change by something that does not happen.
    for still in (with_residual(avatar, 0, 0.0), with_residual(avatar, 7, 0.3, 0)):
        posed = still.pose(moves)
        for name in ("means", "covariances", "opacities", "colors"):
            assert np.array_equal(getattr(posed, name), getattr(wanted, name)), name


def test_posing_gives_memory_of_its_own(avatar) -> None:
    changed = with_residual(avatar, 10, 0.1, ARKIT_INDEX["jawOpen"])
    first = changed.pose(latents(jawOpen=1.0))
    kept = first.colors.copy()
    changed.pose(latents())
    assert np.array_equal(first.colors, kept)


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


def test_parts_that_do_not_fit_are_refused(avatar) -> None:
    g = avatar.gaussians
    for change in (
        {"identity": avatar.identity[:-1]},
        {"offsets": avatar.offsets[:-1]},
        {"mood": avatar.mood[:-1]},
        {
            "vas": VasResidual.of(
                np.zeros((1, 3, VAS_ATTRIBUTES), np.float32), np.zeros((1, VAS_INPUTS), np.float32)
            )
        },
        {"gaussians": replace(g, triangles=g.triangles + np.int32(10**6))},
        {"gaussians": replace(g, triangles=g.triangles - np.int32(10**6))},
        {"gaussians": replace(g, layer_weights=g.layer_weights[:, :2].copy())},
    ):
        with pytest.raises(ValueError, match=r"must have|does not have|another number"):
            replace(avatar, **change)

"""Motion to head parameters, mood, and the residual of every Gaussian."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.avatar.deformation import (
    NECK_SHARE,
    VAS_ATTRIBUTES,
    VAS_INPUTS,
    VasResidual,
    base_deformation,
    mix_mood,
    mood_of,
    unmix_mood,
)
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.head import load_head
from vasa3d.types import ARKIT_CHANNELS, ARKIT_INDEX, NUM_CHANNELS, MotionLatents

NO_MOOD = np.zeros(NUM_CHANNELS, np.float32)
NO_TURN = np.zeros((2, 3), np.float32)


def channels(seed: int, high: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.0, high, NUM_CHANNELS).astype(np.float32)


def motion(num_frames: int = 3, **values: float) -> MotionLatents:
    latents = MotionLatents.rest(num_frames)
    for name, value in values.items():
        latents.dyn[:, ARKIT_INDEX[name]] = value
    return latents


def parameters(latents: MotionLatents, mood: np.ndarray = NO_MOOD, eyes: np.ndarray = NO_TURN):
    head = load_head()
    return base_deformation(latents, head, np.zeros(head.num_identity, np.float32), mood, eyes)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_latents_mixed_over_a_mood_come_back(seed: int) -> None:
    dyn, mood = channels(seed), channels(seed + 1, 0.6)
    assert np.allclose(unmix_mood(mix_mood(dyn, mood), mood), dyn, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_an_expression_above_its_mood_comes_back(seed: int) -> None:
    expression = channels(seed)
    mood = mood_of(expression)
    assert np.allclose(mix_mood(unmix_mood(expression, mood), mood), expression, atol=1e-6)


def test_motion_moves_between_the_mood_and_the_full_expression() -> None:
    mood = channels(0, 0.6)
    assert np.allclose(mix_mood(np.zeros((1, NUM_CHANNELS), np.float32), mood)[0], mood)
    assert np.allclose(mix_mood(np.ones((1, NUM_CHANNELS), np.float32), mood), 1.0)
    dyn = np.full((1, NUM_CHANNELS), 0.5, np.float32)
    rounding = [ARKIT_INDEX["mouthPucker"], ARKIT_INDEX["mouthFunnel"]]
    dyn[0, rounding] = 0.0
    half = mix_mood(dyn, mood)[0]
    assert np.allclose(np.delete(half, rounding), np.delete((1.0 + mood) / 2.0, rounding))


def test_rounded_lips_let_go_of_a_smile_and_of_nothing_else() -> None:
    mood = mood_of(channels(0))
    corners = [ARKIT_INDEX["mouthSmileLeft"], ARKIT_INDEX["mouthFrownRight"]]
    assert (mood[corners] > 0.05).all()
    shown = [
        mix_mood(motion(mouthPucker=pucker, mouthFunnel=0.1).dyn, mood)[0]
        for pucker in (0.0, 0.15, 0.5, 0.9)
    ]
    smiles = np.stack([one[corners] for one in shown])
    assert (np.diff(smiles[:3], axis=0) < -0.1 * mood[corners]).all()
    assert np.allclose(smiles[2:], 0.0)
    eyes = ARKIT_INDEX["eyeSquintLeft"]
    assert all(one[eyes] == shown[0][eyes] for one in shown)


def test_the_look_stays_and_the_open_mouth_does_not() -> None:
    mood = mood_of(np.ones(NUM_CHANNELS, np.float32))
    value = dict(zip(ARKIT_CHANNELS, mood.tolist(), strict=True))
    assert 0.0 < mood.max() < 0.61 and mood.min() == 0.0
    for name in ("browInnerUp", "eyeSquintLeft", "mouthSmileRight", "eyeWideLeft"):
        assert value[name] > 0.2, name
    for name in (
        "jawOpen",
        "mouthClose",
        "mouthFunnel",
        "mouthLowerDownLeft",
        "mouthUpperUpLeft",
        "tongueOut",
    ):
        assert value[name] == 0.0, name
    for name in ARKIT_CHANNELS:
        if name.endswith("Left"):
            assert value[name] == value[name.removesuffix("Left") + "Right"], name


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_neck_and_skull_together_make_the_head_s_turn(axis: int) -> None:
    latents, head = motion(), load_head()
    latents.pose[:, axis] = (0.0, 0.3, -0.5)
    joints = parameters(latents).joints
    neck, skull = (joints[:, head.joint_names.index(name)] for name in ("neck", "head"))
    assert np.allclose(neck, NECK_SHARE * latents.pose[:, :3])
    for t in range(3):
        together = axis_angle_to_matrix(neck[t]) @ axis_angle_to_matrix(skull[t])
        assert np.allclose(together, axis_angle_to_matrix(latents.pose[t, :3]), atol=1e-6)


def test_rotation_and_translation_do_not_mix() -> None:
    latents = motion()
    latents.pose[:, 3:] = np.arange(9, dtype=np.float32).reshape(3, 3) / 100
    given = parameters(latents)
    assert np.array_equal(given.translation, latents.pose[:, 3:])
    assert not given.joints.any()
    assert not given.joints[:, load_head().joint_names.index("root")].any()


def test_gaze_is_relative_to_the_portrait_s_own() -> None:
    head = load_head()
    rest = np.array([[0.02, 0.1, 0.0], [0.02, 0.08, 0.0]], np.float32)
    still, left = (
        parameters(latents, eyes=rest).joints
        for latents in (motion(), motion(eyeLookOutLeft=0.5, eyeLookInRight=0.5))
    )
    for side, row in (("Left", 0), ("Right", 1)):
        joint = head.joint_names.index(f"eye{side}")
        assert np.allclose(still[:, joint], rest[row])
        turn = left[0, joint] - rest[row]
        assert turn[1] > 0.1 and abs(turn[0]) < 1e-6  # towards the person's own left, +x


def test_mood_reaches_the_head() -> None:
    mood = channels(1, 0.5)
    given = parameters(motion(jawOpen=0.5), mood)
    assert np.allclose(given.expression, mix_mood(motion(jawOpen=0.5).dyn, mood))


def test_no_residual_has_rank_zero() -> None:
    none = VasResidual.zero(7)
    assert none.rank == 0 and none.modes.shape == (0, 7, VAS_ATTRIBUTES)


@pytest.mark.parametrize(
    ("modes", "mixing"),
    [
        ((2, 7, VAS_ATTRIBUTES - 1), (2, VAS_INPUTS)),
        ((2, 7, VAS_ATTRIBUTES), (3, VAS_INPUTS)),
        ((2, 7), (2, VAS_INPUTS)),
    ],
)
def test_a_residual_that_does_not_fit_is_refused(modes, mixing) -> None:
    with pytest.raises(ValueError, match=r"modes|mixing"):
        VasResidual.of(np.zeros(modes, np.float32), np.zeros(mixing, np.float32))


def test_a_residual_rounds_changes_by_mode_and_attribute() -> None:
    rng = np.random.default_rng(0)
    changes = rng.normal(0.0, 1.0, (3, 50, VAS_ATTRIBUTES)) * rng.uniform(1e-5, 1.0, (3, 1, 14))
    changes[1, :, 4] = 0.0
    changes = changes.astype(np.float32)
    residual = VasResidual.of(changes, np.zeros((3, VAS_INPUTS), np.float32))
    step = np.abs(changes).max(1, keepdims=True) / 127
    assert (np.abs(residual.changes - changes) <= 0.501 * step).all()
    again = VasResidual.of(residual.changes, residual.mixing)
    assert np.array_equal(again.modes, residual.modes)
    assert np.allclose(again.reach, residual.reach, rtol=1e-6, atol=0.0)


def test_factors_weigh_what_one_step_of_each_mode_changes() -> None:
    rng = np.random.default_rng(1)
    mixing = rng.normal(size=(2, VAS_INPUTS)).astype(np.float32)
    reach = rng.uniform(1e-3, 1.0, (2, VAS_ATTRIBUTES)).astype(np.float32)
    reach[1, 5] = 1e-9
    residual = VasResidual(np.zeros((2, 7, VAS_ATTRIBUTES), np.int8), reach, mixing)
    moves = motion(jawOpen=0.5)
    moves.pose[0] = (0.1, 0.2, 0.3, 0.01, 0.02, 0.03)
    inputs = [*moves.dyn[0], 0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 1.0]
    want = (mixing.astype(float) @ inputs)[:, None] * reach / 127
    want[1, 5] = 0.0
    assert np.allclose(residual.factors(moves), want, rtol=1e-5, atol=0.0)

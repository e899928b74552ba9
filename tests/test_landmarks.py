"""Landmarks of a head as functions: their places, their derivatives."""

from __future__ import annotations

import numpy as np
import pytest

from vasa3d.head import eye_rotations, load_head
from vasa3d.portrait.landmarks import LandmarkHead, left_jacobian
from vasa3d.types import ARKIT_INDEX


@pytest.fixture(scope="module")
def person() -> tuple[LandmarkHead, np.ndarray, np.ndarray, np.ndarray]:
    head, rng = load_head(), np.random.default_rng(3)
    identity = (0.7 * rng.standard_normal(head.num_identity)).astype(np.float32)
    offsets = (5e-4 * rng.standard_normal((head.num_vertices, 3))).astype(np.float32)
    eyes = rng.uniform(-0.2, 0.2, (2, 3)).astype(np.float32)
    return LandmarkHead(head, identity, offsets, eyes), identity, offsets, eyes


def expressions() -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    closed = np.zeros(52)
    closed[[ARKIT_INDEX["eyeBlinkLeft"], ARKIT_INDEX["eyeLookDownLeft"]]] = 0.9, 0.7
    return [np.zeros(52), rng.uniform(0.0, 0.6, 52), closed]


@pytest.mark.parametrize("which", range(3))
def test_points_are_those_of_the_head(person, which) -> None:
    marks, identity, offsets, rest_eyes = person
    head, expression = load_head(), expressions()[which].astype(np.float32)
    joints = np.zeros((len(head.joint_names), 3), np.float32)
    joints[3:5] = rest_eyes + eye_rotations(expression[None])[0]
    vertices = head.personalised(identity, offsets).vertices(
        expression, joints, np.zeros(3, np.float32)
    )
    corners = vertices[head.faces[head.landmark_faces]]
    want = np.einsum("lk,lkc->lc", head.landmark_bary, corners)
    assert np.abs(marks.points(expression.astype(np.float64)) - want).max() < 2e-6


@pytest.mark.parametrize("which", range(3))
def test_derivatives_are_exact(person, which) -> None:
    marks, expression = person[0], expressions()[which]
    points, slope = marks.linearised(expression)
    assert np.allclose(points, marks.points(expression))
    for channel, unit in enumerate(np.eye(52) * 1e-6):
        numeric = (marks.points(expression + unit) - marks.points(expression - unit)) / 2e-6
        assert np.abs(slope[:, :, channel] - numeric).max() < 1e-6


def test_left_jacobian_is_the_derivative_of_the_exponential() -> None:
    from scipy.spatial.transform import Rotation

    for turn in (np.zeros(3), np.array([0.4, -0.9, 0.3])):
        for axis, step in enumerate(np.eye(3) * 1e-6):
            after = Rotation.from_rotvec(turn + step) * Rotation.from_rotvec(turn).inv()
            assert np.allclose(after.as_rotvec() / 1e-6, left_jacobian(turn)[:, axis], atol=1e-5)

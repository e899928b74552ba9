"""Rotations: inverse pairs, agreement with scipy, tiny angles and half turns, gradients."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.transform import Rotation

from vasa3d.geometry.rotations import (
    axis_angle_to_matrix,
    matrix_to_axis_angle,
    matrix_to_quat,
    quat_multiply,
    quat_to_matrix,
)

ANGLES = [0.0, 1e-12, 1e-7, 1e-4, 0.9e-3, 1.1e-3, 0.1, 1.0, 3.0, np.pi - 1e-4, np.pi - 1e-9]
UNIT = st.floats(-1.0, 1.0, width=32)


def axes(count: int = 50) -> np.ndarray:
    rng = np.random.default_rng(0)
    axis = np.concatenate([rng.normal(size=(count, 3)), np.eye(3), -np.eye(3)])
    return axis / np.linalg.norm(axis, axis=1, keepdims=True)


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_to_matrix_agrees_with_scipy(angle: float) -> None:
    vectors = axes() * angle
    expected = Rotation.from_rotvec(vectors).as_matrix()
    assert np.abs(axis_angle_to_matrix(vectors) - expected).max() < 1e-12
    single = axis_angle_to_matrix(vectors.astype(np.float32))
    assert single.dtype == np.float32
    assert np.abs(single - expected).max() < 1e-6


@pytest.mark.parametrize("angle", ANGLES)
def test_axis_angle_survives_the_round_trip(angle: float) -> None:
    vectors = axes() * angle
    assert np.abs(matrix_to_axis_angle(axis_angle_to_matrix(vectors)) - vectors).max() < 2e-8


def test_half_turns_come_back_as_the_same_rotation() -> None:
    matrices = axis_angle_to_matrix(axes() * np.pi)
    vectors = matrix_to_axis_angle(matrices)
    assert np.abs(np.linalg.norm(vectors, axis=1) - np.pi).max() < 1e-7
    assert np.abs(axis_angle_to_matrix(vectors) - matrices).max() < 1e-7


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, (4,), elements=UNIT), arrays(np.float64, (4,), elements=UNIT))
def test_quaternion_product_is_the_product_of_matrices(p: np.ndarray, q: np.ndarray) -> None:
    if min(np.linalg.norm(p), np.linalg.norm(q)) < 1e-3:
        return
    product = quat_to_matrix(p) @ quat_to_matrix(q)
    assert np.abs(quat_to_matrix(quat_multiply(p, q)) - product).max() < 1e-9


@settings(max_examples=200, deadline=None)
@given(arrays(np.float64, (4,), elements=UNIT))
def test_quaternion_survives_the_round_trip(q: np.ndarray) -> None:
    norm = np.linalg.norm(q)
    if norm < 1e-3:
        return
    back = matrix_to_quat(quat_to_matrix(q))
    assert back[0] >= 0.0
    assert abs(np.linalg.norm(back) - 1.0) < 1e-12
    assert abs(abs(back @ q) / norm - 1.0) < 1e-12


def test_tensors_and_arrays_agree_for_any_leading_shape() -> None:
    vectors = axes(26).reshape(4, 8, 3) * np.linspace(0.0, 3.1, 8)[:, None]
    tensor = torch.from_numpy(vectors)
    matrices = axis_angle_to_matrix(tensor)
    assert matrices.shape == (4, 8, 3, 3)
    assert np.abs(matrices.numpy() - axis_angle_to_matrix(vectors)).max() < 1e-14
    quats = matrix_to_quat(matrices)
    assert quats.shape == (4, 8, 4)
    assert (quat_multiply(quats, quats) - matrix_to_quat(matrices @ matrices)).shape == (4, 8, 4)
    assert torch.allclose(matrix_to_axis_angle(matrices), tensor, atol=1e-9)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 0.5, 3.1])
def test_gradients_are_right_at_every_angle(angle: float) -> None:
    vectors = torch.from_numpy(axes(4) * angle).requires_grad_()
    assert torch.autograd.gradcheck(axis_angle_to_matrix, (vectors,), atol=1e-5)
    round_trip = lambda r: matrix_to_axis_angle(axis_angle_to_matrix(r))  # noqa: E731
    assert torch.autograd.gradcheck(round_trip, (vectors,), atol=1e-5)


def test_other_kinds_are_refused() -> None:
    with pytest.raises(TypeError, match="list"):
        axis_angle_to_matrix([0.0, 0.0, 1.0])

"""Canonical Gaussians: covariances as rotations and scales, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.avatar.gaussians import Gaussians
from vasa3d.geometry.covariances import (
    build_covariances,
    split_covariances,
    transform_covariances,
)
from vasa3d.geometry.rotations import axis_angle_to_matrix, quat_to_matrix

UPPER = np.triu_indices(3)


def unpacked(upper: np.ndarray) -> np.ndarray:
    full = np.empty((len(upper), 3, 3), np.float64)
    full[:, UPPER[0], UPPER[1]] = upper
    full[:, UPPER[1], UPPER[0]] = upper
    return full


def random_shapes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    scales = np.exp(rng.uniform(np.log(5e-5), np.log(2e-2), (count, 3)))
    return quats.astype(np.float32), scales.astype(np.float32)


def few(count: int = 6, bound: int = 4) -> Gaussians:
    quats, scales = random_shapes(count, 0)
    return Gaussians(
        means=np.zeros((count, 3), np.float32),
        quats=quats,
        scales=scales,
        opacities=np.ones(count, np.float32),
        colors=np.zeros((count, 3), np.float32),
        triangles=np.arange(bound, dtype=np.int32),
        layer_weights=np.full((count - bound, 2), 0.5, np.float32),
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_splitting_and_building_give_the_covariance_back(seed: int) -> None:
    covariances = build_covariances(*random_shapes(50, seed))
    quats, scales = split_covariances(covariances)
    assert np.allclose(np.linalg.norm(quats, axis=1), 1.0, atol=1e-5)
    assert (scales > 0).all()
    size = np.abs(covariances).max(1, keepdims=True)
    assert (np.abs(build_covariances(quats, scales) - covariances) < 2e-5 * size).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_splitting_finds_the_scales_in_some_order(seed: int) -> None:
    quats, scales = random_shapes(50, seed)
    _, found = split_covariances(build_covariances(quats, scales))
    want = np.sort(scales, axis=1)
    # Small scales beside large ones drown in the rounding of the covariance.
    assert (np.abs(np.sort(found, axis=1) - want) < 1e-3 * want[:, 2:] + 1e-7).all()


def test_building_follows_the_definition_and_is_positive() -> None:
    quats, scales = random_shapes(200, 3)
    rotation = quat_to_matrix(quats.astype(np.float64))
    want = rotation @ (
        np.square(scales.astype(np.float64))[:, :, None] * rotation.transpose(0, 2, 1)
    )
    got = unpacked(build_covariances(quats, scales))
    assert np.abs(got - want).max() < 1e-6 * want.max()
    values = np.linalg.eigvalsh(got)
    assert (values[:, 0] > -1e-6 * values[:, 2]).all()
    assert np.allclose(few().covariances(), build_covariances(few().quats, few().scales))


def test_splitting_survives_flat_needle_and_zero_shapes() -> None:
    flat = np.array([[1e-4, 0, 0, 1e-4, 0, 0], [1e-4, 0, 0, 0, 0, 0], [0] * 6], np.float32)
    quats, scales = split_covariances(flat)
    assert np.isfinite(quats).all() and np.isfinite(scales).all() and (scales > 0).all()
    assert np.abs(build_covariances(quats, scales) - flat).max() < 1e-9


def test_transforming_is_congruence_and_composes() -> None:
    covariances = build_covariances(*random_shapes(30, 4))
    rng = np.random.default_rng(5)
    a, b = rng.normal(size=(2, 30, 3, 3)).astype(np.float32)
    want = a @ unpacked(covariances) @ a.transpose(0, 2, 1)
    got = unpacked(transform_covariances(covariances, a))
    assert np.abs(got - want).max() < 1e-6 * np.abs(want).max()
    twice = transform_covariances(transform_covariances(covariances, a), b)
    once = transform_covariances(covariances, b @ a)
    assert np.abs(twice - once).max() < 1e-5 * np.abs(once).max()


def test_a_turn_keeps_the_scales() -> None:
    covariances = build_covariances(*random_shapes(30, 6))
    turn = axis_angle_to_matrix(np.array([0.3, 1.1, -0.7])).astype(np.float32)
    turned = transform_covariances(covariances, np.tile(turn, (30, 1, 1)))
    before, after = split_covariances(covariances)[1], split_covariances(turned)[1]
    assert np.allclose(before, after, atol=1e-6 + 1e-4 * before.max())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("quats", np.zeros((5, 4), np.float32)),
        ("scales", np.zeros((6, 3))),
        ("opacities", np.full(6, np.nan, np.float32)),
        ("triangles", np.zeros(4, np.int64)),
        ("layer_weights", np.zeros((3, 2), np.float32)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(name: str, value: np.ndarray) -> None:
    with pytest.raises(ValueError, match=name):
        replace(few(), **{name: value})


def test_the_first_gaussians_are_those_on_triangles() -> None:
    assert len(few()) == 6 and few().num_surface == 4

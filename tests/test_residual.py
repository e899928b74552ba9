"""The VAS residual against its plain definition in float64; zeros, threads and wild values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.geometry.rotations import quat_to_matrix
from vasa3d.kernels.residual import ATTRIBUTES, BLOCK, add_residual, pack_rows
from vasa3d.kernels.threads import get_num_threads, set_num_threads

Cloud = tuple[np.ndarray, ...]
UPPER = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 1, 2, 2])
SIZES = np.array([2e-3] * 3 + [0.3] * 4 + [0.7] * 3 + [0.4] * 4)
"""Changes of each attribute that are large for a residual."""


def attributes(count: int, rng: np.random.Generator) -> np.ndarray:
    quats = rng.normal(size=(count, 4))
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    scales = np.exp(rng.normal(-6.0, 1.5, (count, 3)))
    means, rest = rng.normal(0.0, 0.1, (count, 3)), rng.uniform(0.0, 1.0, (count, 4))
    return np.concatenate([means, quats, scales, rest], axis=1).astype(np.float32)


def random_modes(count: int, rank: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    modes = rng.integers(-127, 128, (count, rank, ATTRIBUTES), np.int8)
    factors = rng.normal(size=(rank, ATTRIBUTES)) * SIZES / 127
    return modes, factors.astype(np.float32)


def with_modes(base: np.ndarray, modes: np.ndarray, factors: np.ndarray) -> Cloud:
    """Means, covariances, opacities and colours of the kernel."""
    cloud = tuple(np.full((len(base), *s), np.nan, np.float32) for s in ((3,), (6,), (), (3,)))
    add_residual(pack_rows(base), pack_rows(modes), factors, *cloud)
    return cloud


def twin(base: np.ndarray, modes: np.ndarray, factors: np.ndarray) -> Cloud:
    values = base.astype(np.float64)
    change = np.einsum("nra,ra->na", modes.astype(np.float64), factors.astype(np.float64))
    spread = values[:, 7:10] * np.exp(change[:, 7:10])
    factor = quat_to_matrix(values[:, 3:7] + change[:, 3:7]) * spread[:, None, :]
    covariances = (factor @ np.swapaxes(factor, 1, 2))[:, UPPER[0], UPPER[1]]
    summed = values + change
    return (
        summed[:, :3], covariances, np.clip(summed[:, 13], 0.0, 1.0),
        np.clip(summed[:, 10:13], 0.0, 1.0),
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.integers(1, 3 * BLOCK))
def test_the_kernel_agrees_with_the_twin(seed: int, rank: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    base = attributes(count, rng)
    modes, factors = random_modes(count, rank, rng)
    got, want = with_modes(base, modes, factors), twin(base, modes, factors)
    for i, tolerance in ((0, 1e-7), (2, 1e-6), (3, 1e-6)):
        assert np.abs(got[i] - want[i]).max() < tolerance
    # A quaternion that nearly cancels its change magnifies rounding.
    change = np.einsum("nra,ra->na", modes.astype(float), factors.astype(float))[:, 3:7]
    length = np.linalg.norm(base[:, 3:7] + change, axis=1)
    error = np.linalg.norm(got[1] - want[1], axis=1) / np.linalg.norm(want[1], axis=1)
    assert (error < 1e-5 * np.maximum(1.0, 1.0 / length)).all()


@pytest.mark.parametrize("step", [1e-7, 1e-4, 3e-3, 0.03, 0.33])
def test_scales_grow_by_the_exponential(step: float) -> None:
    steps = np.arange(-127, 128).astype(np.int8)
    base = np.zeros((len(steps), ATTRIBUTES), np.float32)
    base[:, 3] = base[:, 7:10] = 1.0
    factors = np.zeros((1, ATTRIBUTES), np.float32)
    factors[0, 7] = step
    covariances = with_modes(base, np.repeat(steps[:, None, None], ATTRIBUTES, 2), factors)[1]
    exponents = (factors[0, 7] * steps).astype(np.float64)
    assert np.allclose(covariances[:, 0], np.exp(2.0 * exponents), rtol=7e-7, atol=0.0)
    assert (covariances[:, 3] == 1.0).all()


def test_a_residual_of_nothing_changes_no_bit() -> None:
    rng = np.random.default_rng(3)
    count = BLOCK + 17
    base = attributes(count, rng)
    modes, factors = random_modes(count, 3, rng)
    wanted = with_modes(base, modes[:, :0], factors[:0])
    for other in (
        with_modes(base, np.zeros_like(modes), factors),
        with_modes(base, modes, np.zeros_like(factors)),
    ):
        for a, b in zip(other, wanted, strict=True):
            assert np.array_equal(a, b)
    assert np.array_equal(wanted[0], base[:, :3]) and np.array_equal(wanted[2], base[:, 13])
    assert np.array_equal(wanted[3], base[:, 10:13])


def test_threads_do_not_change_a_bit() -> None:
    rng, before, results = np.random.default_rng(4), get_num_threads(), []
    base = attributes(20_000, rng)
    modes, factors = random_modes(len(base), 4, rng)
    for threads in (1, 2, 3):
        set_num_threads(threads)
        results.append(with_modes(base, modes, factors))
    set_num_threads(before)
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(other, results[0], strict=True))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e30])
@pytest.mark.parametrize("attribute", range(ATTRIBUTES))
def test_wild_factors_spoil_only_their_own_attribute(value: float, attribute: int) -> None:
    rng = np.random.default_rng(5)
    base = attributes(2 * BLOCK, rng)
    modes, factors = random_modes(len(base), 2, rng)
    wanted = with_modes(base, modes, factors)
    factors[1, attribute] = value
    got = with_modes(base, modes, factors)
    spoilt = 0 if attribute < 3 else 1 if attribute < 10 else 3 if attribute < 13 else 2
    for i in range(4):
        assert i == spoilt or np.array_equal(got[i], wanted[i])
    for i in (2, 3):
        assert (np.isnan(got[i]) | ((got[i] >= 0.0) & (got[i] <= 1.0))).all()
    if np.isnan(value):
        assert np.isnan(got[spoilt]).any()


def test_packing_keeps_every_value() -> None:
    values = np.arange((BLOCK + 3) * 2 * 5, dtype=np.int32).reshape(BLOCK + 3, 2, 5)
    packed = pack_rows(values)
    assert packed.shape == (2, 2, 5, BLOCK) and packed.flags.c_contiguous
    assert np.array_equal(packed[1, :, :, 2], values[BLOCK + 2])
    assert np.array_equal(packed[0, 1, 4], values[:BLOCK, 1, 4])
    assert (packed[1, :, :, 3:] == 0).all()

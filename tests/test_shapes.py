"""Covariances from quaternions and scales, and their gradients, against plain float64 torch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.avatar.posing import covariances_from
from vasa3d.geometry.covariances import build_covariances
from vasa3d.geometry.rotations import quat_to_matrix
from vasa3d.kernels.threads import get_num_threads, set_num_threads


def shapes(count: int = 400, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4)) * np.exp(rng.normal(0.0, 2.0, (count, 1)))
    scales = np.exp(rng.normal(-5.0, 1.0, (count, 3)))
    return torch.from_numpy(quats.astype(np.float32)), torch.from_numpy(scales.astype(np.float32))


def twin(quats: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    factor = quat_to_matrix(quats) * scales[:, None, :]
    return (factor @ factor.mT).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]


def gradients(function, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Gradients of a sum in which every covariance counts differently."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    covariances = function(*leaves)
    weights = torch.randn(covariances.shape, generator=torch.Generator().manual_seed(1))
    return torch.autograd.grad((covariances * weights.to(covariances.dtype)).sum(), leaves)


def relative(got: torch.Tensor, want: torch.Tensor) -> float:
    """Largest error of a row, by the size of that row."""
    return float(((got - want).norm(dim=1) / want.norm(dim=1)).max())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_covariances_and_gradients_agree_with_the_twin(seed: int) -> None:
    inputs = shapes(seed=seed)
    exact = tuple(value.double() for value in inputs)
    covariances = covariances_from(*inputs)
    assert covariances.dtype == torch.float32
    assert relative(covariances, twin(*exact)) < 5e-6
    plain = torch.from_numpy(build_covariances(*(value.numpy() for value in inputs)))
    assert relative(covariances, plain) < 1e-5
    for got, want in zip(gradients(covariances_from, inputs), gradients(twin, exact), strict=True):
        assert float((got - want).norm()) < 1e-5 * float(want.norm())


def test_turning_a_round_gaussian_changes_nothing() -> None:
    quats, scales = shapes()
    by_quats, by_scales = gradients(covariances_from, (quats, scales[:, :1].expand(-1, 3)))
    assert float((by_quats * quats.norm(dim=1, keepdim=True)).abs().max()) < 1e-5 * float(
        (by_scales * scales).abs().max()
    )


@pytest.mark.parametrize(
    "quat", [(0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 0), (np.inf, np.inf, 1, 1)]
)
def test_quaternions_without_direction_have_no_gradients(quat: tuple[float, ...]) -> None:
    quats, scales = shapes(5)
    clean = gradients(covariances_from, (quats, scales))
    quats[2] = torch.tensor(quat)
    assert covariances_from(quats, scales)[2].isnan().any()
    for got, want in zip(gradients(covariances_from, (quats, scales)), clean, strict=True):
        assert (got[2] == 0.0).all()
        others = [0, 1, 3, 4]
        assert torch.equal(got[others], want[others])


@pytest.mark.parametrize("factor", [1e-30, 1e30])
def test_the_length_of_a_quaternion_does_not_matter(factor: float) -> None:
    quats, scales = shapes(50)
    unit = torch.nn.functional.normalize(quats)
    want = covariances_from(unit, scales)
    assert relative(covariances_from(unit * factor, scales), want) < 1e-5
    assert all(torch.isfinite(g).all() for g in gradients(covariances_from, (unit * 1e30, scales)))


def test_flat_and_vanishing_gaussians_have_finite_gradients() -> None:
    quats, scales = shapes(4)
    scales[0], scales[1, 2], scales[2] = 0.0, 0.0, 1e-40
    assert all(torch.isfinite(g).all() for g in gradients(covariances_from, (quats, scales)))


def test_results_do_not_depend_on_threads() -> None:
    inputs, before = shapes(20_000), get_num_threads()
    results = []
    try:
        for number in (1, 2, 3):
            set_num_threads(number)
            results.append((covariances_from(*inputs), *gradients(covariances_from, inputs)))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_wrong_tensors_are_refused() -> None:
    quats, scales = shapes(3)
    with pytest.raises(ValueError, match="quats"):
        covariances_from(quats[:, :3], scales)
    with pytest.raises(ValueError, match="scales"):
        covariances_from(quats, scales.double())
    assert covariances_from(quats[:0], scales[:0]).shape == (0, 6)

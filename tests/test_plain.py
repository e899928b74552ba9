"""Plain torch in place of the compiled kernels: same values, same gradients, also of hostile inputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from vasa3d.avatar.posing import covariances_from, pose_tensors
from vasa3d.kernels import plain
from vasa3d.losses import SsimTarget, ssim


def slopes(function: Callable[..., tuple[torch.Tensor, ...]], *inputs: torch.Tensor):
    """Values and gradients of a sum in which every value counts differently."""
    leaves = [value.clone().requires_grad_() for value in inputs]
    values = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    loss = torch.stack(
        [
            (torch.randn(value.shape, generator=generator) * value.nan_to_num()).sum()
            for value in values
        ]
    ).sum()
    return [value.detach() for value in values], torch.autograd.grad(loss, leaves)


def assert_agree(got, want, tolerance: float = 1e-5) -> None:
    for part, other in zip(got, want, strict=True):
        for a, b in zip(part, other, strict=True):
            assert a.dtype == torch.float32 and a.shape == b.shape
            assert torch.equal(a.isnan(), b.isnan())
            a, b = a.nan_to_num(), b.nan_to_num()
            assert float((a - b).norm()) <= tolerance * float(b.norm())


def shapes(count: int = 500) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    quats = rng.normal(size=(count, 4)) * np.exp(rng.normal(0.0, 2.0, (count, 1)))
    scales = np.exp(rng.normal(-5.0, 1.0, (count, 3)))
    return torch.from_numpy(quats.astype(np.float32)), torch.from_numpy(scales.astype(np.float32))


def test_what_needs_plain_torch() -> None:
    assert not plain.is_needed(torch.zeros(1))
    assert plain.is_needed(torch.zeros(1, device="meta"))


def test_covariances_are_those_of_the_kernels() -> None:
    assert_agree(
        slopes(lambda *v: (plain.shape_covariances(*v),), *shapes()),
        slopes(lambda *v: (covariances_from(*v),), *shapes()),
    )


@pytest.mark.parametrize("quat", [(0, 0, 0, 0), (np.nan, 0, 0, 1), (np.inf, 0, 0, 0)])
def test_quaternions_without_direction_have_no_gradients(quat) -> None:
    quats, scales = shapes(5)
    quats[2] = torch.tensor(quat)
    quats[3] *= 1e-30
    (value,), found = slopes(lambda *v: (plain.shape_covariances(*v),), quats, scales)
    assert value[2].isnan().all() and value[[0, 1, 3, 4]].isfinite().all()
    for gradient in found:
        assert not gradient[2].any() and gradient.isfinite().all()


@pytest.mark.parametrize(("surface", "layer"), [(300, 200), (300, 0), (0, 200)])
def test_posing_is_that_of_the_kernels(surface: int, layer: int) -> None:
    rng, faces, joints = np.random.default_rng(0), 40, 5
    triangles = rng.integers(0, faces, surface).astype(np.int32)
    weights = rng.dirichlet(np.ones(joints), layer).astype(np.float32)
    near = np.eye(3, 4) + rng.normal(0.0, 0.3, (faces + joints, 3, 4))
    maps = torch.from_numpy(near.astype(np.float32))
    means = torch.from_numpy(rng.normal(0.0, 0.2, (surface + layer, 3)).astype(np.float32))
    inputs = (means, covariances_from(*shapes(surface + layer)), maps[:faces], maps[faces:])
    binding = torch.from_numpy(triangles), torch.from_numpy(weights)

    def posed(m, c, t, j):
        return plain.pose_gaussians(m, c, binding[0], t, binding[1], j)

    want = slopes(lambda *v: pose_tensors(*v, triangles, weights), *inputs)
    assert_agree(slopes(posed, *inputs), want)
    given = slopes(lambda *v: pose_tensors(*v, *binding), *inputs)
    assert all(torch.equal(a, b) for a, b in zip(given[1], want[1], strict=True))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [(40, 53), (11, 11)])
def test_similarity_is_that_of_the_kernels(size: tuple[int, int], weighted: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    target = torch.rand(*size, 3, generator=generator)
    target[: size[0] // 2] = 0.9
    picture = (target + 0.1 * torch.randn(*size, 3, generator=generator)).clamp(0.0, 1.0)
    weights = torch.rand(size, generator=generator) if weighted else None
    assert_agree(
        slopes(lambda p: (plain.Similarity(target, weights)(p),), picture),
        slopes(lambda p: (ssim(p, SsimTarget(target, weights)),), picture),
        tolerance=1e-4,
    )

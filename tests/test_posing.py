"""Posing of bound Gaussians against a plain float64 twin, and what it must do to shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from vasa3d.avatar.posing import pose_tensors
from vasa3d.geometry.meshes import triangle_affines
from vasa3d.geometry.rotations import axis_angle_to_matrix
from vasa3d.kernels.posing import pose_gaussians
from vasa3d.kernels.threads import get_num_threads, set_num_threads

UPPER = np.triu_indices(3)


@dataclass
class Bound:
    """Inputs of ``pose_gaussians``: S Gaussians on F triangles, the rest on J joints."""

    means: np.ndarray
    covariances: np.ndarray
    triangles: np.ndarray
    triangle_maps: np.ndarray
    layer_weights: np.ndarray
    joint_maps: np.ndarray

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        out = np.full_like(self.means, np.nan), np.full_like(self.covariances, np.nan)
        pose_gaussians(
            self.means, self.covariances, self.triangles, self.triangle_maps,
            self.layer_weights, self.joint_maps, *out,
        )  # fmt: skip
        return out


def packed(full: np.ndarray) -> np.ndarray:
    return full[:, UPPER[0], UPPER[1]]


def unpacked(upper: np.ndarray) -> np.ndarray:
    full = np.empty((len(upper), 3, 3), np.float64)
    full[:, UPPER[0], UPPER[1]] = upper
    full[:, UPPER[1], UPPER[0]] = upper
    return full


def twin(bound: Bound) -> tuple[np.ndarray, np.ndarray]:
    """The same in plain float64."""
    surface = bound.triangle_maps.astype(np.float64)[bound.triangles]
    layer = np.einsum(
        "nj,jrc->nrc", bound.layer_weights.astype(np.float64), bound.joint_maps.astype(np.float64)
    )
    maps = np.concatenate([surface, layer])
    linear, offset = maps[:, :, :3], maps[:, :, 3]
    means = np.einsum("nij,nj->ni", linear, bound.means.astype(np.float64)) + offset
    return means, packed(linear @ unpacked(bound.covariances) @ linear.transpose(0, 2, 1))


def identity_maps(count: int) -> np.ndarray:
    return np.tile(np.eye(3, 4, dtype=np.float32), (count, 1, 1))


def scene(count: int = 9000, bound: int = 6000, faces: int = 50, joints: int = 5) -> Bound:
    """More Gaussians than one chunk of work, with maps that stretch and shear."""
    rng = np.random.default_rng(0)
    factor = rng.normal(0.0, 0.01, (count, 3, 3))
    weights = rng.uniform(size=(count - bound, joints))
    return Bound(
        means=rng.normal(0.0, 0.2, (count, 3)).astype(np.float32),
        covariances=packed(factor @ factor.transpose(0, 2, 1)).astype(np.float32),
        triangles=rng.integers(0, faces, bound).astype(np.int32),
        triangle_maps=(identity_maps(faces) + rng.normal(0, 0.3, (faces, 3, 4))).astype(np.float32),
        layer_weights=(weights / weights.sum(1, keepdims=True)).astype(np.float32),
        joint_maps=(identity_maps(joints) + rng.normal(0, 0.3, (joints, 3, 4))).astype(np.float32),
    )


def assert_near(got: np.ndarray, want: np.ndarray, relative: float = 3e-6) -> None:
    """Equal up to float32 rounding at the size of the largest values."""
    assert got.dtype == np.float32
    assert np.abs(got - want).max() <= relative * np.abs(want).max()


@pytest.mark.parametrize(
    ("count", "bound"), [(9000, 6000), (9000, 9000), (9000, 0), (1, 1), (0, 0)]
)
def test_equals_the_plain_twin(count: int, bound: int) -> None:
    given = scene(count, bound)
    means, covariances = given.pose()
    if count:
        want_means, want_covariances = twin(given)
        assert_near(means, want_means)
        assert_near(covariances, want_covariances)


def test_the_number_of_threads_does_not_matter() -> None:
    given, before = scene(), get_num_threads()
    try:
        results = []
        for number in (1, 2, 3):
            set_num_threads(number)
            results.append(given.pose())
    finally:
        set_num_threads(before)
    for means, covariances in results[1:]:
        assert np.array_equal(means, results[0][0])
        assert np.array_equal(covariances, results[0][1])


def test_identity_maps_change_nothing() -> None:
    given = scene()
    given.triangle_maps, given.joint_maps = identity_maps(50), identity_maps(5)
    means, covariances = given.pose()
    assert np.array_equal(means[:6000], given.means[:6000])
    assert np.array_equal(covariances[:6000], given.covariances[:6000])
    assert_near(means, given.means)
    assert_near(covariances, given.covariances)


def test_the_inputs_stay_as_they_are() -> None:
    given, kept = scene(), scene()
    given.pose()
    assert np.array_equal(given.means, kept.means)
    assert np.array_equal(given.covariances, kept.covariances)


def test_a_rigid_motion_after_posing_moves_and_turns_the_result() -> None:
    given = scene()
    turn = axis_angle_to_matrix(np.array([0.4, -0.9, 0.3]))
    shift = np.array([0.1, -0.2, 0.05])
    means, covariances = given.pose()
    for maps in (given.triangle_maps, given.joint_maps):
        maps[:] = turn @ maps
        maps[:, :, 3] += shift
    moved, turned = given.pose()
    assert_near(moved, means @ turn.T + shift, 1e-5)
    assert_near(turned, packed(turn @ unpacked(covariances) @ turn.T), 1e-5)
    before, after = (np.linalg.eigvalsh(unpacked(c)) for c in (covariances, turned))
    assert np.abs(before - after).max() < 1e-5 * before.max()


def test_stretching_a_triangle_stretches_what_lies_on_it() -> None:
    rest = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    posed = rest * np.array([3, 1, 1], np.float32) + np.float32(0.5)
    maps = triangle_affines(rest, posed, np.array([[0, 1, 2]], np.int32))
    round_disc = packed(np.diag([1e-4, 1e-4, 1e-6])[None]).astype(np.float32)
    given = Bound(
        means=np.array([[0.25, 0.25, 0.0]], np.float32),
        covariances=round_disc,
        triangles=np.zeros(1, np.int32),
        triangle_maps=maps,
        layer_weights=np.zeros((0, 5), np.float32),
        joint_maps=identity_maps(5),
    )
    means, covariances = given.pose()
    assert np.allclose(means, [[1.25, 0.75, 0.5]], atol=1e-6)
    # Nine times the variance along the stretch, the same across it, and no thicker.
    assert np.allclose(unpacked(covariances)[0], np.diag([9e-4, 1e-4, 1e-6]), atol=1e-9)


def test_each_layer_gaussian_follows_its_own_weights() -> None:
    joints = identity_maps(3)
    joints[1, :, 3], joints[2, :, 3] = (1, 0, 0), (0, 2, 0)
    weights = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.25, 0.25]], np.float32)
    given = Bound(
        means=np.zeros((5, 3), np.float32),
        covariances=np.tile(packed(np.eye(3)[None]), (5, 1)).astype(np.float32),
        triangles=np.zeros(1, np.int32),
        triangle_maps=np.array([[[1, 0, 0, 7], [0, 1, 0, 0], [0, 0, 1, 0]]], np.float32),
        layer_weights=weights,
        joint_maps=joints,
    )
    means, _ = given.pose()
    assert np.allclose(means, [[7, 0, 0], [0, 0, 0], [1, 0, 0], [0, 2, 0], [0.25, 0.5, 0]])


def tensors(bound: Bound) -> list[torch.Tensor]:
    values = (bound.means, bound.covariances, bound.triangle_maps, bound.joint_maps)
    return [torch.from_numpy(value).clone() for value in values]


def posed_loss(means: torch.Tensor, covariances: torch.Tensor) -> torch.Tensor:
    """Some smooth function in which every value counts differently."""
    generator = torch.Generator().manual_seed(3)
    first, second = (
        torch.randn(value.shape, generator=generator).to(value.dtype)
        for value in (means, covariances)
    )
    return (first * means).sum() + (means**2).sum() + 1e3 * (second * covariances).sum()


def twin_gradients(bound: Bound) -> list[torch.Tensor]:
    """Gradients of ``posed_loss`` through plain float64 torch."""
    inputs = [value.double().requires_grad_() for value in tensors(bound)]
    means, covariances, triangle_maps, joint_maps = inputs
    layer = torch.einsum("nj,jrc->nrc", torch.from_numpy(bound.layer_weights).double(), joint_maps)
    maps = torch.cat([triangle_maps[torch.from_numpy(bound.triangles).long()], layer])
    linear = maps[:, :, :3]
    full = covariances[:, [0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(-1, 3, 3)
    turned = (linear @ full @ linear.mT).reshape(-1, 9)[:, [0, 1, 2, 4, 5, 8]]
    posed = (linear @ means[:, :, None])[:, :, 0] + maps[:, :, 3]
    return list(torch.autograd.grad(posed_loss(posed, turned), inputs))


def pose_gradients(bound: Bound) -> list[torch.Tensor]:
    inputs = [value.requires_grad_() for value in tensors(bound)]
    posed = pose_tensors(*inputs, bound.triangles, bound.layer_weights)
    return list(torch.autograd.grad(posed_loss(*posed), inputs))


@pytest.mark.parametrize(("count", "bound"), [(9000, 6000), (500, 500), (500, 0)])
def test_gradients_agree_with_the_twin(count: int, bound: int) -> None:
    given = scene(count, bound)
    for got, want in zip(pose_gradients(given), twin_gradients(given), strict=True):
        assert got.dtype == torch.float32
        assert float((got - want).norm()) <= 1e-5 * float(want.norm())


def test_posed_tensors_are_those_of_the_kernel() -> None:
    given = scene()
    posed = pose_tensors(*tensors(given), given.triangles, given.layer_weights)
    for got, want in zip(posed, given.pose(), strict=True):
        assert np.array_equal(got.numpy(), want)


def test_gradients_do_not_depend_on_threads() -> None:
    given, before = scene(20_000, 12_000), get_num_threads()
    try:
        results = []
        for number in (1, 2, 3):
            set_num_threads(number)
            results.append(pose_gradients(given))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert torch.equal(a, b)


def test_gradients_of_gaussians_alone_are_the_same() -> None:
    given = scene(300, 200)
    means, covariances, triangle_maps, joint_maps = tensors(given)
    inputs = [means.requires_grad_(), covariances.requires_grad_()]
    posed = pose_tensors(*inputs, triangle_maps, joint_maps, given.triangles, given.layer_weights)
    got = torch.autograd.grad(posed_loss(*posed), inputs)
    for a, b in zip(got, pose_gradients(given), strict=False):
        assert torch.equal(a, b)


def test_wrong_bindings_are_refused() -> None:
    given = scene(30, 20)
    inputs = tensors(given)
    with pytest.raises(ValueError, match="means"):
        pose_tensors(inputs[0].double(), *inputs[1:], given.triangles, given.layer_weights)
    with pytest.raises(ValueError, match="joint_maps"):
        pose_tensors(*inputs[:3], inputs[3][:-1], given.triangles, given.layer_weights)
    with pytest.raises(ValueError, match="layer_weights"):
        pose_tensors(*inputs, given.triangles, given.layer_weights[:-1])
    with pytest.raises(ValueError, match="triangles"):
        pose_tensors(*inputs, given.triangles + np.int32(50), given.layer_weights)


def test_no_gaussians_have_no_gradients() -> None:
    grads = pose_gradients(scene(0, 0))
    assert [tuple(grad.shape) for grad in grads] == [(0, 3), (0, 6), (50, 3, 4), (5, 3, 4)]
    assert all((grad == 0.0).all() for grad in grads)

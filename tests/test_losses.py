"""Losses between pictures against plain float64 torch, finite differences and ``metrics``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d import metrics
from vasa3d.kernels.threads import get_num_threads, set_num_threads
from vasa3d.losses import SsimTarget, l1, ssim

WINDOW = torch.exp(-0.5 * ((torch.arange(11.0) - 5.0) / 1.5) ** 2).double()


def pictures(height: int = 40, width: int = 53, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture with flat, smooth and noisy parts, and its target."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, 4, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    target = smooth[0].permute(1, 2, 0).clamp(0.0, 1.0).contiguous()
    target[: height // 3, : width // 2] = 0.9
    noise = 0.2 * torch.rand(1, width, 1, generator=generator)
    picture = (target + noise * torch.randn(target.shape, generator=generator)).clamp(0.0, 1.0)
    return picture, target


def twin_map(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """(H - 10, W - 10, 3) similarity in float64."""
    kernel = (WINDOW[:, None] * WINDOW)[None, None].expand(3, 1, 11, 11) / WINDOW.sum() ** 2

    def mean(z: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.conv2d(z.permute(2, 0, 1)[None], kernel, groups=3)

    mx, my = mean(x), mean(y)
    vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    top = (2.0 * mx * my + 0.01**2) * (2.0 * vxy + 0.03**2)
    return (top / ((mx * mx + my * my + 0.01**2) * (vx + vy + 0.03**2)))[0].permute(1, 2, 0)


def gradient(value: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(value, leaf)[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(11, 50), st.integers(11, 50), st.integers(0, 1000))
def test_similarity_and_gradient_agree_with_the_twin(height: int, width: int, seed: int) -> None:
    picture, target = pictures(height, width, seed)
    leaf, exact = picture.clone().requires_grad_(), picture.double().requires_grad_()
    value, want = ssim(leaf, SsimTarget(target)), twin_map(exact, target.double()).mean()
    assert abs(float(value.detach()) - float(want.detach())) < 1e-6
    got, twin = gradient(value, leaf), gradient(want, exact)
    assert got.shape == picture.shape and got.dtype == torch.float32
    assert float((got - twin).norm()) <= 1e-4 * float(twin.norm())


def test_similarity_is_that_of_the_metric() -> None:
    picture, target = pictures()
    assert float(ssim(picture, SsimTarget(target))) == pytest.approx(
        metrics.ssim(picture.numpy(), target.numpy()), abs=1e-6
    )
    assert float(ssim(target, SsimTarget(target))) == pytest.approx(1.0, abs=1e-6)


def test_gradient_agrees_with_finite_differences() -> None:
    picture, target = pictures()
    leaf = picture.clone().requires_grad_()
    found = gradient(ssim(leaf, SsimTarget(target)), leaf).double()
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        direction = torch.randn(picture.shape, generator=generator, dtype=torch.float64)
        ends = [
            twin_map(picture.double() + step * direction, target.double()).mean()
            for step in (1e-6, -1e-6)
        ]
        slope = float(ends[0] - ends[1]) / 2e-6
        assert slope == pytest.approx(float((found * direction).sum()), rel=1e-3, abs=1e-6)


def test_weights_choose_the_pixels_that_count() -> None:
    picture, target = pictures()
    weights = torch.rand(40, 53, generator=torch.Generator().manual_seed(1))
    leaf, exact = picture.clone().requires_grad_(), picture.double().requires_grad_()
    inner = weights[5:-5, 5:-5, None].double()
    want = (twin_map(exact, target.double()) * inner).sum() / (3.0 * inner.sum())
    value = ssim(leaf, SsimTarget(target, weights))
    assert abs(float(value.detach()) - float(want.detach())) < 1e-6
    twin = gradient(want, exact)
    assert float((gradient(value, leaf) - twin).norm()) <= 1e-4 * float(twin.norm())
    even = SsimTarget(target, torch.full((40, 53), 0.3))
    assert float(ssim(picture, even)) == pytest.approx(float(ssim(picture, SsimTarget(target))))


def test_gradient_is_scaled_by_what_comes_after() -> None:
    picture, target = pictures()
    leaf = picture.clone().requires_grad_()
    plain = gradient(ssim(leaf, SsimTarget(target)), leaf)
    scaled = gradient(-3.0 * ssim(leaf, SsimTarget(target)), leaf)
    assert torch.allclose(scaled, -3.0 * plain, rtol=1e-5, atol=0.0)


def test_a_target_serves_many_pictures() -> None:
    first, target = pictures()
    second, _ = pictures(seed=5)
    kept = SsimTarget(target)
    target.zero_()
    leaves = [value.clone().requires_grad_() for value in (first, second)]
    values = [ssim(leaf, kept) for leaf in leaves]
    together = torch.autograd.grad(values[0] + values[1], leaves)
    _, target = pictures()
    for leaf, found in zip(leaves, together, strict=True):
        assert torch.equal(found, gradient(ssim(leaf, SsimTarget(target)), leaf))


def test_results_do_not_depend_on_threads() -> None:
    picture, target = pictures(200, 150)
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            set_num_threads(threads)
            leaf = picture.clone().requires_grad_()
            value = ssim(leaf, SsimTarget(target))
            results.append((value.detach(), gradient(value, leaf)))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_flat_pictures_have_finite_gradients() -> None:
    for shade, other in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 0.5)):
        leaf = torch.full((20, 20, 3), shade, requires_grad=True)
        value = ssim(leaf, SsimTarget(torch.full((20, 20, 3), other)))
        assert torch.isfinite(gradient(value, leaf)).all()


def test_mean_absolute_difference() -> None:
    picture, target = pictures()
    weights = torch.rand(40, 53, generator=torch.Generator().manual_seed(1))
    leaf = picture.clone().requires_grad_()
    difference = (picture - target).abs()
    assert float(l1(picture, target)) == pytest.approx(float(difference.mean()))
    weighed = (difference.mean(2) * weights).sum() / weights.sum()
    value = l1(leaf, target, weights)
    assert float(value.detach()) == pytest.approx(float(weighed), rel=1e-5)
    want = (picture - target).sign() * weights[:, :, None] / (3.0 * weights.sum())
    assert torch.allclose(gradient(value, leaf), want, atol=1e-9)


def test_wrong_pictures_are_refused() -> None:
    picture, target = pictures()
    kept = SsimTarget(target)
    with pytest.raises(ValueError, match="must have shape"):
        ssim(picture[:, :-1], kept)
    with pytest.raises(ValueError, match="must have shape"):
        ssim(picture[:, :, 0], kept)
    with pytest.raises(ValueError, match="float32"):
        ssim(picture.double(), kept)
    with pytest.raises(ValueError, match="11 pixels"):
        SsimTarget(target[:10])
    with pytest.raises(ValueError, match="weights"):
        SsimTarget(target, torch.ones(3, 3))
    for bad in (torch.zeros(40, 53), torch.full((40, 53), -1.0), torch.full((40, 53), np.nan)):
        with pytest.raises(ValueError, match="weights must not"):
            SsimTarget(target, bad)

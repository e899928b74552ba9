"""The differentiable renderer: same pictures as the plain one, threads, bands, hostile clouds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.kernels.threads import get_num_threads, set_num_threads
from vasa3d.renderer import RenderConfig, render_cloud, splats
from vasa3d.renderer.autograd import RenderedTensors, render_tensors
from vasa3d.types import Camera, GaussianCloud

WIDTH, HEIGHT = 90, 70
Inputs = list[torch.Tensor]


def cloud(count: int = 200, seed: int = 0, size: float = -4.6) -> Inputs:
    """Means, covariances, opacities, colours."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(count, 3, 3)) * np.exp(rng.normal(size, 0.7, (count, 1, 1)))
    full = factor @ factor.transpose(0, 2, 1)
    rows, columns = np.triu_indices(3)
    values = (
        rng.normal(0.0, 0.08, (count, 3)), full[:, rows, columns],
        rng.uniform(0.0, 1.0, count), rng.uniform(0.0, 1.0, (count, 3)),
    )  # fmt: skip
    return [torch.from_numpy(value.astype(np.float32)) for value in values]


def camera(width: int = WIDTH, height: int = HEIGHT, distance: float = 0.6) -> Camera:
    view = look_at((0.05, 0.03, distance), (0, 0, 0))
    return Camera(view, intrinsics(1.45 * width, width, height), width, height)


def joint_loss(drawn: RenderedTensors) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(*drawn.alpha.shape, 5, generator=generator) - 0.3
    return (
        (weights[:, :, :3] * drawn.rgb).sum()
        + (weights[:, :, 3] * drawn.alpha).sum()
        + (weights[:, :, 4] * drawn.depth).sum()
    )


def gradients(inputs: Inputs, view: Camera, **options: torch.Tensor) -> list[torch.Tensor]:
    """By the Gaussians, the view matrix and, if there is one, the background."""
    tensors = [*inputs, torch.from_numpy(view.viewmat), *options.values()]
    leaves = [value.clone().requires_grad_() for value in tensors]
    named = dict(zip(options, leaves[5:], strict=True))
    drawn = render_tensors(*leaves[:4], view, viewmat=leaves[4], **named)
    return list(torch.autograd.grad(joint_loss(drawn), leaves))


def with_gaussian(inputs: Inputs, **values: object) -> Inputs:
    """The cloud with one Gaussian more, the last: a grey one at the origin but for these values."""
    default = {
        "means": np.zeros(3), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-5,
        "opacities": 0.9, "colors": np.full(3, 0.5),
    }  # fmt: skip
    rows = [np.asarray(value, np.float32) for value in (default | values).values()]
    return [
        torch.cat([old, torch.from_numpy(row).reshape(1, *old.shape[1:])])
        for old, row in zip(inputs, rows, strict=True)
    ]


@pytest.mark.parametrize("antialias", [False, True])
def test_pictures_are_those_of_the_plain_renderer(antialias: bool) -> None:
    inputs, view = cloud(), camera()
    config = RenderConfig(near=0.5, far=0.7, antialias=antialias)
    colour = np.array([0.2, 0.5, 0.9], np.float32)
    plain = render_cloud(
        GaussianCloud(*(value.numpy() for value in inputs)), view, background=colour, depth=True,
        config=config,
    )  # fmt: skip
    drawn = render_tensors(*inputs, view, background=torch.from_numpy(colour), config=config)
    assert plain.depth is not None
    assert np.array_equal(drawn.rgb.numpy(), plain.rgb)
    assert np.array_equal(drawn.alpha.numpy(), plain.alpha)
    assert np.array_equal(drawn.depth.numpy(), plain.depth)


def test_the_view_matrix_takes_the_place_of_the_cameras() -> None:
    inputs, view = cloud(), camera()
    other = camera(distance=0.5)
    moved = render_tensors(*inputs, view, viewmat=torch.from_numpy(other.viewmat))
    assert torch.equal(moved.rgb, render_tensors(*inputs, other).rgb)


def test_gradients_do_not_depend_on_threads() -> None:
    inputs, view = cloud(12_000, size=-5.5), camera(300, 200)
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            set_num_threads(threads)
            results.append(gradients(inputs, view, background=torch.ones(3)))
    finally:
        set_num_threads(before)
    assert all(float(value.abs().max()) > 0.0 for value in results[0])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_gradients_do_not_depend_on_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, view = cloud(400, size=-3.5), camera()
    whole = gradients(inputs, view)
    for limit in (1, 700, 5000):
        monkeypatch.setattr(splats, "MAX_ITEMS", limit)
        assert all(torch.equal(a, b) for a, b in zip(whole, gradients(inputs, view), strict=True))


def test_only_what_is_asked_for_has_gradients() -> None:
    inputs, view = cloud(), camera()
    whole = gradients(inputs, view)
    leaf = inputs[0].clone().requires_grad_()
    drawn = render_tensors(leaf, *inputs[1:], view)
    assert torch.equal(torch.autograd.grad(joint_loss(drawn), leaf)[0], whole[0])
    assert not render_tensors(*inputs, view).rgb.requires_grad


def test_gradients_accumulate_and_pictures_may_be_used_in_part() -> None:
    inputs, view = cloud(), camera()
    leaves = [value.clone().requires_grad_() for value in inputs]
    drawn = render_tensors(*leaves, view)
    first = torch.autograd.grad(drawn.depth.sum(), leaves, retain_graph=True)
    second = torch.autograd.grad(drawn.alpha.sum(), leaves, retain_graph=True)
    both = torch.autograd.grad(drawn.depth.sum() + drawn.alpha.sum(), leaves)
    assert not first[3].any() and not second[3].any()
    for a, b, c in zip(first, second, both, strict=True):
        assert float((a + b - c).norm()) <= 1e-4 * float(c.norm())


def test_overwriting_an_input_before_the_backward_is_noticed() -> None:
    inputs, view = cloud(), camera()
    leaf = inputs[0].clone().requires_grad_()
    moving = leaf * 1.0
    drawn = render_tensors(moving, *inputs[1:], view)
    moving.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        drawn.rgb.sum().backward()


def test_second_derivatives_are_refused() -> None:
    leaves = [value.clone().requires_grad_() for value in cloud(20)]
    loss = (render_tensors(*leaves, camera()).rgb ** 2).sum()
    (slope,) = torch.autograd.grad(loss, leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        slope.sum().backward()


def test_no_gaussians_have_no_gradients() -> None:
    view, behind = camera(), torch.rand(HEIGHT, WIDTH, 3)
    leaves = [value.requires_grad_() for value in (*cloud(0), behind)]
    drawn = render_tensors(*leaves[:4], view, background=leaves[4])
    assert torch.equal(drawn.rgb, behind) and not drawn.alpha.any()
    found = torch.autograd.grad(joint_loss(drawn), leaves)
    assert [tuple(value.shape) for value in found[:4]] == [(0, 3), (0, 6), (0,), (0, 3)]
    assert torch.isfinite(found[4]).all() and found[4].any()


@pytest.mark.parametrize(
    "values",
    [
        {"means": (np.nan, 0, 0)},
        {"means": (0, np.inf, 0)},
        {"means": (1e30, 1e30, -1e30)},
        {"covariances": np.full(6, np.nan)},
        {"covariances": np.full(6, np.inf)},
        {"covariances": np.array([-1, 0, 0, 1, 0, 1])},
        {"opacities": np.nan},
        {"opacities": 0.0},
        {"opacities": -1.0},
        {"colors": (0, np.nan, 0)},
        {"colors": (np.inf, -np.inf, 0)},
        {"means": (0, 0, 2.0)},
        {"means": (0.05, 0.03, 0.6)},
        {"means": (0.05, 0.03, 0.56)},
        {"means": (5.0, 0, 0)},
    ],
)
def test_skipped_gaussians_have_no_gradients(values: dict) -> None:
    inputs, view = cloud(), camera()
    clean, found = gradients(inputs, view), gradients(with_gaussian(inputs, **values), view)
    for a, b in zip(clean[:4], found[:4], strict=True):
        assert torch.equal(a, b[:-1]) and not b[-1].any()
    assert torch.equal(clean[4], found[4])


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    "values",
    [
        {"covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e6, "opacities": 0.5},
        {"covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e30},
        {"covariances": np.array([1, 1, 1, 1, 1, 1]) * 10.0},
        {"covariances": np.zeros(6)},
        {"covariances": np.array([1, 0, 0, 0, 0, 0]) * 1e-4},
        {"means": (3.0, 0, 0.4), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-1},
        {"means": (0.3, 0.2, 0.54), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-2},
        {"means": (1e15, 0, 0), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e32},
        {"opacities": 1.0},
        {"opacities": 5.0},
        {"opacities": np.inf},
        {"opacities": 1.0 / 255.0},
        {"colors": (1e20, 0, 0)},
        {"colors": (3e36, 0, 0)},
    ],
)
def test_giant_thin_and_grazing_gaussians_have_finite_gradients(
    values: dict, antialias: bool
) -> None:
    inputs = [value.requires_grad_() for value in with_gaussian(cloud(60), **values)]
    drawn = render_tensors(*inputs, camera(), config=RenderConfig(antialias=antialias))
    found = torch.autograd.grad(joint_loss(drawn), inputs)
    assert all(torch.isfinite(value).all() for value in found)
    if values.get("opacities", 0.0) > 1.0:
        assert found[2][-1] == 0.0 and found[3][-1].any()


NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1e-40, 1e-12, 1e4, 1e12, 1e38, np.inf, -np.inf, np.nan]),
    st.floats(-1.0, 1.0, width=32),
)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.tuples(*[NUMBERS] * 6),
    NUMBERS,
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
)
def test_any_gaussian_leaves_the_gradients_of_the_others_finite(
    means: tuple, covariances: tuple, opacities: float, colors: tuple
) -> None:
    """Its own too, unless its colour is so large that the picture overflows."""
    inputs = with_gaussian(
        cloud(30), means=means, covariances=covariances, opacities=opacities, colors=colors
    )
    found = gradients(inputs, camera())
    picture = render_tensors(*inputs, camera()).rgb
    assert torch.isfinite(picture).all()
    if float(picture.abs().max()) < 1e6:
        assert all(torch.isfinite(value).all() for value in found)


def test_a_view_matrix_that_is_not_finite_is_refused() -> None:
    view = torch.from_numpy(camera().viewmat).clone()
    view[0, 0] = float("nan")
    with pytest.raises(ValueError, match="viewmat holds NaN"):
        render_tensors(*cloud(), camera(), viewmat=view)


def test_wrong_tensors_and_options_are_refused() -> None:
    inputs, view = cloud(5), camera()
    with pytest.raises(ValueError, match="covariances must have shape"):
        render_tensors(inputs[0], inputs[1][:, :5], *inputs[2:], view)
    with pytest.raises(ValueError, match="means must be float32"):
        render_tensors(inputs[0].double(), *inputs[1:], view)
    with pytest.raises(ValueError, match="background"):
        render_tensors(*inputs, view, background=torch.zeros(4))
    with pytest.raises(ValueError, match="viewmat must have shape"):
        render_tensors(*inputs, view, viewmat=torch.eye(3))
    with pytest.raises(ValueError, match="supersampled"):
        render_tensors(*inputs, view, config=RenderConfig(supersample=2))

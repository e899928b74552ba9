"""Drawing on a GPU: what reaches gsplat, with our twin in its place; and gsplat itself where it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from gpu_twin import Twin, pretended_gpu
from vasa3d.errors import InputError, MissingError
from vasa3d.geometry.cameras import intrinsics, look_at, orbit
from vasa3d.renderer import (
    RenderConfig,
    color_adjoint,
    cuda,
    render_cloud,
    render_clouds,
    render_views,
)
from vasa3d.renderer.autograd import RenderedTensors, render_tensors
from vasa3d.types import Camera, Frame, GaussianCloud

WIDTH, HEIGHT = 60, 44
LIMIT = 1.0 / 255.0


def cloud(count: int = 120, seed: int = 0, opacity: float = 0.98) -> GaussianCloud:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(count, 3, 3)) * np.exp(rng.normal(-4.4, 0.6, (count, 1, 1)))
    full = factor @ factor.transpose(0, 2, 1)
    rows, columns = np.triu_indices(3)
    return GaussianCloud(
        rng.normal(0.0, 0.08, (count, 3)).astype(np.float32),
        full[:, rows, columns].astype(np.float32),
        rng.uniform(0.0, opacity, count).astype(np.float32),
        rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
    )


def camera(width: int = WIDTH, height: int = HEIGHT) -> Camera:
    return Camera(
        look_at((0.05, 0.03, 0.5), (0, 0, 0)), intrinsics(85.0, width, height), width, height
    )


@pytest.fixture
def twin(monkeypatch) -> Iterator[Twin]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    fake = Twin()
    monkeypatch.setattr(cuda, "find_rasterizer", lambda: (fake, "cpu"))
    yield fake
    torch.set_num_threads(before)


def assert_same(a: Frame, b: Frame) -> None:
    assert a.rgb.dtype == b.rgb.dtype == np.float32 and a.rgb.shape == b.rgb.shape
    assert np.abs(a.rgb - b.rgb).max() <= LIMIT
    assert np.abs(a.alpha - b.alpha).max() <= LIMIT
    assert (a.depth is None) == (b.depth is None) and (a.normals is None) == (b.normals is None)
    solid = (a.alpha > 0.1) & (b.alpha > 0.1)
    assert solid.any() or len(a.alpha) == 0
    if a.depth is not None and b.depth is not None:
        assert np.abs(a.depth - b.depth)[solid].max() < 2e-3
    if a.normals is not None and b.normals is not None:
        assert np.quantile(np.abs(a.normals - b.normals)[solid], 0.99) < 0.01


@pytest.mark.parametrize("config", [
    RenderConfig(), RenderConfig(antialias=True), RenderConfig(near=0.45, far=0.55),
    RenderConfig(supersample=2),
])  # fmt: skip
def test_what_reaches_gsplat_gives_the_picture_of_the_cpu(twin, config) -> None:
    drawn, view = cloud(), camera()
    background = np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    options = {"background": background, "depth": True, "normals": True, "config": config}
    assert_same(
        render_cloud(drawn, view, device="cuda", **options), render_cloud(drawn, view, **options)
    )
    plain = render_cloud(drawn, view, device="cuda", config=config)
    assert_same(plain, render_cloud(drawn, view, config=config))


def test_views_of_one_cloud_are_drawn_together(twin) -> None:
    drawn = cloud()
    cameras = [orbit(camera(), (0, 0, 0), yaw, 10.0) for yaw in (-60.0, 0.0, 60.0)]
    options = {"depth": True, "normals": True}
    found = list(render_views(drawn, cameras, device="cuda", **options))
    assert len(twin.calls) == 1 and twin.calls[0]["viewmats"].shape == (3, 4, 4)
    for a, b in zip(found, render_views(drawn, cameras, **options), strict=True):
        assert_same(a, b)


def test_clouds_are_drawn_together_in_batches(twin, monkeypatch) -> None:
    monkeypatch.setattr(cuda, "MAX_SHOTS", 2)
    clouds = [cloud(seed=seed) for seed in range(3)] + [cloud(50)]
    cameras = [orbit(camera(), (0, 0, 0), yaw, 10.0) for yaw in (-60.0, 0.0, 60.0, 20.0)]
    options = {"depth": True, "normals": True}
    found = list(render_clouds(iter(clouds), cameras, device="cuda", **options))
    shapes = [tuple(call["means"].shape) for call in twin.calls]
    assert shapes == [(2, 120, 3), (120, 3), (50, 3)]
    for a, b in zip(found, render_clouds(clouds, cameras, **options), strict=True):
        assert_same(a, b)


def test_batches_hold_a_bounded_number_of_pixels(twin, monkeypatch) -> None:
    monkeypatch.setattr(cuda, "MAX_PIXELS", 2 * WIDTH * HEIGHT)
    cameras = [camera()] * 5 + [camera(WIDTH * 2, HEIGHT * 2)]
    frames = list(render_views(cloud(10), cameras, device="cuda"))
    assert [len(call["viewmats"]) for call in twin.calls] == [2, 2, 1, 1]
    assert frames[-1].rgb.shape == (HEIGHT * 2, WIDTH * 2, 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("means", np.nan), ("means", np.inf), ("means", 1e30), ("covariances", np.nan),
        ("covariances", 3e38), ("covariances", -1.0), ("opacities", np.nan), ("opacities", -1.0),
        ("colors", np.nan), ("colors", np.inf),
    ],
)  # fmt: skip
def test_hostile_gaussians_never_reach_gsplat(twin, name, value) -> None:
    drawn, view = cloud(), camera()
    arrays = {key: getattr(drawn, key).copy() for key in vars(drawn)}
    arrays[name][7] = value
    options = {"depth": True, "normals": True}
    hostile = GaussianCloud(**arrays)
    on_gpu = render_cloud(hostile, view, device="cuda", **options)
    assert_same(on_gpu, render_cloud(hostile, view, **options))
    assert np.isfinite(on_gpu.rgb).all()


def test_no_gaussians_are_drawn_without_gsplat(twin) -> None:
    frame = render_cloud(
        cloud(0), camera(), device="cuda", depth=True, normals=True,
        background=np.full(3, 0.25, np.float32),
    )  # fmt: skip
    assert twin.calls == [] and (frame.rgb == 0.25).all() and (frame.alpha == 0.0).all()
    assert frame.depth is not None and frame.normals is not None


def test_skewed_cameras_are_refused(twin) -> None:
    view = camera()
    view.K[0, 1] = 1.0
    with pytest.raises(InputError, match="skew"):
        render_cloud(cloud(), view, device="cuda")


def test_without_a_gpu_one_line_says_so(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for version, words in ((None, "no CUDA support"), ("12.4", "finds no CUDA device")):
        monkeypatch.setattr(torch.version, "cuda", version)
        with pytest.raises(MissingError, match=words) as caught:
            render_cloud(cloud(), camera(), device="cuda")
        assert "--device cpu" in caught.value.hint


def test_without_gsplat_one_line_says_so(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(MissingError, match="gsplat") as caught:
        cuda.find_rasterizer()
    assert "vasa3d[gsplat]" in caught.value.hint
    fake = SimpleNamespace(rasterization=len)
    monkeypatch.setitem(sys.modules, "gsplat", fake)
    assert cuda.find_rasterizer() == (len, "cuda")


def tensors(drawn: GaussianCloud) -> list[torch.Tensor]:
    return [torch.from_numpy(value.copy()) for value in vars(drawn).values()]


def joint_loss(drawn: RenderedTensors) -> torch.Tensor:
    weights = torch.rand(*drawn.alpha.shape, 5, generator=torch.Generator().manual_seed(1)) - 0.3
    weights = weights.to(drawn.rgb.device)
    solid = drawn.alpha.detach() > 0.1  # elsewhere the expected depth has no sure derivative
    return (
        (weights[..., :3] * drawn.rgb).sum()
        + (weights[..., 3] * drawn.alpha).sum()
        + (weights[..., 4] * drawn.depth)[solid].sum()
    )


def gradients(
    drawn: GaussianCloud, view: Camera, config: RenderConfig, device: str = "cpu"
) -> tuple[RenderedTensors, list[torch.Tensor]]:
    """A picture, and gradients by the Gaussians, the view matrix and the background."""
    inputs = [*tensors(drawn), torch.from_numpy(view.viewmat), torch.tensor([0.2, 0.5, 0.9])]
    leaves = [value.to(device, copy=True).requires_grad_() for value in inputs]
    picture = render_tensors(
        *leaves[:4], view, viewmat=leaves[4], background=leaves[5], config=config
    )
    found = torch.autograd.grad(joint_loss(picture), leaves)
    seen = (value.detach().cpu() for value in (picture.rgb, picture.alpha, picture.depth))
    return RenderedTensors(*seen), [value.cpu() for value in found]


def assert_same_gradients(got: list[torch.Tensor], want: list[torch.Tensor]) -> None:
    for a, b in zip(got, want, strict=True):
        assert torch.isfinite(a).all()
        assert float((a - b).norm()) <= 5e-3 * float(b.norm())


@pytest.mark.parametrize("config", [RenderConfig(), RenderConfig(near=0.45, antialias=True)])
def test_drawing_on_a_gpu_is_differentiated_as_on_the_cpu(config) -> None:
    want, slopes = gradients(cloud(60), camera(), config)
    with pretended_gpu() as twin:
        got, found = gradients(cloud(60), camera(), config)
    assert len(twin.calls) == 1
    for name in ("rgb", "alpha"):
        assert float((getattr(got, name) - getattr(want, name)).abs().max()) <= LIMIT
    solid = want.alpha > 0.1
    assert float((got.depth - want.depth)[solid].abs().max()) < 2e-3
    assert_same_gradients(found, slopes)


def test_hostile_gaussians_have_no_gradients_on_a_gpu() -> None:
    drawn = cloud(60)
    drawn.means[3], drawn.covariances[4], drawn.opacities[5] = np.nan, np.inf, np.nan
    with pretended_gpu():
        _, found = gradients(drawn, camera(), RenderConfig())
    for value in found[:4]:
        assert torch.isfinite(value).all() and not value[3:6].any()


def test_no_gaussians_and_skewed_cameras_on_a_gpu() -> None:
    view, behind = camera(), torch.tensor([0.2, 0.5, 0.9])
    with pretended_gpu() as twin:
        drawn = render_tensors(*tensors(cloud(0)), view, background=behind)
        assert not twin.calls and torch.equal(drawn.rgb, behind.expand(HEIGHT, WIDTH, 3))
        view.K[0, 1] = 1.0
        with pytest.raises(InputError, match="skew"):
            render_tensors(*tensors(cloud(5)), view)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_transpose_by_colour_is_that_of_the_cpu(twin, channels) -> None:
    drawn, view = cloud(), camera()
    drawn.colors[7] = np.nan
    image = np.random.default_rng(0).random((HEIGHT, WIDTH, channels)).astype(np.float32)
    got = color_adjoint(drawn, view, image, device="cuda")
    want = color_adjoint(drawn, view, image)
    assert got.dtype == np.float32 and not got[7].any()
    assert np.abs(got - want).max() < 2e-3 * np.abs(want).max()
    assert color_adjoint(cloud(0), view, image, device="cuda").shape == (0, channels)


def can_draw_on_gpu() -> bool:
    try:
        cuda.find_rasterizer()
    except MissingError:
        return False
    return True


@pytest.mark.skipif(not can_draw_on_gpu(), reason="needs an NVIDIA GPU and gsplat")
@pytest.mark.parametrize("antialias", [False, True])
def test_gsplat_agrees_with_our_kernels(antialias) -> None:
    # Few enough layers that no pixel becomes opaque, where the two stop at different splats.
    clouds = [cloud(400, seed, opacity=0.7) for seed in range(3)]
    cameras = [orbit(camera(256, 192), (0, 0, 0), yaw, 10.0) for yaw in (-60.0, 0.0, 60.0)]
    options = {"depth": True, "normals": True, "config": RenderConfig(antialias=antialias)}
    on_cpu = render_clouds(clouds, cameras, **options)
    for a, b in zip(render_clouds(clouds, cameras, device="cuda", **options), on_cpu, strict=True):
        assert_same(a, b)


@pytest.mark.skipif(not can_draw_on_gpu(), reason="needs an NVIDIA GPU and gsplat")
@pytest.mark.parametrize("antialias", [False, True])
def test_gsplat_is_differentiated_as_our_kernels(antialias) -> None:
    view, config = camera(256, 192), RenderConfig(antialias=antialias)
    drawn = cloud(400, opacity=0.7)
    _, want = gradients(drawn, view, config)
    _, found = gradients(drawn, view, config, "cuda")
    assert_same_gradients(found, want)

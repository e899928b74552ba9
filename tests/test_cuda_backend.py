"""Drawing on a GPU: what reaches gsplat, with our twin in its place; and gsplat itself where it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from vasa3d.errors import InputError, MissingError
from vasa3d.geometry.cameras import intrinsics, look_at, orbit
from vasa3d.kernels.reference import reference_project, reference_weights
from vasa3d.renderer import RenderConfig, cuda, render_cloud, render_clouds, render_views
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


class Twin:
    """``gsplat.rasterization`` in signature, shapes and conventions, computed by our twin."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def __call__(
        self, means, quats, scales, opacities, colors, viewmats, Ks, width, height,
        near_plane=0.01, far_plane=1e10, eps2d=0.3, packed=True, render_mode="RGB",
        rasterize_mode="classic", covars=None,
    ):  # fmt: skip
        self.calls.append({"means": means, "viewmats": viewmats, "near": near_plane})
        batch, n, c = means.shape[:-2], means.shape[-2], viewmats.shape[-3]
        assert quats is None and scales is None and eps2d == pytest.approx(0.3)
        assert covars.shape == (*batch, n, 3, 3) and opacities.shape == (*batch, n)
        assert viewmats.shape == (*batch, c, 4, 4) and Ks.shape == (*batch, c, 3, 3)
        assert colors.shape[:-1] in ((*batch, n), (*batch, c, n))
        values = (means, covars, opacities, colors, viewmats, Ks)
        assert all(v.dtype == torch.float32 and v.isfinite().all() for v in values)
        if colors.shape[:-1] == (*batch, n):
            colors = colors[..., None, :, :].expand(*batch, c, n, colors.shape[-1])
        pictures, alphas = [], []
        flat = (means.reshape(-1, n, 3), covars.reshape(-1, n, 3, 3), opacities.reshape(-1, n))
        looks = (colors.reshape(-1, c, n, colors.shape[-1]), viewmats.reshape(-1, c, 4, 4))
        for b in range(len(flat[0])):
            for v in range(c):
                view = Camera(
                    looks[1][b, v].numpy(), Ks.reshape(-1, c, 3, 3)[b, v].numpy(), width, height
                )
                options = {
                    "near": near_plane, "far": far_plane,
                    "antialias": rasterize_mode == "antialiased",
                }  # fmt: skip
                rows, columns = np.triu_indices(3)
                inputs = (
                    flat[0][b].double(), flat[1][b][:, rows, columns].double(),
                    flat[2][b].double(), looks[0][b, v].double(),
                )  # fmt: skip
                weights = reference_weights(*inputs, view, **options)
                splats = reference_project(*inputs, view, **options)
                alpha = weights.sum(0)[..., None]
                picture = torch.einsum("nhw,nc->hwc", weights, inputs[3])
                if render_mode == "RGB+ED":
                    depths = torch.where(splats.drawn, splats.depths, 0.0)
                    far = torch.einsum("nhw,n->hw", weights, depths)[..., None]
                    picture = torch.cat([picture, far / alpha.clamp(min=1e-10)], -1)
                pictures.append(picture.float())
                alphas.append(alpha.float())
        size = (*batch, c, height, width, -1)
        return torch.stack(pictures).reshape(size), torch.stack(alphas).reshape(size), {}


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

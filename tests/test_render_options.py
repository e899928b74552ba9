"""Options of drawing: supersampling, normals, several views, sizes; against the float64 twin."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from vasa3d.geometry.cameras import camera_center, intrinsics, look_at, orbit
from vasa3d.geometry.covariances import build_covariances
from vasa3d.geometry.rotations import axis_angle_to_matrix, matrix_to_quat, quat_to_matrix
from vasa3d.kernels.reference import reference_normals, reference_render
from vasa3d.renderer import RenderConfig, render_cloud, render_clouds, render_views
from vasa3d.renderer.normals import shortest_axes
from vasa3d.types import Camera, GaussianCloud

WIDTH, HEIGHT = 50, 38


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """The twin works on small arrays, where torch's threads only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cloud(count: int = 150, seed: int = 0, size: float = -4.4) -> GaussianCloud:
    """Flat Gaussians: one axis is much shorter than the others."""
    rng = np.random.default_rng(seed)
    quats = rng.normal(size=(count, 4)).astype(np.float32)
    scales = np.exp(rng.normal(size, 0.4, (count, 3))) * [1.0, 0.8, 0.15]
    return GaussianCloud(
        rng.normal(0.0, 0.06, (count, 3)).astype(np.float32),
        build_covariances(quats, scales.astype(np.float32)),
        rng.uniform(0.1, 1.0, count).astype(np.float32),
        rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
    )


def camera(width: int = WIDTH, height: int = HEIGHT, focal: float = 75.0) -> Camera:
    return Camera(
        look_at((0.05, 0.03, 0.5), (0, 0, 0)), intrinsics(focal, width, height), width, height
    )


def tensors(drawn: GaussianCloud) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.from_numpy(value).double()
        for value in (drawn.means, drawn.covariances, drawn.opacities, drawn.colors)
    )


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("antialias", [False, True])
def test_supersampling_averages_the_larger_picture(factor: int, antialias: bool) -> None:
    drawn, view = cloud(), camera()
    config = RenderConfig(supersample=factor, antialias=antialias)
    frame = render_cloud(drawn, view, depth=True, config=config)
    large = view.resized(WIDTH * factor, HEIGHT * factor)
    rgb, alpha, depth = (
        v.numpy() for v in reference_render(*tensors(drawn), large, antialias=antialias)
    )

    def mean(image: np.ndarray) -> np.ndarray:
        return image.reshape(HEIGHT, factor, WIDTH, factor, -1).mean((1, 3))

    assert frame.rgb.shape == (HEIGHT, WIDTH, 3) and frame.rgb.dtype == np.float32
    assert np.abs(frame.rgb - mean(rgb)).max() <= 1.0 / 255.0
    coverage = mean(alpha)[..., 0]
    assert np.abs(frame.alpha - coverage).max() <= 1.0 / 255.0
    assert frame.depth is not None and frame.depth.dtype == np.float32
    solid = coverage > 0.1
    expected = mean(alpha * depth)[..., 0][solid] / coverage[solid]
    assert np.abs(frame.depth[solid] - expected).max() < 1e-3
    assert (frame.depth[frame.alpha == 0.0] == 0.0).all()


def test_supersampled_backgrounds_stay_sharp() -> None:
    drawn, view = cloud(), camera()
    config = RenderConfig(supersample=2)
    plain = render_cloud(drawn, view, config=config)
    picture = np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    for background in (picture, picture[0, 0]):
        frame = render_cloud(drawn, view, background=background, config=config)
        rest = 1.0 - plain.alpha[..., None]
        assert np.abs(frame.rgb - (plain.rgb + rest * background)).max() < 1e-6
        assert frame.rgb.dtype == np.float32
    with pytest.raises(ValueError, match="background"):
        render_cloud(drawn, view, background=np.zeros((4, 4, 3), np.float32), config=config)


def test_supersampling_has_a_limit() -> None:
    with pytest.raises(ValueError, match="8192"):
        render_cloud(cloud(1), camera(2048, 64), config=RenderConfig(supersample=5))
    for factor in (0, -1):
        with pytest.raises(ValueError, match="supersample"):
            RenderConfig(supersample=factor)


@pytest.mark.parametrize("seed", range(2))
def test_normals_agree_with_the_twin(seed: int) -> None:
    drawn, view = cloud(seed=seed), camera()
    frame = render_cloud(drawn, view, depth=True, normals=True)
    assert frame.normals is not None and frame.normals.dtype == np.float32
    expected = reference_normals(*tensors(drawn), view).numpy()
    seen = frame.alpha > 0.05
    assert np.abs(frame.normals - expected)[seen].max() < 0.02
    assert np.quantile(np.abs(frame.normals - expected)[seen], 0.99) < 2e-3
    assert (frame.normals[frame.alpha == 0.0] == 0.0).all()
    length = np.linalg.norm(frame.normals[frame.alpha > 0.0], axis=1)
    assert np.allclose(length, 1.0, atol=1e-5)
    plain = render_cloud(drawn, view, depth=True)
    assert plain.normals is None
    assert (frame.rgb == plain.rgb).all() and (frame.depth == plain.depth).all()


def test_a_flat_gaussian_shows_the_side_that_faces_the_camera() -> None:
    turn = axis_angle_to_matrix(np.array([0.2, -0.5, 0.1], np.float32))
    quats = np.tile(matrix_to_quat(turn), (1, 1))
    covariances = build_covariances(quats, np.array([[0.1, 0.1, 1e-3]], np.float32))
    one = GaussianCloud(
        np.zeros((1, 3), np.float32), covariances, np.ones(1, np.float32),
        np.ones((1, 3), np.float32),
    )  # fmt: skip
    view = camera()
    for turned, sign in ((view, 1.0), (orbit(view, (0, 0, 0), 180.0, 0.0), -1.0)):
        frame = render_cloud(one, turned, normals=True)
        assert frame.normals is not None
        middle = frame.normals[HEIGHT // 2, WIDTH // 2]
        assert np.allclose(middle, sign * turn[:, 2], atol=1e-4)
        assert middle @ camera_center(turned) > 0.0


def test_normals_of_a_ball_point_outwards() -> None:
    rng = np.random.default_rng(1)
    outwards = rng.normal(size=(4000, 3))
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    full = 1e-5 * (np.eye(3) - 0.99 * outwards[:, :, None] * outwards[:, None, :])
    rows, columns = np.triu_indices(3)
    ball = GaussianCloud(
        (0.1 * outwards).astype(np.float32), full[:, rows, columns].astype(np.float32),
        np.full(4000, 0.9, np.float32), np.ones((4000, 3), np.float32),
    )  # fmt: skip
    view = camera()
    frame = render_cloud(ball, view, depth=True, normals=True)
    assert frame.normals is not None and frame.depth is not None
    eye = camera_center(view)
    # The middle of the picture looks at the ball's middle.
    middle = frame.normals[HEIGHT // 2, WIDTH // 2]
    assert middle @ (eye / np.linalg.norm(eye)) > 0.98
    assert frame.normals[HEIGHT // 2, WIDTH // 2 - 10, 0] < -0.3
    assert frame.normals[HEIGHT // 2 - 10, WIDTH // 2, 1] > 0.3


def test_supersampled_normals_are_unit_vectors_like_plain_ones() -> None:
    drawn, view = cloud(size=-3.6), camera()
    plain = render_cloud(drawn, view, normals=True)
    fine = render_cloud(drawn, view, normals=True, config=RenderConfig(supersample=3))
    assert plain.normals is not None and fine.normals is not None
    seen = plain.alpha > 0.5
    assert np.allclose(np.linalg.norm(fine.normals[seen], axis=1), 1.0, atol=1e-5)
    assert np.median((plain.normals * fine.normals).sum(2)[seen]) > 0.99


def test_hostile_gaussians_do_not_spoil_normals() -> None:
    drawn, view = cloud(), camera()
    clean = render_cloud(drawn, view, normals=True)
    spoilt = {name: getattr(drawn, name).copy() for name in ("means", "covariances", "opacities")}
    hostile = GaussianCloud(**spoilt, colors=drawn.colors)
    hostile.opacities[:3] = 0.0
    hostile.covariances[0], hostile.covariances[1] = np.nan, np.inf
    hostile.means[2] = np.nan
    kept = replace(drawn, opacities=np.where(np.arange(150) < 3, 0.0, drawn.opacities))
    kept = replace(kept, opacities=kept.opacities.astype(np.float32))
    a = render_cloud(hostile, view, normals=True).normals
    b = render_cloud(kept, view, normals=True).normals
    assert a is not None and b is not None and clean.normals is not None
    assert (a == b).all() and not (a == clean.normals).all()
    empty = render_cloud(cloud(0), view, normals=True)
    assert empty.normals is not None and (empty.normals == 0.0).all()


def test_shortest_axes_are_those_of_the_scales() -> None:
    quats = np.random.default_rng(3).normal(size=(30, 4)).astype(np.float32)
    scales = np.tile(np.array([0.02, 0.004, 0.03], np.float32), (30, 1))
    axes = shortest_axes(build_covariances(quats, scales))
    assert np.allclose(np.abs((axes * quat_to_matrix(quats)[:, :, 1]).sum(1)), 1.0, atol=1e-5)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e12])
def test_axes_of_any_covariance_are_its_least_eigenvectors(unit: float) -> None:
    rng = np.random.default_rng(4)
    factor = rng.normal(size=(500, 3, 3)) * np.exp(rng.normal(0.0, 2.0, (500, 1, 3)))
    full = unit * factor @ factor.transpose(0, 2, 1)
    full[:3] = unit * np.array([np.diag(d) for d in ([1, 2, 3], [3, 2, 0], [2, 0, 2])])
    full[3] = unit * np.ones((3, 3))
    rows, columns = np.triu_indices(3)
    upper = full[:, rows, columns].astype(np.float32)
    axes = shortest_axes(upper).astype(np.float64)
    assert np.allclose(np.linalg.norm(axes, axis=1), 1.0, atol=1e-6)
    full[:, rows, columns] = full[:, columns, rows] = upper
    values = np.linalg.eigvalsh(full)
    stretch = np.einsum("ni,nij,nj->n", axes, full, axes)
    assert (np.abs(stretch - values[:, 0]) <= 1e-6 * values[:, 2]).all()
    distinct = values[:, 1] - values[:, 0] > 0.01 * values[:, 2]
    residual = np.einsum("nij,nj->ni", full, axes) - values[:, :1] * axes
    assert (np.abs(residual).max(1) <= 1e-6 * values[:, 2])[distinct].all()


def test_axes_of_what_is_no_covariance_are_zero() -> None:
    bad = np.zeros((4, 6), np.float32)
    bad[1], bad[2] = np.nan, np.inf
    bad[3] = -1, 0, 0, -1, 0, -1
    assert (shortest_axes(bad) == 0.0).all()


def test_views_and_clouds_are_drawn_as_one_by_one() -> None:
    view = camera()
    cameras = [orbit(view, (0, 0, 0), yaw, 5.0) for yaw in (-40.0, 0.0, 40.0)]
    options = {"depth": True, "normals": True, "background": np.full(3, 0.3, np.float32)}
    drawn = cloud()
    singles = [render_cloud(drawn, c, **options) for c in cameras]
    for one, other in zip(singles, render_views(drawn, cameras, **options), strict=True):
        for name in ("rgb", "alpha", "depth", "normals"):
            assert (getattr(one, name) == getattr(other, name)).all()
    clouds = [cloud(seed=seed) for seed in range(3)]
    singles = [render_cloud(d, c, **options) for d, c in zip(clouds, cameras, strict=True)]
    for one, other in zip(singles, render_clouds(iter(clouds), cameras, **options), strict=True):
        for name in ("rgb", "alpha", "depth", "normals"):
            assert (getattr(one, name) == getattr(other, name)).all()
    assert list(render_views(drawn, [])) == []
    with pytest.raises(ValueError):
        list(render_clouds(clouds, cameras[:2]))


@pytest.mark.parametrize("size", [(64, 2048), (2048, 64), (333, 77), (65, 127), (511, 64)])
def test_any_size_is_drawn(size: tuple[int, int]) -> None:
    width, height = size
    drawn = cloud(40, size=-3.0)
    view = camera(width, height, focal=0.8 * max(width, height))
    frame = render_cloud(drawn, view, depth=True, normals=True)
    assert frame.rgb.shape == (height, width, 3)
    # A crop of the picture is what a camera with a shifted principal point sees.
    rgb, alpha, _ = (v.numpy() for v in reference_render(*tensors(drawn), view))
    assert np.abs(frame.rgb - rgb).max() <= 1.0 / 255.0
    assert np.abs(frame.alpha - alpha).max() <= 1.0 / 255.0
    assert alpha[-1].max() > 0.0 or alpha[:, -1].max() > 0.0


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(ValueError, match="device"):
        render_cloud(cloud(1), camera(), device="tpu")

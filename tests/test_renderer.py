"""The renderer against its float64 twin, its adjoint, hostile clouds, threads and bands."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.kernels.rasterization import composite_tiles
from vasa3d.kernels.reference import reference_render, reference_weights
from vasa3d.kernels.threads import get_num_threads, set_num_threads
from vasa3d.renderer import RenderConfig, color_adjoint, drawing, render_cloud, splats
from vasa3d.types import Camera, GaussianCloud

WIDTH, HEIGHT = 90, 70


@pytest.fixture(autouse=True)
def _one_torch_thread() -> Iterator[None]:
    """The twin works on small arrays, where torch's threads only get in each other's way."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def cloud(count: int = 250, seed: int = 0, size: float = -4.6) -> GaussianCloud:
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(count, 3, 3)) * np.exp(rng.normal(size, 0.7, (count, 1, 1)))
    full = factor @ factor.transpose(0, 2, 1)
    rows, columns = np.triu_indices(3)
    return GaussianCloud(
        rng.normal(0.0, 0.08, (count, 3)).astype(np.float32),
        full[:, rows, columns].astype(np.float32),
        rng.uniform(0.0, 1.0, count).astype(np.float32),
        rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
    )


def camera(distance: float = 0.6, width: int = WIDTH, height: int = HEIGHT) -> Camera:
    return Camera(
        look_at((0.05, 0.03, distance), (0, 0, 0)), intrinsics(130.0, width, height), width, height
    )


def tensors(drawn: GaussianCloud) -> tuple[torch.Tensor, ...]:
    return tuple(
        torch.from_numpy(value).double()
        for value in (drawn.means, drawn.covariances, drawn.opacities, drawn.colors)
    )


def with_gaussian(base: GaussianCloud, **values: object) -> GaussianCloud:
    """The cloud with one Gaussian more: a grey one at the origin but for the given values."""
    default = {
        "means": np.zeros(3), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-5,
        "opacities": 0.9, "colors": np.full(3, 0.5),
    }  # fmt: skip
    arrays = {}
    for name, value in (default | values).items():
        old = getattr(base, name)
        new = np.asarray(value, np.float32).reshape(1, *old.shape[1:])
        arrays[name] = np.concatenate([old, new]).astype(np.float32)
    return GaussianCloud(**arrays)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("distance", [0.6, 0.2])
@pytest.mark.parametrize("antialias", [False, True])
def test_pictures_agree_with_the_twin(seed: int, distance: float, antialias: bool) -> None:
    drawn, view = cloud(seed=seed), camera(distance)
    frame = render_cloud(drawn, view, depth=True, config=RenderConfig(antialias=antialias))
    twin = reference_render(*tensors(drawn), view, antialias=antialias)
    rgb, alpha, depth = (value.numpy() for value in twin)
    error = np.abs(frame.rgb - rgb)
    assert error.max() <= 1.0 / 255.0
    assert np.quantile(error, 0.999) <= 0.2 / 255.0
    assert np.abs(frame.alpha - alpha).max() <= 1.0 / 255.0
    assert frame.depth is not None
    solid = alpha > 0.1
    assert np.abs(frame.depth - depth)[solid].max() < 1e-3
    assert (frame.depth[frame.alpha == 0.0] == 0.0).all()
    assert alpha.max() > 0.9  # the scene covers the picture


def test_opaque_layers_stop_early_without_harm() -> None:
    drawn, view = cloud(400, size=-3.0), camera()
    frame = render_cloud(drawn, view)
    rgb, alpha, _ = (value.numpy() for value in reference_render(*tensors(drawn), view))
    assert np.abs(frame.rgb - rgb).max() <= 1.0 / 255.0
    assert np.quantile(alpha, 0.5) > 0.999


def test_a_single_gaussian_has_its_centre_and_shape_where_they_belong() -> None:
    view = Camera(look_at((0, 0, 1), (0, 0, 0)), intrinsics(1000.0, 101, 81), 101, 81)
    sigma_x, sigma_y = 0.004, 0.008
    one = GaussianCloud(
        np.array([[0.01, 0.02, 0]], np.float32),
        np.array([[sigma_x**2, 0, 0, sigma_y**2, 0, 1e-8]], np.float32),
        np.array([0.8], np.float32),
        np.array([[0.2, 0.4, 0.6]], np.float32),
    )
    frame = render_cloud(one, view)
    ys, xs = np.mgrid[:81, :101] + 0.5
    var_x, var_y = 16.0 + 0.3, 64.0 + 0.3
    q = 0.5 * ((xs - 60.5) ** 2 / var_x + (ys - 20.5) ** 2 / var_y)
    expected = 0.8 * np.exp(-q)
    expected[expected < 1.0 / 255.0] = 0.0
    assert np.abs(frame.alpha - expected).max() < 1.5e-3
    assert np.allclose(frame.rgb, frame.alpha[..., None] * [0.2, 0.4, 0.6], atol=1e-6)


def test_nearer_gaussians_cover_farther_ones_whatever_their_order() -> None:
    empty = cloud(0)
    near = {"means": (0, 0, 0.1), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-2}
    far = {"means": (0, 0, -0.1), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-2}
    red, blue = {"colors": (1, 0, 0), "opacities": 1.0}, {"colors": (0, 0, 1), "opacities": 1.0}
    for drawn in (
        with_gaussian(with_gaussian(empty, **near, **red), **far, **blue),
        with_gaussian(with_gaussian(empty, **far, **blue), **near, **red),
    ):
        pixel = render_cloud(drawn, camera()).rgb[HEIGHT // 2, WIDTH // 2]
        assert pixel[0] > 0.98 and pixel[2] < 0.02


def test_backgrounds_fill_what_the_cloud_leaves() -> None:
    drawn, view = cloud(), camera()
    plain = render_cloud(drawn, view)
    rest = 1.0 - plain.alpha[..., None]
    colour = np.array([0.2, 0.5, 0.9], np.float32)
    frame = render_cloud(drawn, view, background=colour)
    assert np.abs(frame.rgb - (plain.rgb + rest * colour)).max() < 1e-6
    picture = np.random.default_rng(0).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    frame = render_cloud(drawn, view, background=picture)
    assert np.abs(frame.rgb - (plain.rgb + rest * picture)).max() < 1e-6
    assert (frame.alpha == plain.alpha).all()
    for shape in ((4,), (HEIGHT, WIDTH), (WIDTH, HEIGHT, 3)):
        with pytest.raises(ValueError, match="background"):
            render_cloud(drawn, view, background=np.zeros(shape, np.float32))


def test_a_picture_of_one_row_or_column_takes_a_background() -> None:
    for width, height in ((1, 40), (40, 1), (1, 1)):
        view = camera(width=width, height=height)
        picture = np.random.default_rng(0).random((height, width, 3)).astype(np.float32)
        frame = render_cloud(cloud(0), view, background=picture)
        assert (frame.rgb == picture).all()


def test_adjoint_is_the_transpose_of_drawing() -> None:
    drawn, view = cloud(), camera()
    image = np.random.default_rng(1).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    left = float((render_cloud(drawn, view).rgb.astype(np.float64) * image).sum())
    right = float((drawn.colors.astype(np.float64) * color_adjoint(drawn, view, image)).sum())
    assert np.isclose(left, right, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 4])
def test_adjoint_agrees_with_the_twin(channels: int) -> None:
    drawn, view = cloud(150), camera()
    image = np.random.default_rng(1).random((HEIGHT, WIDTH, channels)).astype(np.float32)
    weights = reference_weights(*tensors(drawn), view)
    expected = torch.einsum("nhw,hwc->nc", weights, torch.from_numpy(image).double()).numpy()
    result = color_adjoint(drawn, view, image)
    assert result.shape == (150, channels)
    assert np.abs(result - expected).max() < 1e-2
    assert np.abs(result - expected).max() < 1e-3 * np.abs(expected).max()
    with pytest.raises(ValueError, match="image"):
        color_adjoint(drawn, view, image[:-1])


def test_results_do_not_depend_on_threads() -> None:
    drawn, view = cloud(6000, size=-5.5), camera(width=300, height=200)
    image = np.random.default_rng(1).random((200, 300, 3)).astype(np.float32)
    before = get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4):
            set_num_threads(threads)
            frame = render_cloud(drawn, view, depth=True)
            results.append((frame.rgb, frame.alpha, frame.depth, color_adjoint(drawn, view, image)))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert (a == b).all()


def test_scenes_with_more_entries_than_allowed_are_drawn_in_bands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    drawn, view = cloud(400, size=-3.5), camera()
    image = np.ones((HEIGHT, WIDTH, 1), np.float32)
    whole, weights = render_cloud(drawn, view, depth=True), color_adjoint(drawn, view, image)
    held: list[tuple[int, int]] = []

    def spy(start: int, stop: int, first: int, tiles_x: int, offsets: np.ndarray, *rest) -> None:
        held.append((len(offsets) - 1, int(offsets[-1])))
        composite_tiles(start, stop, first, tiles_x, offsets, *rest)

    monkeypatch.setattr(drawing, "composite_tiles", spy)
    for limit in (1, 700, 5000):
        held.clear()
        monkeypatch.setattr(splats, "MAX_ITEMS", limit)
        frame = render_cloud(drawn, view, depth=True)
        assert all(items <= limit or tiles == 1 for tiles, items in held)
        assert (frame.rgb == whole.rgb).all() and (frame.depth == whole.depth).all()
        assert np.allclose(color_adjoint(drawn, view, image), weights, rtol=1e-6)


def test_no_gaussians_give_an_empty_picture() -> None:
    frame = render_cloud(cloud(0), camera(), depth=True)
    assert (frame.rgb == 0.0).all() and (frame.alpha == 0.0).all()
    assert frame.depth is not None and (frame.depth == 0.0).all()
    assert color_adjoint(cloud(0), camera(), np.ones((HEIGHT, WIDTH, 2), np.float32)).shape == (
        0,
        2,
    )


@pytest.mark.parametrize(
    "values",
    [
        {"means": (np.nan, 0, 0)},
        {"means": (0, np.inf, 0)},
        {"means": (1e30, 1e30, -1e30)},
        {"covariances": np.full(6, np.nan)},
        {"covariances": np.full(6, np.inf)},
        {"covariances": np.array([-1, 0, 0, 1, 0, 1])},
        {"covariances": np.full(6, 3e38)},
        {"opacities": np.nan},
        {"opacities": 0.0},
        {"opacities": -1.0},
        {"colors": (0, np.nan, 0)},
        {"colors": (np.inf, -np.inf, 0)},
        {"means": (0, 0, 2.0)},
        {"means": (0.05, 0.03, 0.6)},
        {"means": (0.05, 0.03, 0.56)},
    ],
)
def test_hostile_gaussians_are_skipped(values: dict) -> None:
    drawn, view = cloud(), camera()
    frame, clean = render_cloud(with_gaussian(drawn, **values), view), render_cloud(drawn, view)
    assert (frame.rgb == clean.rgb).all() and (frame.alpha == clean.alpha).all()


@pytest.mark.parametrize(
    "values",
    [
        {"covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e6, "opacities": 0.5},
        {"covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e30},
        {"covariances": np.array([1, 1, 1, 1, 1, 1]) * 10.0},
        {"covariances": np.zeros(6)},
        {"means": (3.0, 0, 0.4), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-1},
        {"means": (0.3, 0.2, 0.54), "covariances": np.array([1, 0, 0, 1, 0, 1]) * 1e-2},
        {"opacities": 5.0},
        {"opacities": np.inf},
    ],
)
def test_giant_thin_and_grazing_gaussians_give_clean_pictures(values: dict) -> None:
    drawn, view = with_gaussian(cloud(60), **values), camera()
    frame = render_cloud(drawn, view, depth=True)
    assert np.isfinite(frame.rgb).all() and np.isfinite(frame.alpha).all()
    assert frame.depth is not None and np.isfinite(frame.depth).all()
    assert frame.alpha.min() >= 0.0 and frame.alpha.max() <= 1.0
    rgb, _, _ = reference_render(*tensors(drawn), view)
    if np.isfinite(drawn.opacities).all():
        assert np.abs(frame.rgb - rgb.numpy()).max() <= 1.5 / 255.0

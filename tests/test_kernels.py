"""Kernels against their float64 twin, the depth sort, the tile lists, the thread helper."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.kernels import projection as layout
from vasa3d.kernels.projection import SPLAT_WIDTH, TILE, project_splats
from vasa3d.kernels.reference import reference_project
from vasa3d.kernels.threads import get_num_threads, run_chunks, set_num_threads
from vasa3d.kernels.tiles import count_items, depth_order, list_items
from vasa3d.types import Camera

WIDTH, HEIGHT = 75, 50


def scene(count: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Means, covariances, opacities, colours around the origin."""
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(count, 3, 3)) * np.exp(rng.normal(-4.5, 0.8, (count, 1, 1)))
    full = factor @ factor.transpose(0, 2, 1)
    rows, columns = np.triu_indices(3)
    return (
        rng.normal(0.0, 0.1, (count, 3)).astype(np.float32),
        full[:, rows, columns].astype(np.float32),
        rng.uniform(0.0, 1.0, count).astype(np.float32),
        rng.uniform(0.0, 1.0, (count, 3)).astype(np.float32),
    )


def camera(distance: float = 0.6) -> Camera:
    return Camera(
        look_at((0.05, 0.03, distance), (0, 0, 0)), intrinsics(120.0, WIDTH, HEIGHT), WIDTH, HEIGHT
    )


def project(
    cloud: tuple[np.ndarray, ...],
    view: Camera,
    near: float = 0.05,
    far: float = np.inf,
    antialias: bool = False,
) -> tuple[np.ndarray, ...]:
    count = len(cloud[0])
    splats = np.zeros((count, SPLAT_WIDTH), np.float32)
    rects, keys = np.empty((count, 4), np.int32), np.empty(count, np.uint32)
    project_splats(
        0, count, *cloud, view.viewmat[:3].astype(np.float64), view.K.astype(np.float64),
        view.width, view.height, near, far, antialias, splats, rects, keys,
    )  # fmt: skip
    return splats, rects, keys


@pytest.mark.parametrize("distance", [0.6, 0.15])
@pytest.mark.parametrize("skew", [0.0, 25.0])
def test_projection_agrees_with_the_twin(distance: float, skew: float) -> None:
    cloud, view = scene(2000), camera(distance)
    view.K[0, 1] = skew
    splats, _, keys = project(cloud, view)
    twin = reference_project(*(torch.from_numpy(value).double() for value in cloud), view)
    drawn = keys > 0
    assert not (drawn & ~twin.drawn.numpy()).any()
    assert drawn.sum() > 500
    depth = twin.depths.numpy()[drawn]
    assert np.allclose(splats[drawn, layout.DEPTH], depth, rtol=1e-6)
    assert (keys[drawn].view(np.float32) == splats[drawn, layout.DEPTH]).all()
    pixels = splats[drawn][:, [layout.MEAN_X, layout.MEAN_Y]]
    assert np.allclose(pixels, twin.means.numpy()[drawn], rtol=1e-5, atol=1e-4)
    conic = np.linalg.inv(twin.covariances.numpy()[drawn]) / 2.0
    for column, row, col, factor in (
        (layout.CONIC_A, 0, 0, 1.0), (layout.CONIC_B, 0, 1, 2.0), (layout.CONIC_C, 1, 1, 1.0),
    ):  # fmt: skip
        assert np.allclose(splats[drawn, column], factor * conic[:, row, col], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"antialias": True}, {"near": 0.58, "far": 0.63}], ids=["antialias", "range"]
)
def test_options_of_projection_agree_with_the_twin(options: dict[str, float]) -> None:
    cloud, view = scene(2000), camera(0.6)
    splats, _, keys = project(cloud, view, **options)
    plain = project(cloud, view)[2]
    tensors = (torch.from_numpy(value).double() for value in cloud)
    twin = reference_project(*tensors, view, **options)
    drawn = keys > 0
    assert not (drawn & ~twin.drawn.numpy()).any()
    assert 100 < drawn.sum() < (plain > 0).sum()
    opacities = np.exp(splats[drawn, layout.Q_MAX]) / 255.0
    assert np.allclose(opacities, twin.opacities.numpy()[drawn], rtol=2e-4)


def test_rectangles_hold_every_covered_pixel() -> None:
    cloud, view = scene(300), camera(0.3)
    _, rects, keys = project(cloud, view)
    twin = reference_project(*(torch.from_numpy(value).double() for value in cloud), view)
    ys, xs = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    for n in np.nonzero(twin.drawn.numpy())[0]:
        offset = np.stack([xs, ys], axis=-1) - twin.means[n].numpy()
        q = 0.5 * (offset @ np.linalg.inv(twin.covariances[n].numpy()) * offset).sum(axis=-1)
        covered = cloud[2][n] * np.exp(-q) >= 1.001 / 255.0
        if not covered.any():
            continue
        assert keys[n] > 0
        rows, columns = np.nonzero(covered)
        x0, x1, y0, y1 = rects[n] * TILE
        assert x0 <= columns.min() and columns.max() < x1
        assert y0 <= rows.min() and rows.max() < y1


def test_poison_is_skipped_and_does_not_spread() -> None:
    cloud, view = scene(120), camera()
    clean = project(cloud, view)
    for array in range(4):
        for poison in (np.nan, np.inf, -np.inf):
            bad = tuple(value.copy() for value in cloud)
            bad[array][7] = poison
            splats, rects, keys = project(bad, view)
            kept = np.arange(120) != 7
            assert keys[7] == 0 or (array == 2 and poison == np.inf)
            assert (keys[kept] == clean[2][kept]).all()
            assert np.isfinite(splats[keys > 0]).all()
            assert (rects[keys == 0, 1] <= rects[keys == 0, 0]).all()


def test_covariances_that_are_not_positive_are_skipped() -> None:
    means = np.zeros((4, 3), np.float32)
    covariances = np.array(
        [[1, 0, 0, 1, 0, 1], [-1, 0, 0, 1, 0, 1], [1, 9, 0, 1, 0, 1], [0, 0, 0, 0, 0, 0]],
        np.float32,
    )
    ones = np.ones(4, np.float32), np.ones((4, 3), np.float32)
    _, _, keys = project((means, covariances * 1e-4, *ones), camera())
    assert keys[0] > 0 and keys[1] == 0 and keys[2] == 0
    assert keys[3] > 0  # a point is as large as the low-pass filter makes it


@settings(max_examples=60, deadline=None)
@given(arrays(np.uint32, st.integers(0, 400), elements=st.integers(0, 2**32 - 1)))
def test_depth_order_is_a_stable_sort_without_zeros(keys: np.ndarray) -> None:
    keys[: len(keys) // 3] >>= 29  # many ties and zeros
    expected = np.argsort(keys, kind="stable")
    expected = expected[keys[expected] > 0]
    assert (depth_order(keys) == expected).all()


@pytest.mark.parametrize("chunk", [37, 500])
@pytest.mark.parametrize("cut", [0, 31, 81])
def test_tile_lists_hold_each_splat_once_per_tile_in_depth_order(chunk: int, cut: int) -> None:
    rng = np.random.default_rng(3)
    starts = rng.integers(0, 8, (400, 2))
    sizes = rng.integers(0, 4, (400, 2))
    ends = np.minimum(starts + sizes, 9)
    rects = np.stack([starts[:, 0], ends[:, 0], starts[:, 1], ends[:, 1]], 1).astype(np.int32)
    order = rng.permutation(400).astype(np.uint32)
    chunks = range(0, 400, chunk)
    counts = np.zeros((len(chunks), 81), np.int64)
    sorted_rects = np.empty_like(rects)
    for row, start in enumerate(chunks):
        count_items(start, min(start + chunk, 400), order, rects, 9, 9, counts[row], sorted_rects)
    offsets = np.concatenate([[0], np.cumsum(counts.sum(0))])
    starts_of = offsets[:-1] + np.cumsum(counts, axis=0) - counts
    items = np.full(offsets[-1], 9999, np.uint32)
    for first, last in ((0, cut), (cut, 81)):
        for row, start in enumerate(chunks):
            positions = starts_of[row, first:last].copy()
            list_items(
                start, min(start + chunk, 400), order, sorted_rects, 9, first, positions, items
            )
    for tile in range(81):
        y, x = divmod(tile, 9)
        inside = [
            n for n in order if rects[n, 0] <= x < rects[n, 1] and rects[n, 2] <= y < rects[n, 3]
        ]
        assert items[offsets[tile] : offsets[tile + 1]].tolist() == inside


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_chunks_cover_the_range_once_on_any_number_of_threads(threads: int) -> None:
    before = get_num_threads()
    try:
        set_num_threads(threads)
        for total in (0, 1, 16, 17, 1000):
            lock, seen = threading.Lock(), np.zeros(total, int)

            def mark(
                start: int, stop: int, lock: threading.Lock = lock, seen: np.ndarray = seen
            ) -> None:
                with lock:
                    seen[start:stop] += 1

            run_chunks(mark, total, 16)
            assert (seen == 1).all()
    finally:
        set_num_threads(before)


def test_a_failing_kernel_raises_in_the_caller() -> None:
    def fail(start: int, stop: int) -> None:
        raise RuntimeError(f"chunk {start}")

    with pytest.raises(RuntimeError, match="chunk"):
        run_chunks(fail, 100, 10)
    with pytest.raises(ValueError, match="at least 1"):
        set_num_threads(0)

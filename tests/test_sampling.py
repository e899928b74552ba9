"""Cells of a picture, reading between pixels, and footprints on slanted surfaces."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from vasa3d.avatar.sampling import (
    Cells,
    cut_cells,
    disc_covariances,
    edge_shapes,
    outer_covariances,
    read_pixels,
    round_shapes,
    slanted_footprints,
)
from vasa3d.geometry.cameras import camera_center, intrinsics, look_at, project, unproject
from vasa3d.types import Camera

SIDE = 64
UPPER = np.triu_indices(3)
FLAT = np.ones((SIDE, SIDE), np.float32)


def unpacked(upper: np.ndarray) -> np.ndarray:
    full = np.empty((len(upper), 3, 3), np.float64)
    full[:, UPPER[0], UPPER[1]] = upper
    full[:, UPPER[1], UPPER[0]] = upper
    return full


def picture() -> np.ndarray:
    """Flat on the left, noise on the right."""
    rng = np.random.default_rng(0)
    image = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    image[:, SIDE // 2 :] = rng.uniform(size=(SIDE, SIDE // 2, 3))
    return image


def squares(cells: Cells) -> np.ndarray:
    """(N, 2) row and column of the first pixel of each cell, which lies on a grid of its side."""
    return np.floor(cells.pixels / cells.sizes[:, None]).astype(int) * cells.sizes[:, None].astype(
        int
    )


def times_covered(cells: Cells) -> np.ndarray:
    """(S, S) how many cells hold each pixel."""
    count = np.zeros((SIDE, SIDE), int)
    for (row, column), size in zip(squares(cells), cells.sizes.astype(int), strict=True):
        count[row : row + size, column : column + size] += 1
    return count


@pytest.mark.parametrize("budget", [100, 400, 2000, 10_000])
def test_cells_tile_the_whole_picture_exactly_once_within_the_budget(budget: int) -> None:
    cells = cut_cells(picture(), FLAT, FLAT, budget)
    assert (times_covered(cells) == 1).all()
    assert len(cells.sizes) <= budget
    assert set(np.unique(cells.sizes)) <= {1.0, 2.0, 4.0, 8.0}


def test_the_budget_is_used_where_the_picture_has_detail_for_it() -> None:
    noise = np.random.default_rng(1).uniform(size=(SIDE, SIDE, 3)).astype(np.float32)
    for budget in (300, 900, 2500):
        assert len(cut_cells(noise, FLAT, FLAT, budget).sizes) > 0.8 * budget


def test_the_reserve_is_for_patterns_only_and_is_not_exceeded() -> None:
    patterned = np.random.default_rng(1).uniform(size=(SIDE, SIDE, 3)).astype(np.float32)
    hair = cv2.GaussianBlur(np.float32(patterned + 0.2 * picture()), (0, 0), 2.0)
    usual, with_reserve = (cut_cells(hair, FLAT, FLAT, 500, reserve=r) for r in (0, 400))
    assert np.array_equal(usual.centers, with_reserve.centers)
    few = len(cut_cells(patterned, FLAT, FLAT, 300).sizes)
    more = len(cut_cells(patterned, FLAT, FLAT, 300, reserve=400).sizes)
    assert few <= 300 < more <= 700


def test_only_wanted_pixels_are_covered_and_all_of_them() -> None:
    weight = np.zeros((SIDE, SIDE), np.float32)
    row, column = np.mgrid[:SIDE, :SIDE]
    weight[(row - 30) ** 2 + (column - 33) ** 2 < 20**2] = 1.0
    cells = cut_cells(picture(), weight, FLAT, 800)
    covered = times_covered(cells)
    assert covered.max() == 1
    assert (covered[weight > 0] == 1).mean() > 0.995  # a stray pixel of a coarse cell may be left
    assert (weight[cells.pixels[:, 0], cells.pixels[:, 1]] > 0).all()
    reach = int(np.ceil(cells.sizes.max()))
    near = np.zeros_like(weight, bool)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            near |= np.roll(weight, (dy, dx), (0, 1)) > 0
    assert not covered[~near].any()


def test_detail_gets_smaller_cells() -> None:
    cells = cut_cells(picture(), FLAT, FLAT, 900)
    right = cells.pixels[:, 1] >= SIDE // 2
    assert cells.sizes[right].mean() < 0.5 * cells.sizes[~right].mean()


def test_important_places_get_smaller_cells() -> None:
    noise = np.random.default_rng(1).uniform(size=(SIDE, SIDE, 3)).astype(np.float32)
    importance = FLAT.copy()
    importance[: SIDE // 2] = 6.0
    cells = cut_cells(noise, FLAT, importance, 900)
    top = cells.pixels[:, 0] < SIDE // 2
    assert cells.sizes[top].mean() < 0.7 * cells.sizes[~top].mean()


def test_an_empty_weight_gives_no_cells() -> None:
    cells = cut_cells(picture(), np.zeros((SIDE, SIDE), np.float32), FLAT, 500)
    assert len(cells.sizes) == len(cells.centers) == len(cells.pixels) == len(cells.coverage) == 0


def test_centers_are_centroids_and_coverage_the_mean_weight() -> None:
    weight = np.zeros((SIDE, SIDE), np.float32)
    weight[8:16, 8:12] = 1.0  # the left half of one coarse cell
    image = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    cells = cut_cells(image, weight, np.zeros_like(weight), 50)
    assert np.array_equal(cells.sizes, [8.0])
    assert np.allclose(cells.centers, [[10.0, 12.0]])
    assert np.allclose(cells.coverage, [0.5])
    row, column = cells.pixels[0]
    assert np.abs(np.array([column, row]) + 0.5 - cells.centers[0]).max() <= 0.5


def test_larger_cells_are_used_where_they_are_allowed() -> None:
    image = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    cells = cut_cells(image, FLAT, np.zeros_like(FLAT), 500, coarsest=32)
    assert np.array_equal(np.unique(cells.sizes), [32.0]) and len(cells.sizes) == 4


def test_reading_between_pixels_is_bilinear_about_half_integers() -> None:
    row, column = np.mgrid[:20, :30].astype(np.float32) + 0.5
    image = np.stack([column, row], -1)
    points = np.random.default_rng(2).uniform((0.5, 0.5), (29.5, 19.5), (400, 2)).astype(np.float32)
    assert np.abs(read_pixels(image, points) - points).max() < 0.04
    centres = np.array([[0.5, 0.5], [7.5, 3.5], [29.5, 19.5]], np.float32)
    assert np.allclose(read_pixels(image, centres), centres)
    outside = np.array([[-5.0, 3.5], [40.0, 19.5]], np.float32)
    assert np.allclose(read_pixels(image, outside), [[0.5, 3.5], [29.5, 19.5]])


def test_reading_the_nearest_pixel_takes_the_one_that_holds_the_point() -> None:
    image = np.arange(600, dtype=np.float32).reshape(20, 30)
    points = np.random.default_rng(3).uniform((0.02, 0.02), (29.98, 19.98), (70_000, 2))
    points = points.astype(np.float32)
    clear = (np.abs(points - np.round(points)) > 0.02).all(1)  # the map has 1/32 pixel steps
    want = image[np.floor(points[:, 1]).astype(int), np.floor(points[:, 0]).astype(int)]
    assert np.array_equal(read_pixels(image, points, nearest=True)[clear], want[clear])


def view() -> Camera:
    return Camera(
        look_at((0.1, -0.05, 0.9), (0.0, 0.0, 0.0)), intrinsics(800.0, SIDE * 4, SIDE * 4),
        SIDE * 4, SIDE * 4,
    )  # fmt: skip


LONG = np.array([[2.0, 0.0], [0.0, 0.5]], np.float32)
"""Axes of a cell four times as wide as high."""


@pytest.mark.parametrize("shape", [np.eye(2, dtype=np.float32), LONG], ids=["round", "long"])
@pytest.mark.parametrize("slant_degrees", [0.0, 30.0, 55.0])
@pytest.mark.parametrize("direction", [0.0, 1.0, 2.5])
def test_slanted_footprints_look_like_their_cells(
    slant_degrees: float, direction: float, shape: np.ndarray
) -> None:
    camera = view()
    rng = np.random.default_rng(4)
    pixels = rng.uniform(40, 4 * SIDE - 40, (30, 2)).astype(np.float32)
    depth = rng.uniform(0.7, 1.1, 30).astype(np.float32)
    points = unproject(pixels, depth, camera)
    eye = camera_center(camera)
    towards = eye - points
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    across = np.cos(direction) * camera.viewmat[0, :3] + np.sin(direction) * camera.viewmat[1, :3]
    across = across - (towards @ across)[:, None] * towards
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    slant = np.radians(slant_degrees)
    normals = (np.cos(slant) * towards + np.sin(slant) * across).astype(np.float32)
    size_pixels = 3.0
    sigma = (size_pixels * depth / camera.K[0, 0]).astype(np.float32)
    shapes = np.tile(shape, (30, 1, 1))
    covariances = slanted_footprints(
        points, normals, sigma, shapes, camera.viewmat[0, :3], camera.viewmat[1, :3], eye
    )
    full = unpacked(covariances)
    # Flat: hardly any variance along the normal.
    along = np.einsum("ni,nij,nj->n", normals, full, normals)
    assert (np.sqrt(along) < 0.16 * sigma + 1e-6).all()
    for step in (np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.array([0.6, 0.8])):
        want = size_pixels * np.linalg.norm(shape.T @ step)
        assert np.allclose(_deviation_in_view(points, full, camera, step), want, rtol=0.1)


def _deviation_in_view(
    points: np.ndarray, full: np.ndarray, camera: Camera, direction: np.ndarray
) -> np.ndarray:
    """Standard deviation in pixels along a direction of the picture, by finite differences."""
    tiny = 1e-3
    jacobian = np.stack(
        [
            (project(points + tiny * axis, camera)[0] - project(points - tiny * axis, camera)[0])
            / (2 * tiny)
            for axis in np.eye(3, dtype=np.float32)
        ],
        -1,
    )
    row = np.einsum("i,nij->nj", direction, jacobian)
    return np.sqrt(np.einsum("ni,nij,nj->n", row, full, row))


def test_grazing_surfaces_stretch_a_footprint_only_so_far() -> None:
    points = np.array([[0.0, 0.0, -1.0]], np.float32)
    for tilt in (89.0, 90.0, 91.0):
        angle = np.radians(tilt)
        normals = np.array([[np.sin(angle), 0.0, np.cos(angle)]], np.float32)
        covariance = unpacked(
            slanted_footprints(
                points, normals, np.array([0.01], np.float32), round_shapes(1),
                np.array([1.0, 0.0, 0.0], np.float32),
                np.array([0.0, -1.0, 0.0], np.float32), np.zeros(3, np.float32),
            )
        )  # fmt: skip
        assert np.isfinite(covariance).all()
        assert np.sqrt(np.linalg.eigvalsh(covariance).max()) < 0.01 * 3.5


@pytest.mark.parametrize("angle", [0.0, 0.7, 1.6, 2.6])
def test_cells_lie_along_the_edges_of_the_picture(angle: float) -> None:
    """Stripes: cells are long along them, thin across, and keep their area."""
    row, column = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    along = np.array([np.cos(angle), np.sin(angle)])
    wave = 0.5 + 0.4 * np.sin((column * -along[1] + row * along[0]) * 1.1)
    image = np.repeat(wave[..., None], 3, -1).astype(np.float32)
    cells = cut_cells(image, FLAT, np.zeros_like(FLAT), 200)
    inner = (np.abs(cells.centers - SIDE / 2) < SIDE / 2 - 9).all(1)
    shapes = edge_shapes(image, cells)[inner]
    assert np.allclose(np.abs(np.linalg.det(shapes)), 1.0, rtol=1e-4)
    spread = shapes @ shapes.transpose(0, 2, 1)
    length = np.sqrt(np.einsum("i,nij,j->n", along, spread, along))
    across = np.array([-along[1], along[0]])
    width = np.sqrt(np.einsum("i,nij,j->n", across, spread, across))
    assert np.median(length) > 1.5 and np.median(width) < 0.7


def test_cells_of_a_flat_picture_are_round() -> None:
    image = np.full((SIDE, SIDE, 3), 0.5, np.float32)
    cells = cut_cells(image, FLAT, FLAT, 300)
    shapes = edge_shapes(image, cells)
    assert np.allclose(shapes @ shapes.transpose(0, 2, 1), np.eye(2), atol=1e-3)
    assert np.array_equal(round_shapes(3), np.tile(np.eye(2), (3, 1, 1)))


def test_discs_are_round_in_their_plane_and_thin_across_it() -> None:
    rng = np.random.default_rng(5)
    normals = rng.normal(size=(50, 3)).astype(np.float32)
    normals[:3] = np.eye(3)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    sigma = rng.uniform(1e-3, 1e-2, 50).astype(np.float32)
    values, vectors = np.linalg.eigh(unpacked(disc_covariances(normals, sigma)))
    assert np.allclose(np.sqrt(values[:, 1:]), sigma[:, None], rtol=1e-3)
    assert (np.sqrt(np.maximum(values[:, 0], 0)) < 0.16 * sigma).all()
    assert np.allclose(np.abs((vectors[:, :, 0] * normals).sum(1)), 1.0, atol=1e-4)


def test_outer_covariances_sum_squares_of_axes() -> None:
    a, b = np.random.default_rng(6).normal(size=(2, 10, 3))
    want = np.einsum("ni,nj->nij", a, a) + np.einsum("ni,nj->nij", b, b)
    assert np.allclose(unpacked(outer_covariances([a, b])), want, atol=1e-5)

"""Where Gaussians go: cells of the photo, and points of the head's surface.

The photo is cut into square cells that are small where the picture has detail or the eye looks (a quadtree under a
budget). Each cell becomes one Gaussian lying in the surface behind it, with the footprint of the cell:
``area-preserving``, so that a surface seen at a slant is covered without gaps from every side.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vasa3d.types import F32

CELL_FILL = 0.42
"""Standard deviation of a cell's Gaussian as a fraction of its side: sharp; what shines through is the base coat."""
CLOSED_FILL = 0.65
"""The same where Gaussians must close a surface by themselves."""
_MAX_SLOPE = 3.0
_EDGE_STRETCH = 0.7
_FLAT_GRADIENT = 1e-5
"""Squared gradient below which a picture counts as flat and its cells stay round."""
_PATTERNED = 0.2
"""Error of a cell above which a picture is patterned; hair and plain cloth stay below within a usual budget."""
_REMAP_ROWS = 30_000
"""OpenCV maps at most 32,767 points at a time."""


@dataclass(frozen=True)
class Cells:
    """Square cells of a picture.

    Attributes:
        centers: (N, 2) float32 centroids of the used pixels, x and y in pixels.
        sizes: (N,) float32 sides in pixels.
        pixels: (N, 2) int64 row and column of a used pixel next to the centroid.
        coverage: (N,) float32 mean weight of the cell's pixels.
    """

    centers: F32
    sizes: F32
    pixels: np.ndarray
    coverage: F32


def cut_cells(
    image: F32, weight: F32, importance: F32, budget: int, coarsest: int = 8, reserve: int = 0
) -> Cells:
    """Cut a picture into at most about ``budget`` cells of 1, 2, 4, 8 ... pixels.

    A cell is split while its importance-weighted squared deviation from its mean colour exceeds a threshold, which is
    searched so that the budget is met.

    Args:
        image: (S, S, C) float32.
        weight: (S, S) float32 in [0, 1]: which pixels are to be covered.
        importance: (S, S) float32 >= 0.
        budget: Number of cells.
        coarsest: Side of the largest cells, a power of two that divides S.
        reserve: Number of further cells, for pictures too finely patterned for the budget, such as printed cloth.

    Returns:
        The cells, none without used pixels.
    """
    levels = [coarsest]
    while levels[-1] > 1:
        levels.append(levels[-1] // 2)
    errors = _cell_errors(image, weight, importance, levels)
    used = [_block_sum(weight, side) > 0.05 * side * side for side in levels]
    cells = _Quadtree(errors, used)
    threshold = cells.threshold(budget)
    if reserve > 0 and threshold > _PATTERNED:
        threshold = max(cells.threshold(budget + reserve), _PATTERNED)
    parts = [
        _cells_of(mask, weight, side)
        for mask, side in zip(cells.leaves(threshold), levels, strict=True)
    ]
    return Cells(
        centers=np.concatenate([p.centers for p in parts]),
        sizes=np.concatenate([p.sizes for p in parts]),
        pixels=np.concatenate([p.pixels for p in parts]),
        coverage=np.concatenate([p.coverage for p in parts]),
    )


def read_pixels(image: np.ndarray, pixels: F32, *, nearest: bool = False) -> np.ndarray:
    """Values of a picture at points.

    Args:
        image: (H, W) or (H, W, C).
        pixels: (N, 2) x and y, pixel centres at half integers; points outside read the border.
        nearest: Take the pixel that holds the point instead of interpolating between pixel centres.

    Returns:
        (N,) or (N, C).
    """
    at = np.asarray(pixels, np.float32) - 0.5
    mode = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    nothing = np.empty(0, np.float32)
    parts = [
        cv2.remap(image, part[:, None], nothing, mode, borderMode=cv2.BORDER_REPLICATE)[:, 0]
        for part in np.array_split(at, len(at) // _REMAP_ROWS + 1)
    ]
    return np.concatenate(parts)


def _block_sum(values: np.ndarray, side: int) -> np.ndarray:
    """Sums over square blocks of (S, S) or (S, S, C) values."""
    while side > 1:  # halving is several times faster than numpy's sum over two axes
        values = values[0::2] + values[1::2]
        values = values[:, 0::2] + values[:, 1::2]
        side //= 2
    return values


def _cell_errors(image: F32, weight: F32, importance: F32, levels: list[int]) -> list[np.ndarray]:
    """Per level, finest last: (S / side, S / side) importance-weighted squared deviations of the cells."""
    weighted = image * weight[..., None]
    sums = [weight, np.asarray(importance * weight), weighted, np.sum(weighted * image, axis=-1)]
    errors, reached = [], 1
    for side in reversed(levels):
        sums = [_block_sum(values, side // reached) for values in sums]
        reached = side
        total, wanted, first, second = sums
        safe = np.maximum(total, 1e-6)
        squared = np.maximum(second - np.sum(first**2, axis=-1) / safe, 0.0)
        # The second term splits cells of important places even where the picture is flat.
        errors.append(wanted / safe * (squared + 2e-4 * total))
    return errors[::-1]


class _Quadtree:
    """Which cells are leaves when those above a threshold are split.

    Args:
        errors: Per level, coarsest first, (S / side, S / side) errors; the last level has cells of one pixel.
        used: Masks of the cells that hold anything.
    """

    def __init__(self, errors: list[np.ndarray], used: list[np.ndarray]) -> None:
        self._errors, self._used = errors, used
        # A cell exists while the smallest error of those above it exceeds the threshold.
        self._above = [np.full_like(errors[0], np.inf)]
        for error, wanted in zip(errors[:-1], used, strict=False):
            smallest = np.where(wanted, np.minimum(self._above[-1], error), 0.0)
            self._above.append(smallest.repeat(2, 0).repeat(2, 1))

    def leaves(self, threshold: float) -> list[np.ndarray]:
        """Masks of the leaves of each level."""
        cells = [
            wanted & (above > threshold)
            for wanted, above in zip(self._used, self._above, strict=True)
        ]
        whole = [c & (e <= threshold) for c, e in zip(cells[:-1], self._errors, strict=False)]
        return [*whole, cells[-1]]

    def count(self, threshold: float) -> int:
        """Number of all leaves."""
        return sum(int(np.count_nonzero(mask)) for mask in self.leaves(threshold))

    def threshold(self, budget: int) -> float:
        """The least threshold that leaves at most about so many."""
        low, high = 1e-7, 1e3
        for _ in range(16):
            middle = float(np.sqrt(low * high))
            if self.count(middle) > budget:
                low = middle
            else:
                high = middle
        return high


def _cells_of(mask: np.ndarray, weight: F32, side: int) -> Cells:
    size = weight.shape[0]
    axis = np.arange(size, dtype=np.float32) + 0.5
    total = np.maximum(_block_sum(weight, side), 1e-6)
    x = _block_sum(weight * axis[None, :], side) / total
    y = _block_sum(weight * axis[:, None], side) / total
    rows, cols = np.nonzero(mask)
    centers = np.stack([x[rows, cols], y[rows, cols]], 1).astype(np.float32)
    blocks = weight.reshape(size // side, side, size // side, side).transpose(0, 2, 1, 3)
    chosen = blocks[rows, cols]
    offset = np.arange(side) + 0.5
    dx = centers[:, 0, None, None] - (cols[:, None, None] * side + offset[None, None, :])
    dy = centers[:, 1, None, None] - (rows[:, None, None] * side + offset[None, :, None])
    distance = np.where(chosen > 0.3 * chosen.max((1, 2), keepdims=True), dx**2 + dy**2, np.inf)
    best = distance.reshape(len(rows), side * side).argmin(1)
    pixels = np.stack([rows * side + best // side, cols * side + best % side], 1)
    return Cells(
        centers=centers,
        sizes=np.full(len(rows), side, np.float32),
        pixels=pixels,
        coverage=(total[rows, cols] / side**2).astype(np.float32),
    )


def round_shapes(count: int) -> F32:
    """(N, 2, 2) shapes of round cells for ``slanted_footprints``."""
    return np.broadcast_to(np.eye(2, dtype=np.float32), (count, 2, 2))


def edge_shapes(image: F32, cells: Cells) -> F32:
    """Shapes that lie along the edges of a picture: hair, lids and folds are drawn by long thin Gaussians.

    The structure tensor over each cell tells the direction of its edges and how clear it is; a clear edge stretches
    the Gaussian along it and thins it across, keeping its area.

    Args:
        image: (S, S, 3) picture.
        cells: Its cells.

    Returns:
        (N, 2, 2) float32 columns: two axes of unit area product in the picture, x right and y down.
    """
    grey = cv2.GaussianBlur(image.mean(-1), (0, 0), 0.8)
    dx = cv2.Sobel(grey, cv2.CV_32F, 1, 0) / 8.0
    dy = cv2.Sobel(grey, cv2.CV_32F, 0, 1) / 8.0
    shapes = np.empty((len(cells.sizes), 2, 2), np.float32)
    for size in np.unique(cells.sizes):
        chosen = cells.sizes == size
        sigma = float(max(0.6 * size, 0.8))
        tensor = cv2.GaussianBlur(np.dstack([dx * dx, dx * dy, dy * dy]), (0, 0), sigma)
        xx, xy, yy = read_pixels(tensor, cells.centers[chosen]).T
        across = 0.5 * np.arctan2(2 * xy, xx - yy)
        clear = np.sqrt((xx - yy) ** 2 + 4 * xy**2) / (xx + yy + _FLAT_GRADIENT)
        stretch = np.exp(_EDGE_STRETCH * clear)
        cos, sin = np.cos(across), np.sin(across)
        shapes[chosen, :, 0] = np.stack([cos, sin], 1) / stretch[:, None]
        shapes[chosen, :, 1] = np.stack([-sin, cos], 1) * stretch[:, None]
    return shapes


def slanted_footprints(
    points: F32, normals: F32, sigma: F32, shapes: F32, right: F32, down: F32, eye: F32
) -> F32:
    """Covariances of Gaussians that lie in a surface and look like cells from the camera.

    Each axis of a cell in the picture is carried along the viewing ray until it lies in the surface; steep surfaces
    are stretched by at most a factor of three.

    Args:
        points: (N, 3) world points.
        normals: (N, 3) unit surface normals.
        sigma: (N,) standard deviation of a round cell across the view, metres.
        shapes: (N, 2, 2) axes of the cell in the picture as columns, in units of ``sigma``.
        right: (3,) the camera's x axis in the world.
        down: (3,) the camera's y axis in the world.
        eye: (3,) centre of projection.

    Returns:
        (N, 6) covariances.
    """
    rays = points - eye
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    facing = np.sum(normals * rays, 1)
    facing = np.where(facing < 0, np.minimum(facing, -1e-3), np.maximum(facing, 1e-3))
    axes = []
    for k in range(2):
        step = shapes[:, :1, k] * right + shapes[:, 1:, k] * down
        length = np.linalg.norm(step, axis=1)
        limit = _MAX_SLOPE * length
        slope = np.clip(-np.sum(normals * step, 1) / facing, -limit, limit)
        axes.append((step + rays * slope[:, None]) * sigma[:, None])
    thickness = np.maximum(0.15 * sigma, 1e-4)[:, None] * normals
    return outer_covariances([*axes, thickness])


def disc_covariances(normals: F32, sigma: F32) -> F32:
    """(N, 6) covariances of flat round Gaussians with standard deviation ``sigma`` (N,) in the surface."""
    helper = np.where(np.abs(normals[:, :1]) < 0.8, [[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]])
    first = np.cross(normals, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normals, first)
    width = sigma[:, None]
    return outer_covariances(
        [first * width, second * width, normals * np.maximum(0.15 * width, 1e-4)]
    )


def outer_covariances(axes: list[np.ndarray]) -> F32:
    """(N, 6) sum over axes (N, 3) of a a^T."""
    parts = [
        sum(a[:, i] * a[:, j] for a in axes)
        for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    ]
    return np.stack(parts, 1).astype(np.float32)

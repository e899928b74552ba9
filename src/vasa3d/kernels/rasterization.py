"""Compositing of splats tile by tile, and its transpose with respect to colour.

Front to back over the splats of a tile (Kerbl et al. 2023, equation 3): with
alpha_i = min(0.99, o_i exp(-q_i)), zero below 1/255, the blend weight of splat i at a pixel is
w_i = alpha_i T_i, where T_i = prod_{j < i} (1 - alpha_j). Then colour C = sum_i w_i c_i, coverage
1 - T and expected depth sum_i w_i z_i / sum_i w_i. A tile stops once no pixel of it has a
transmittance T above 1e-4.

Each tile works on one flat float32 array of planes of 256 pixels: T, red, green, blue and, when
asked for, depth. The innermost loop runs over the 16 pixels of a row with unsigned indices, which
the compiler turns into vector instructions; for this the exponential is a polynomial,
exp(x) = p(x / 8)^8, with a relative error of 2.2e-5 on [-5.6, 0].
"""

from __future__ import annotations

import numpy as np
from numba import njit

from vasa3d.kernels.projection import (
    ALPHA_CAP,
    BLUE,
    CONIC_A,
    CONIC_B,
    CONIC_C,
    DEPTH,
    EXTENT_Y,
    GREEN,
    MEAN_X,
    MEAN_Y,
    OPACITY,
    Q_MAX,
    RED,
    TILE,
)  # fmt: skip

STOP_TRANSMITTANCE = np.float32(1e-4)
_CHECK_EVERY = 8
"""Splats between two looks at whether the tile is already opaque."""

_CAP, _ZERO, _HALF, _ONE = (np.float32(v) for v in (ALPHA_CAP, 0.0, 0.5, 1.0))
_MINUS_EIGHTH = np.float32(-1.0 / 8.0)
# Coefficients of p with the least largest relative error to exp on [-0.7, 0]: 2.7e-6.
_E0, _E1, _E2, _E3, _E4 = (
    np.float32(v) for v in (0.99999728, 0.99982466, 0.498105, 0.15923827, 0.02921248)
)
_PIXELS = TILE * TILE
_PLANE_1, _PLANE_2, _PLANE_3, _PLANE_4 = (np.uint64(k * _PIXELS) for k in (1, 2, 3, 4))
# No value here is NaN: projection skips such Gaussians. Sums keep their order.
_FAST = {"contract", "nnan", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def _row_alpha(x, mx, a, cross, square, opacity, q_max):  # pragma: no cover - compiled
    """Alpha of a splat at pixel ``x`` of a row; ``cross``, ``square`` are the row's terms of q."""
    dx = np.float32(x) - mx
    q = (a * dx + cross) * dx + square
    t = q * _MINUS_EIGHTH
    e = (((_E4 * t + _E3) * t + _E2) * t + _E1) * t + _E0
    e = e * e
    e = e * e
    alpha = min(opacity * (e * e), _CAP)
    return alpha if q <= q_max else _ZERO


@njit(nogil=True, cache=True, fastmath=_FAST)
def _opaque(buffer):  # pragma: no cover - compiled
    """Whether no pixel of a tile lets more than ``STOP_TRANSMITTANCE`` through."""
    largest = _ZERO
    for i in range(_PIXELS):
        largest = max(largest, buffer[i])
    return largest <= STOP_TRANSMITTANCE


@njit(nogil=True, cache=True, fastmath=_FAST)
def _blend(items, splats, left, top, buffer, depth):  # pragma: no cover - compiled
    """Blend the splats of one tile into its planes; ``depth`` is ``None`` without a depth plane."""
    for position in range(len(items)):
        splat = splats[items[position]]
        mx = splat[MEAN_X] - np.float32(left) - _HALF
        my = splat[MEAN_Y] - np.float32(top) - _HALF
        a, b, c = splat[CONIC_A], splat[CONIC_B], splat[CONIC_C]
        opacity, q_max = splat[OPACITY], splat[Q_MAX]
        red, green, blue, z = splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH]
        y0 = max(int(np.ceil(my - splat[EXTENT_Y])), 0)
        y1 = min(int(np.floor(my + splat[EXTENT_Y])) + 1, TILE)
        for y in range(y0, y1):
            dy = np.float32(y) - my
            cross, square = b * dy, c * dy * dy
            row = np.uint64(y * TILE)
            for x in range(TILE):
                i = row + np.uint64(x)
                alpha = _row_alpha(x, mx, a, cross, square, opacity, q_max)
                weight = alpha * buffer[i]
                buffer[i] -= weight
                buffer[i + _PLANE_1] += weight * red
                buffer[i + _PLANE_2] += weight * green
                buffer[i + _PLANE_3] += weight * blue
                if depth is not None:
                    buffer[i + _PLANE_4] += weight * z
        if position % _CHECK_EVERY == _CHECK_EVERY - 1 and _opaque(buffer):
            break


@njit(nogil=True, cache=True, fastmath=_FAST)
def composite_tiles(
    start, stop, first_tile, tiles_x, offsets, items, splats, background, rgb, alpha, depth
):  # pragma: no cover - compiled
    """Draw the tiles ``first_tile + start`` to ``first_tile + stop``.

    Args:
        start: First list in ``offsets``.
        stop: One past the last list.
        first_tile: Tile of list 0.
        tiles_x: Tiles in a row.
        offsets: (L + 1,) int64 bounds of the lists in ``items``.
        items: (I,) uint32 splats, nearest first.
        splats: (N, SPLAT_WIDTH) float32.
        background: (1, 1, 3) or (H, W, 3) float32.
        rgb: (H, W, 3) float32 output.
        alpha: (H, W) float32 output.
        depth: (H, W) float32 output in metres, or ``None``.
    """
    height, width = alpha.shape
    step_y, step_x = min(background.shape[0] - 1, 1), min(background.shape[1] - 1, 1)
    buffer = np.empty((4 if depth is None else 5) * _PIXELS, np.float32)
    for index in range(start, stop):
        tile = first_tile + index
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        buffer[:_PIXELS] = _ONE
        buffer[_PIXELS:] = _ZERO
        _blend(items[offsets[index] : offsets[index + 1]], splats, left, top, buffer, depth)
        for y in range(top, min(top + TILE, height)):
            for x in range(left, min(left + TILE, width)):
                i = (y - top) * TILE + x - left
                rest = buffer[i]
                alpha[y, x] = _ONE - rest
                for c in range(3):
                    behind = background[y * step_y, x * step_x, c]
                    rgb[y, x, c] = buffer[(c + 1) * _PIXELS + i] + rest * behind
                if depth is not None:
                    depth[y, x] = buffer[4 * _PIXELS + i] / (_ONE - rest) if rest < _ONE else _ZERO


@njit(nogil=True, cache=True, fastmath=_FAST)
def adjoint_tiles(
    start, stop, first_tile, tiles_x, offsets, items, splats, image, sums
):  # pragma: no cover - compiled
    """Sum blend weight times image over the pixels of each list item.

    Args:
        start: First list in ``offsets``.
        stop: One past the last list.
        first_tile: Tile of list 0.
        tiles_x: Tiles in a row.
        offsets: (L + 1,) int64 bounds of the lists in ``items``.
        items: (I,) uint32 splats, nearest first.
        splats: (N, SPLAT_WIDTH) float32.
        image: (H, W, C) float32.
        sums: (I, C) float32 output, zero where a tile stopped before the item.
    """
    height, width, channels = image.shape
    buffer = np.empty(_PIXELS, np.float32)
    planes = np.empty(channels * _PIXELS, np.float32)
    lanes = np.empty(channels * TILE, np.float32)
    weights = np.empty(TILE, np.float32)
    for index in range(start, stop):
        tile = first_tile + index
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        buffer[:] = _ONE
        planes[:] = _ZERO
        for y in range(top, min(top + TILE, height)):
            for x in range(left, min(left + TILE, width)):
                for c in range(channels):
                    planes[c * _PIXELS + (y - top) * TILE + x - left] = image[y, x, c]
        sums[offsets[index] : offsets[index + 1]] = _ZERO
        for position in range(offsets[index], offsets[index + 1]):
            _weigh(splats[items[position]], left, top, buffer, weights, planes, lanes)
            for c in range(channels):
                for x in range(TILE):
                    sums[position, c] += lanes[c * TILE + x]
            if (position - offsets[index]) % _CHECK_EVERY == _CHECK_EVERY - 1 and _opaque(buffer):
                break


@njit(nogil=True, cache=True, fastmath=_FAST)
def _weigh(splat, left, top, buffer, weights, planes, lanes):  # pragma: no cover - compiled
    """Sums of weight times image down the 16 columns of a tile, and the new transmittance."""
    mx = splat[MEAN_X] - np.float32(left) - _HALF
    my = splat[MEAN_Y] - np.float32(top) - _HALF
    a, b, c = splat[CONIC_A], splat[CONIC_B], splat[CONIC_C]
    opacity, q_max = splat[OPACITY], splat[Q_MAX]
    lanes[:] = _ZERO
    y0 = max(int(np.ceil(my - splat[EXTENT_Y])), 0)
    y1 = min(int(np.floor(my + splat[EXTENT_Y])) + 1, TILE)
    for y in range(y0, y1):
        dy = np.float32(y) - my
        cross, square = b * dy, c * dy * dy
        row = np.uint64(y * TILE)
        for x in range(TILE):
            i = row + np.uint64(x)
            weight = _row_alpha(x, mx, a, cross, square, opacity, q_max) * buffer[i]
            buffer[i] -= weight
            weights[np.uint64(x)] = weight
        for channel in range(len(lanes) // TILE):
            lane, plane = np.uint64(channel * TILE), np.uint64(channel * _PIXELS)
            for x in range(TILE):
                i = np.uint64(x)
                lanes[lane + i] += weights[i] * planes[plane + row + i]


@njit(nogil=True, cache=True)
def scatter_sums(items, sums, totals):  # pragma: no cover - compiled
    """Add the items' sums (I, C) to their splats' totals (N, C), in list order."""
    for position in range(len(items)):
        for c in range(sums.shape[1]):
            totals[items[position], c] += sums[position, c]

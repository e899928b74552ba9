"""Compositing of splats tile by tile, and its transpose with respect to colour.

Front to back over the splats of a tile (Kerbl et al. 2023, equation 3): with
alpha_i = min(0.99, o_i exp(-q_i)), zero below 1/255, the blend weight of splat i at a pixel is
w_i = alpha_i T_i, where T_i = prod_{j < i} (1 - alpha_j). Then colour C = sum_i w_i c_i, coverage
1 - T and expected depth sum_i w_i z_i / sum_i w_i. A tile stops once no pixel of it has a
transmittance T above 1e-4.

Each tile works on one flat float32 array of planes of 256 pixels: T, red, green, blue and, when
asked for, depth. A plane holds the tile's left half, 8 pixels wide, then its right half, each row
by row, so 16 pixels in a row of the array are a block of 8 x 2 in the picture; splats are about
that small. The innermost loop runs over such a block with unsigned indices, which the compiler
turns into vector instructions; for this o exp(-q) is a polynomial, p((ln(o) - q) / 8)^8, with a
relative error of 2.2e-5 where it is at least 1/255.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from vasa3d.kernels.prefetch import prefetch
from vasa3d.kernels.projection import (
    ALPHA_CAP,
    ALPHA_FLOOR,
    BLUE,
    CONIC_A,
    CONIC_B,
    CONIC_C,
    DEPTH,
    EXTENT_X,
    EXTENT_Y,
    GREEN,
    MEAN_X,
    MEAN_Y,
    Q_MAX,
    RED,
    SPLAT_WIDTH,
    TILE,
)

STOP_TRANSMITTANCE = np.float32(1e-4)
CHECK_EVERY = 16
"""Splats between two looks at whether a tile is already opaque."""
FETCH_AHEAD = 8
"""Splats between asking for one and blending it."""

_CAP, _ZERO, _HALF, _ONE, _BYTE = (np.float32(v) for v in (ALPHA_CAP, 0.0, 0.5, 1.0, 255.0))
_EIGHTH = np.float32(1.0 / 8.0)
_LOG_FLOOR = np.float32(math.log(ALPHA_FLOOR) / 8.0)
# Coefficients of p with the least largest relative error to exp on [-0.7, 0]: 2.7e-6.
_E0, _E1, _E2, _E3, _E4 = (
    np.float32(v) for v in (0.99999728, 0.99982466, 0.498105, 0.15923827, 0.02921248)
)
PIXELS = TILE * TILE
"""Pixels of a tile, and values of a plane."""
LANES = 16
"""Pixels of a block."""
_LAST_LEFT, _FIRST_RIGHT = np.float32(7.0), np.float32(8.0)
_PLANE_1, _PLANE_2, _PLANE_3, _PLANE_4 = (np.uint64(k * PIXELS) for k in (1, 2, 3, 4))
_LANES_1, _LANES_2, _LANES_3 = (np.uint64(4 * PIXELS + k * LANES) for k in (0, 1, 2))
# No value here is NaN: projection skips such Gaussians. Sums keep their order.
_FAST = {"contract", "nnan", "nsz"}


@njit(nogil=True, cache=True, fastmath=_FAST)
def splat_shape(splat, left, top):  # pragma: no cover - compiled
    """Mean in a tile's pixel indices, conic / -8 and ln(opacity) / 8, for ``lane_alpha``."""
    return (
        splat[MEAN_X] - np.float32(left) - _HALF,
        splat[MEAN_Y] - np.float32(top) - _HALF,
        splat[CONIC_A] * -_EIGHTH,
        splat[CONIC_B] * -_EIGHTH,
        splat[CONIC_C] * -_EIGHTH,
        splat[Q_MAX] * _EIGHTH + _LOG_FLOOR,
    )


@njit(nogil=True, cache=True, fastmath=_FAST)
def lane_alpha(lane, dx, dy, a, b, c, peak):  # pragma: no cover - compiled
    """Alpha of a splat at a pixel of a block; (dx, dy) leads from its mean to the first pixel."""
    x = dx + np.float32(lane & 7)
    y = dy + np.float32(lane >> 3)
    t = (a * x * x + peak) + y * (b * x + c * y)
    e = (((_E4 * t + _E3) * t + _E2) * t + _E1) * t + _E0
    e = e * e
    e = e * e
    alpha = min(e * e, _CAP)
    return alpha if t >= _LOG_FLOOR else _ZERO


@njit(nogil=True, cache=True)
def pixel_place(x, y):  # pragma: no cover - compiled
    """Index of a tile's pixel in a plane."""
    return (x >> 3) * (PIXELS // 2) + y * 8 + (x & 7)


@njit(nogil=True, cache=True, fastmath=_FAST)
def reached_blocks(splat, mx, my):  # pragma: no cover - compiled
    """Halves and pairs of rows of a tile that a splat reaches, both as first and one past last."""
    ex, ey = splat[EXTENT_X], splat[EXTENT_Y]
    left = 1 if mx - ex > _LAST_LEFT else 0
    right = 1 if mx + ex < _FIRST_RIGHT else 2
    top = max(int(np.ceil(my - ey)), 0) // 2
    bottom = min(int(np.floor(my + ey)) // 2 + 1, TILE // 2)
    return left, right, top, bottom


@njit(nogil=True, cache=True, fastmath=_FAST)
def is_opaque(buffer):  # pragma: no cover - compiled
    """Whether no pixel of a tile lets more than ``STOP_TRANSMITTANCE`` through."""
    open_pixels = 0  # counting is what compilers turn into vector instructions; a maximum is not
    for i in range(PIXELS):
        open_pixels += 1 if buffer[np.uint64(i)] > STOP_TRANSMITTANCE else 0
    return open_pixels == 0


@njit(nogil=True, cache=True, fastmath=_FAST)
def _blend_splat(splat, left, top, buffer, depth):  # pragma: no cover - compiled
    """Blend one splat into a tile's planes; ``depth`` is ``None`` without a depth plane."""
    mx, my, a, b, c, peak = splat_shape(splat, left, top)
    red, green, blue, z = splat[RED], splat[GREEN], splat[BLUE], splat[DEPTH]
    half_0, half_1, pair_0, pair_1 = reached_blocks(splat, mx, my)
    for half in range(half_0, half_1):
        dx = np.float32(half * 8) - mx
        for pair in range(pair_0, pair_1):
            dy = np.float32(pair * 2) - my
            block = np.uint64(half * (PIXELS // 2) + pair * LANES)
            for lane in range(LANES):
                i = block + np.uint64(lane)
                alpha = lane_alpha(lane, dx, dy, a, b, c, peak)
                weight = alpha * buffer[i]
                buffer[i] -= weight
                buffer[i + _PLANE_1] += weight * red
                buffer[i + _PLANE_2] += weight * green
                buffer[i + _PLANE_3] += weight * blue
                if depth is not None:
                    buffer[i + _PLANE_4] += weight * z


@njit(nogil=True, cache=True, fastmath=_FAST)
def _blend(items, splats, left, top, buffer, depth):  # pragma: no cover - compiled
    """Blend the splats of one tile into its planes, until it is opaque."""
    flat = splats.reshape(-1)
    for position in range(len(items)):
        # The order in depth is no order in memory: without this every splat is waited for.
        if position + FETCH_AHEAD < len(items):
            ahead = np.intp(items[position + FETCH_AHEAD]) * SPLAT_WIDTH
            prefetch(flat, ahead)  # pyright: ignore[reportCallIssue]
        _blend_splat(splats[items[position]], left, top, buffer, depth)
        if position % CHECK_EVERY == CHECK_EVERY - 1 and is_opaque(buffer):
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
    buffer = np.empty((4 if depth is None else 5) * PIXELS, np.float32)
    for index in range(start, stop):
        tile = first_tile + index
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        buffer[:PIXELS] = _ONE
        buffer[PIXELS:] = _ZERO
        _blend(items[offsets[index] : offsets[index + 1]], splats, left, top, buffer, depth)
        for y in range(top, min(top + TILE, height)):
            for x in range(left, min(left + TILE, width)):
                i = pixel_place(x - left, y - top)
                rest = buffer[i]
                alpha[y, x] = _ONE - rest
                for c in range(3):
                    behind = background[y * step_y, x * step_x, c]
                    rgb[y, x, c] = buffer[(c + 1) * PIXELS + i] + rest * behind
                if depth is not None:
                    depth[y, x] = buffer[4 * PIXELS + i] / (_ONE - rest) if rest < _ONE else _ZERO


@njit(nogil=True, cache=True, fastmath=_FAST)
def composite_bytes(
    start, stop, first_tile, tiles_x, offsets, items, splats, background, picture
):  # pragma: no cover - compiled
    """Draw the tiles ``first_tile + start`` to ``first_tile + stop`` as bytes.

    Args:
        start: First list in ``offsets``.
        stop: One past the last list.
        first_tile: Tile of list 0.
        tiles_x: Tiles in a row.
        offsets: (L + 1,) int64 bounds of the lists in ``items``.
        items: (I,) uint32 splats, nearest first.
        splats: (N, SPLAT_WIDTH) float32.
        background: (1, 1, 3) or (H, W, 3) float32, or ``None``.
        picture: Output: (H, W, 3) uint8 over the background, or without one (H, W, 4) with colours
            that are not premultiplied.
    """
    height, width = picture.shape[:2]
    buffer = np.empty(4 * PIXELS, np.float32)
    for index in range(start, stop):
        tile = first_tile + index
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        buffer[:PIXELS] = _ONE
        buffer[PIXELS:] = _ZERO
        _blend(items[offsets[index] : offsets[index + 1]], splats, left, top, buffer, None)
        for y in range(top, min(top + TILE, height)):
            for x in range(left, min(left + TILE, width)):
                i = pixel_place(x - left, y - top)
                rest = buffer[i]
                if background is None:
                    covered = _ONE - rest
                    scale = _BYTE / covered if covered > _ZERO else _ZERO
                    for c in range(3):
                        value = buffer[(c + 1) * PIXELS + i] * scale + _HALF
                        picture[y, x, c] = np.uint8(min(max(value, _ZERO), _BYTE))
                    picture[y, x, 3] = np.uint8(covered * _BYTE + _HALF)
                else:
                    row, column = min(y, len(background) - 1), min(x, background.shape[1] - 1)
                    for c in range(3):
                        value = buffer[(c + 1) * PIXELS + i] + rest * background[row, column, c]
                        value = value * _BYTE + _HALF
                        picture[y, x, c] = np.uint8(min(max(value, _ZERO), _BYTE))


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
        image: (H, W, 3) float32.
        sums: (I, 3) float32 output, zero where a tile stopped before the item.
    """
    height, width = image.shape[:2]
    buffer = np.empty(4 * PIXELS + 3 * LANES, np.float32)
    for index in range(start, stop):
        tile = first_tile + index
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        buffer[:PIXELS] = _ONE
        buffer[PIXELS:] = _ZERO
        for y in range(top, min(top + TILE, height)):
            for x in range(left, min(left + TILE, width)):
                i = pixel_place(x - left, y - top)
                for c in range(3):
                    buffer[(c + 1) * PIXELS + i] = image[y, x, c]
        sums[offsets[index] : offsets[index + 1]] = _ZERO
        for position in range(offsets[index], offsets[index + 1]):
            _weigh(splats[items[position]], left, top, buffer)
            for c in range(3):
                sums[position, c] = _take_lanes(buffer, 4 * PIXELS + c * LANES)
            if (position - offsets[index]) % CHECK_EVERY == CHECK_EVERY - 1 and is_opaque(buffer):
                break


@njit(nogil=True, cache=True, fastmath=_FAST)
def _weigh(splat, left, top, buffer):  # pragma: no cover - compiled
    """Add weight times image lane by lane to the buffer's end, and take the weight from T."""
    mx, my, a, b, c, peak = splat_shape(splat, left, top)
    half_0, half_1, pair_0, pair_1 = reached_blocks(splat, mx, my)
    for half in range(half_0, half_1):
        dx = np.float32(half * 8) - mx
        for pair in range(pair_0, pair_1):
            dy = np.float32(pair * 2) - my
            block = np.uint64(half * (PIXELS // 2) + pair * LANES)
            for lane in range(LANES):
                at = np.uint64(lane)
                i = block + at
                alpha = lane_alpha(lane, dx, dy, a, b, c, peak)
                weight = alpha * buffer[i]
                buffer[i] -= weight
                buffer[at + _LANES_1] += weight * buffer[i + _PLANE_1]
                buffer[at + _LANES_2] += weight * buffer[i + _PLANE_2]
                buffer[at + _LANES_3] += weight * buffer[i + _PLANE_3]


@njit(nogil=True, cache=True)
def _take_lanes(buffer, first):  # pragma: no cover - compiled
    """Sum of the lanes from ``first`` on, which are set to zero; adds in pairs."""
    for step in (8, 4, 2, 1):
        for lane in range(step):
            buffer[first + lane] += buffer[first + lane + step]
    total = buffer[first]
    buffer[first : first + LANES] = _ZERO
    return total


@njit(nogil=True, cache=True)
def scatter_sums(items, sums, totals):  # pragma: no cover - compiled
    """Add the items' sums (I, 3) to their splats' totals (N, 3), in list order."""
    for position in range(len(items)):
        for c in range(3):
            totals[items[position], c] += sums[position, c]

"""Depth order, and which splats each tile of 16 x 16 pixels must draw.

Splats are sorted once by depth, nearest first (ties by index), with a radix sort. The sorted
splats are cut into chunks; each chunk counts its entries for every tile, so that it knows where its
own stretch of each tile's list begins, and chunks can be filled in parallel. Every list is sorted
too. Lists stand one after another: tile t draws ``items[offsets[t]:offsets[t + 1]]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

RADIX_BITS = 12
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


@njit(nogil=True, cache=True)
def depth_order(keys):  # pragma: no cover - compiled
    """Indices of the splats with key > 0, by ascending key, ties by index.

    Only bits in which keys differ from the least key are sorted: a head at arm's length takes two
    passes, not three.

    Args:
        keys: (N,) uint32.

    Returns:
        (M,) uint32 indices.
    """
    count, lowest, highest = 0, np.uint32(0xFFFFFFFF), np.uint32(0)
    for n in range(len(keys)):
        key = keys[n]
        if key != 0:
            count += 1
            lowest, highest = min(lowest, key), max(highest, key)
    pairs, other = np.empty(count, np.uint64), np.empty(count, np.uint64)
    span = np.uint64(highest) - np.uint64(lowest) if count > 0 else np.uint64(0)
    passes = 0
    while span >> np.uint64(passes * RADIX_BITS) != 0:
        passes += 1
    radix = 1 << RADIX_BITS
    mask = np.uint64(radix - 1)
    histogram = np.zeros((passes, radix), np.int64)
    m = 0
    for n in range(len(keys)):
        if keys[n] != 0:
            key = np.uint64(keys[n] - lowest)
            pairs[m] = (key << _WORD) | np.uint64(n)
            m += 1
            for step in range(passes):
                histogram[step, (key >> np.uint64(step * RADIX_BITS)) & mask] += 1
    for step in range(passes):
        position = histogram[step]
        total = 0
        for digit in range(radix):
            here = position[digit]
            position[digit] = total
            total += here
        shift = _WORD + np.uint64(step * RADIX_BITS)
        for m in range(count):
            digit = (pairs[m] >> shift) & mask
            other[position[digit]] = pairs[m]
            position[digit] += 1
        pairs, other = other, pairs
    order = np.empty(count, np.uint32)
    for m in range(count):
        order[m] = pairs[m] & _LOW_WORD
    return order


@njit(nogil=True, cache=True)
def count_items(
    start, stop, order, rects, tiles_x, tiles_y, counts, sorted_rects
):  # pragma: no cover - compiled
    """Number of the sorted splats ``start`` to ``stop`` in each tile.

    Each rectangle adds to four corners of a difference table, whose running sums along x and y
    are the counts: the cost does not depend on how large splats are.

    Args:
        start: First splat in ``order``.
        stop: One past the last.
        order: (M,) uint32 splats, nearest first.
        rects: (N, 4) int32 tiles covered by each splat.
        tiles_x: Tiles in a row.
        tiles_y: Rows of tiles.
        counts: (tiles_x * tiles_y,) int64 output, tiles row by row.
        sorted_rects: (M, 4) int32 output, the rectangles nearest first.
    """
    table = np.zeros((tiles_y + 1, tiles_x + 1), np.int64)
    for m in range(start, stop):
        x0, x1, y0, y1 = rects[order[m]]
        sorted_rects[m, 0], sorted_rects[m, 1] = x0, x1
        sorted_rects[m, 2], sorted_rects[m, 3] = y0, y1
        table[y0, x0] += 1
        table[y0, x1] -= 1
        table[y1, x0] -= 1
        table[y1, x1] += 1
    above = np.zeros(tiles_x, np.int64)
    for y in range(tiles_y):
        running = 0
        for x in range(tiles_x):
            running += table[y, x]
            above[x] += running
            counts[y * tiles_x + x] = above[x]


@njit(nogil=True, cache=True)
def list_items(
    start, stop, order, sorted_rects, tiles_x, first_tile, positions, items
):  # pragma: no cover - compiled
    """Write the sorted splats ``start`` to ``stop`` into the lists of some consecutive tiles.

    Args:
        start: First splat in ``order``.
        stop: One past the last.
        order: (M,) uint32 splats, nearest first.
        sorted_rects: (M, 4) int32 of ``count_items``.
        tiles_x: Tiles in a row.
        first_tile: Tile of the first list.
        positions: (L,) int64 where these splats' entries of each list begin in ``items``; moved to
            their ends.
        items: (I,) uint32 output.
    """
    end_tile = first_tile + len(positions)
    row_0, row_1 = first_tile // tiles_x, (end_tile + tiles_x - 1) // tiles_x
    for m in range(start, stop):
        index = order[m]
        x0, x1, y0, y1 = sorted_rects[m]
        for ty in range(max(y0, row_0), min(y1, row_1)):
            first = max(ty * tiles_x + x0, first_tile)
            last = min(ty * tiles_x + x1, end_tile)
            for tile in range(first, last):
                slot = np.uint64(tile - first_tile)  # unsigned: not checked for less than 0
                place = positions[slot]
                items[np.uint64(place)] = index
                positions[slot] = place + 1

"""Depth order, and which splats each tile of 16 x 16 pixels must draw.

Splats are sorted once by depth, nearest first (ties by index), with a radix sort. Walking them in
this order, each is appended to the list of every tile that its rectangle covers, so every list is
sorted too. Lists stand one after another: tile t draws ``items[offsets[t]:offsets[t + 1]]``.
"""

from __future__ import annotations

import numpy as np
from numba import njit

RADIX_BITS = 11


@njit(nogil=True, cache=True)
def depth_order(keys):  # pragma: no cover - compiled
    """Indices of the splats with key > 0, by ascending key, ties by index.

    Args:
        keys: (N,) uint32.

    Returns:
        (M,) uint32 indices.
    """
    radix = 1 << RADIX_BITS
    mask = np.uint32(radix - 1)
    passes = (32 + RADIX_BITS - 1) // RADIX_BITS
    histogram = np.zeros((passes, radix), np.int64)
    count = 0
    order = np.empty(len(keys), np.uint32)
    for n in range(len(keys)):
        key = keys[n]
        if key != 0:
            order[count] = n
            count += 1
            for step in range(passes):
                histogram[step, (key >> np.uint32(step * RADIX_BITS)) & mask] += 1
    order = order[:count]
    other = np.empty(count, np.uint32)
    for step in range(passes):
        position = histogram[step]
        total = 0
        for digit in range(radix):
            here = position[digit]
            position[digit] = total
            total += here
        for m in range(count):
            digit = (keys[order[m]] >> np.uint32(step * RADIX_BITS)) & mask
            other[position[digit]] = order[m]
            position[digit] += 1
        order, other = other, order
    return order


@njit(nogil=True, cache=True)
def count_items(rects, tiles_x, tiles_y):  # pragma: no cover - compiled
    """(tiles_x * tiles_y,) int64 number of splats in each tile, tiles row by row.

    Each rectangle adds to four corners of a difference table, whose running sums along x and y
    are the counts: the cost does not depend on how large splats are.
    """
    table = np.zeros((tiles_y + 1, tiles_x + 1), np.int64)
    for n in range(len(rects)):
        x0, x1, y0, y1 = rects[n]
        table[y0, x0] += 1
        table[y0, x1] -= 1
        table[y1, x0] -= 1
        table[y1, x1] += 1
    counts = np.empty(tiles_x * tiles_y, np.int64)
    above = np.zeros(tiles_x, np.int64)
    for y in range(tiles_y):
        running = 0
        for x in range(tiles_x):
            running += table[y, x]
            above[x] += running
            counts[y * tiles_x + x] = above[x]
    return counts


@njit(nogil=True, cache=True)
def list_items(
    start, stop, first_tile, order, rects, tiles_x, offsets, items
):  # pragma: no cover - compiled
    """Write the lists of the tiles ``first_tile + start`` to ``first_tile + stop``.

    Args:
        start: First list.
        stop: One past the last list.
        first_tile: Tile of list 0.
        order: (M,) uint32 splats, nearest first.
        rects: (N, 4) int32 tiles covered by each splat.
        tiles_x: Tiles in a row.
        offsets: (L + 1,) int64 place of each list in ``items``.
        items: (I,) uint32 output.
    """
    position = offsets[start:stop].copy()
    begin, end = first_tile + start, first_tile + stop
    row_0, row_1 = begin // tiles_x, (end + tiles_x - 1) // tiles_x
    for m in range(len(order)):
        index = order[m]
        rect = rects[index]
        for ty in range(max(rect[2], row_0), min(rect[3], row_1)):
            first = max(ty * tiles_x + rect[0], begin)
            last = min(ty * tiles_x + rect[1], end)
            for tile in range(first, last):
                items[position[tile - begin]] = index
                position[tile - begin] += 1

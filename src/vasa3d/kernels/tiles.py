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
def count_items(order, rects, tiles_x, tiles_y):  # pragma: no cover - compiled
    """(tiles_x * tiles_y,) int64 number of splats in each tile, tiles row by row."""
    counts = np.zeros(tiles_x * tiles_y, np.int64)
    for m in range(len(order)):
        rect = rects[order[m]]
        for ty in range(rect[2], rect[3]):
            for tx in range(rect[0], rect[1]):
                counts[ty * tiles_x + tx] += 1
    return counts


@njit(nogil=True, cache=True)
def list_items(order, rects, tiles_x, counts, first, last):  # pragma: no cover - compiled
    """Lists of the tiles ``first`` to ``last``.

    Returns:
        offsets (last - first + 1,) int64 and items (I,) uint32, the splats' indices.
    """
    offsets = np.zeros(last - first + 1, np.int64)
    for tile in range(first, last):
        offsets[tile - first + 1] = offsets[tile - first] + counts[tile]
    items = np.empty(offsets[-1], np.uint32)
    position = offsets[:-1].copy()
    whole = first == 0 and last == len(counts)
    for m in range(len(order)):
        index = order[m]
        rect = rects[index]
        for ty in range(rect[2], rect[3]):
            for tx in range(rect[0], rect[1]):
                tile = ty * tiles_x + tx
                if whole or first <= tile < last:
                    items[position[tile - first]] = index
                    position[tile - first] += 1
    return offsets, items

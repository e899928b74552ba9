"""Splats of a cloud as seen by a camera, and the lists of them that every tile draws.

What drawing and its derivative share: projection (``kernels.projection``), depth order and tile
lists (``kernels.tiles``). Results do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vasa3d.kernels.projection import SPLAT_WIDTH, TILE, project_splats
from vasa3d.kernels.threads import run_chunks
from vasa3d.kernels.tiles import count_items, depth_order, list_items
from vasa3d.renderer.config import RenderConfig
from vasa3d.types import F32, Camera, GaussianCloud

MAX_ITEMS = 1 << 22
"""Entries of all tile lists held at once; scenes with more are drawn in several bands."""

_PROJECT_CHUNK = 4096
_LIST_CHUNK, _MAX_LIST_CHUNKS = 8192, 16
"""Sorted splats that one call counts or lists; each chunk holds a count for every tile."""


@dataclass(frozen=True)
class Splats:
    """Projected Gaussians: values (N, SPLAT_WIDTH), tile rectangles (N, 4), depth keys (N,), drawn ones by depth."""

    values: F32
    rects: NDArray[np.int32]
    keys: NDArray[np.uint32]
    order: NDArray[np.uint32]
    tiles_x: int
    tiles_y: int


@dataclass(frozen=True)
class TileLists:
    """Splats of the tiles from ``first_tile`` on, one list after another."""

    first_tile: int
    offsets: NDArray[np.int64]
    items: NDArray[np.uint32]


@dataclass(frozen=True)
class Binding:
    """What moves Gaussians from canonical space to where the camera sees them.

    Attributes:
        triangles: (S,) int32 triangle of the first S Gaussians.
        triangle_maps: (F, 3, 4) float32 affine map of each triangle to camera coordinates.
        layer_weights: (N - S, J) float32 joint weights of the other Gaussians, rows sum to 1.
        joint_maps: (J, 3, 4) float32 affine map of each joint to camera coordinates.
    """

    triangles: NDArray[np.int32]
    triangle_maps: F32
    layer_weights: F32
    joint_maps: F32


def project_cloud(
    cloud: GaussianCloud,
    camera: Camera,
    config: RenderConfig,
    *,
    binding: Binding | None = None,
    reuse: Splats | None = None,
) -> Splats:
    """Project the Gaussians of a cloud and put them in order of depth.

    Args:
        cloud: The Gaussians, in world space or, with a binding, in canonical space.
        camera: The camera; with a binding only its intrinsics and size count.
        config: Options.
        binding: Poses each Gaussian on the way.
        reuse: Splats of as many Gaussians, whose memory is written again.
    """
    count, width, height = len(cloud), camera.width, camera.height
    means, covariances, opacities, colors = (
        np.ascontiguousarray(value, np.float32)
        for value in (cloud.means, cloud.covariances, cloud.opacities, cloud.colors)
    )
    view = camera.viewmat[:3].astype(np.float64, order="C")
    k = camera.K.astype(np.float64, order="C")
    if reuse is None:
        values = np.empty((count, SPLAT_WIDTH), np.float32)
        rects, keys = np.empty((count, 4), np.int32), np.empty(count, np.uint32)
    else:
        values, rects, keys = reuse.values, reuse.rects, reuse.keys
    moved = None
    if binding is not None:
        moved = (
            binding.triangles, binding.triangle_maps, binding.layer_weights, binding.joint_maps,
        )  # fmt: skip

    def project(start: int, stop: int) -> None:
        project_splats(
            start, stop, means, covariances, opacities, colors, view, k, width, height,
            config.near, config.far, config.antialias, values, rects, keys, moved,
        )  # fmt: skip

    run_chunks(project, count, _PROJECT_CHUNK)
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    return Splats(values, rects, keys, depth_order(keys), tiles_x, tiles_y)


def tile_bands(splats: Splats) -> Iterator[TileLists]:
    """Tile lists, in as few consecutive bands as ``MAX_ITEMS`` allows; no tile is divided."""
    order, rects, tiles_x = splats.order, splats.rects, splats.tiles_x
    num_tiles = tiles_x * splats.tiles_y
    chunk = max(_LIST_CHUNK, -(-len(order) // _MAX_LIST_CHUNKS))
    num_chunks = max(1, -(-len(order) // chunk))
    counts = np.zeros((num_chunks, num_tiles), np.int64)
    sorted_rects = np.empty((len(order), 4), np.int32)

    def count(start: int, stop: int) -> None:
        count_items(
            start, stop, order, rects, tiles_x, splats.tiles_y, counts[start // chunk],
            sorted_rects,
        )  # fmt: skip

    run_chunks(count, len(order), chunk)
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts.sum(0))])
    starts = ends[:-1] + np.cumsum(counts, axis=0) - counts
    first = 0
    while first < num_tiles:
        fitting = int(np.searchsorted(ends, ends[first] + MAX_ITEMS, side="right")) - 1
        last = max(first + 1, fitting)
        items = np.empty(ends[last] - ends[first], np.uint32)
        positions = starts[:, first:last] - ends[first]

        def fill(
            start: int,
            stop: int,
            first: int = first,
            positions: NDArray[np.int64] = positions,
            items: NDArray[np.uint32] = items,
        ) -> None:
            list_items(
                start, stop, order, sorted_rects, tiles_x, first, positions[start // chunk], items
            )

        run_chunks(fill, len(order), chunk)
        yield TileLists(first, ends[first : last + 1] - ends[first], items)
        first = last

"""Time of drawing a head-sized cloud of Gaussians, stage by stage.

The scene is an ellipsoid of flat Gaussians that fills about half of the picture, two to three
layers deep like a real avatar. Times are the median and the fastest of many frames, in
milliseconds. Run:

    python benchmarks/bench_render.py [--gaussians 40000] [--size 512] [--threads 2] [--frames 50]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np

from vasa3d.geometry.cameras import intrinsics, look_at
from vasa3d.kernels.threads import get_num_threads, set_num_threads
from vasa3d.renderer import color_adjoint, render_cloud
from vasa3d.types import Camera, GaussianCloud


def head_cloud(count: int, seed: int = 0) -> GaussianCloud:
    """Flat Gaussians on an ellipsoid with the size of a head."""
    rng = np.random.default_rng(seed)
    i = np.arange(count) + 0.5
    polar, turn = np.arccos(1.0 - 2.0 * i / count), np.pi * (1.0 + np.sqrt(5.0)) * i
    directions = np.stack(
        [np.cos(turn) * np.sin(polar), np.cos(polar), np.sin(turn) * np.sin(polar)], axis=1
    )
    radii = np.array([0.085, 0.12, 0.1])
    normal = directions / radii
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tangent = np.cross(normal, rng.normal(size=(count, 3)))
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    spacing = np.sqrt(4.0 * np.pi * 0.01 / count)
    sigma = 0.6 * spacing * np.exp(rng.normal(0.0, 0.3, (count, 1, 3))) * [1.0, 1.0, 0.1]
    axes = np.stack([tangent, np.cross(normal, tangent), normal], axis=2) * sigma
    full = axes @ axes.transpose(0, 2, 1)
    rows, columns = np.triu_indices(3)
    colors = 0.5 + 0.5 * np.sin(directions @ rng.normal(0.0, 9.0, (3, 3)))
    return GaussianCloud(
        (directions * radii).astype(np.float32),
        full[:, rows, columns].astype(np.float32),
        rng.uniform(0.7, 1.0, count).astype(np.float32),
        colors.astype(np.float32),
    )


def measure(call: Callable[[], object], frames: int) -> dict[str, float]:
    """Median and fastest time of a call in milliseconds, after one call to warm up."""
    call()
    times = []
    for _ in range(frames):
        start = time.perf_counter()
        call()
        times.append(1000.0 * (time.perf_counter() - start))
    return {"median_ms": round(float(np.median(times)), 2), "fastest_ms": round(min(times), 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--gaussians", type=int, default=40_000)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--threads", type=int, default=get_num_threads())
    parser.add_argument("--frames", type=int, default=50)
    options = parser.parse_args()
    set_num_threads(options.threads)
    cloud, size = head_cloud(options.gaussians), options.size
    camera = Camera(
        look_at((0, 0, 0.6), (0, 0, 0)), intrinsics(2.25 * size, size, size), size, size
    )
    image = np.ones((size, size, 3), np.float32)
    result = {
        "gaussians": options.gaussians,
        "size": size,
        "threads": options.threads,
        "render": measure(lambda: render_cloud(cloud, camera), options.frames),
        "render_depth": measure(lambda: render_cloud(cloud, camera, depth=True), options.frames),
        "color_adjoint": measure(lambda: color_adjoint(cloud, camera, image), options.frames // 2),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

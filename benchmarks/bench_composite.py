"""Compositing kernel against hand-written vector instructions in C++, on the same scene.

Needs a C++ compiler. One thread each, in turns, processor time. Run:

    python benchmarks/bench_composite.py SCENE      (a folder of ``vasa3d bench render --save-scene``)
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from vasa3d.exchange import read_camera, read_ply
from vasa3d.kernels.rasterization import composite_tiles
from vasa3d.renderer import RenderConfig
from vasa3d.renderer.splats import Splats, TileLists, project_cloud, tile_bands

ROUNDS, TURNS = 10, 8
SOURCE = Path(__file__).parent / "composite.cpp"


def time_kernel(splats: Splats, lists: TileLists, width: int, height: int) -> list[float]:
    """Milliseconds of processor time of drawing the whole picture, ``ROUNDS`` times."""
    rgb, alpha = np.empty((height, width, 3), np.float32), np.empty((height, width), np.float32)
    black = np.zeros((1, 1, 3), np.float32)
    times = []
    for _ in range(ROUNDS):
        start = time.thread_time()
        composite_tiles(
            0, len(lists.offsets) - 1, 0, splats.tiles_x, lists.offsets, lists.items, splats.values,
            black, rgb, alpha, None,
        )  # fmt: skip
        times.append(1000.0 * (time.thread_time() - start))
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("scene", type=Path, help="folder with cloud.ply and camera.json")
    options = parser.parse_args()
    compiler = shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        sys.exit("error: no C++ compiler found. hint: install g++ or clang++")
    camera = read_camera(options.scene / "camera.json")
    cloud = read_ply(options.scene / "cloud.ply").seen_from(camera)
    splats = project_cloud(cloud, camera, RenderConfig())
    (lists,) = tile_bands(splats)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        program = f"{folder}/composite"
        subprocess.run(
            [compiler, "-O3", "-march=native", "-std=c++17", "-o", program, str(SOURCE)], check=True
        )
        names = [f"{folder}/{name}" for name in ("offsets", "items", "splats")]
        for name, array in zip(names, (lists.offsets, lists.items, splats.values), strict=True):
            array.tofile(name)
        time_kernel(splats, lists, camera.width, camera.height)
        lanes = 0
        for _ in range(TURNS):
            ours += time_kernel(splats, lists, camera.width, camera.height)
            done = subprocess.run(
                [program, *names, str(splats.tiles_x), str(ROUNDS)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            *times, last = done.stdout.splitlines()
            theirs += [float(line) for line in times]
            lanes = int(last.split()[-1])
    result = {
        "gaussians": len(cloud),
        "size": [camera.width, camera.height],
        "instructions": "AVX-512" if lanes == 16 else "AVX2",
        "kernel_ms": {"median": float(np.median(ours)), "fastest": min(ours)},
        "cpp_ms": {"median": float(np.median(theirs)), "fastest": min(theirs)},
        "ratio": {
            "median": float(np.median(ours) / np.median(theirs)),
            "fastest": min(ours) / min(theirs),
        },
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""Write the tables of benchmarks/results.md between its markers.

    python benchmarks/make_results.py [--avatar ME.vasa3d] [--frames 100]

Measures drawing and the whole real-time path over numbers of Gaussians, sizes and threads, one step
of optimisation, and how the cost of drawing grows. Leave the machine alone while it runs.
"""

from __future__ import annotations

import argparse
import platform
from pathlib import Path

import numpy as np

from vasa3d.avatar.avatar import Avatar
from vasa3d.cli.doctor import processor
from vasa3d.evaluation.benchmark import (
    benchmark_animate,
    benchmark_create,
    benchmark_render,
    default_avatar,
    resample,
)
from vasa3d.kernels.threads import set_num_threads

PAGE = Path(__file__).parent / "results.md"
BEGIN, END = "<!-- tables begin -->", "<!-- tables end -->"
COUNTS = (10_000, 20_000, 40_000, 60_000, 100_000, 200_000)
SIZES = (256, 512, 1024)
THREADS = (1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--avatar", type=Path, help="avatar file; the built-in one by default")
    parser.add_argument("--frames", type=int, default=100)
    options = parser.parse_args()
    avatar = Avatar.load(options.avatar) if options.avatar else default_avatar()
    lines = [
        f"Processor: {processor()}, {len(THREADS)} cores used; Python {platform.python_version()}.",
        "",
        f"Default avatar ({len(avatar.gaussians)} Gaussians), 512x512, two threads:",
        "",
        *_stages(avatar, options.frames),
        "",
        "Median milliseconds a frame of `bench render` / `bench animate`:",
        "",
        *_grid(avatar, options.frames),
    ]
    page = PAGE.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    text = "\n".join(lines)
    PAGE.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


def _stages(avatar: Avatar, frames: int) -> list[str]:
    set_num_threads(2)
    drawn = benchmark_render(avatar, 512, 2 * frames)
    moving = benchmark_animate(avatar, 512, 2 * frames)
    step = benchmark_create(resample(avatar, 40_000), 512, max(10, frames // 4))
    lines = ["| command | median ms | p95 ms | frames/s | stages, ms |", "|---|---|---|---|---|"]
    for name, result in (("bench render", drawn), ("bench animate", moving)):
        stages = ", ".join(f"{stage} {ms:.2f}" for stage, ms in result["stages_ms"].items())
        frame = result["frame_ms"]
        lines.append(
            f"| `{name}` | {frame['median']:.1f} | {frame['p95']:.1f} | {result['fps']:.0f} "
            f"| {stages} |"
        )
    stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in step["stages_ms"].items())
    lines.append(
        f"| `bench create --gaussians 40000` | {step['iteration_ms']:.1f} | | | render and "
        f"backward {step['render_backward_ms']:.1f}; {stages} |"
    )
    return lines


def _grid(avatar: Avatar, frames: int) -> list[str]:
    columns = [(size, threads) for size in SIZES for threads in THREADS]
    heads = " | ".join(f"{size}², {threads} thr." for size, threads in columns)
    lines = [f"| Gaussians | {heads} |", "|---|" + "---|" * len(columns)]
    drawing = np.zeros((len(COUNTS), len(columns)))
    for row, count in enumerate(COUNTS):
        shown = resample(avatar, count)
        cells = []
        for column, (size, threads) in enumerate(columns):
            set_num_threads(threads)
            drawn = benchmark_render(shown, size, frames)["frame_ms"]["median"]
            moving = benchmark_animate(shown, size, frames)["frame_ms"]["median"]
            drawing[row, column] = drawn
            cells.append(f"{drawn:.1f} / {moving:.1f}")
        lines.append(f"| {count} | " + " | ".join(cells) + " |")
    lines += ["", "Growth of `bench render`, from straight lines through the columns and rows:", ""]
    for column, (size, threads) in enumerate(columns):
        slope, start = np.polyfit(np.array(COUNTS) / 1e4, drawing[:, column], 1)
        lines.append(
            f"- {size}², {threads} thread{'s' if threads > 1 else ''}: {start:.1f} ms + "
            f"{slope:.2f} ms for every 10,000 Gaussians"
        )
    return lines


if __name__ == "__main__":
    main()

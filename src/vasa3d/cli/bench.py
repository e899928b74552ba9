"""``vasa3d bench``: how fast this machine draws, animates and optimises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson, Device, DeviceOption, Force
from vasa3d.cli.shots import avatar_or_default, check_device
from vasa3d.files import output_path

if TYPE_CHECKING:
    from vasa3d.avatar.avatar import Avatar

app = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)

# Typer reads these annotations at run time, on Python 3.10 too, so they use Optional.

AvatarFile = Annotated[
    Optional[Path],  # noqa: UP045
    typer.Option("--avatar", help="Avatar to measure instead of the built-in one."),
]
Gaussians = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1_000, max=1_000_000, help="Thin out or split to this many Gaussians."),
]
Size = Annotated[int, typer.Option(min=64, max=2048, help="Side of the pictures in pixels.")]
Threads = Annotated[
    Optional[int],  # noqa: UP045
    typer.Option(min=1, max=256, help="Threads; all processors by default."),
]
Frames = Annotated[int, typer.Option(min=1, max=100_000, help="Frames measured.")]


@app.command("render")
def bench_render(
    avatar: AvatarFile = None,
    gaussians: Gaussians = None,
    size: Size = 512,
    threads: Threads = None,
    frames: Frames = 200,
    save_scene: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Folder for the cloud (.ply) and the camera (.json) that are drawn."),
    ] = None,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Time drawing one cloud of Gaussians.

    \b
    Examples:
      vasa3d bench render
      vasa3d bench render --gaussians 100000 --size 1024 --threads 1 --json
      vasa3d bench render --save-scene scene/
    """
    from vasa3d.evaluation.benchmark import SCENE_NAMES, benchmark_render

    reporter = Reporter(as_json)
    if save_scene is not None:
        save_scene = output_path(save_scene, force, True, SCENE_NAMES)
    shown = _prepare(reporter, avatar, gaussians, threads)
    _finish(reporter, benchmark_render(shown, size, frames, save_scene, force))


@app.command("animate")
def bench_animate(
    avatar: AvatarFile = None,
    gaussians: Gaussians = None,
    size: Size = 512,
    rank: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=0, max=64, help="Modes of a random VAS residual; its own by default."),
    ] = None,
    threads: Threads = None,
    frames: Frames = 200,
    as_json: AsJson = False,
) -> None:
    """Time the whole real-time path, from motion latent to picture.

    \b
    Examples:
      vasa3d bench animate
      vasa3d bench animate --rank 4 --gaussians 60000
      vasa3d bench animate --avatar me.vasa3d --size 256 --json
    """
    from vasa3d.evaluation.benchmark import benchmark_animate, with_residual

    reporter = Reporter(as_json)
    shown = _prepare(reporter, avatar, gaussians, threads)
    if rank is not None:
        shown = with_residual(shown, rank)
    _finish(reporter, benchmark_animate(shown, size, frames))


@app.command("create")
def bench_create(
    avatar: AvatarFile = None,
    gaussians: Gaussians = None,
    size: Size = 512,
    threads: Threads = None,
    frames: Annotated[int, typer.Option(min=1, max=10_000, help="Steps measured.")] = 40,
    device: DeviceOption = Device.cpu,
    as_json: AsJson = False,
) -> None:
    """Time one step of optimisation: pose, draw, compare, differentiate, change.

    \b
    Examples:
      vasa3d bench create --gaussians 40000
      vasa3d bench create --json
      vasa3d bench create --gaussians 50000 --device cuda
    """
    from vasa3d.evaluation.benchmark import benchmark_create

    reporter = Reporter(as_json)
    check_device(device)
    shown = _prepare(reporter, avatar, gaussians, threads)
    result = benchmark_create(shown, size, frames, device.value)
    reporter.finish(
        result,
        f"{result['iteration_ms']:.1f} ms a step, {result['render_backward_ms']:.1f} ms of it "
        f"drawing and its derivative, with {result['gaussians']} Gaussians at "
        f"{result['size']}x{result['size']} on {_worker(result)}; {_stages(result)}",
    )


@app.command("stream")
def bench_stream(
    audio: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="AUDIO", help="What is said; the built-in sentence by default."),
    ] = None,
    seconds: Annotated[float, typer.Option(min=8, max=600, help="Length of the stream.")] = 20.0,
    as_json: AsJson = False,
) -> None:
    """Time how sound becomes motion as it comes in, in pieces of 40 ms.

    \b
    Examples:
      vasa3d bench stream
      vasa3d bench stream speech.wav --seconds 60 --json
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.evaluation.streaming import benchmark_stream
    from vasa3d.weights import assets_dir

    reporter = Reporter(as_json)
    clip = load_audio(audio if audio is not None else assets_dir() / "demo.flac")
    result = benchmark_stream(clip, seconds)
    chunk = result["chunk_ms"]
    reporter.finish(
        result,
        f"a frame comes {result['first_frame_ms']:.0f} ms after its sound; 40 ms of sound take "
        f"{chunk['median']:.1f} ms (p95 {chunk['p95']:.1f}); a whole recording takes "
        f"{result['rtf']:.3f} of its length; one core carries {result['streams_per_core']} streams",
    )


def _prepare(
    reporter: Reporter, file: Path | None, gaussians: int | None, threads: int | None
) -> Avatar:
    from vasa3d.evaluation.benchmark import resample
    from vasa3d.kernels.threads import set_num_threads

    if threads is not None:
        set_num_threads(threads)
    shown = avatar_or_default(reporter, file)
    return shown if gaussians is None else resample(shown, gaussians)


def _finish(reporter: Reporter, result: dict[str, Any]) -> None:
    reporter.finish(
        result,
        f"{result['fps']:.1f} frames a second: {result['frame_ms']['median']:.2f} ms a frame "
        f"(p95 {result['frame_ms']['p95']:.2f}) with {result['gaussians']} Gaussians at "
        f"{result['size']}x{result['size']} on {result['threads']} threads; {_stages(result)}",
    )


def _worker(result: dict[str, Any]) -> str:
    """What took a step: a GPU's name, or so many threads."""
    return result["gpu"] or f"{result['threads']} threads"


def _stages(result: dict[str, Any]) -> str:
    return ", ".join(f"{name} {ms:.2f}" for name, ms in result["stages_ms"].items()) + " ms"

"""How pictures and videos are made for a command: what is checked first, and what is told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import Device
from vasa3d.errors import InputError

if TYPE_CHECKING:
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.renderer import RenderConfig
    from vasa3d.types import MotionLatents

MIN_DISTANCE, MAX_DISTANCE = 0.3, 4.0


@dataclass(frozen=True)
class Shot:
    """How a video is filmed."""

    output: Path
    camera: str
    size: int
    background: str
    distance: float
    force: bool
    device: Device = Device.cpu
    antialias: bool = False
    supersample: int = 1

    @property
    def transparent(self) -> bool:
        return self.background == "transparent"

    @property
    def config(self) -> RenderConfig:
        from vasa3d.renderer import RenderConfig

        return RenderConfig(antialias=self.antialias, supersample=self.supersample)


def check_shot(shot: Shot, fps: float) -> Path:
    """Refuse what cannot be filmed before any work is done; returns the output's absolute path."""
    import numpy as np

    from vasa3d.exchange.cameras import read_key_frames
    from vasa3d.video import check_rate, check_video_path

    check_view(shot)
    check_rate(fps)
    target = check_video_path(shot.output, shot.force, shot.transparent)
    if shot.camera not in ("front", "orbit", "swing"):
        read_key_frames(shot.camera, np.zeros(1))
    _check_background(shot.background)
    return target


def _check_background(spec: str) -> None:
    """Refuse what is neither a colour nor a picture."""
    from vasa3d.pipeline import parse_color
    from vasa3d.portrait.image import load_image

    if spec.startswith("#"):
        parse_color(spec)
    elif spec not in ("original", "transparent"):
        load_image(spec)


def check_view(shot: Shot) -> None:
    """Refuse what cannot be drawn."""
    from vasa3d.pipeline import check_size

    check_size(shot.size, shot.supersample)
    if not MIN_DISTANCE <= shot.distance <= MAX_DISTANCE:
        raise InputError(
            f"a distance of {shot.distance:g} is not possible.",
            hint=f"choose --distance between {MIN_DISTANCE:g} and {MAX_DISTANCE:g}; 1 is the photo's",
        )
    check_device(shot.device)


def check_device(device: Device) -> None:
    """Refuse a GPU that cannot be used."""
    if device is Device.cuda:
        from vasa3d.renderer.cuda import find_rasterizer

        find_rasterizer()


def film(
    reporter: Reporter, avatar: Avatar, latents: MotionLatents, shot: Shot, audio: Path | None
) -> dict[str, Any]:
    """Draw and write a video; returns what the user may want to know of it."""
    from vasa3d import pipeline
    from vasa3d.geometry.cameras import orbit
    from vasa3d.video import write_video

    count = len(latents)
    cameras = pipeline.camera_path(avatar, shot.camera, count, latents.fps, shot.size)
    if shot.distance != 1.0:
        middle = pipeline.turning_point(avatar)
        cameras = [orbit(view, middle, 0.0, 0.0, shot.distance) for view in cameras]
    background = pipeline.resolve_background(avatar, shot.background, shot.size)
    frames = pipeline.render(
        avatar, latents, cameras, size=shot.size, background=background,
        config=shot.config, device=shot.device.value,
    )  # fmt: skip
    write_video(
        shot.output,
        reporter.count(frames, count, "video"),
        audio,
        latents.fps,
        shot.force,
        shot.transparent,
    )
    return {
        "output": str(shot.output),
        "frames": count,
        "fps": latents.fps,
        "size": shot.size,
        "duration_seconds": round(count / latents.fps, 3),
    }


def video_sentence(result: dict[str, Any], reporter: Reporter) -> str:
    """The result of ``film`` for people."""
    return (
        f"{result['output']}: {result['duration_seconds']:.1f} s, {result['frames']} frames of "
        f"{result['size']}x{result['size']}, made in {reporter.seconds:.0f} s"
    )


def avatar_or_default(reporter: Reporter, file: Path | None, seed: int = 0) -> Avatar:
    """The avatar of a file; without one, a draft of a portrait that everybody has."""
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.evaluation.benchmark import default_avatar_events

    if file is not None:
        return Avatar.load(file)
    return reporter.follow(default_avatar_events(seed), "avatar")["result"].avatar


def warn_all(reporter: Reporter, lines: list[str] | tuple[str, ...]) -> None:
    """Tell several warnings."""
    for line in lines:
        reporter.warn(line)

"""Commands that make things: ``talk``, ``create``, ``animate``, ``motion``, ``render``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import (
    AsJson,
    Background,
    Distance,
    Emotion,
    Face,
    Force,
    Fps,
    Gaze,
    Output,
    Quality,
    QualityOption,
    Seed,
    Size,
    View,
    default_output,
    parse_emotion,
    parse_gaze,
)
from vasa3d.errors import AvatarFileError, ImageError, InputError, OutputError
from vasa3d.files import input_file, output_path

if TYPE_CHECKING:
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.motion.generator import MotionControls
    from vasa3d.types import AudioClip, MotionLatents

MIN_DISTANCE, MAX_DISTANCE = 0.3, 4.0

Portrait = Annotated[Path, typer.Argument(metavar="PORTRAIT", help="Photo of one person.")]
AvatarFile = Annotated[Path, typer.Argument(metavar="AVATAR", help="A .vasa3d file.")]
Recording = Annotated[Path, typer.Argument(metavar="AUDIO", help="Recording, or video with sound.")]


@dataclass(frozen=True)
class Shot:
    """How a video is filmed."""

    output: Path
    camera: str
    size: int
    background: str
    distance: float
    force: bool

    @property
    def transparent(self) -> bool:
        return self.background == "transparent"


def talk(
    portrait: Portrait,
    audio: Recording,
    output: Output = None,
    emotion: Emotion = None,
    gaze: Gaze = "0,0",
    camera: View = "front",
    distance: Distance = 1.0,
    size: Size = 512,
    fps: Fps = 25.0,
    background: Background = "original",
    face: Face = None,
    quality: QualityOption = Quality.draft,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make a photo speak a recording: avatar and video in one go.

    Without -o, the video is named after the photo, in the current folder.

    \b
    Examples:
      vasa3d talk portrait.jpg speech.wav
      vasa3d talk portrait.jpg speech.mp3 -o out.mp4 --camera swing --emotion happy:0.4
      vasa3d talk portrait.png speech.wav -o out.mov --background transparent
    """
    from vasa3d.audio.clips import load_audio

    shot = Shot(default_output(output, portrait, ".mp4"), camera, size, background, distance, force)
    reporter = Reporter(as_json)
    input_file(portrait, "an image", ImageError)
    check_shot(shot, fps)
    clip = load_audio(audio)
    controls = motion_controls(emotion, gaze)
    avatar, report = make_avatar(reporter, portrait, face, quality, seed)
    latents = speak_clip(reporter, clip, fps, seed, controls)
    result = film(reporter, avatar, latents, shot, audio)
    reporter.finish({**result, "avatar": report}, video_sentence(result, reporter))


def create(
    portrait: Portrait,
    output: Output = None,
    quality: QualityOption = Quality.draft,
    face: Face = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make an avatar from a photo.

    The avatar is one .vasa3d file. Without -o, it is named after the photo, in the current folder.

    \b
    Examples:
      vasa3d create portrait.jpg
      vasa3d create group.jpg -o second.vasa3d --face 1 --json
    """
    reporter = Reporter(as_json)
    input_file(portrait, "an image", ImageError)
    target = output_path(default_output(output, portrait, ".vasa3d"), force)
    avatar, report = make_avatar(reporter, portrait, face, quality, seed)
    avatar.save(target, force=force)
    size = target.stat().st_size
    reporter.finish(
        {"output": str(target), "bytes": size, **report},
        f"{target}: {report['gaussians']} Gaussians, {size / 1e6:.1f} MB, "
        f"made in {reporter.seconds:.0f} s",
    )


def animate(
    avatar: AvatarFile,
    audio: Recording,
    output: Output = None,
    emotion: Emotion = None,
    gaze: Gaze = "0,0",
    camera: View = "front",
    distance: Distance = 1.0,
    size: Size = 512,
    fps: Fps = 25.0,
    background: Background = "original",
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make an avatar speak a recording.

    Without -o, the video is named after the avatar, in the current folder.

    \b
    Examples:
      vasa3d animate me.vasa3d speech.wav -o out.mp4
      vasa3d animate me.vasa3d speech.wav -o out.mp4 --gaze 8,-3 --background "#1e293b"
      vasa3d animate me.vasa3d speech.wav -o frames/ --background transparent
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.avatar.avatar import Avatar

    shot = Shot(default_output(output, avatar, ".mp4"), camera, size, background, distance, force)
    reporter = Reporter(as_json)
    input_file(avatar, "an avatar", AvatarFileError)
    check_shot(shot, fps)
    clip = load_audio(audio)
    controls = motion_controls(emotion, gaze)
    person = Avatar.load(avatar)
    latents = speak_clip(reporter, clip, fps, seed, controls)
    result = film(reporter, person, latents, shot, audio)
    reporter.finish(result, video_sentence(result, reporter))


def motion(
    audio: Recording,
    output: Output = None,
    emotion: Emotion = None,
    gaze: Gaze = "0,0",
    fps: Fps = 25.0,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Turn a recording into a motion file, .csv or .npz.

    A .csv has the columns of the Live Link Face app. Without -o, it is a .csv named after the
    recording, in the current folder.

    \b
    Examples:
      vasa3d motion speech.wav
      vasa3d motion speech.wav -o speech.npz --fps 60 --emotion surprised:0.5
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.motion.formats import write_motion

    reporter = Reporter(as_json)
    target = output_path(default_output(output, audio, ".csv"), force)
    if target.suffix.lower() not in (".csv", ".npz"):
        raise OutputError(f"{target.name} is no motion file.", hint="name the output .csv or .npz")
    controls = motion_controls(emotion, gaze)
    latents = speak_clip(reporter, load_audio(audio), fps, seed, controls)
    write_motion(target, latents, force=force)
    reporter.finish(
        {"output": str(target), "frames": len(latents), "fps": latents.fps},
        f"{target}: {len(latents)} frames at {latents.fps:g} a second",
    )


def render(
    avatar: AvatarFile,
    motion: Annotated[Path, typer.Argument(metavar="MOTION", help="A .csv or .npz motion file.")],
    output: Output = None,
    audio: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--audio", help="Recording to add to the video."),
    ] = None,
    camera: View = "front",
    distance: Distance = 1.0,
    size: Size = 512,
    background: Background = "original",
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Draw an avatar with motion from a file.

    The motion may come from vasa3d or from the Live Link Face app of an iPhone. Without -o, the
    video is named after the avatar, in the current folder.

    \b
    Examples:
      vasa3d render me.vasa3d speech.csv -o out.mp4 --audio speech.wav
      vasa3d render me.vasa3d MySlate_5_iPhone.csv -o frames/ --background transparent
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.motion.formats import read_motion

    shot = Shot(default_output(output, avatar, ".mp4"), camera, size, background, distance, force)
    reporter = Reporter(as_json)
    input_file(avatar, "an avatar", AvatarFileError)
    latents = read_motion(motion)
    check_shot(shot, latents.fps)
    if audio is not None:
        warn_all(reporter, load_audio(audio).warnings)
    result = film(reporter, Avatar.load(avatar), latents, shot, audio)
    reporter.finish(result, video_sentence(result, reporter))


def check_shot(shot: Shot, fps: float) -> None:
    """Refuse what cannot be filmed before any work is done."""
    from vasa3d.video import check_rate, check_video_path

    if not MIN_DISTANCE <= shot.distance <= MAX_DISTANCE:
        raise InputError(
            f"a distance of {shot.distance:g} is not possible.",
            hint=f"choose --distance between {MIN_DISTANCE:g} and {MAX_DISTANCE:g}; 1 is the photo's",
        )
    check_rate(fps)
    check_video_path(shot.output, shot.force, shot.transparent)


def motion_controls(emotion: list[str] | None, gaze: str) -> MotionControls:
    """Controls from the options of a command."""
    from vasa3d.motion.generator import MotionControls

    return MotionControls(gaze=parse_gaze(gaze), emotion=parse_emotion(emotion))


def make_avatar(
    reporter: Reporter, portrait: Path, face: int | None, quality: Quality, seed: int
) -> tuple[Avatar, dict[str, Any]]:
    """An avatar and the report on it."""
    from vasa3d.pipeline import create_events

    events = create_events(portrait, face=face, seed=seed)
    result = reporter.follow(events, "avatar")["result"]
    report = {key: value for key, value in result.report.items() if key != "warnings"}
    warn_all(reporter, result.report["warnings"])
    return result.avatar, {"quality": quality.value, **report}


def speak_clip(
    reporter: Reporter, clip: AudioClip, fps: float, seed: int, controls: MotionControls
) -> MotionLatents:
    """Motion from sound; what the loader of the sound noticed is told."""
    from vasa3d.motion.generator import speak

    warn_all(reporter, clip.warnings)
    return speak(clip, fps=fps, seed=seed, controls=controls)


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
    frames = pipeline.render(avatar, latents, cameras, size=shot.size, background=background)
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


def warn_all(reporter: Reporter, lines: list[str] | tuple[str, ...]) -> None:
    """Tell several warnings."""
    for line in lines:
        reporter.warn(line)

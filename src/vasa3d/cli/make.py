"""Commands that make things: ``talk``, ``create``, ``animate``, ``motion``, ``render``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import (
    Antialias,
    AsJson,
    Background,
    BlinkRate,
    Device,
    DeviceOption,
    Distance,
    Emotion,
    Face,
    Force,
    Fps,
    Gaze,
    HeadDistance,
    HeadMotion,
    Output,
    Quality,
    QualityOption,
    Seed,
    Size,
    Style,
    Supersample,
    TranscriptOption,
    View,
    default_output,
    parse_emotion,
    parse_gaze,
)
from vasa3d.cli.scenes import SCENES, draw_scene
from vasa3d.cli.shots import Shot, check_device, check_shot, film, video_sentence, warn_all
from vasa3d.errors import AvatarFileError, ImageError, InputError, OutputError
from vasa3d.files import input_file, output_path

if TYPE_CHECKING:
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.motion.generator import MotionControls
    from vasa3d.motion.transcript import Transcript
    from vasa3d.types import AudioClip, MotionLatents

Portrait = Annotated[Path, typer.Argument(metavar="PORTRAIT", help="Photo of one person.")]
AvatarFile = Annotated[Path, typer.Argument(metavar="AVATAR", help="A .vasa3d file.")]
Recording = Annotated[Path, typer.Argument(metavar="AUDIO", help="Recording, or video with sound.")]


class Source(str, Enum):
    """What of a clip becomes motion."""

    audio = "audio"
    video = "video"


def talk(
    portrait: Portrait,
    audio: Recording,
    output: Output = None,
    transcript: TranscriptOption = None,
    emotion: Emotion = None,
    gaze: Gaze = "0,0",
    head_motion: HeadMotion = 1.0,
    style: Style = 1.0,
    blink_rate: BlinkRate = 17.0,
    camera: View = "front",
    distance: Distance = 1.0,
    size: Size = 512,
    fps: Fps = 25.0,
    background: Background = "original",
    face: Face = None,
    quality: QualityOption = Quality.standard,
    seed: Seed = 0,
    device: DeviceOption = Device.cpu,
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

    target = default_output(output, portrait, ".mp4")
    shot = Shot(target, camera, size, background, distance, force, device)
    reporter = Reporter(as_json)
    input_file(portrait, "an image", ImageError)
    checkpoint = _checkpoint_of(check_shot(shot, fps))
    clip = load_audio(audio)
    said = _said(transcript)
    controls = motion_controls(emotion, gaze, head_motion, style, blink_rate)
    avatar, report = make_avatar(reporter, portrait, face, quality, seed, checkpoint, device=device)
    latents = speak_clip(reporter, clip, fps, seed, controls, said)
    result = film(reporter, avatar, latents, shot, audio)
    checkpoint.unlink(missing_ok=True)
    reporter.finish({**result, "avatar": report}, video_sentence(result, reporter))


def create(
    portrait: Portrait,
    output: Output = None,
    quality: QualityOption = Quality.standard,
    video: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--video", help="Clip of the same person, to learn from too."),
    ] = None,
    sds: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            "--sds", help="Folder of a Stable Diffusion model of diffusers, for the sides."
        ),
    ] = None,
    face: Face = None,
    seed: Seed = 0,
    device: Annotated[
        Device, typer.Option("--device", help="What optimises: the processor, or an NVIDIA GPU.")
    ] = Device.cpu,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Make an avatar from a photo.

    The avatar is one .vasa3d file, with a contact sheet beside it. Without -o, it is named after the photo, in the
    current folder. A run that is stopped goes on when it is started again. A few seconds of video of the same person
    teach it their teeth, closed eyes and wrinkles.

    \b
    Examples:
      vasa3d create portrait.jpg
      vasa3d create portrait.jpg -o quick.vasa3d --quality draft
      vasa3d create portrait.jpg -o me.vasa3d --video me-talking.mp4
      vasa3d create portrait.jpg -o me.vasa3d --quality high --device cuda
      vasa3d create group.jpg -o second.vasa3d --face 1 --json
    """
    reporter = Reporter(as_json)
    input_file(portrait, "an image", ImageError)
    check_device(device)
    target = output_path(default_output(output, portrait, ".vasa3d"), force)
    sheet = output_path(target.with_name(f"{target.stem}.sheet.png"), force)
    # What takes seconds to load comes after the checks.
    from vasa3d.evaluation.sheet import contact_sheet, write_sheet

    checkpoint = _checkpoint_of(target)
    avatar, report = make_avatar(
        reporter, portrait, face, quality, seed, checkpoint, video=video, sds=sds, device=device
    )
    avatar.save(target, force=force)
    write_sheet(sheet, contact_sheet(avatar), force=force)
    checkpoint.unlink(missing_ok=True)
    size = target.stat().st_size
    reporter.finish(
        {"output": str(target), "bytes": size, "sheet": str(sheet), **report},
        f"{target}: {report['gaussians']} Gaussians, {size / 1e6:.1f} MB, "
        f"made in {reporter.seconds:.0f} s; {sheet.name} shows it",
    )


def animate(
    avatar: AvatarFile,
    audio: Recording,
    output: Output = None,
    transcript: TranscriptOption = None,
    emotion: Emotion = None,
    gaze: Gaze = "0,0",
    head_motion: HeadMotion = 1.0,
    style: Style = 1.0,
    blink_rate: BlinkRate = 17.0,
    camera: View = "front",
    distance: Distance = 1.0,
    size: Size = 512,
    fps: Fps = 25.0,
    background: Background = "original",
    seed: Seed = 0,
    device: DeviceOption = Device.cpu,
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

    target = default_output(output, avatar, ".mp4")
    shot = Shot(target, camera, size, background, distance, force, device)
    reporter = Reporter(as_json)
    input_file(avatar, "an avatar", AvatarFileError)
    check_shot(shot, fps)
    clip = load_audio(audio)
    said = _said(transcript)
    controls = motion_controls(emotion, gaze, head_motion, style, blink_rate)
    person = Avatar.load(avatar)
    latents = speak_clip(reporter, clip, fps, seed, controls, said)
    result = film(reporter, person, latents, shot, audio)
    reporter.finish(result, video_sentence(result, reporter))


def motion(
    clip: Annotated[Path, typer.Argument(metavar="CLIP", help="Recording, or video of a face.")],
    output: Output = None,
    source: Annotated[
        Optional[Source],  # noqa: UP045
        typer.Option("--from", help="What of a video moves the face; video, unless it has none."),
    ] = None,
    transcript: TranscriptOption = None,
    emotion: Emotion = None,
    gaze: Gaze = "0,0",
    head_motion: HeadMotion = 1.0,
    style: Style = 1.0,
    blink_rate: BlinkRate = 17.0,
    distance: HeadDistance = 1.0,
    fps: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option("--fps", help="Frames a second; 25 for sound, the video's own for a video."),
    ] = None,
    seed: Seed = 0,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Turn a recording or a video of a face into a motion file, .csv or .npz.

    A recording is spoken; the face in a video is tracked: head, gaze and expression. A video with
    sound is tracked unless --from audio is given; then --emotion and other wishes apply. A .csv
    has the columns of the Live Link Face app. Without -o, it is a .csv named after the clip, in
    the current folder.

    \b
    Examples:
      vasa3d motion speech.wav
      vasa3d motion speech.wav -o speech.npz --fps 60 --emotion surprised:0.5
      vasa3d motion speech.wav --gaze 10,-5 --head-motion 0.5 --style 1.5 --distance 0.9
      vasa3d motion me-talking.mp4 -o me.npz
      vasa3d motion interview.mp4 --from audio
    """
    from vasa3d.motion.formats import write_motion
    from vasa3d.video import check_rate, has_pictures

    reporter = Reporter(as_json)
    target = output_path(default_output(output, clip, ".csv"), force)
    if target.suffix.lower() not in (".csv", ".npz"):
        raise OutputError(f"{target.name} is no motion file.", hint="name the output .csv or .npz")
    controls = motion_controls(emotion, gaze, head_motion, style, blink_rate, distance)
    if fps is not None:
        check_rate(fps)
    source = source or (Source.video if has_pictures(clip) else Source.audio)
    if source is Source.video:
        if transcript or controls != motion_controls(None, "0,0", 1.0, 1.0, 17.0):
            raise InputError(
                "a tracked face has its own emotion, gaze, head and lips.",
                hint="add --from audio, or leave out --emotion, --gaze, --transcript and the like",
            )
        latents = track_clip(reporter, clip, fps)
    else:
        from vasa3d.audio.clips import load_audio

        sound, said = load_audio(clip), _said(transcript)
        latents = speak_clip(reporter, sound, fps or 25.0, seed, controls, said)
    write_motion(target, latents, force=force)
    reporter.finish(
        {
            "output": str(target),
            "from": source.value,
            "frames": len(latents),
            "fps": latents.fps,
        },
        f"{target}: {len(latents)} frames at {latents.fps:g} a second, from the {source.value}",
    )


def render(
    avatar: Annotated[
        Path,
        typer.Argument(metavar="AVATAR", help="A .vasa3d file, or a scene: .ply or .spz."),
    ],
    motion: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(metavar="MOTION", help="A .csv or .npz motion file; none for a scene."),
    ] = None,
    output: Output = None,
    audio: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--audio", help="Recording to add to the video."),
    ] = None,
    camera: View = "front",
    distance: Distance = 1.0,
    size: Size = 512,
    background: Background = "original",
    antialias: Antialias = False,
    supersample: Supersample = 1,
    device: DeviceOption = Device.cpu,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Draw an avatar with motion from a file, or a picture of a scene.

    The motion may come from vasa3d or from the Live Link Face app of an iPhone. A scene is a .ply
    or .spz file of 3D Gaussian splatting; it becomes one .png. Without -o, the output is named
    after the avatar or scene, in the current folder.

    \b
    Examples:
      vasa3d render me.vasa3d speech.csv -o out.mp4 --audio speech.wav
      vasa3d render me.vasa3d MySlate_5_iPhone.csv -o frames/ --background transparent
      vasa3d render scene.ply --camera camera.json -o scene.png --supersample 2
    """
    from vasa3d.audio.clips import load_audio
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.motion.formats import read_motion

    is_scene = avatar.suffix.lower() in SCENES
    target = default_output(output, avatar, ".png" if is_scene else ".mp4")
    shot = Shot(target, camera, size, background, distance, force, device, antialias, supersample)
    reporter = Reporter(as_json)
    if is_scene:
        if motion is not None or audio is not None:
            raise InputError("a scene has no motion and no sound.", hint="give the scene alone")
        draw_scene(reporter, avatar, shot)
        return
    input_file(avatar, "an avatar", AvatarFileError)
    if motion is None:
        raise InputError(
            "an avatar needs motion.", hint="add a .csv or .npz file, as vasa3d motion makes"
        )
    latents = read_motion(motion)
    check_shot(shot, latents.fps)
    if audio is not None:
        warn_all(reporter, load_audio(audio).warnings)
    result = film(reporter, Avatar.load(avatar), latents, shot, audio)
    reporter.finish(result, video_sentence(result, reporter))


def motion_controls(
    emotion: list[str] | None,
    gaze: str,
    head_motion: float,
    style: float,
    blink_rate: float,
    distance: float = 1.0,
) -> MotionControls:
    """Controls from the options of a command."""
    from vasa3d.motion.generator import MotionControls

    return MotionControls(
        gaze=parse_gaze(gaze), emotion=parse_emotion(emotion), head_motion=head_motion,
        style=style, blink_rate=blink_rate, distance=distance,
    )  # fmt: skip


def make_avatar(
    reporter: Reporter,
    portrait: Path,
    face: int | None,
    quality: Quality,
    seed: int,
    checkpoint: Path,
    video: Path | None = None,
    sds: Path | None = None,
    device: Device = Device.cpu,
) -> tuple[Avatar, dict[str, Any]]:
    """An avatar and the report on it; whoever has saved what comes of it removes the checkpoint."""
    from vasa3d.pipeline import create_events

    events = create_events(
        portrait, face=face, seed=seed, quality=quality.value, checkpoint=checkpoint,
        video=video, sds=sds, device=device.value,
    )  # fmt: skip
    result = reporter.follow(events, "avatar")["result"]
    report = {key: value for key, value in result.report.items() if key != "warnings"}
    warn_all(reporter, result.report["warnings"])
    return result.avatar, {"quality": quality.value, **report}


def speak_clip(
    reporter: Reporter,
    clip: AudioClip,
    fps: float,
    seed: int,
    controls: MotionControls,
    transcript: Transcript | None = None,
) -> MotionLatents:
    """Motion from sound; what the loader of the sound and the transcript's alignment noticed is told."""
    from vasa3d.motion.generator import speak
    from vasa3d.motion.transcript import fit_transcript

    warn_all(reporter, clip.warnings)
    fitted = None
    if transcript is not None:
        fitted, notes = fit_transcript(clip, transcript)
        warn_all(reporter, notes)
    return speak(clip, fps=fps, seed=seed, controls=controls, transcript=fitted)


def _said(transcript: str | None) -> Transcript | None:
    """The transcript of a command's option, refused before any work is done."""
    from vasa3d.motion.transcript import read_transcript

    return None if transcript is None else read_transcript(transcript)


def _checkpoint_of(target: Path) -> Path:
    """Where an interrupted optimisation for an output is kept: hidden, where the output may be written."""
    folder = target if target.is_dir() else target.parent
    return folder / f".{target.name}.checkpoint"


def track_clip(reporter: Reporter, clip: Path, fps: float | None) -> MotionLatents:
    """Motion from a video; what the tracker noticed is told."""
    from vasa3d.pipeline import track_events

    tracked = reporter.follow(track_events(clip, fps=fps), "tracking")["result"]
    warn_all(reporter, tracked.warnings)
    return tracked.motion

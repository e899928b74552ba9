"""``vasa3d export``: an avatar for other programs and for web pages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from vasa3d.cli.console import Reporter
from vasa3d.cli.options import AsJson, Force, default_output
from vasa3d.cli.shots import warn_all
from vasa3d.errors import AvatarFileError, InputError, OutputError
from vasa3d.files import input_file, output_path

if TYPE_CHECKING:
    from vasa3d.types import MotionLatents


def export(
    avatar: Annotated[Path, typer.Argument(metavar="AVATAR", help="A .vasa3d file.")],
    output: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("-o", "--output", help="File to write, or a folder for a web page."),
    ] = None,
    frame: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--frame", help="MOTION:INDEX, a motion file and its frame; default: as in the photo."
        ),
    ] = None,
    motion: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--motion", help="Motion that the page plays."),
    ] = None,
    audio: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--audio", help="Recording that the page plays; without --motion, spoken."),
    ] = None,
    mesh: Annotated[
        bool,
        typer.Option("--mesh", help="In a .glb: the head as a textured mesh, no Gaussians."),
    ] = False,
    spz_version: Annotated[
        int,
        typer.Option(
            "--spz-version", min=2, max=4, help="Of a .spz; 2 for old readers, 4 for new."
        ),
    ] = 3,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write an avatar for other programs, or as a web page.

    A .ply, .spz or .glb holds its Gaussians in one pose. A .glb with --mesh holds the head as a
    mesh with texture, skeleton and the 52 channels as morph targets, and --motion as animation. A
    folder becomes a page that any static web host serves: the head can be turned, and speaks what
    it hears from a microphone or a file, without a server; --motion and --audio give it something
    to play. Without -o, a .ply is named after the avatar, in the current
    folder.

    \b
    Examples:
      vasa3d export me.vasa3d -o me.ply
      vasa3d export me.vasa3d -o smile.spz --frame speech.csv:120
      vasa3d export me.vasa3d -o rig.glb --mesh --motion speech.csv
      vasa3d export me.vasa3d -o page/
      vasa3d export me.vasa3d -o page/ --audio speech.wav
    """
    reporter = Reporter(as_json)
    input_file(avatar, "an avatar", AvatarFileError)
    target = default_output(output, avatar, ".ply")
    suffix = target.suffix.lower()
    is_page = suffix == "" or target.is_dir()
    if not is_page and suffix not in _SCENES:
        raise OutputError(
            f"{target.name} is neither a scene file nor a folder.",
            hint="name the output " + ", ".join(_SCENES) + " or a folder without dot",
        )
    if mesh and suffix != ".glb":
        raise InputError("only a .glb holds a mesh.", hint="name the output .glb")
    _check_motion(suffix, is_page, mesh, frame, motion, audio)
    if is_page:
        _export_page(reporter, avatar, target, motion, audio, force)
    elif mesh:
        _export_rig(reporter, avatar, output_path(target, force), motion, force)
    else:
        chosen = None if frame is None else _chosen_frame(frame)
        _export_scene(reporter, avatar, output_path(target, force), chosen, spz_version, force)


_SCENES = (".ply", ".spz", ".glb")


def _check_motion(
    suffix: str,
    is_page: bool,
    mesh: bool,
    frame: str | None,
    motion: Path | None,
    audio: Path | None,
) -> None:
    """Refuse motion where nothing moves, sound where nothing sounds, a frame where all move."""
    if (is_page or mesh) and frame is not None:
        raise InputError("what moves has no --frame.", hint="use --motion instead")
    if not is_page and audio is not None:
        raise InputError(f"a {suffix} file has no sound.", hint="name a folder for a page")
    if not (is_page or mesh) and motion is not None:
        raise InputError(
            f"Gaussians in a {suffix} file do not move.", hint="use --frame, or --mesh for a .glb"
        )


def _export_scene(
    reporter: Reporter,
    avatar: Path,
    target: Path,
    chosen: tuple[MotionLatents, int] | None,
    spz_version: int,
    force: bool,
) -> None:
    """One pose as a file of Gaussians."""
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.exchange import write_ply, write_splat_glb, write_spz

    person = Avatar.load(avatar)
    latents, index = (person.photo_latents, 0) if chosen is None else chosen
    cloud = person.pose(latents, index)
    suffix = target.suffix.lower()
    if suffix == ".spz":
        write_spz(target, cloud, version=spz_version, force=force)
    elif suffix == ".glb":
        write_splat_glb(target, cloud, force=force)
    else:
        write_ply(target, cloud, force=force)
    size = target.stat().st_size
    reporter.finish(
        {"output": str(target), "bytes": size, "gaussians": len(cloud)},
        f"{target}: {len(cloud)} Gaussians, {size / 1e6:.1f} MB",
    )


def _export_rig(
    reporter: Reporter, avatar: Path, target: Path, motion: Path | None, force: bool
) -> None:
    """The head as a mesh."""
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.avatar.rig import write_rig
    from vasa3d.motion.formats import read_motion

    latents = None if motion is None else read_motion(motion)
    write_rig(target, Avatar.load(avatar), latents, force=force)
    size, frames = target.stat().st_size, 0 if latents is None else len(latents)
    reporter.finish(
        {"output": str(target), "bytes": size, "frames": frames},
        f"{target}: a head of {size / 1e6:.1f} MB with {frames} frames of motion",
    )


def _export_page(
    reporter: Reporter,
    avatar: Path,
    target: Path,
    motion: Path | None,
    audio: Path | None,
    force: bool,
) -> None:
    """A folder with a page."""
    from vasa3d.audio.clips import load_audio
    from vasa3d.avatar.avatar import Avatar
    from vasa3d.motion.formats import read_motion
    from vasa3d.pipeline import speak
    from vasa3d.server.site import PAGE_NAMES, write_site

    target = output_path(target, force, True, PAGE_NAMES)
    latents = None if motion is None else read_motion(motion)
    if audio is not None:
        clip = load_audio(audio)
        warn_all(reporter, clip.warnings)
        latents = speak(clip) if latents is None else latents
    person = Avatar.load(avatar)
    size = write_site(target, person, avatar.stem, motion=latents, audio=audio, force=force)
    frames = 0 if latents is None else len(latents)
    reporter.finish(
        {"output": str(target), "bytes": size, "frames": frames},
        f"{target}: a page of {size / 1e6:.1f} MB; try it with "
        f"python -m http.server 8080 -d '{target}', or copy it to any web host",
    )


def _chosen_frame(text: str) -> tuple[MotionLatents, int]:
    """``speech.csv:120`` as the motion and the number of a frame of it."""
    from vasa3d.motion.formats import read_motion

    name, _, number = text.rpartition(":")
    if not name or not number.isascii() or not number.isdigit():
        raise InputError(
            f"{text!r} is no frame of a motion file.", hint="write MOTION:INDEX, as speech.csv:120"
        )
    latents = read_motion(Path(name))
    if int(number[:12]) >= len(latents):
        raise InputError(
            f"{name} has no frame {number}.", hint=f"choose one from 0 to {len(latents) - 1}"
        )
    return latents, int(number)

"""Scenes of Gaussians: ``vasa3d render`` of a file of another program."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vasa3d.cli.console import Reporter
from vasa3d.cli.shots import Shot, check_view
from vasa3d.errors import InputError, OutputError
from vasa3d.files import output_path

if TYPE_CHECKING:
    from vasa3d.exchange import SplatScene
    from vasa3d.types import F32, Camera

SCENES = (".ply", ".spz")
"""Endings of the scenes that are read."""


def draw_scene(reporter: Reporter, path: Path, shot: Shot) -> None:
    """Draw a picture of a scene file, and tell about it."""
    from vasa3d.exchange import read_ply, read_spz
    from vasa3d.renderer import render_cloud
    from vasa3d.video import write_picture

    target = output_path(shot.output, shot.force)
    if target.suffix.lower() != ".png":
        raise OutputError(
            f"{target.name} is no picture; a scene is drawn as one.", hint="name the output .png"
        )
    check_view(shot)
    background = _scene_background(shot.background)
    scene = read_spz(path) if path.suffix.lower() == ".spz" else read_ply(path)
    camera = _scene_camera(scene, shot)
    frame = render_cloud(
        scene.seen_from(camera), camera, background=background, config=shot.config,
        device=shot.device.value,
    )  # fmt: skip
    write_picture(target, frame, force=shot.force, transparent=shot.transparent)
    result = {
        "output": str(target),
        "gaussians": len(scene),
        "degree": scene.degree,
        "width": camera.width,
        "height": camera.height,
    }
    reporter.finish(
        result,
        f"{target}: {camera.width}x{camera.height}, {len(scene)} Gaussians with harmonics of "
        f"degree {scene.degree}, made in {reporter.seconds:.0f} s",
    )


def _scene_camera(scene: SplatScene, shot: Shot) -> Camera:
    """The camera of a shot of a scene."""
    import numpy as np

    from vasa3d.exchange.cameras import is_full_camera, read_camera, read_key_frames
    from vasa3d.geometry.cameras import orbit
    from vasa3d.pipeline import check_size

    if shot.camera in ("orbit", "swing"):
        raise InputError(
            f"a scene is one picture: the camera cannot {shot.camera}.",
            hint="choose --camera front, or a JSON file",
        )
    angles = (0.0, 0.0, 1.0)
    if shot.camera != "front" and is_full_camera(shot.camera):
        camera = read_camera(shot.camera)
        for side in (camera.width, camera.height):
            check_size(side, shot.supersample)
    else:
        camera = scene.front_camera(shot.size)
        if shot.camera != "front":
            yaw, pitch, scale = read_key_frames(shot.camera, np.zeros(1))
            angles = (float(yaw[0]), float(pitch[0]), float(scale[0]))
    yaw_degrees, pitch_degrees, factor = angles
    return orbit(camera, scene.middle, yaw_degrees, pitch_degrees, factor * shot.distance)


def _scene_background(spec: str) -> F32 | None:
    """The colour behind a scene, which has no background of its own; None for transparent."""
    import numpy as np

    from vasa3d.pipeline import parse_color

    if spec == "transparent":
        return None
    if spec == "original":
        return np.zeros(3, np.float32)
    return (parse_color(spec) / 255.0).astype(np.float32)

"""vasa3d: one portrait photo in, a talking 3D Gaussian head out.

    avatar = vasa3d.create("portrait.jpg")
    motion = vasa3d.speak("speech.wav")
    background = vasa3d.resolve_background(avatar, "original", 512)
    frames = vasa3d.render(avatar, motion, camera="swing", size=512, background=background)
    vasa3d.write_video("out.mp4", frames, audio="speech.wav", fps=motion.fps)

Names are loaded when they are first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vasa3d.avatar.avatar import Avatar as Avatar
    from vasa3d.errors import VasaError as VasaError
    from vasa3d.exchange import read_ply as read_ply
    from vasa3d.exchange import write_ply as write_ply
    from vasa3d.motion.formats import read_motion as read_motion
    from vasa3d.motion.formats import write_motion as write_motion
    from vasa3d.motion.generator import MotionControls as MotionControls
    from vasa3d.pipeline import create as create
    from vasa3d.pipeline import render as render
    from vasa3d.pipeline import resolve_background as resolve_background
    from vasa3d.pipeline import speak as speak
    from vasa3d.pipeline import track as track
    from vasa3d.portrait.webcam import track_camera as track_camera
    from vasa3d.renderer import RenderConfig as RenderConfig
    from vasa3d.renderer import render_cloud as render_cloud
    from vasa3d.types import AudioClip as AudioClip
    from vasa3d.types import Camera as Camera
    from vasa3d.types import Frame as Frame
    from vasa3d.types import GaussianCloud as GaussianCloud
    from vasa3d.types import MotionLatents as MotionLatents
    from vasa3d.video import write_video as write_video

__version__ = "0.1.0"

_HOMES = {
    "AudioClip": "types",
    "Avatar": "avatar.avatar",
    "Camera": "types",
    "Frame": "types",
    "GaussianCloud": "types",
    "MotionControls": "motion.generator",
    "MotionLatents": "types",
    "RenderConfig": "renderer",
    "VasaError": "errors",
    "create": "pipeline",
    "read_motion": "motion.formats",
    "read_ply": "exchange",
    "render": "pipeline",
    "render_cloud": "renderer",
    "resolve_background": "pipeline",
    "speak": "pipeline",
    "track": "pipeline",
    "track_camera": "portrait.webcam",
    "write_motion": "motion.formats",
    "write_ply": "exchange",
    "write_video": "video",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vasa3d' has no attribute {name!r}")
    return getattr(import_module(f"vasa3d.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

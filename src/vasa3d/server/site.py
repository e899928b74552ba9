"""The page with the player: its files, and a folder that plays from any static host.

The files under ``assets/web`` are built from ``web/`` (``npm ci`` and ``npm run build`` there); the networks that let
a page speak without a server are written from the shipped ones. What a page shows is in its ``config`` element's JSON.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from vasa3d.audio.clips import probe_sound, resampled, sound_blocks
from vasa3d.avatar.avatar import Avatar
from vasa3d.avatar.bundle import encode_bundle, encode_motion
from vasa3d.errors import MissingError
from vasa3d.files import atomic_folder
from vasa3d.motion.motion_onnx import motion_onnx
from vasa3d.motion.speech_onnx import speech_onnx
from vasa3d.pipeline import turning_point
from vasa3d.types import F32, MotionLatents
from vasa3d.weights import assets_dir

BUILT_FILES = (
    "index.html", "page.css", "page.js", "player.js", "speech.js", "onnxruntime.wasm.gz",
    "onnxruntime.licence.txt",
)  # fmt: skip
THIN_FILES = ("thin.html", "thin.js")
"""For a page without a player, to which the server sends video; they are no part of an exported page."""
_NETWORKS = {"speech.onnx": speech_onnx, "motion.onnx": motion_onnx}
EXAMPLE = "example.flac"
"""A recording for who has none at hand and no microphone."""
SITE_FILES = (*BUILT_FILES, *_NETWORKS, EXAMPLE)
_SHOWN_FILES = ("avatar.safetensors", "motion.safetensors", "audio.flac")
PAGE_NAMES = re.compile("|".join(map(re.escape, (*SITE_FILES, *_SHOWN_FILES))))
"""Everything that a page's folder may hold of ours."""
SOUND_RATE = 24_000
"""Samples a second of the sound of a page: all that speech has, at 30 kB a second."""
_CONFIG_ELEMENT = '<script type="application/json" id="config"></script>'


@cache
def site_file(name: str) -> bytes:
    """One of ``SITE_FILES`` or ``THIN_FILES``.

    Raises:
        MissingError: This install has no player, or an asset is missing.
    """
    if name in _NETWORKS:
        return _NETWORKS[name]()
    path = assets_dir() / ("demo.flac" if name == EXAMPLE else f"web/{name}")
    if not path.is_file():
        raise MissingError(
            f"the web player ({name}) is missing from this install.",
            hint="install vasa3d again, or build it: npm ci && npm run build in web/",
        )
    return path.read_bytes()


def index_page(config: dict[str, Any]) -> bytes:
    """The page for a configuration: ``avatars`` (name and src each), ``motion``, ``audio``, ``server``, ``example``."""
    text = json.dumps(config, sort_keys=True).replace("<", "\\u003c")
    page = site_file("index.html").decode("utf-8")
    return page.replace(_CONFIG_ELEMENT, _CONFIG_ELEMENT.replace("></", f">{text}</")).encode()


def encode_avatar(avatar: Avatar) -> bytes:
    """The web bundle of an avatar, turned around the middle of its head."""
    return encode_bundle(avatar, turning_point(avatar))


def encode_sound(path: Path) -> bytes:
    """Any sound file as mono FLAC, which every browser plays and whose time 0 is the file's.

    Raises:
        AudioError: Not readable sound.
    """
    info = probe_sound(path)

    def mono() -> Iterator[F32]:
        for block in sound_blocks(info):
            yield block @ info.weights[:, None]

    rate = min(info.rate, SOUND_RATE)
    samples = np.concatenate(list(resampled(mono(), info.rate, rate)))[:, 0]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1.0, 1.0), rate, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def write_site(
    folder: Path,
    avatar: Avatar,
    name: str,
    *,
    motion: MotionLatents | None = None,
    audio: Path | None = None,
    force: bool = False,
) -> int:
    """Write a folder with a page that shows an avatar, and plays motion if there is any.

    Args:
        folder: Where to; files of other names in it stay.
        avatar: The avatar.
        name: What the page calls it.
        motion: What it can play.
        audio: The sound of the motion.
        force: Replace an older page, with the motion and sound that it may have.

    Returns:
        Bytes of all files together.

    Raises:
        AudioError: The sound is not readable.
        MissingError: This install has no player.
        OutputError: There is a file of a page already, or it cannot be written.
    """
    files = {name: site_file(name) for name in SITE_FILES}
    config: dict[str, Any] = {"avatars": [{"name": name, "src": "avatar.safetensors"}]}
    config["example"] = EXAMPLE
    files["avatar.safetensors"] = encode_avatar(avatar)
    if motion is not None:
        files["motion.safetensors"] = encode_motion(motion)
        config["motion"] = "motion.safetensors"
        if audio is not None:
            files["audio.flac"] = encode_sound(audio)
            config["audio"] = "audio.flac"
    files["index.html"] = index_page(config)
    with atomic_folder(folder, PAGE_NAMES, force) as temporary:
        for file, data in files.items():
            (temporary / file).write_bytes(data)
    return sum(len(data) for data in files.values())

"""Captured motion that recipes learn from: motion capture of speech, head motion takes, tracked video.

- ``facegood``: an actor's mouth as weights of a rig, 30 frames a second, with sound. The rig's shapes become ARKit
  channels by their meaning and size; brows and eyes do not move in these takes.
- head motion takes: rotations of heads (LivePortrait templates), 20-30 frames a second.
- video: clips with sound of one face each, tracked once and cached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vasa3d.audio.clips import load_audio
from vasa3d.errors import FaceError
from vasa3d.portrait.smoothing import smooth
from vasa3d.portrait.tracking import TRACKING_SIDE, track_frames
from vasa3d.types import ARKIT_INDEX, DEFAULT_FPS, F32, NUM_CHANNELS, AudioClip, MotionLatents
from vasa3d.video import read_video

_RIG: dict[str, dict[str, float]] = {
    "mouth_stretch_c": {"jawOpen": 0.75},
    "mouth_oh_c": {"jawOpen": 0.22, "mouthFunnel": 0.35, "mouthPucker": 0.15},
    "mouth_oo_c": {"mouthPucker": 0.8, "jawOpen": 0.05},
    "mouth_funnel_d": {"mouthFunnel": 0.28},
    "mouth_funnel_u": {"mouthFunnel": 0.28},
    "mouth_pucker_": {"mouthPucker": 0.4},
    "mouth_lipCornerPull_": {"mouthSmile": 0.8},
    "mouth_lipStretch_": {"mouthStretch": 0.7},
    "mouth_lipCornerDepress_": {"mouthFrown": 0.6},
    "mouth_lowerLipDepress_": {"mouthLowerDown": 0.8},
    "mouth_upperLipRaise_": {"mouthUpperUp": 0.8},
    "mouth_suck_d": {"mouthRollLower": 0.5},
    "mouth_suck_u": {"mouthRollUpper": 0.5},
    "mouth_press_": {"mouthPress": 0.7},
    "mouth_chinRaise_d": {"mouthShrugLower": 0.7},
    "mouth_chinRaise_u": {"mouthShrugUpper": 0.7},
    "mouth_dimple_": {"mouthDimple": 0.7},
}  # fmt: skip
"""ARKit channels of one unit of a rig weight, by the start of its name, side left out; both sides move alike."""

TALKING_TAKES = ("d5", "d7", "d8", "talking", "shy", "laugh", "aggrieved", "open_lip")
"""Head motion takes in which somebody talks or feels; the others are exercises."""


@dataclass(frozen=True)
class MouthTake:
    """A captured mouth and its sound.

    Attributes:
        channels: (T, 52) float32 ARKit channels at ``DEFAULT_FPS``.
        jaw: (T,) float32 the rig's own jaw weight.
        clip: The sound.
    """

    channels: F32
    jaw: F32
    clip: AudioClip


def resampled(values: np.ndarray, fps: float, target: float = DEFAULT_FPS) -> np.ndarray:
    """(T, ...) values at another rate, linear between frames."""
    seconds = (len(values) - 1) / fps
    at = np.arange(int(np.floor(seconds * target)) + 1) / target * fps
    low = np.minimum(at.astype(int), len(values) - 2)
    share = (at - low).reshape(-1, *[1] * (values.ndim - 1))
    return values[low] * (1.0 - share) + values[low + 1] * share


def facegood_channels(folder: Path) -> dict[str, MouthTake]:
    """The takes by name."""
    names = (folder / "bs_names.txt").read_text(encoding="utf-8").split()
    takes = {}
    for path in sorted(folder.glob("bs_value_*.npz")):
        name = path.stem.removeprefix("bs_value_")
        with np.load(path) as data:
            weights = resampled(data["weights"].astype(np.float64), float(data["fps"]))
        channels = np.zeros((len(weights), NUM_CHANNELS), np.float32)
        for start, parts in _RIG.items():
            columns = [i for i, n in enumerate(names) if n.startswith(start)]
            amount = weights[:, columns].mean(axis=1)
            for channel, size in parts.items():
                sides = ("",) if channel in ARKIT_INDEX else ("Left", "Right")
                for side in sides:
                    channels[:, ARKIT_INDEX[channel + side]] += size * amount
        jaw = weights[:, names.index("mouth_stretch_c")].astype(np.float32)
        clip = load_audio(folder / f"{name}.flac")
        takes[name] = MouthTake(np.clip(channels, 0.0, 1.0), jaw, clip)
    return takes


def head_takes(folder: Path) -> dict[str, F32]:
    """(T, 3) rotations (axis-angle, radians) about their mean by take, at ``DEFAULT_FPS``, smoothed as tracking is."""
    takes = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as data:
            turns = Rotation.from_matrix(data["R"].astype(np.float64))
            fps = float(data["fps"])
        vectors = (turns.mean().inv() * turns).as_rotvec()
        takes[path.stem] = smooth(resampled(vectors, fps), DEFAULT_FPS).astype(np.float32)
    return takes


@dataclass(frozen=True)
class VideoTake:
    """A tracked clip and its sound.

    Attributes:
        name: File it came from.
        motion: Motion at ``DEFAULT_FPS``.
        clip: The sound.
    """

    name: str
    motion: MotionLatents
    clip: AudioClip


def tracked_clips(folder: Path, work: Path) -> Iterator[VideoTake]:
    """All clips below a folder that show a face, tracked once and cached in ``work/tracked``.

    Args:
        folder: Folder of video files, searched with its sub-folders.
        work: Cache folder.

    Yields:
        Clips in order of name; those without a face or sound are passed over.
    """
    cache = work / "tracked"
    cache.mkdir(parents=True, exist_ok=True)
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in _VIDEO_SUFFIXES):
        stored = cache / f"{path.relative_to(folder).as_posix().replace('/', '_')}.npz"
        if not stored.is_file():
            try:
                pictures, rate = read_video(path, fps=DEFAULT_FPS, max_side=TRACKING_SIDE)
                motion = track_frames(pictures, rate).motion
            except FaceError:
                motion = MotionLatents.rest(0)
            partial = stored.with_suffix(".partial.npz")
            np.savez(partial, dyn=motion.dyn, pose=motion.pose)
            partial.replace(stored)
        with np.load(stored) as data:
            if len(data["dyn"]):
                yield VideoTake(
                    path.name, MotionLatents(data["dyn"], data["pose"]), load_audio(path)
                )


_VIDEO_SUFFIXES = {".mp4", ".mov", ".mpg", ".mpeg", ".mkv", ".webm", ".avi"}
